"""Content parts of messages: what one part of a list is, and the text, call or result in it.

Knows the parts of OpenAI (chat and responses), Anthropic, Bedrock, Gemini and Vercel's AI SDK; not whole messages. A
part is told by its `type` or, where it has none, by the name of its field: {"text"}, {"toolUse"}, {"functionCall"}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgtools.schema.literals import decode_json

_KINDS = {
    **dict.fromkeys(("text", "input_text", "output_text", "refusal", "json"), "text"),
    **dict.fromkeys(("thinking", "redacted_thinking", "reasoning", "reasoning_content", "thought"), "reasoning"),
    **dict.fromkeys(("step_start", "step_finish", "cache_point"), "step"),
    **dict.fromkeys(("tool_use", "tool_call", "function_call", "function", "tool_invocation"), "call"),
    **dict.fromkeys(("dynamic_tool", "mcp_call", "mcp_tool_use", "server_tool_use", "custom_tool_call"), "call"),
    **dict.fromkeys(("tool_result", "tool_response", "function_response", "tool_output", "function_result"), "result"),
    **dict.fromkeys(("function_call_output", "custom_tool_call_output", "mcp_tool_result"), "result"),
}
_UI_CALL = re.compile(r"tool-(?!call$|result$|invocation$|use$|response$|output$)(.+)", re.DOTALL)
_WORD_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])|[\s\-_]+")
_NAMES = ("name", "toolName", "tool_name", "function_name", "tool")
_ARGUMENTS = ("input", "args", "arguments", "parameters")
_RESULTS = ("output", "result", "content", "response", "text", "errorText")


@dataclass(frozen=True)
class Part:
    """One content part.

    Attributes:
        kind: text, call, result, reasoning, step (a mark between steps), or "" for anything else.
        value: The text, the call as {"name", "arguments"} where it has a name, or the result; else None.
        result: The result that stands beside a call (Vercel), or None.
    """

    kind: str
    value: Any = None
    result: Any = None


def normalize_word(word: Any) -> str:
    """Return a role or type in lower case with underscores: "Function Call", "function-call" and "functionCall" agree.

    Args:
        word: The word; anything that is no text gives "".
    """
    return "_".join(part for part in _WORD_BREAK.split(word.strip()) if part).lower() if isinstance(word, str) else ""


def parse_part(part: Mapping[str, Any]) -> Part:
    """Parse one content part.

    Args:
        part: A mapping; fields that are null count as absent, since tables fill all parts up with them.

    Returns:
        The Part.
    """
    given = {name: value for name, value in part.items() if value is not None}
    word = given.get("type") if isinstance(given.get("type"), str) else ""
    named = _UI_CALL.fullmatch(word)
    kind, inner = ("call", given) if named else _find_kind(word, given)
    if kind == "text":
        return Part("reasoning") if given.get("thought") is True else _parse_text(given)
    if kind == "call":
        has_result = bool(named) or normalize_word(word) in ("tool_invocation", "dynamic_tool", "mcp_call")
        result = _first_of(inner, "output", "result", "errorText") if has_result else None
        return Part("call", normalize_call(inner, named[1] if named else ""), result)
    if kind == "result":
        return Part("result", _result_value(inner))
    return Part(kind)


def normalize_call(call: Any, name: str = "") -> Any:
    """Return a provider's call as {"name", "arguments"}.

    Args:
        call: The call; OpenAI's {"function": {...}} and what has no name is returned as it is.
        name: Its name, where it is told elsewhere.

    Returns:
        The call; arguments given as text are decoded where that is possible.
    """
    if not isinstance(call, Mapping) or isinstance(call.get("function"), Mapping):
        return call
    name = name or next((call[field] for field in _NAMES if isinstance(call.get(field), str)), "")
    given = [field for field in _ARGUMENTS if call.get(field) is not None]
    if not name or len(given) > 1:
        return call
    return {"name": name, "arguments": decode_json(call[given[0]]) if given else {}}


def _find_kind(word: str, given: Mapping[str, Any]) -> tuple[str, Any]:
    """Return what a part is, and the value that holds its call or result."""
    if word:
        inner = given.get("toolInvocation")
        return _KINDS.get(normalize_word(word), ""), inner if isinstance(inner, Mapping) else given
    found = next((field for field in given if normalize_word(field) in _KINDS), None)
    if found is None:
        return "", given
    inner = given[found]
    return _KINDS[normalize_word(found)], inner if isinstance(inner, Mapping) else given


def _parse_text(given: Mapping[str, Any]) -> Part:
    found = _first_of(given, "text", "refusal", "json", "content", "value")
    if isinstance(found, Mapping) and isinstance(found.get("value"), str):  # OpenAI's assistants
        found = found["value"]
    return Part("text", found)


def _result_value(result: Any) -> Any:
    found = _first_of(result, *_RESULTS) if isinstance(result, Mapping) else result
    if isinstance(found, Mapping) and isinstance(found.get("type"), str) and "value" in found:
        return found["value"]  # Vercel's {"type": "json", "value"}
    return found


def _first_of(fields: Any, *names: str) -> Any:
    found = fields if isinstance(fields, Mapping) else {}
    return next((found[name] for name in names if found.get(name) is not None), None)
