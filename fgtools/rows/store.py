"""Rows in memory and in files: kept as JSON lines with their keys, read from rows files, and checked.

Knows the fields of a row dict, and that rows.*.jsonl is what `prepare` writes and `train`, `evaluate` and `score` read;
builds no rows and no prompts. A file of another program or another version is rejected at its first row that is not
one, before any work is spent on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgtools.calls import MAX_DEPTH, nests_too_deep, render_calls, row_calls
from fgtools.files import DataFileError, read_jsonl
from fgtools.rows.duplicates import RowKey, build_key

Row = dict[str, Any]
"""A row: {"row_id", "source", "scenario", "group", "messages", "tools", "gold", "reply"}, see `build.build_rows`.

A held-out row that has a near duplicate on its side has "request_group" as well, see `splits`."""

REMEDY = "write it anew with `python -m fgtools prepare`, or notebook 2"


@dataclass(frozen=True, slots=True)
class PackedRow:
    """A row as JSON text without its row_id, which may still change, and its key."""

    row_id: str
    text: bytes
    key: RowKey


def pack_row(row: Row) -> PackedRow:
    """Return a row in its packed form."""
    rest = {name: value for name, value in row.items() if name != "row_id"}
    text = json.dumps(rest, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return PackedRow(row["row_id"], text, build_key(row))


class LazyRows(Sequence[Any]):
    """Rows that are read when they are asked for; a slice is again of this kind.

    Subclasses have `__len__`, `__iter__` and `select(indices)`, the rows at these positions in this order.
    """

    def __getitem__(self, index: Any) -> Any:
        chosen = range(len(self))[index]
        return self.select(chosen) if isinstance(index, slice) else next(iter(self.select([chosen])))


class PackedRows(LazyRows):
    """Rows kept as JSON text (`packed`), so that tens of thousands fit in memory and pass between processes.

    A row is decoded each time it is asked for; changing one changes nothing here.
    """

    def __init__(self, packed: Sequence[PackedRow]) -> None:
        """Take rows as `pack_row` returns them."""
        self.packed = packed

    def __len__(self) -> int:
        return len(self.packed)

    def __iter__(self) -> Iterator[Row]:
        return ({"row_id": row.row_id, **json.loads(row.text)} for row in self.packed)

    def select(self, indices: Sequence[int]) -> PackedRows:
        """Return some of the rows, in the order of `indices`; texts are shared, not copied."""
        return PackedRows([self.packed[index] for index in indices])

    def lines(self) -> Iterator[str]:
        """Yield every row as its line of a rows file, without the line break."""
        for row in self.packed:
            yield f'{{"row_id": {json.dumps(row.row_id, ensure_ascii=False)}, {row.text[1:].decode("utf-8")}'


def select_rows(rows: Sequence[Any], indices: Sequence[int]) -> Sequence[Any]:
    """Return some of the rows, in the order of `indices`: lazy rows as lazy rows, others as a tuple."""
    return rows.select(indices) if isinstance(rows, LazyRows) else tuple(rows[index] for index in indices)


def label_requests(rows: Sequence[Any], labels: Mapping[int, str]) -> Sequence[Any]:
    """Return rows of which some have a `request_group`, by which their scores are kept together.

    Args:
        rows: Rows, not changed; lazy ones stay lazy.
        labels: Position of a row -> its label.
    """
    if not labels:
        return rows
    if isinstance(rows, PackedRows):
        packed = enumerate(rows.packed)
        return PackedRows([_label_packed(row, labels[place]) if place in labels else row for place, row in packed])
    return tuple({**row, "request_group": labels[place]} if place in labels else row for place, row in enumerate(rows))


def _label_packed(packed: PackedRow, label: str) -> PackedRow:
    row = json.loads(packed.text) | {"request_group": label}
    return replace(packed, text=json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8"))


def collect_keys(rows: Sequence[Row]) -> Sequence[RowKey]:
    """Return the keys of rows: those that packed rows hold, built from the rows otherwise."""
    return [row.key for row in rows.packed] if isinstance(rows, PackedRows) else [build_key(row) for row in rows]


def load_rows(path: Path) -> list[Row]:
    """Read a rows file and check every row.

    Args:
        path: A rows.*.jsonl file.

    Returns:
        Its row dicts, at least one.

    Raises:
        DataFileError: The file is missing, malformed or empty, a row is not a row, or two rows have the same id; the
            message names the file and the row.
    """
    rows = read_jsonl(path)
    if not rows:
        raise DataFileError(f"{path} must hold at least one row, but it is empty: {REMEDY}")
    known: set[str] = set()
    for number, row in enumerate(rows, start=1):
        problem = find_row_problem(row)
        if not problem and row["row_id"] in known:
            problem = f"a row_id must be its row's own, but {row['row_id']!r} is there twice"
        if problem:
            raise DataFileError(f"{path}, row {number}: {problem}: {REMEDY}")
        known.add(row["row_id"])
    return rows


def find_row_problem(row: Mapping[str, Any]) -> str:
    """Return what keeps a mapping from being a row dict; "" for nothing."""
    messages, tools, gold = row.get("messages"), row.get("tools"), row.get("gold")
    if not _has_text(row, "row_id"):
        return f"row_id must be text, got {_describe(row, 'row_id')}"
    if not messages or not _is_list_of_mappings(messages):
        return f"messages must be a list of messages, got {_describe(row, 'messages')}"
    problem = next(filter(None, map(_find_message_problem, messages)), "")
    if problem:
        return problem
    if not _is_list_of_mappings(tools) or not all(_has_text(tool.get("function"), "name") for tool in tools):
        return f"tools must be a list of declarations with a function that has a name, got {_describe(row, 'tools')}"
    for name in ("tools", "messages"):
        if nests_too_deep(row[name]):
            return f"{name} must not nest deeper than {MAX_DEPTH} levels, but those of {row['row_id']!r} do"
    if not _is_list_of_mappings(gold) or any("name" not in call or "arguments" not in call for call in gold):
        return f"gold must be a list of calls with name and arguments, got {_describe(row, 'gold')}"
    try:
        render_calls(row_calls(row))
    except ValueError as error:
        return f"gold must be calls that the grammar can carry, but {error}"
    declared = {tool["function"]["name"] for tool in tools}
    undeclared = next((call["name"] for call in gold if call["name"] not in declared), None)
    if undeclared is not None:
        return f"gold must call declared tools, but {row['row_id']!r} calls {undeclared!r}, which is none of its tools"
    return ""


def _find_message_problem(message: Mapping[str, Any]) -> str:
    """Return what is wrong with a message: text of a role, a call with name and arguments, or a tool's result."""
    if message.get("role") == "tool":
        if isinstance(message.get("name"), str) and isinstance(message.get("content"), (str, Mapping)):
            return ""
        return f"a tool's message must have a name and content, text or a mapping, got {repr(dict(message))[:80]}"
    if not _has_text(message, "role", "content"):
        return f"a message must have a role and content, both text, got {repr(dict(message))[:80]}"
    calls = message.get("tool_calls", ())
    called = [call.get("function") for call in calls] if _is_list_of_mappings(calls) else [None]
    if all(_has_text(one, "name") and isinstance(one.get("arguments"), Mapping) for one in called):
        return ""
    return f"tool_calls must be a list of calls with a function's name and arguments, got {repr(calls)[:80]}"


def _describe(row: Mapping[str, Any], field: str) -> str:
    return repr(row[field])[:80] if field in row else "no such field"


def _is_list_of_mappings(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, Mapping) for one in value)


def _has_text(value: object, *fields: str) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(field), str) for field in fields)
