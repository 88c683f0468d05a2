"""Files: written whole, hashed, and read with errors that name file and line; and progress bars.

Knows files, JSON, whether a person is watching and where Kaggle mounts inputs; not what rows,
scores or models mean. Every file is written under a temporary name and then renamed, so that a killed run never leaves
half a file.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")


class FgtoolsError(Exception):
    """The base of every error that the package raises with a message for people."""


class InputError(FgtoolsError, ValueError):
    """A value that was passed in cannot be used; the message says what must hold, what was got, and the remedy."""


class FileError(FgtoolsError, OSError):
    """A file or folder cannot be read, written or made, such as on a full disk; the message names it."""


class DataFileError(FgtoolsError, ValueError):
    """A data file is missing or malformed; the message names the file and, where there is one, the line."""


@contextmanager
def name_file(path: Path, verb: str) -> Iterator[None]:
    """Turn an error of the operating system into a FileError that names the file and the remedy.

    Args:
        path: The file or folder.
        verb: What is being done with it: "read", "written" or "made".
    """
    try:
        yield
    except OSError as error:
        above = next((one for one in (path, *path.parents) if one.exists()), path)
        if not above.is_dir() and isinstance(error, (NotADirectoryError, FileExistsError)):
            raise FileError(
                f"{path} must be {verb} in a folder, but {above} is a file: give another path, or move that file away"
            ) from error
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space on that disk" if is_full else "check the permissions and the free space"
        raise FileError(f"{path} must be {verb}, but {error.strerror or error}: {remedy}") from error


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, if they are not there; raises FileError where that is not possible."""
    with name_file(path, "made"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_parts(path: Path, parts: Iterable[bytes]) -> Path:
    """Write a file whole: under a temporary name beside it, then renamed; raises FileError where that fails.

    The file has the permissions of any new file: those that the process's umask leaves.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with name_file(path, "written"):
        try:
            with temporary.open("xb") as file:
                file.writelines(parts)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text whole; a lone surrogate becomes its JSON escape."""
    return write_parts(path, [text.encode("utf-8", errors="backslashreplace")])


def write_json(path: Path, value: Mapping[str, Any], inputs: Iterable[Path] | Mapping[str, str] = ()) -> Path:
    """Write a JSON object whole, with the hashes of the files it was made from.

    Args:
        path: Where to write it.
        value: The object; the key "inputs" is added to what is written.
        inputs: Files or folders it was made from, whose sha256 are written under "inputs" by name; or the hashes
            themselves, by name.

    Returns:
        `path`.

    Raises:
        ValueError: A number is not finite, which JSON cannot hold; a file that is already there stays as it is.
    """
    hashes = dict(inputs) if isinstance(inputs, Mapping) else {source.name: sha256_of(source) for source in inputs}
    text = json.dumps({**value, "inputs": hashes}, ensure_ascii=False, indent=1, allow_nan=False)
    return write_text(path, text + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    """Write a JSON-lines file whole.

    Args:
        path: Where to write it.
        rows: One JSON object a line; a str is taken for the text of its line, without the line break.

    Returns:
        `path`.

    Raises:
        ValueError: A number is not finite, which JSON cannot hold; a file that is already there stays as it is.
    """
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    return write_parts(path, (f"{line}\n".encode("utf-8", errors="backslashreplace") for line in lines))


def replace_folder(new: Path, target: Path) -> Path:
    """Replace a folder by a finished one; the old one is deleted only after the new one is in place.

    Args:
        new: The finished folder, on the same file system as `target`.
        target: The folder to replace; it need not exist.

    Returns:
        `target`.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with name_file(target, "written"):
        if target.exists():
            os.replace(target, old)
        os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        DataFileError: The file is missing, unreadable, or holds something else.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataFileError(f"{path} must hold one JSON object, but reading it failed: {error}") from error
    if not isinstance(value, dict):
        raise DataFileError(f"{path} must hold one JSON object, got a {type(value).__name__}")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line; empty lines are skipped.

    Raises:
        DataFileError: The file is missing or unreadable, or a line is not a JSON object; the line is named.
    """
    lines = enumerate(read_text(path).encode().split(b"\n"), start=1)
    return [parse_line(line, path, number) for number, line in lines if line.strip()]


def parse_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """Parse a line of a JSON-lines file; raises DataFileError, which names file and line, unless it is an object."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        shown = line[:60].decode("utf-8", "replace")
        raise DataFileError(
            f"{path}, line {number}: must be a JSON object, but {error}: {shown!r}; correct or delete the line"
        ) from error
    if not isinstance(row, dict):
        raise DataFileError(f"{path}, line {number}: must be a JSON object, got a {type(row).__name__}")
    return row


def require_file(path: Path) -> None:
    """Raise DataFileError where a path is no file; of a folder the message names files that lie in it."""
    if path.is_dir():
        held = sorted(one.name for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        which = f", such as {', '.join(held[:3])}" if held else ""
        raise DataFileError(f"{path} must be a file, but is a folder: name the file in it{which}")
    if not path.is_file():
        raise DataFileError(f"the file {path} must exist, but it does not: check the path")


def read_text(path: Path) -> str:
    """Read UTF-8 text; raises DataFileError where it is missing or not UTF-8, FileError where it cannot be read."""
    require_file(path)
    try:
        with name_file(path, "read"):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataFileError(f"{path} must be UTF-8 text, but byte {error.start} is not: convert the file") from error


_LARGE_BYTES = 2**26
_hashes_of_large_files: dict[tuple[int, ...], str] = {}


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file; of a folder, that of the list of its files' names and hashes, sorted by name.

    The contents are read each time. For a file of 64 MiB and more, such as a model's weights, the hash is remembered
    until this process ends, and returned as long as the file is the same one (device and inode) with the same size,
    time of change and time of the last change to its entry. The system sets the last one, on Linux and macOS, whenever
    contents or times are changed, so that putting an old time back does not hide a change.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with name_file(path, "read"), path.open("rb") as file:
        about = os.fstat(file.fileno())
        key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        if key not in _hashes_of_large_files:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if about.st_size < _LARGE_BYTES:
                return digest
            _hashes_of_large_files[key] = digest
        return _hashes_of_large_files[key]


def is_watched() -> bool:
    """Return whether a person watches this process, so that progress bars and widgets make sense.

    A notebook kernel is watched when a live front end is known to have started it. papermill, nbval, nbconvert and
    nbclient start kernels too, and name no front end. Outside a kernel, a terminal counts as a person.

    Returns:
        False whenever FGTOOLS_BATCH is set, and in every process of a distributed training but the first.
    """
    if os.environ.get("FGTOOLS_BATCH") or os.environ.get("RANK", "0") != "0":
        return False
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is None:
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"  # which cannot draw over a line
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:  # a saved version runs with nobody watching
        return os.environ["KAGGLE_KERNEL_RUN_TYPE"] == "Interactive"
    # Jupyter's server names the session, Colab its release, VS Code the notebook
    named = "JPY_SESSION_NAME" in os.environ or "COLAB_RELEASE_TAG" in os.environ
    return named or "__vsc_ipynb_file__" in shell.user_ns


def render_duration(seconds: float) -> str:
    """Return a time for people: "40 s", "26 min" or "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


KAGGLE_HOURS = 12
"""How long a session of a Kaggle notebook may last, with a GPU or without (TPU sessions: 9)."""


def is_on_kaggle() -> bool:
    """Return whether this process runs in a Kaggle notebook, interactive or saved."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def find_kaggle_inputs() -> Path | None:
    """Return the folder under which Kaggle mounts what is attached to a notebook; None elsewhere.

    Mounts beneath it have had more than one layout, such as `SLUG` and `notebooks/OWNER/SLUG`: search, and expect none.
    """
    mount = Path(os.environ.get("KAGGLE_CACHE_MOUNT_FOLDER", "/kaggle/input"))  # the variable is kagglehub's
    return mount if is_on_kaggle() and mount.is_dir() else None


def find_below(folder: Path, pattern: str, depth: int = 8) -> list[Path]:
    """Return the files below a folder whose name fits a pattern, sorted; links to folders are followed.

    Args:
        folder: Where to search.
        pattern: A pattern of names, such as "fgtools-*.whl".
        depth: Folders above a file, at most; keeps the search out of the depths of somebody's data set.
    """
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        if len(Path(place).relative_to(folder).parts) >= depth:
            folders.clear()
        found += [Path(place, name) for name in fnmatch.filter(names, pattern)]
    return sorted(found)


def track(items: Iterable[Item], total: int, label: str) -> Iterable[Item]:
    """Return the items in their order, with a progress bar when a person is watching.

    Args:
        items: What to iterate over.
        total: How many items there are.
        label: Text beside the bar.
    """
    from tqdm.auto import tqdm

    return tqdm(items, total=total, desc=label, disable=not is_watched())
