"""Raw rows in local files: JSON lines, JSON, Parquet and CSV, read one by one.

Knows files and encodings; not what a row means. JSON lines are indexed, not loaded: a row is read when it is asked for,
so that a data set may be larger than the memory. In a nested Arrow column every row has all keys, and those that its
author did not write are null; null values are dropped in such columns.
"""

from __future__ import annotations

import csv
import datetime
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fgtools.files import DataFileError, FgtoolsError, parse_line
from fgtools.rows.store import LazyRows

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_ROW_WORDS = {"messages", "conversations", "question", "query", "id"}
"""A JSON object with one of these is a row, not a file of rows."""

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
                    if not (body[mark : mark + 1] == b"{" and body.endswith(b"}")):
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
                yield parse_line(file.readline(), self.path, number)


class TableRows(LazyRows):
    """The rows of an Arrow table as plain values, made when they are asked for.

    A nested column does not say which keys its author wrote in a row: keys whose value is null are dropped there.

    Attributes:
        table: The pyarrow.Table.
        nested: Names of its columns in which rows may lack keys.
    """

    def __init__(self, table: Any) -> None:
        """Wrap a table; no value is copied."""
        import pyarrow.types as types

        self.table = table
        self.nested = [field.name for field in table.schema if _has_optional_keys(field.type, types)]
        self._json = {field.name: field.type for field in table.schema if "arrow.json" in str(field.type)}

    def __len__(self) -> int:
        return self.table.num_rows

    def select(self, indices: Sequence[int]) -> TableRows:
        """Return some of the rows, in the order of `indices`."""
        return TableRows(self.table.take(list(indices)))

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows one by one."""
        import pyarrow.types as types

        for batch in self.table.to_batches(max_chunksize=256):
            for row in batch.to_pylist():
                for column in self.nested:
                    row[column] = _without_null(row[column])
                for column, kind in self._json.items():  # a null in JSON text was written by its author
                    row[column] = _decode_json(row[column], kind, types)
                yield row


def open_local_rows(path: Path) -> list[tuple[str, Sequence[Any]]]:
    """Open the rows of a file, or of a folder's files in the order of their names.

    Args:
        path: A .jsonl, .json (one list, {"data": list} or JSON lines), .parquet or .csv file, or a folder of them.

    Returns:
        One (name without suffix, rows) per file.

    Raises:
        DataFileError: A file is malformed.
        SourceError: The folder holds no such file, or the suffix is unknown.
    """
    if not path.exists():
        raise SourceError(f"the file or folder {path} must exist, but it does not: check the path")
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise SourceError(f"the folder {path} must hold {', '.join(SUFFIXES)} files, but it holds none")
    return [(file.stem, _open_file(file)) for file in files]


def _open_file(path: Path) -> Sequence[Any]:
    if path.suffix == ".jsonl":
        return _with_answers(path, JsonLines(path))
    if path.suffix == ".json":
        return _with_answers(path, _load_json(path))
    if path.suffix == ".parquet":
        return _load_parquet(path)
    if path.suffix == ".csv":
        return _load_csv(path)
    raise SourceError(f"{path} must end in one of {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'!r}")


def _load_json(path: Path) -> Sequence[Any]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if str(error).startswith("Extra data"):  # JSON lines under another name
            return JsonLines(path)
        raise DataFileError(f"{path} must hold one JSON list of rows, but reading it failed: {error}") from error
    if isinstance(rows, dict):
        lists = [rows[name] for name in ("data", "rows", "train") if isinstance(rows.get(name), list)]
        rows = lists[0] if lists else [rows] if _ROW_WORDS & set(rows) else rows
    if not isinstance(rows, list):
        raise DataFileError(f"{path} must hold one JSON list of rows, got a {type(rows).__name__}")
    return rows


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


def _load_csv(path: Path) -> list[dict[str, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataFileError(f"{path} must be a CSV file in UTF-8 with a line of names, but {error}") from error
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise DataFileError(f"{path}, row {number}: must have as many fields as there are names: quote the commas")
    return [{name: value for name, value in row.items() if value not in (None, "")} for row in rows]


def _load_parquet(path: Path) -> TableRows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise DataFileError(f"{path} must be a Parquet file, but reading it failed: {error}") from error
    rows = TableRows(table)
    if rows.nested:
        print(f"{path.name}: nulls are dropped from {', '.join(rows.nested)}: Arrow fills missing keys with them")
    return rows


def _has_optional_keys(kind: Any, types: Any) -> bool:
    """Return whether rows of a column may lack keys; turns of {from, value} or {role, content} always have both."""
    if types.is_struct(kind):
        names = {kind.field(index).name for index in range(kind.num_fields)}
        plain = all(types.is_string(kind.field(index).type) for index in range(kind.num_fields))
        return not (plain and names in ({"from", "value"}, {"role", "content"}))
    if types.is_list(kind) or types.is_large_list(kind):
        return _has_optional_keys(kind.value_type, types)
    return False


def _decode_json(value: Any, kind: Any, types: Any) -> Any:
    """Decode the JSON text in a value of Arrow's JSON type, or in its parts, as datasets' Json feature makes them."""
    if value is None:
        return None
    if getattr(kind, "extension_name", "") == "arrow.json":
        return json.loads(value) if isinstance(value, str) else value
    if types.is_struct(kind):
        return {name: _decode_json(item, kind.field(name).type, types) for name, item in value.items()}
    if types.is_list(kind) or types.is_large_list(kind):
        return [_decode_json(item, kind.value_type, types) for item in value]
    return value


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()  # text that Arrow has turned into a date
    return value
