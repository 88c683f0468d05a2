"""An environment with the versions of Kaggle's image, and the set-up cell and a short series in it.

`python -m tests.image_environment FOLDER` makes FOLDER/image, and runs a series there twice: with the package index in
reach, and without it, from a folder of wheels alone. Knows pip, venv and the image's versions (Kaggle/docker-python of
2026-08-12, on Colab's runtime of 2026-05-14); the image has Python 3.12, this takes the Python it is started with. It
takes 8 GB on the disk, so no test does it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]

IMAGE = (
    *("torch==2.10.0", "transformers==5.0.0", "tokenizers==0.22.2", "datasets==4.0.0", "pyarrow==18.1.0"),
    *("accelerate==1.13.0", "peft==0.19.1", "huggingface_hub==1.11.0", "numpy==2.0.2", "pandas==2.2.2"),
    *("jsonschema==4.26.0", "kagglehub==1.0.0", "matplotlib==3.10.0", "ipywidgets==8.1.5", "sentencepiece==0.2.1"),
    *("papermill", "ipykernel", "nbconvert", "scipy", "tqdm", "regex", "jinja2", "packaging"),
)
"""What the image holds of what the notebooks need; versions where they are known."""

SMALL = ("N_TOTAL=150", "N_EVAL=20", "EPOCHS=0.6", "MODEL=standin", "TIME_LIMIT=1")


def run(*words: str | Path, **variables: str) -> str:
    """Run a program; return what it prints. A failure shows it and ends this program."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"FGTOOLS_BATCH": "1", "HF_HUB_OFFLINE": "1", **variables}
    outcome = subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, check=False)
    if outcome.returncode:
        sys.exit(f"{' '.join(map(str, words))} failed:\n{outcome.stdout[-3000:]}\n{outcome.stderr[-3000:]}")
    return outcome.stdout


def build_image(folder: Path) -> Path:
    """Make the environment, or put it back into its first state; return its Python."""
    python, frozen = folder / "image" / "bin" / "python", folder / "image.txt"
    if not python.exists():
        run(sys.executable, "-m", "venv", folder / "image")
        run(python, "-m", "pip", "install", "-q", *IMAGE)
        run(python, "-m", "ipykernel", "install", "--sys-prefix", "--name", "python3")
        frozen.write_text(run(python, "-m", "pip", "freeze"))
    now = set(run(python, "-m", "pip", "freeze").split())
    added = [line.split("==")[0].split(" @ ")[0] for line in now - set(frozen.read_text().split())]
    if added:
        run(python, "-m", "pip", "uninstall", "-q", "-y", *added)
        run(python, "-m", "pip", "install", "-q", "--no-deps", "-r", frozen)
    return python


def pack_wheels(folder: Path, python: Path) -> None:
    """Write the package's wheel to `folder`/fgtools and those that the image lacks to `folder`/wheels."""
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "fgtools", ROOT)
    missing = ["trl>=1.16,<1.17", "datasketch", "rapidfuzz", "evaluate", "jiwer"]
    run(python, "-m", "pip", "download", "-q", "--no-deps", "-d", folder / "wheels", *missing)


def run_series(python: Path, mount: Path, out: Path, **variables: str) -> None:
    """Run the notebooks as Kaggle does, one after the other; print how long each takes and what its set-up says."""
    out.mkdir(parents=True, exist_ok=True)
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(source, as_version=4)
        for cell in notebook.cells:
            cell.source = cell.source.replace("/kaggle/input/", f"{mount}/")
        declared = next(cell.source for cell in notebook.cells if cell.id == "parameters")
        given = [one.split("=") for one in SMALL if f"{one.split('=')[0]}:" in declared]
        nbformat.write(notebook, out / source.name)
        words = [word for name, value in given for word in ("-p", name, value)]
        started = time.perf_counter()
        place = {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "KAGGLE_CACHE_MOUNT_FOLDER": str(mount)}
        variables |= {"FGTOOLS_RUN_DIR": str(out / "run"), **place}
        papermill = [python, "-m", "papermill", "--no-progress-bar", "-k", "python3", "--cwd", out]
        run(*papermill, out / source.name, out / f"done.{source.name}", *words, **variables)
        done = nbformat.read(out / f"done.{source.name}", as_version=4)
        print(f"{source.stem}: {time.perf_counter() - started:.0f} s", flush=True)
        told = next(cell for cell in done.cells if cell.id == "set-up").outputs
        print("".join(f"  {line}\n" for output in told for line in output.get("text", "").splitlines()), end="")


def main() -> None:
    """Build the environment and run the series in it, with the package index and without."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    python = build_image(folder)
    pack_wheels(folder / "packed", python)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    for name, parts, variables in (("on", ("fgtools",), {}), ("off", ("fgtools", "wheels"), offline)):
        mount = folder / f"input.{name}"
        for part in parts:
            place = mount / "datasets" / "ann" / part
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.symlink_to(folder / "packed" / part)
        build_image(folder)
        print(f"internet {name}:", flush=True)
        run_series(python, mount, folder / f"out.{name}", **variables)


if __name__ == "__main__":
    main()
