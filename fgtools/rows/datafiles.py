"""Raw rows in local files: JSON lines, JSON, CSV, Parquet and Arrow, read one by one.

Knows files and folders; not what a row means. Tables are read by `arrow` and `csvfiles`. JSON lines are indexed, not
loaded: a row is read when it is asked for, so that a data set may be larger than the memory. A line that is longer than
MAX_LINE is not parsed: its row says so, and is counted as too long.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fgtools.files import DataFileError, FgtoolsError, name_file, parse_line
from fgtools.rows.arrow import TableRows, load_arrow, load_parquet, load_saved_dataset
from fgtools.rows.csvfiles import decode_bytes, load_csv
from fgtools.rows.fields import MAX_TEXT, TOO_LONG
from fgtools.rows.store import LazyRows

__all__ = ["SUFFIXES", "JsonLines", "SourceError", "TableRows", "find_suffix", "open_local_rows"]

_PLAIN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SUFFIXES = (*_PLAIN, *(f"{suffix}.gz" for suffix in _PLAIN), ".parquet", ".arrow")
"""Endings of data files, in capitals too."""

MAX_LINE = MAX_TEXT
"""Most bytes of a line that is parsed."""

_MAX_UNPACKED = 4 * 1024**3
"""Most bytes that a packed file may unpack to."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")

_ROW_WORDS = {"messages", "conversations", "question", "query", "id", "request", "prompt", "instruction", "contents"}
"""A JSON object with one of these is a row, not a file of rows."""

_NOT_DATA = {"dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "package.json"}
"""JSON files beside data that describe it."""

ANSWERS = "possible_answer"
"""BFCL keeps the answers to a file of questions in a file of the same name in this folder beside it."""


class SourceError(FgtoolsError, ValueError):
    """The data cannot be found or loaded; the message says what to do."""


class JsonLines(LazyRows):
    """The rows of a JSON-lines file, read when they are asked for."""

    def __init__(self, path: Path, lines: Sequence[tuple[int, int]] | None = None) -> None:
        """Take the lines at these (first byte, line number), or all; lines that look broken are parsed at once."""
        self.path = path
        self._lines = self._find_lines() if lines is None else lines

    def _find_lines(self) -> list[tuple[int, int]]:
        found, position = [], 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                body = line.strip()
                if body:
                    mark = len(_BYTE_ORDER_MARK) if position == 0 and body.startswith(_BYTE_ORDER_MARK) else 0
                    looks_whole = body[mark : mark + 1] == b"{" and body.endswith(b"}")
                    if not looks_whole and len(body) <= MAX_LINE:
                        parse_line(line[mark:], self.path, number)  # raises now, not halfway through
                    found.append((position + mark, number))
                position += len(line)
        return found

    def __len__(self) -> int:
        return len(self._lines)

    def select(self, indices: Sequence[int]) -> JsonLines:
        """Return some of the rows, in the order of `indices`."""
        return JsonLines(self.path, [self._lines[index] for index in indices])

    def __iter__(self) -> Iterator[Any]:
        """Read the rows one by one; raises DataFileError for a line that is not a JSON object in UTF-8."""
        with self.path.open("rb") as file:
            for start, number in self._lines:
                file.seek(start)
                line = file.readline(MAX_LINE + 2)
                yield parse_line(line, self.path, number) if len(line) <= MAX_LINE + 1 else _too_long(number)


def _too_long(number: int) -> dict[str, Any]:
    return {"row_id": f"line {number}", TOO_LONG: f"line {number} is longer than {MAX_LINE:,} bytes"}


def find_suffix(path: Path) -> str:
    """Return the ending of a data file in small letters, such as ".jsonl.gz"; "" where it has none of SUFFIXES."""
    name = path.name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def open_local_rows(path: Path) -> list[tuple[str, Sequence[Any]]]:
    """Open the rows of a file, or of a folder's files in the order of their names.

    Args:
        path: A file with one of SUFFIXES (.json: one list, {"data": list} or JSON lines), a folder of them, or a folder
            that datasets' save_to_disk wrote. What else is in a folder is skipped, which is said.

    Returns:
        One (name without suffix, rows) per file.

    Raises:
        DataFileError: A file is malformed.
        SourceError: There is no such file, it is a device or a pipe, the folder holds no data file, or the suffix is
            unknown.
    """
    if not path.exists():
        raise SourceError(f"the file or folder {path} must exist, but it does not: check the path")
    if not path.is_dir():
        if not path.is_file():
            raise SourceError(
                f"{path} must be a file or a folder, but it is a pipe or a device: write it to a file first"
            )
        return [(_stem_of(path), _open_file(path))]
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return [(path.name, load_saved_dataset(path))]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if find_suffix(entry) and entry.is_file() and entry.name not in _NOT_DATA]
    skipped = [entry.name for entry in entries if entry not in files and entry.name != ANSWERS]
    if not files:
        inner = [entry.name for entry in entries if entry.is_dir() and any(map(find_suffix, entry.iterdir()))]
        hint = f": its folder {inner[0]} holds some, give that one" if inner else ""
        raise SourceError(f"the folder {path} must hold {', '.join(SUFFIXES)} files, but it holds none{hint}")
    opened = []
    for file in files:
        try:
            opened.append((_stem_of(file), _open_file(file)))
        except _NoRowsError:
            skipped.append(file.name)
    if not opened:
        raise SourceError(f"the folder {path} must hold files of rows, but {', '.join(skipped)} are none")
    if skipped:
        print(f"{path.name}: skipped {', '.join(sorted(skipped))}, which hold no rows")
    return opened


