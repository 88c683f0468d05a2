"""How a command ends: its exit status, the sentence for an error, and how to go on after it.

Knows which errors mean a full disk or a full memory, whichever library raises them; Ctrl-C and SIGTERM; the words of
the command that ran. Does not know what a command does. An error that is none of these and not the package's own keeps
its traceback: it is a fault to be reported.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fgtools.files import FgtoolsError
from fgtools.run.failures import list_causes
from fgtools.run.processes import LAUNCHED, ShortageError

RESUMABLE = {"run", "train"}
"""Commands that go on with --resume."""

KEEPS_PARTS = {"evaluate", "publish"}
"""Commands that find what they have done by themselves when they are run again."""

ON_KAGGLE = "what Kaggle runs goes on there, see `python -m fgtools kaggle status`"

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit statuses, 130 and 143: as a shell reports a program that such a signal ended."""

_FULL_DISK = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing")
"""What writers say that are not Python's own: of safetensors, tokenizers, pyarrow and torch."""

_FULL_MEMORY = ("can't allocate memory", "out of memory", "Cannot allocate memory", "std::bad_alloc")
"""What allocators say that raise a RuntimeError or an OSError."""

_MEMORY_ERRORS = {"MemoryError", "OutOfMemoryError", "BrokenProcessPool", "DeadKernelError"}
"""Classes of errors that mean it: Python's and torch's; the last two say that Linux has ended a process."""

_LESS_MEMORY = {
    "run": "take fewer rows (-p N_TOTAL), or a smaller BATCH_SIZE or MAX_LENGTH (-p)",
    "train": "lower --batch-size or --max-length, or set --lora-rank",
    "evaluate": "lower --batch-size",
    "prepare": "take fewer rows (--n-total), or --processes 1",
    "audit": "take fewer rows (--n-total), or --processes 1",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; libraries clean up after it as after Ctrl-C."""


def run_to_end(run: Callable[[Namespace], None], options: Namespace, words: Sequence[str]) -> int:
    """Run a command and return its exit status; what went wrong is said on standard error.

    Args:
        run: Runs the command.
        options: Its parsed options.
        words: The words they were parsed from, those after `python -m fgtools`.

    Returns:
        0; 1 for an error with a message or a closed pipe; 130 after Ctrl-C; 143 after SIGTERM.
    """
    try:
        with _sigterm_raises():
            run(options)
            sys.stdout.flush()
    except KeyboardInterrupt as error:
        is_terminated = isinstance(error, Terminated)
        how = "stopped by SIGTERM" if is_terminated else "\nstopped" if sys.stderr.isatty() else "stopped"  # after a ^C
        _say(f"{how}: {render_way_on(options.name_of_command, words)}")
        return TERMINATED if is_terminated else INTERRUPTED
    except BrokenPipeError:  # who read the output, such as `head`, has seen enough
        _close_output()
        return 1
    except Exception as error:
        message = _describe_error(error, options)
        if options.debug or not message:
            _end_bars()
            raise
        _say(f"error: {message}")
        if find_shortage(error) and LAUNCHED not in os.environ:
            _say(render_way_on(options.name_of_command, words))
        return 1
    return 0


def render_way_on(command: str, words: Sequence[str]) -> str:
    """Return how to go on after a command that was broken off, as a clause with the command to type.

    Args:
        command: The command's name.
        words: The words after `python -m fgtools`, in the order they were typed.
    """
    if command == "kaggle":
        return ON_KAGGLE
    resume = ["--resume"] if command in RESUMABLE and "--resume" not in words else []
    typed = ["python", "-m", "fgtools", *words, *resume]
    line = subprocess.list2cmdline(typed) if sys.platform == "win32" else shlex.join(typed)
    goes_on = command in RESUMABLE | KEEPS_PARTS
    return f"to go on, run: {line}" if goes_on else f"to start again, run: {line}"


def find_shortage(error: BaseException) -> str:
    """Return what an error, or one that it was raised from, says is full: "disk", "memory", or "" for neither."""
    for one in list_causes(error):
        in_a_cell = hasattr(one, "ename")  # papermill's, with class and text of what a notebook raised
        names = {base.__name__ for base in type(one).__mro__} | {getattr(one, "ename", "")}
        number, said = getattr(one, "errno", None), f"{getattr(one, 'evalue', '')} {one}"
        if number in (errno.ENOSPC, errno.EDQUOT) or any(words in said for words in _FULL_DISK):
            return "disk"
        if number == errno.ENOMEM or _MEMORY_ERRORS & names:
            return "memory"
        if (in_a_cell or isinstance(one, (RuntimeError, OSError))) and any(words in said for words in _FULL_MEMORY):
            return "memory"
        if isinstance(one, ShortageError):
            return one.what
    return ""


def _describe_error(error: Exception, options: Namespace) -> str:
    """Return the sentence for people; "" for an error that is not for them."""
    if isinstance(error, FgtoolsError):
        return str(error)
    shortage, said = find_shortage(error), " ".join(str(error).split())[:300]
    if shortage == "disk":
        files = [str(one.filename) for one in list_causes(error) if getattr(one, "filename", None)]
        out = getattr(options, "out", "") or getattr(options, "run", "")
        place = files[0] if files else f"a file below {out}" if isinstance(out, str) and out else "a file"
        reason = getattr(error, "strerror", None) or said or type(error).__name__
        return f"the disk is full: {place} could not be written ({reason}): free some space there"
    if shortage == "memory":
        remedy = _LESS_MEMORY.get(options.name_of_command, "end other programs, or take a machine with more of it")
        is_guess = type(error).__name__ == "BrokenProcessPool"  # the pool knows no more than that one is gone
        full = "the memory is full, or somebody ended a process" if is_guess else "the memory is full"
        return f"{full} ({type(error).__name__}{': ' if said else ''}{said}): {remedy}"
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else ""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise Terminated, so that files and processes are cleaned up; a second one ends the process at once.

    Not in processes that a launcher started: one that waits for the others would not notice, so it ends at once.
    """
    is_ours = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and not {LAUNCHED, "LOCAL_RANK"} & {*os.environ}
    if not is_ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_terminated(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _say(line: str) -> None:
    """Print a line on standard error, on a line of its own."""
    _end_bars()
    sys.stderr.write(f"{line}\n")  # one write: lines of several processes do not run into each other


def _end_bars() -> None:
    """End every progress bar that is still drawn, so that what follows begins a line."""
    if "tqdm" in sys.modules:
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", ())):
            bar.leave = True
            bar.close()


def _close_output() -> None:
    """Send what is still to be written to nowhere, or Python would complain of the closed pipe when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def use_utf8() -> None:
    """Let standard output and error take any text, as UTF-8; Windows gives a redirected one another encoding."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
