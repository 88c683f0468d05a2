"""Several processes, one for each GPU: how many, and how they are started.

Knows accelerate's launcher and nvidia-smi; not what the processes compute.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


STOP_SECONDS = 2.0
"""How long processes that are told to end may take, before they are killed."""

_SHORT = {
    "memory": re.compile(r"exitcode +: -9 |^error: .*(memory is full|fit the memory|memory must hold)"),
    "disk": re.compile(r"^error: .*(disk is full|No space left on device|Disk quota exceeded)"),
}
"""Lines of processes, or of their launcher, that say what was full; -9: killed, as Linux does for want of memory."""

_REPORT = re.compile(r"(\[rank\d+\]:)?\[?[IWEF]\d{4} |Traceback \(most recent call last\)")
"""How the report of torch's launcher begins, after the errors of its processes."""

_LESS_MEMORY = "lower BATCH_SIZE (--batch-size) or the number of processes"


class LaunchError(FgtoolsError, RuntimeError):
    """Processes that were started together failed; what they said stands above."""


class ShortageError(LaunchError):
    """The same, since the disk or the memory was full.

    Attributes:
        what: "disk" or "memory".
    """

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message)
        self.what = what


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
        InputError: The system is Windows.
        LaunchError: The command failed.
        ShortageError: It failed for want of room on the disk or in memory.
    """
    if sys.platform == "win32":
        raise InputError(f"`{command}` runs in one process on Windows, got {processes}: use 1, or Linux (WSL)")
    environment = {**os.environ, LAUNCHED: "1"}
    if hidden := environment.pop(ONE_GPU, ""):
        environment["CUDA_VISIBLE_DEVICES"] = hidden
        if hidden == ALL:
            del environment["CUDA_VISIBLE_DEVICES"]
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    # Without GPUs, too, it is --multi_gpu that starts several processes; they talk through gloo then.
    fixed = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), *fixed]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with tempfile.TemporaryDirectory(prefix="fgtools-") as logs:  # torch leaves an empty folder in it
        start = [sys.executable, "-m", *launcher, "--log_dir", logs, "-m", "fgtools"]
        words = [*start, *(["--debug"] if debug else []), command, *arguments]
        job = subprocess.Popen(words, **pipes, env=environment, **end_with_this(signal.SIGTERM))
        try:
            what = _show_lines(job, debug)
        except BaseException:
            stop_processes(job)
            raise
    if job.returncode:
        failed = f"`{command}` in {processes} processes failed with status {job.returncode}; see above"
        if what == "memory" or job.returncode == -9:
            raise ShortageError(f"{failed}: the memory was full, or somebody killed one: {_LESS_MEMORY}", "memory")
        raise ShortageError(f"{failed}: free some space on the disk", what) if what else LaunchError(failed)


def _show_lines(job: subprocess.Popen[bytes], debug: bool) -> str:
    """Print what a process says until it ends, and return what it says is full: "disk", "memory", or "" for neither.

    An error that each of its processes prints is shown once; the launcher's own report of it, with tracebacks, is for
    `debug`.
    """
    found, seen, failed, reported = "", set(), False, False
    with io.TextIOWrapper(job.stdout, "utf-8", "replace", newline="") as said:  # a bar's carriage returns stay
        for line in said:
            is_error = line.startswith("error: ")
            failed |= is_error
            reported |= failed and bool(_REPORT.match(line))
            if debug or not failed or (line not in seen and (is_error or not reported)):
                print(line, end="", flush=True)
            seen |= {line} if failed else set()
            found = next((what for what, text in _SHORT.items() if text.search(line)), found)
    job.wait()
    return found


def stop_processes(job: subprocess.Popen[Any]) -> None:
    """End a process and all that it has started: told to at first, killed where they take longer than STOP_SECONDS."""
    import psutil  # accelerate needs it, too

    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
        below = psutil.Process(job.pid).children(recursive=True)
        job.terminate()
        _, living = psutil.wait_procs(below, STOP_SECONDS)
        for one in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    job.kill()
    job.wait()


def end_with_this(number: int) -> dict[str, Any]:
    """Return options of subprocess.Popen with which Linux sends a signal to the new process when this one ends.

    So what was started does not go on with nobody to read its output, even when this process is killed outright. Other
    systems cannot do that; there is nothing to pass then.

    Args:
        number: The signal.
    """
    if sys.platform != "linux":
        return {}
    library = ctypes.CDLL(None)  # loaded here: between fork and exec little may be done
    return {"preexec_fn": lambda: library.prctl(_PDEATHSIG, number)}


def end_with_launcher() -> None:
    """In a process that `launch` started: let Linux end it when the launcher ends, however that happens."""
    if LAUNCHED in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
