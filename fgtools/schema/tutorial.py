"""The published tutorial's reading of tools, gold calls and rows, result for result, weaknesses included.

Knows nothing of the native reading. It exists so that figures can be compared with the tutorial's; where the tutorial
raises, these functions raise TutorialError, and they never change their arguments (the tutorial does).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgtools.files import FgtoolsError

USER_ROLES = frozenset({"human", "user"})
ASSISTANT_ROLES = frozenset({"gpt", "assistant", "model"})

_WORDS = {
    "str": "string",
    "string": "string",
    "int": "integer",
    "integer": "integer",
    "float": "number",
    "number": "number",
    "bool": "boolean",
    "boolean": "boolean",
    "dict": "object",
    "object": "object",
    "list": "array",
    "array": "array",
}
_LIST = re.compile(r"List\[(.+)\]")
_DICT = re.compile(r"Dict\[(.+),(.+)\]")  # greedy: splits at the last comma
_BLOCK = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


class TutorialError(FgtoolsError, ValueError):
    """A row on which the tutorial's own code stops with an error."""


@dataclass(frozen=True)
class TutorialGold:
    """The tutorial's gold call.

    Attributes:
        name: As found; text in any sane row.
        arguments: As found, not necessarily a mapping.
        turn: Index of the user turn that was taken for the task's.
    """

    name: Any
    arguments: Any
    turn: int


def tutorial_type(raw: Any) -> dict[str, Any]:
    """Give the schema the tutorial makes of a parameter's type."""
    if isinstance(raw, Mapping):
        return copy.deepcopy(dict(raw)) if "type" in raw else {"type": "object"}
    if isinstance(raw, list):
        return {"type": "array"}
    if not isinstance(raw, str):
        return {"type": "string"}
    text = raw.strip()
    if text.lower() in _WORDS:
        return {"type": _WORDS[text.lower()]}
    if match := _LIST.fullmatch(text):
        return {"type": "array", "items": tutorial_type(match.group(1))}
    if match := _DICT.fullmatch(text):
        return {"type": "object", "additionalProperties": tutorial_type(match.group(2))}
    return {"type": "string"}


def tutorial_tools(raw: Any) -> list[dict[str, Any]]:
    """Give the function schemas the tutorial makes of a row's tools field; a fresh list, `raw` is left alone."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw.strip())
        except (ValueError, RecursionError):
            return []
    if not isinstance(raw, list):
        return []
    return [_tool(tool) for tool in raw if isinstance(tool, Mapping)]


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {
        "name": copy.deepcopy(tool.get("name")),
        "description": copy.deepcopy(tool.get("description", "")),
        "parameters": _parameters(tool.get("parameters")),
    }
    return {"type": "function", "function": function}


def _parameters(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raw = {}
    if "type" in raw and "properties" in raw:
        return copy.deepcopy({**raw, "required": raw["required"]} if "required" in raw else {**raw, "required": []})
    properties = {name: _property(spec) for name, spec in raw.items()}
    return {"type": "object", "properties": properties, "required": list(raw)}


def _property(spec: Any) -> dict[str, Any]:
    if spec is None:
        spec = {}
    if not isinstance(spec, Mapping):
        return {"type": "string"}
    schema = tutorial_type(spec.get("type", "str"))
    if spec.get("description"):
        schema["description"] = copy.deepcopy(spec["description"])
    return schema


def tutorial_gold(row: Mapping[str, Any]) -> TutorialGold | None:
    """Find the call the tutorial takes as a row's gold.

    Args:
        row: A raw row.

    Returns:
        The call, or None where the tutorial finds none.

    Raises:
        TutorialError: The row is shaped so that the tutorial's code raises.
    """
    turns = row.get("conversations")
    if not isinstance(turns, (list, tuple)) or not all(isinstance(turn, Mapping) for turn in turns):
        raise TutorialError("conversations must be a list of mappings with from and value")
    roles = [_lowered(turn.get("from")) for turn in turns]
    start = _user_turn(row, turns, roles)
    if start is None:
        return None
    for index in range(start + 1, len(turns)):
        if roles[index] in USER_ROLES:
            return None
        if roles[index] in ASSISTANT_ROLES:
            call = _first_block(_text(turns[index].get("value"), "value"))
            if call is not None:
                return TutorialGold(call["name"], call["arguments"], start)
    return None


def _user_turn(row: Mapping[str, Any], turns: Any, roles: list[str]) -> int | None:
    users = [index for index, role in enumerate(roles) if role in USER_ROLES]
    task = _text(row.get("task"), "task").strip()
    if task:
        for index in users:
            value = _text(turns[index].get("value"), "value").strip()
            if value == task or task in value or value in task:
                return index
    return users[-1] if users else None


def _first_block(text: str) -> dict[str, Any] | None:
    match = _BLOCK.search(text)
    if not match:
        return None
    try:
        call = json.loads(match.group(1))
    except (ValueError, RecursionError):
        return None
    return call if isinstance(call, dict) and "name" in call and "arguments" in call else None


def tutorial_row(row: Mapping[str, Any], gold: TutorialGold) -> dict[str, Any] | str:
    """Make the tutorial's row of a raw row and its gold call.

    Args:
        row: A raw row.
        gold: What `tutorial_gold` found in it.

    Returns:
        {"user_content", "tool_name", "tool_arguments", "hf_tools"} with the arguments as a mapping (the tutorial
        writes them as JSON text), or the reason the row is left out: "no_tools" or "unknown_tool".

    Raises:
        TutorialError: The tutorial's code raises here.
    """
    tools = tutorial_tools(row.get("tools"))
    if not tools:
        return "no_tools"
    try:
        required = {tool["function"]["name"]: tool["function"]["parameters"]["required"] for tool in tools}
        if gold.name not in required:
            return "unknown_tool"
        erased = not required[gold.name]  # the tutorial's rule: nothing required, no arguments
    except TypeError as error:
        raise TutorialError(f"a tool name must be hashable: {error}") from error
    arguments = copy.deepcopy(gold.arguments) if isinstance(gold.arguments, dict) and not erased else {}
    return {
        "user_content": _text(row.get("task"), "task"),
        "tool_name": gold.name,
        "tool_arguments": arguments,
        "hf_tools": tools,
    }


def _lowered(role: Any) -> str:
    return _text(role, "from").lower().strip()


def _text(value: Any, field: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TutorialError(f"{field} must be text, got {type(value).__name__}")
    return value
