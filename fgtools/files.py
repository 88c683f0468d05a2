"""Files: written whole, hashed, read with the place of a fault named; and progress while a person waits.

Knows files, JSON and whether somebody is watching; not what rows, scores or models mean. Every file is written under a
temporary name and then renamed, so that a killed run never leaves half a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")


class DataFileError(ValueError):
    """A data file is missing or malformed; the message names the file and, where there is one, the line."""


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file whole: under a temporary name beside it, then renamed; makes the folder."""
    return write_parts(path, [content])


def write_parts(path: Path, parts: Iterable[bytes]) -> Path:
    """Write a file whole, part by part, as `write_bytes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text whole; a lone surrogate becomes its JSON escape."""
    return write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def replace_folder(new: Path, target: Path) -> Path:
    """Put a finished folder in the place of another one; the old one goes only once the new one stands.

    Args:
        new: The finished folder, on the same file system as `target`.
        target: Where it belongs.

    Returns:
        `target`.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
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
    try:
        value = json.loads(read_text(path))
    except ValueError as error:
        if isinstance(error, DataFileError):
            raise
        raise DataFileError(f"{path} must hold one JSON object, but reading it failed: {error}") from error
    if not isinstance(value, dict):
        raise DataFileError(f"{path} must hold one JSON object, got a {type(value).__name__}")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line; empty lines are passed over.

    Raises:
        DataFileError: The file is missing or unreadable, or a line is not a JSON object; the line is named.
    """
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataFileError(f"{path}, line {number}: must be a JSON object, but {error}: {line[:60]!r}") from error
        if not isinstance(row, dict):
            raise DataFileError(f"{path}, line {number}: must be a JSON object, got a {type(row).__name__}")
        rows.append(row)
    return rows


def read_text(path: Path) -> str:
    """Read UTF-8 text; raises DataFileError where the file is missing or is none."""
    if not path.is_file():
        raise DataFileError(f"the file {path} must exist, but it does not: check the path")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataFileError(f"{path} must be UTF-8 text, but byte {error.start} is not: convert the file") from error


def sha256_of(path: Path) -> str:
    """Give the sha256 of a file; of a folder, that of its files' names and hashes in order."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_watched() -> bool:
    """Tell whether progress bars make sense: not under papermill, nbval or a Kaggle batch run.

    Returns:
        False when FGTOOLS_BATCH is set (the command line and the tests set it), Kaggle runs the notebook unattended, or
        this is not the first of several processes.
    """
    alone = os.environ.get("RANK", "0") == "0"
    return alone and not os.environ.get("FGTOOLS_BATCH") and os.environ.get("KAGGLE_KERNEL_RUN_TYPE") != "Batch"


def track(items: Iterable[Item], total: int, label: str) -> Iterable[Item]:
    """Go through items, with a progress bar when a person is watching.

    Args:
        items: What to go through.
        total: How many there are.
        label: What the bar is called.

    Returns:
        The items, as they come.
    """
    from tqdm.auto import tqdm

    return tqdm(items, total=total, desc=label, disable=not is_watched())
