"""A simulated Kaggle: kernels run one after the other as `kaggle push` has them run, in a scratch folder for /kaggle.

`python -m tests.kaggle_session [--layout old] [--recipe tutorial]` prints a line with its time for each kernel.

What is as on Kaggle: each kernel is the built folder's notebook, run by papermill in an environment of its own, without
fgtools; attached are the data set and the outputs of the kernels that kernel-metadata.json names, and nothing else;
secrets come from `kaggle_secrets`. What is not: in place of the image's versions those of this environment are there,
there is no GPU, and /kaggle is another folder, whose name is put into the notebooks. Inputs are made read-only, which
does not stop root; so they are compared with what they were, after each kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fgtools.run import kaggle_build
from fgtools.run.kaggle_build import DATA_SET, build_kaggle, load_build
from fgtools.run.kaggle_metadata import RUN_ALL

ROOT = Path(__file__).parents[1]
OWNER = "ann"
LAYOUTS = {
    "new": {"kernel": "notebooks/{owner}/{slug}", "data_set": "datasets/{owner}/{slug}"},
    "old": {"kernel": "{slug}", "data_set": "{slug}"},
}
"""Where Kaggle has mounted inputs below /kaggle/input, by the kind of the input."""

SMALL = {
    **{"PROFILE": "offline", "MODEL": "standin", "DATA": "sample"},  # asked for: nobody trains a toy by mistake
    **{"N_TOTAL": "150", "N_EVAL": "20", "EPOCHS": "0.6", "TUTORIAL_ROWS": "0"},
    "TIME_LIMIT": "1",  # hours: this machine may have run for longer than a session of Kaggle lasts
}
"""The stand-in, few rows and two steps: the first one of the tutorial has rate 0."""

SECRET = "hf_simulatedSecretThatNobodyMayPrint"

_SECRETS = f'''"""Stands for Kaggle's module: one secret is there, and asking for another is an error."""


class BackendError(Exception):
    pass


class UserSecretsClient:
    def get_secret(self, label):
        if label != "HUGGINGFACE_TOKEN":
            raise BackendError(f"No user secrets exist for kernel id 1 and label {{label}}.")
        return "{SECRET}"
