"""A tool call and a parsed reply.

Knows plain values only: no grammar, no schema, no gold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 100
"""Deepest nesting of lists and mappings in a call that is rendered or parsed."""


@dataclass(frozen=True)
class ToolCall:
    """A call of one tool.

    Attributes:
        name: The tool's name, as declared.
        arguments: Argument values by name; JSON values.
    """

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a text or a value.

    Attributes:
        kind: A short word. In a reply it is one of missing_name, missing_braces, unclosed_call, missing_end,
            malformed_call, unclosed_string, unquoted_string, duplicate_key, too_deep, args_not_json, white_space,
            stray_token.
        detail: What was found, in at most 80 characters.
    """

    kind: str
    detail: str


@dataclass(frozen=True)
class Reply:
    """A parsed reply of a model.

    Attributes:
        calls: The calls that could be parsed, in order.
        text: The text outside of calls, stripped, without stop tokens.
        problems: What was not in the grammar. A call with the problem unclosed_call, malformed_call, unclosed_string,
            missing_name or too_deep is not among `calls`.
    """

    calls: tuple[ToolCall, ...]
    text: str
    problems: tuple[Problem, ...]


def row_calls(row: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """Return the gold calls of a row dict; empty for a row whose right answer is no call."""
    return tuple(ToolCall(call["name"], call["arguments"]) for call in row["gold"])


def nests_too_deep(value: object) -> bool:
    """Return whether a part of a JSON value is nested deeper than MAX_DEPTH; the value itself has depth 0."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for one in level
            if isinstance(one, (Mapping, list, tuple))
            for item in (one.values() if isinstance(one, Mapping) else one)
        ]
        if not level:
            return False
    return True
