"""A notebook session: one GPU, the packages it needs, and quiet libraries.

Knows environment variables and libraries' logs; loads torch only to describe the GPU. What pip does stands in
`packages`, how GPUs are hidden in `processes`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import platform
import warnings
from pathlib import Path

from fgtools import __version__
from fgtools.files import is_watched
from fgtools.run.packages import SessionError, find_version, install_kernels, install_missing
from fgtools.run.processes import hide_gpus

REPORTED = ("torch", "transformers", "trl", "datasets", "accelerate", "huggingface_hub", "kagglehub", "tokenizers")


def start_session() -> None:
    """Make a notebook session ready: one GPU, missing packages and kernels installed, libraries quiet.

    Must run before torch is imported, since it decides which GPU is visible.

    Raises:
        SessionError: A missing package cannot be installed, or another version of this one is still loaded.
    """
    if (installed := find_version("fgtools", __version__)) != __version__:
        raise SessionError(
            f"fgtools {installed} is installed, but {__version__} is loaded: restart the kernel and run the notebook "
            "from its first cell"
        )
    if line := hide_gpus():
        print(f"{line}; PROCESSES in notebooks 3 to 5 takes more")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # transformers sets its level when it is imported
    hide_bars()
    install_missing()
    install_kernels(find_gpu())
    quiet_libraries()


def hide_bars() -> None:
    """Keep libraries from drawing progress bars where nobody watches; must run before they are imported."""
    if not is_watched():
        # transformers follows the hub's variable; TQDM_DISABLE stops what has none of its own
        os.environ |= dict.fromkeys(("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"), "1")
        os.environ |= {"TQDM_DISABLE": "1", "KAGGLEHUB_VERBOSITY": "error"}


def quiet_libraries() -> None:
    """Silence the libraries' warnings, which they repeat at every load and save; their errors are still shown."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    for library in ("transformers", "trl", "datasets", "accelerate", "huggingface_hub", "kagglehub"):
        logging.getLogger(library).setLevel(logging.ERROR)


def find_gpu() -> Path | None:
    """Return the device file of the first NVIDIA GPU of a Linux machine, without loading torch; None without one."""
    return min(Path("/dev").glob("nvidia[0-9]*"), default=None)


def describe_environment() -> dict[str, str]:
    """Return versions, number of CPU cores and GPU of this machine, by name; nothing that identifies it."""
    import torch

    versions = {name: importlib.metadata.version(name) for name in REPORTED if importlib.util.find_spec(name)}
    gpu = "none"
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(0)
        gpu = f"{torch.cuda.get_device_name(0)} (sm_{major}{minor}), {torch.cuda.device_count()} visible"
    return {"python": platform.python_version(), **versions, "cpu cores": str(os.cpu_count()), "gpu": gpu}
