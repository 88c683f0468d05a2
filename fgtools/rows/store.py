"""Rows files, read and checked: what `prepare` writes and `train`, `evaluate` and `score` take.

Knows the fields of a row dict that these need; makes no rows (`rows`) and no prompts. A file that another program or
another version wrote is told by its first row that is not one, before any work is spent on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgtools.calls import MAX_DEPTH, nests_too_deep, render_calls, row_calls
from fgtools.files import DataFileError, read_jsonl

REMEDY = "write it anew with `python -m fgtools prepare`, or notebook 2"


def load_rows(path: Path) -> list[dict[str, Any]]:
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
        if problem:
            raise DataFileError(f"{path}, row {number}: {problem}: {REMEDY}")
        if row["row_id"] in known:
            twice = f"a row_id must be its row's own, but {row['row_id']!r} is there twice"
            raise DataFileError(f"{path}, row {number}: {twice}: {REMEDY}")
        known.add(row["row_id"])
    return rows


def find_row_problem(row: Mapping[str, Any]) -> str:
    """Say what keeps a mapping from being a row dict; "" for nothing."""
    if not isinstance(row.get("row_id"), str):
        return f"row_id must be text, got {_describe(row, 'row_id')}"
    messages = row.get("messages")
    if (
        not _is_list_of_mappings(messages)
        or not messages
        or any(not isinstance(one.get("role"), str) or not isinstance(one.get("content"), str) for one in messages)
    ):
        return (
            f"messages must be a list of messages with a role and content, both text, got {_describe(row, 'messages')}"
        )
    tools = row.get("tools")
    if not _is_list_of_mappings(tools) or any(not _is_declaration(tool) for tool in tools):
        return f"tools must be a list of declarations with a function that has a name, got {_describe(row, 'tools')}"
    if nests_too_deep(tools):
        return f"tools must not nest deeper than {MAX_DEPTH} levels, but those of {row['row_id']!r} do"
    gold = row.get("gold")
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


def _describe(row: Mapping[str, Any], field: str) -> str:
    return repr(row[field])[:80] if field in row else "no such field"


def _is_list_of_mappings(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, Mapping) for one in value)


def _is_declaration(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function")
    return isinstance(function, Mapping) and isinstance(function.get("name"), str)
