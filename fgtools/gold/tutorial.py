"""The call that the published tutorial takes as a row's gold, result for result, weaknesses included.

Knows nothing of the native rules. It exists so that figures can be compared with the tutorial's. Where the tutorial's
code stops with an error, TutorialError is raised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fgtools.calls import ToolCall
from fgtools.files import FgtoolsError

_USER_ROLES = frozenset({"human", "user"})
_ASSISTANT_ROLES = frozenset({"gpt", "assistant", "model"})
_BLOCK = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


class TutorialError(FgtoolsError, ValueError):
    """A row on which the tutorial's own code stops with an error."""


def extract_tutorial_gold(row: Mapping[str, Any]) -> tuple[ToolCall, int] | None:
    """Find the call that the tutorial takes as a row's gold.

    Args:
        row: A raw row.

    Returns:
        The call, its arguments as found (they need not be a mapping), and the index of the user turn that was taken for
        the task's; None where the tutorial finds no call.

    Raises:
        TutorialError: The row is such that the tutorial's code raises.
    """
    turns = row.get("conversations")
    if not isinstance(turns, (list, tuple)) or not all(isinstance(turn, Mapping) for turn in turns):
        raise TutorialError("conversations must be a list of mappings with from and value")
    roles = [_text_of(turn, "from").lower().strip() for turn in turns]
    start = _find_user_turn(row, turns, roles)
    if start is None:
        return None
    for index in range(start + 1, len(turns)):
        if roles[index] in _USER_ROLES:
            return None
        if roles[index] in _ASSISTANT_ROLES:
            call = _parse_first_block(_text_of(turns[index], "value"))
            if call is not None:
                return call, start
    return None


def _find_user_turn(row: Mapping[str, Any], turns: Sequence[Mapping[str, Any]], roles: list[str]) -> int | None:
    users = [index for index, role in enumerate(roles) if role in _USER_ROLES]
    task = _text_of(row, "task").strip()
    if task:
        for index in users:
            value = _text_of(turns[index], "value").strip()
            if value == task or task in value or value in task:
                return index
    return users[-1] if users else None


def _parse_first_block(text: str) -> ToolCall | None:
    match = _BLOCK.search(text)
    if not match:
        return None
    try:
        call = json.loads(match.group(1))
    except (ValueError, RecursionError):
        return None
    found = isinstance(call, dict) and "name" in call and "arguments" in call
    return ToolCall(call["name"], call["arguments"]) if found else None


def _text_of(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TutorialError(f"{name} must be text, got {type(value).__name__}")
    return value
