"""A notebook session: what is installed, what is missing, and quiet libraries.

Knows pip, environment variables and version numbers; loads torch only to describe the GPU. Nothing here upgrades torch:
the CUDA build of a Kaggle or Colab image is kept.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from fgtools.files import FgtoolsError, is_watched
from fgtools.run.processes import ONE_GPU

NEEDED = {
    "accelerate": "accelerate>=1.10.1",
    "datasets": "datasets>=4.7",
    "datasketch": "datasketch>=1.6",
    "evaluate": "evaluate>=0.4.5",
    "huggingface_hub": "huggingface_hub>=1.11",
    "jiwer": "jiwer>=4.0",
    "jsonschema": "jsonschema>=4.20",
    "kagglehub": "kagglehub>=1.0",
    "matplotlib": "matplotlib>=3.9",
    "rapidfuzz": "rapidfuzz>=3.6",
    "regex": "regex",
    "scipy": "scipy>=1.15",
    "tqdm": "tqdm>=4.66",
    "transformers": "transformers>=5.0",
    "trl": "trl>=1.16,<1.17",
}
"""What the notebooks import, and the versions they need; trl is limited to the tested minor version."""

KERNELS = "liger-kernel>=0.5"
"""Fused kernels for training on an NVIDIA GPU (`train.fused`); a training does without where they are missing."""

REPORTED = ("torch", "transformers", "trl", "datasets", "accelerate", "huggingface_hub", "kagglehub", "tokenizers")


class SessionError(FgtoolsError, RuntimeError):
    """The session cannot be made ready; the message says what to do."""


def start_session() -> None:
    """Make a notebook session ready: one GPU, missing packages and kernels installed, libraries quiet.

    Must run before torch is imported, since it decides which GPU is visible.

    Raises:
        SessionError: A missing package cannot be installed.
    """
    if "CUDA_VISIBLE_DEVICES" not in os.environ:  # with two, transformers' Trainer would ask for nn.DataParallel
        os.environ |= {"CUDA_VISIBLE_DEVICES": "0", ONE_GPU: "1"}
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # transformers sets its level when it is imported
    if not is_watched():
        # transformers follows the hub's variable; TQDM_DISABLE stops what has none of its own
        os.environ |= dict.fromkeys(("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"), "1")
        os.environ |= {"TQDM_DISABLE": "1", "KAGGLEHUB_VERBOSITY": "error"}
    install_missing()
    install_kernels()
    quiet_libraries()


def quiet_libraries() -> None:
    """Silence the libraries' warnings, which they repeat at every load and save; their errors are still shown."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    for library in ("transformers", "trl", "datasets", "accelerate", "huggingface_hub", "kagglehub"):
        logging.getLogger(library).setLevel(logging.ERROR)


def find_missing() -> list[str]:
    """Return the requirements of NEEDED that are absent or of another version, in pip's notation."""
    from packaging.requirements import Requirement

    missing = []
    for name, requirement in NEEDED.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(requirement)
            continue
        if not Requirement(requirement).specifier.contains(version, prereleases=True):
            missing.append(requirement)
    return missing


def install_missing() -> None:
    """Install what find_missing lists, with torch kept at its installed version.

    Raises:
        SessionError: pip fails, or a package to be replaced is already imported.
    """
    missing = find_missing()
    if not missing:
        return
    loaded = [name for name in ("torch", "transformers", "datasets", "trl") if name in sys.modules]
    if loaded:
        raise SessionError(
            f"{', '.join(missing)} must be installed before {', '.join(loaded)} is imported: restart the kernel and "
            "run the notebook from its first cell"
        )
    print("installing", ", ".join(missing), "(torch stays as it is)")
    with tempfile.TemporaryDirectory() as scratch:
        held = Path(scratch) / "constraints.txt"
        held.write_text(_torch_line())
        failure = _install("-c", str(held), *missing)
    if failure:
        raise SessionError(
            f"pip must install {', '.join(missing)}, but it failed ({failure}): switch the notebook's internet on, or "
            "attach a data set that holds the wheels"
        )


def install_kernels() -> None:
    """Install KERNELS where an NVIDIA GPU is visible; where that fails, a line says so and the session goes on."""
    if find_gpu() is None or importlib.util.find_spec("liger_kernel"):
        return
    print("installing", KERNELS, "(fused kernels for training on this GPU; torch and triton stay as they are)")
    failure = _install("--no-deps", "--retries", "0", "--timeout", "5", KERNELS)
    if failure:
        print(f"{KERNELS} is not installed ({failure}): training computes with plain kernels, a step takes longer")


def find_gpu() -> Path | None:
    """Return the device file of the first NVIDIA GPU of a Linux machine, without loading torch; None without one."""
    return min(Path("/dev").glob("nvidia[0-9]*"), default=None)


def _install(*words: str) -> str:
    """Let pip install packages; return the last line of what it says when it fails, "" when it does not."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", *words]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    return (outcome.stderr.strip().splitlines()[-1:] or ["no message"])[0] if outcome.returncode else ""


def _torch_line() -> str:
    if importlib.util.find_spec("torch") is None:
        return ""
    return f"torch=={importlib.metadata.version('torch')}\n"


def describe_environment() -> dict[str, str]:
    """Return versions, number of CPU cores and GPU of this machine, by name; nothing that identifies it."""
    import torch

    versions = {name: importlib.metadata.version(name) for name in REPORTED if importlib.util.find_spec(name)}
    gpu = "none"
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(0)
        gpu = f"{torch.cuda.get_device_name(0)} (sm_{major}{minor}), {torch.cuda.device_count()} visible"
    return {"python": platform.python_version(), **versions, "cpu cores": str(os.cpu_count()), "gpu": gpu}
