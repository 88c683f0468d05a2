"""Single rows: which are worth looking at, and how they are shown.

Knows rows, replies and scores; computes no score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from fgtools.calls import ToolCall, parse_reply, row_calls
from fgtools.metrics import Scores, score_row
from fgtools.metrics.scores import require_same_ids
from fgtools.report.tables import RIGHT

LIMIT = 400
"""Longest text of a cell, in characters; the rest is left out."""


def select_examples(scores: Scores) -> list[int]:
    """Choose one row of every kind of error, the commonest kind first: the first row in which it occurs.

    Args:
        scores: The scores.

    Returns:
        Indices into the scored rows; [] where every row is right.
    """
    codes = [row.error for row in scores.rows]
    return [codes.index(code) for code in scores.errors]


def select_worse(before: Scores, after: Scores, limit: int = 8) -> list[int]:
    """Choose rows to look at after training: those that got worse first, then examples of what is still wrong.

    Args:
        before: Scores of the first model.
        after: Scores of the second one, of the same rows in the same order.
        limit: Largest number of rows.

    Returns:
        Indices into the scored rows.

    Raises:
        ValueError: The rows are not the same in the same order.
    """
    require_same_ids(*([row.row_id for row in scores.rows] for scores in (before, after)))
    pairs = zip(before.rows, after.rows, strict=True)
    worse = [index for index, (old, new) in enumerate(pairs) if old.ast_match and not new.ast_match]
    return list(dict.fromkeys([*worse, *select_examples(after)]))[:limit]


def build_inspection_table(
    rows: Sequence[Mapping[str, Any]], replies: Sequence[str], indices: Sequence[int], style: str = "native"
) -> pandas.DataFrame:
    """Return single rows: request with the calls and results that followed it, predicted call, gold, verdict.

    Args:
        rows: Row dicts.
        replies: One reply a row.
        indices: Which rows, from 0; those beyond the last row are left out.
        style: Call grammar of the replies.

    Returns:
        One row an index; `verdict` is an error code or RIGHT.
    """
    chosen = [index for index in indices if 0 <= index < len(rows)]
    return pandas.DataFrame(
        [_inspect(index, rows[index], replies[index], style) for index in chosen],
        columns=["row", "row_id", "request", "predicted", "gold", "verdict"],
    )


def _inspect(index: int, row: Mapping[str, Any], reply: str, style: str) -> tuple[Any, ...]:
    users = [place for place, message in enumerate(row["messages"]) if message["role"] == "user"]
    asked = row["messages"][users[-1] :] if users else []  # the request, and the calls and results that followed it
    calls = parse_reply(reply, style).calls
    predicted = render_plain_calls(calls) if calls else f"(no call) {reply}"
    wanted = render_plain_calls(row_calls(row)) or "(no call)"
    verdict = score_row(row, reply, style).error or RIGHT
    return (
        index,
        str(row["row_id"]),
        _cut("\n".join(map(render_message, asked))),
        _cut(predicted),
        _cut(wanted),
        verdict,
    )


def render_plain_calls(calls: Sequence[ToolCall]) -> str:
    """Return calls as people read them, one a line: name(argument=JSON value, ...)."""
    lines = []
    for call in calls:
        arguments = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
        lines.append(f"{call.name}({', '.join(arguments)})")
    return "\n".join(lines)


def render_message(message: Mapping[str, Any]) -> str:
    """Return a message as people read it: its text, then its calls; of a tool's message the name and the result."""
    content = message.get("content") or ""
    shown = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    if message["role"] == "tool":
        return f"{message.get('name', '')} → {shown}"
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    calls = render_plain_calls([ToolCall(one["name"], one["arguments"]) for one in functions])
    return "\n".join(part for part in (shown, calls) if part)


def _cut(text: str) -> str:
    return text if len(text) <= LIMIT else text[: LIMIT - 1] + "…"