class _NoRowsError(DataFileError):
    """A JSON file whose one object is no list of rows."""


def _stem_of(path: Path) -> str:
    return path.name[: -len(find_suffix(path))] or path.name


def _open_file(path: Path) -> Sequence[Any]:
    suffix = find_suffix(path)
    plain = suffix.removesuffix(".gz")
    if plain in (".jsonl", ".ndjson"):
        return _with_answers(path, _load_lines(path, packed=suffix != plain))
    if plain == ".json":
        return _with_answers(path, _load_json(path))
    if plain in (".csv", ".tsv"):
        return load_csv(path, _read_bytes(path), "\t" if plain == ".tsv" else "")
    if plain == ".parquet":
        return load_parquet(path)
    if plain == ".arrow":
        return load_arrow(path)
    raise SourceError(f"{path} must end in one of {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'!r}")


def _read_bytes(path: Path) -> bytes:
    """Return the content of a file, unpacked where it is packed."""
    with name_file(path, "read"):
        if not path.name.lower().endswith(".gz"):
            return path.read_bytes()
        try:
            with gzip.open(path) as file:
                data = file.read(_MAX_UNPACKED + 1)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataFileError(f"{path} must be packed with gzip, but unpacking it failed: {error}") from error
    if len(data) > _MAX_UNPACKED:
        raise DataFileError(f"{path} must unpack to at most {_MAX_UNPACKED:,} bytes: unpack and split it")
    return data


def _load_lines(path: Path, packed: bool) -> Sequence[Any]:
    """Return the rows of JSON lines: read in place, or at once where the file is packed or UTF-16."""
    with name_file(path, "read"), path.open("rb") as file:
        start = file.read(2)
    if not packed and start not in _UTF_16_MARKS:
        return JsonLines(path)
    lines = decode_bytes(path, _read_bytes(path)).encode().split(b"\n")
    return [
        parse_line(line, path, number) if len(line) <= MAX_LINE else _too_long(number)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _load_json(path: Path) -> Sequence[Any]:
    text = decode_bytes(path, _read_bytes(path))
    if not text.strip():
        return []
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        if str(error).startswith("Extra data"):  # JSON lines under another name
            return _load_lines(path, packed=path.name.lower().endswith(".gz"))
        raise DataFileError(f"{path} must hold one JSON list of rows, but reading it failed: {error}") from error
    if isinstance(rows, dict):
        lists = [rows[name] for name in ("data", "rows", "train") if isinstance(rows.get(name), list)]
        rows = lists[0] if lists else [rows] if _ROW_WORDS & set(rows) else rows
    if not isinstance(rows, list):
        raise _NoRowsError(f"{path} must hold one JSON list of rows, got a {type(rows).__name__}")
    return [row["row"] if isinstance(row, dict) and {"row_idx", "row"} <= set(row) else row for row in rows]


def _with_answers(path: Path, rows: Sequence[Any]) -> Sequence[Any]:
    """Add BFCL's answers, which are in a separate file, to the questions with the same id."""
    answers = path.parent / ANSWERS / path.name
    if path.parent.name == ANSWERS or not answers.is_file():
        return rows
    truths = {row["id"]: row for row in _load_json(answers) if isinstance(row, dict) and isinstance(row.get("id"), str)}
    return [
        {**truths[row["id"]], **row}
        if isinstance(row, dict) and isinstance(row.get("id"), str) and row["id"] in truths
        else row
        for row in rows
    ]