'''

_UNSET = ("FGTOOLS_", "HF_", "HUGGING", "KAGGLE_", "JPY_", "COLAB_", "PYTHON", "PIP_")


@dataclass(frozen=True)
class KernelRun:
    """How a kernel went: its name, its seconds, the executed notebook as text, and what it left in /kaggle/working."""

    name: str
    seconds: float
    notebook: str
    output: Path


class KernelError(AssertionError):
    """A kernel failed, or changed what was attached to it."""


def build_small(out: Path, parameters: Mapping[str, str]) -> Path:
    """Build the folders with few rows; no wheel but the package's own is fetched: this environment has the others."""
    fetch = kaggle_build.fetch_wheels
    kaggle_build.fetch_wheels = lambda *_: ()
    try:
        build_kaggle(out, OWNER, {**SMALL, **parameters}, ROOT)
    finally:
        kaggle_build.fetch_wheels = fetch
    return out


def run_chain(
    built: Path, scratch: Path, layout: str, names: tuple[str, ...] = (), variables: Mapping[str, str] | None = None
) -> Iterator[KernelRun]:
    """Run kernels in order, each with what its metadata name.

    Args:
        built: A folder that `kaggle build` made.
        scratch: Where environments and each kernel's /kaggle are made.
        layout: One of LAYOUTS.
        names: Kernels; empty: the six.
        variables: More environment variables.

    Yields:
        A KernelRun for each.

    Raises:
        KernelError: A kernel failed, or changed an input.
    """
    ids = load_build(built).kernels
    outputs: dict[str, Path] = {}
    for name in names or tuple(one for one in ids if one != RUN_ALL):
        place = scratch / name
        metadata = json.loads((built / name / "kernel-metadata.json").read_text(encoding="utf-8"))
        sources = {_mount(layout, "data_set", one): built / DATA_SET for one in metadata["dataset_sources"]}
        sources |= {_mount(layout, "kernel", one): outputs[one] for one in metadata["kernel_sources"]}
        for path, source in sources.items():
            shutil.copytree(source, place / "input" / path)
        started = time.perf_counter()
        notebook = _run_kernel(built / name / metadata["code_file"], place, variables or {})
        outputs[ids[name]] = place / "working"
        yield KernelRun(name, time.perf_counter() - started, notebook, place / "working")


def _mount(layout: str, kind: str, name: str) -> str:
    owner, slug = name.split("/")
    return LAYOUTS[layout][kind].format(owner=owner, slug=slug)


def _run_kernel(notebook: Path, place: Path, variables: Mapping[str, str]) -> str:
    """Run one kernel in `place`, which stands for /kaggle; return the executed notebook as text."""
    inputs, working = place / "input", place / "working"
    working.mkdir(parents=True)
    pushed = place / notebook.name
    pushed.write_text(notebook.read_text(encoding="utf-8").replace("/kaggle/", f"{place}/"), encoding="utf-8")
    _set_writable(inputs, False)
    before = _describe(inputs)
    python = _build_environment(place / "environment")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_UNSET)}
    fixed = {
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "KAGGLE_CACHE_MOUNT_FOLDER": str(inputs),
        "FGTOOLS_RUN_DIR": str(working / "run"),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(place / "home"),
        "HOME": str(place / "home"),
        "PIP_NO_INDEX": "1",  # no internet
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    executed = place / "executed.ipynb"
    words = [str(python), "-m", "papermill", "--no-progress-bar", "-k", "python3", str(pushed), str(executed)]
    outcome = subprocess.run(
        words, cwd=working, env={**kept, **fixed, **variables}, capture_output=True, text=True, check=False
    )
    if outcome.returncode:
        raise KernelError(f"{notebook.stem} failed: {outcome.stderr[-3000:]}")
    if _describe(inputs) != before:
        raise KernelError(f"{notebook.stem} changed what was attached to it")
    _set_writable(inputs, True)
    return executed.read_text(encoding="utf-8")


def _build_environment(folder: Path) -> Path:
    """Make an environment with all packages of this one but fgtools, and with Kaggle's module; return its Python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    names = {"base": str(folder), "platbase": str(folder)}
    target = Path(sysconfig.get_path("purelib", vars=names))
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if "fgtools" not in package.name and not (target / package.name).exists():
            (target / package.name).symlink_to(package)
    (target / "kaggle_secrets.py").write_text(_SECRETS, encoding="utf-8")
    return python


def _describe(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of each file and folder."""
    told = [(str(path.relative_to(folder)), path.stat()) for path in folder.rglob("*")]
    return sorted((name, facts.st_size, facts.st_mtime_ns) for name, facts in told)


def _set_writable(folder: Path, writable: bool) -> None:
    """Allow or forbid writing to everything below a folder."""
    for path in [*folder.rglob("*")]:
        mode = path.stat().st_mode
        path.chmod(mode | stat.S_IWUSR if writable else mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def main() -> None:
    """Run the six kernels and print their times."""
    parser = argparse.ArgumentParser(description="Run the series on a simulated Kaggle.")
    parser.add_argument("--layout", choices=[*LAYOUTS], default="new")
    parser.add_argument("--recipe", choices=["native", "tutorial"], default="native")
    parser.add_argument("--kernels", nargs="+", default=[], help="default: the six; run_all for one session")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        built = build_small(Path(scratch, "build"), {"RECIPE": options.recipe})
        for run in run_chain(built, Path(scratch), options.layout, tuple(options.kernels)):
            files = sum(path.is_file() for path in run.output.rglob("*"))
            print(f"{options.layout} layout, {options.recipe}  {run.name:<13} {run.seconds:5.1f} s  {files} files left")


if __name__ == "__main__":
    sys.exit(main())
