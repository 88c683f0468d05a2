"""One writer at a time: a run folder, or one part of it, is held by the process that writes there.

Knows files and the locks of Linux and macOS, which end with the process that took them, however it ends; where there
are none, as on Windows and some network disks, nothing is refused. Processes that the holder starts may write too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fgtools.files import FgtoolsError, name_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_WHOLE = ".lock"
_HELD = "FGTOOLS_HELD"
"""Variable that tells the processes that a holder starts which folder it holds."""


class FolderInUseError(FgtoolsError, RuntimeError):
    """Another process writes into the folder; the message names it and when it began."""


@dataclass(frozen=True)
class Holder:
    """Who holds a folder.

    Attributes:
        pid: Number of the process.
        started: When it began to write, in local time with its offset, as ISO 8601.
        what: What it does, such as "run" or "train".
    """

    pid: int
    started: str
    what: str

    def __str__(self) -> str:
        return f"process {self.pid} (`{self.what}`, since {self.started})"


@contextmanager
def hold_folder(root: Path, what: str, part: str = "") -> Iterator[None]:
    """Hold a folder while something is written there.

    Args:
        root: The folder, which must exist.
        what: What writes there, for the message that another process gets.
        part: Name of the part that is written; parts of other names may be written at the same time. "" for all.

    Raises:
        FolderInUseError: Another process holds it.
    """
    place = str(root.resolve())
    if fcntl is None or os.environ.get(_HELD) == place:
        yield
        return
    taken: list[tuple[Path, int]] = []
    before = os.environ.get(_HELD)
    try:
        taken.append(_take(root / _WHOLE, shared=bool(part), what=what))
        if part:
            taken.append(_take(root / f"{_WHOLE}.{part}", shared=False, what=what))
        else:
            _delete_parts(root)
        _sign(taken[-1], what)
        os.environ[_HELD] = place
        yield
    finally:
        os.environ.pop(_HELD, None)
        if before is not None:
            os.environ[_HELD] = before
        for path, descriptor in reversed(taken):
            _release(path, descriptor)


def _take(path: Path, shared: bool, what: str) -> tuple[Path, int]:
    """Open and lock a file; raises FolderInUseError where another process has locked it."""
    while True:
        with name_file(path, "written"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise FolderInUseError(_describe_refusal(path.parent, what)) from error
        except OSError as error:  # a disk that knows no locks
            print(
                f"{path.parent} cannot be locked ({error.strerror}): start nothing else that writes there", flush=True
            )
            return path, descriptor
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                _tell_dead(descriptor)
                return path, descriptor
        os.close(descriptor)  # its holder deleted it between the two calls


def _tell_dead(descriptor: int) -> None:
    """Say whose lock is taken over where the file still names a holder, and take its name out."""
    if holder := _parse_holder(os.pread(descriptor, 4096, 0)):
        print(f"lock: {holder} ended without releasing the folder, which is taken over", flush=True)
    os.ftruncate(descriptor, 0)


def _delete_parts(root: Path) -> None:
    """Delete the locks of parts that dead processes left: who has locked the whole folder shares it with nobody."""
    for path in sorted(root.glob(f"{_WHOLE}.*")):
        if holder := _parse_holder(path.read_bytes()):
            print(f"lock: {holder} ended without releasing its part of the folder, which is taken over", flush=True)
        path.unlink(missing_ok=True)


def _sign(taken: tuple[Path, int], what: str) -> None:
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    os.pwrite(taken[1], json.dumps(vars(Holder(os.getpid(), started, what))).encode(), 0)


def _release(path: Path, descriptor: int) -> None:
    """Delete a lock that nobody else holds, and close it."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    os.close(descriptor)


def _describe_refusal(root: Path, what: str) -> str:
    """Return the message for who is refused; the holder may be about to write its name, so that is waited for."""
    holders: list[Holder] = []
    for _ in range(20):
        texts = [path.read_bytes() for path in sorted(root.glob(f"{_WHOLE}*")) if path.is_file()]
        if holders := [holder for holder in map(_parse_holder, texts) if holder and _is_alive(holder.pid)]:
            break
        time.sleep(0.05)
    named = " and ".join(map(str, holders)) or "another process"
    remedy = f"end it with `kill {holders[0].pid}`, " if holders else ""
    return (
        f"one process at a time may write into {root}, but {named} does: wait for its end, {remedy}or give `{what}` "
        "another --out"
    )


def _is_alive(pid: int) -> bool:
    if sys.platform == "linux":
        return Path(f"/proc/{pid}").exists()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True


def _parse_holder(text: bytes) -> Holder | None:
    """Return the holder that a lock file names; None where it names none."""
    try:
        saved = json.loads(text)
        return Holder(int(saved["pid"]), str(saved["started"]), str(saved["what"]))
    except (ValueError, KeyError, TypeError):
        return None
