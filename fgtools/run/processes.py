"""Several processes, one for each GPU: how many, and how they are started.

Knows accelerate's launcher and nvidia-smi; not what the processes compute.
"""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fgtools.files import FgtoolsError, InputError

LAUNCHED = "FGTOOLS_LAUNCHED"
"""Set in the environment of processes that were started together."""

ONE_GPU = "FGTOOLS_ONE_GPU"
"""Set where this package, not its user, hides all GPUs but the first: to what CUDA_VISIBLE_DEVICES was, or to ALL."""

ALL = "all"

ROWS_WORTH_STARTING = 1000
"""Rows below which starting more processes takes longer than it saves: each loads the libraries and the model."""

_PDEATHSIG = 1
"""Linux's PR_SET_PDEATHSIG."""


class LaunchError(FgtoolsError, RuntimeError):
    """Processes that were started together failed; what they said stands above."""


def count_gpus() -> int:
    """Return the number of GPUs that this process may use, including those that hide_gpus has hidden."""
    shown = os.environ.get(ONE_GPU, os.environ.get("CUDA_VISIBLE_DEVICES", ALL))
    if shown != ALL:
        return len([one for one in shown.split(",") if one.strip() not in ("", "-1")])
    command = shutil.which("nvidia-smi")
    if command is None:
        return len([*Path("/dev").glob("nvidia[0-9]*")])
    listed = subprocess.run([command, "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if not listed.returncode else 0


def hide_gpus() -> str:
    """Hide all GPUs but the first from this process, where there are more; must run before torch looks for them.

    With two, transformers' trainer would split every batch over both with nn.DataParallel, which TRL refuses. Several
    processes that `launch` starts see all of them again; one that a launcher started is left as it is.

    Returns:
        A sentence about it, without a full stop; "" where nothing was hidden.
    """
    if {LAUNCHED, ONE_GPU, "LOCAL_RANK"} & {*os.environ} or (count := count_gpus()) < 2:
        return ""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", ALL)
    first = "0" if shown == ALL else shown.split(",")[0].strip()
    os.environ |= {"CUDA_VISIBLE_DEVICES": first, ONE_GPU: shown}
    return f"{count} GPUs are visible, and one process takes one of them: GPU {first}"


def choose_processes(n_rows: int, asked: int = 0) -> tuple[int, str]:
    """Decide in how many processes rows are answered.

    Args:
        n_rows: Rows.
        asked: The number of processes; 0 for one a GPU where that is faster.

    Returns:
        How many, and why.

    Raises:
        InputError: The number is negative, or larger than that of the GPUs where there are some.
    """
    if asked < 0:
        raise InputError(f"PROCESSES must be at least 0, got {asked}: use 0 for one a GPU")
    gpus = count_gpus()
    if 0 < gpus < asked:
        raise InputError(f"PROCESSES must be at most the number of GPUs, {gpus}, got {asked}: use 0 for one a GPU")
    if asked:
        return asked, "asked for"
    if gpus < 2:
        return 1, f"{gpus} GPU(s)"
    if n_rows < ROWS_WORTH_STARTING:
        return 1, f"{gpus} GPUs, but {n_rows} rows are answered sooner than a second process starts"
    return gpus, f"one for each of {gpus} GPUs"


def current_process() -> tuple[int, int]:
    """Return this process's number and how many were started together; (0, 1) for one that was started alone."""
    if LAUNCHED not in os.environ:
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def launch(command: str, processes: int, arguments: Sequence[str], debug: bool = False) -> None:
    """Run a command of `python -m fgtools` in several processes, through accelerate, and show what it prints.

    Args:
        command: "train" or "evaluate".
        processes: How many; one per GPU where there are GPUs.
        arguments: The words after the command.
        debug: Whether each process shows the traceback of an error.

    Raises:
        LaunchError: The command failed.
    """
    environment = {**os.environ, LAUNCHED: "1"}
    if hidden := environment.pop(ONE_GPU, ""):
        environment["CUDA_VISIBLE_DEVICES"] = hidden
        if hidden == ALL:
            del environment["CUDA_VISIBLE_DEVICES"]
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    # Without GPUs, too, it is --multi_gpu that starts several processes; they talk through gloo then.
    fixed = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), *fixed]
    words = [sys.executable, "-m", *launcher, "-m", "fgtools", *(["--debug"] if debug else []), command, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(words, **pipes, env=environment, preexec_fn=_end_with_parent) as job:
        said = io.TextIOWrapper(job.stdout, "utf-8", "replace", newline="")  # the carriage returns of a bar stay such
        for line in said:
            print(line, end="", flush=True)
    if job.returncode:
        raise LaunchError(f"`{command}` in {processes} processes failed with status {job.returncode}; see above")


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent dies; else it would train on with nobody to read its output."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
