"""Decoded values as calls: {"name", "arguments"} under the names that data sets use for these two.

Knows values and the declared tools, not text. Data sets call the name `function`, `tool_name` or `action`, and the
arguments `parameters`, `input` or `kwargs`, or put them beside the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fgtools.calls import Problem, ToolCall
from fgtools.gold.declared import DeclaredTools
from fgtools.schema.literals import decode_text, plain_value, show

_NAME_WORDS = ("name", "function", "tool_name", "function_name", "toolName", "functionName", "tool", "action")
_NAME_WORDS += ("api_name", "recipient_name", "api", "method", "func", "command")

_ARGUMENT_WORDS = ("arguments", "parameters", "args", "input", "params", "parameter", "param", "kwargs", "inputs")
_ARGUMENT_WORDS += ("tool_input", "tool_args", "tool_arguments", "tool_parameters", "function_args", "action_input")
_ARGUMENT_WORDS += ("function_arguments", "function_parameters", "argument", "toolInput", "functionArgs")

_LIST_WORDS = ("tool_calls", "toolCalls", "function_calls", "tool_uses", "calls")
_WRAPPERS = ("function", "function_call", "functionCall", "tool_call", "toolCall", "toolUse", "tool_use", "call")

_BOOKKEEPING = frozenset(
    {"id", "type", "index", "call_id", "callId", "tool_call_id", "toolCallId", "tool_use_id", "toolUseId", "status"}
    | {"state", "description", "thought", "thoughts", "reasoning", "explanation", "rationale", "label", "cache_control"}
)
"""Fields beside a name that are no arguments, unless the tool declares them and there are no others."""

Found = ToolCall | Problem


def parse_calls(value: Any, tools: DeclaredTools) -> list[Found]:
    """Return the calls of a decoded value.

    Args:
        value: A call, a list of calls, a wrapper of either, or text of these; anything.
        tools: The row's tools, for arguments that stand beside the name.

    Returns:
        At least one item for a value that is not an empty list: its calls, and a Problem (broken_call) for every part
        that is none, or whose arguments were not understood.
    """
    try:
        value = decode_text(value)
    except ValueError:
        return [_broken(value)]
    if isinstance(value, (list, tuple)):
        parsed = [parse_calls(item, tools) if isinstance(item, (Mapping, str)) else [_broken(item)] for item in value]
        return [found for items in parsed for found in items]
    if not isinstance(value, Mapping):
        return [_broken(value)]
    listed = next((value[word] for word in _LIST_WORDS if isinstance(value.get(word), (list, tuple))), None)
    if listed is not None:
        return parse_calls(listed, tools)
    inner = next((value[word] for word in _WRAPPERS if isinstance(value.get(word), Mapping)), None)
    if inner is not None and not isinstance(value.get("name"), str):
        return parse_calls(inner, tools)
    return _parse_call(value, tools)


def find_calls(value: Any, tools: DeclaredTools, depth: int = 0) -> list[Any]:
    """Return the parts of a decoded value that are meant as calls: itself, or calls of declared tools inside it.

    Args:
        value: Anything.
        tools: The row's tools.
        depth: How many lists and mappings of the whole enclose it; calls are looked for down to the fourth level.
    """
    if is_call(value, tools) and (not depth or _find_name(value, tools)[1] in tools.parameters):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [call for item in inner for call in find_calls(item, tools, depth + 1)] if depth < 4 else []


def is_call(value: Any, tools: DeclaredTools) -> bool:
    """Return whether a decoded value is meant as a call or calls; an answer written in JSON is not.

    A call names a declared tool, or has a name and arguments and nothing else.

    Args:
        value: Anything.
        tools: The row's tools.
    """
    if isinstance(value, (list, tuple)):
        return any(is_call(item, tools) for item in value if isinstance(item, (Mapping, list, tuple)))
    if not isinstance(value, Mapping):
        return False
    if any(isinstance(value.get(word), (list, tuple)) and is_call(value[word], tools) for word in _LIST_WORDS):
        return True
    if any(isinstance(value.get(word), Mapping) and is_call(value[word], tools) for word in _WRAPPERS):
        return True
    word, name = _find_name(value, tools)
    given = {key for key in value if key not in _BOOKKEEPING and key != word}
    if name in tools.parameters:  # without arguments it may only describe the tool
        return bool(given) or not ({"description", "label"} & value.keys())
    is_pair = (
        len(given) == 1 and bool(given & set(_ARGUMENT_WORDS[:3])) and isinstance(value[next(iter(given))], Mapping)
    )
    return (bool(word) and is_pair) or _is_named_by_key(value, tools)


def _is_named_by_key(value: Mapping[str, Any], tools: DeclaredTools) -> bool:
    """Return whether the keys are declared tools, and their values arguments: {"get_weather": {"city": "Oslo"}}."""
    return bool(value) and all(key in tools.parameters and isinstance(item, Mapping) for key, item in value.items())


def _parse_call(value: Mapping[str, Any], tools: DeclaredTools) -> list[Found]:
    word, name = _find_name(value, tools)
    if not word:
        if _is_named_by_key(value, tools):
            return [ToolCall(key, plain_value(item)) for key, item in value.items()]
        return [_broken(value)]
    try:
        return [ToolCall(name, _find_arguments(value, word, name, tools))]
    except ValueError as error:
        return [Problem("broken_call", f"{name}: {error}"[:80])]


def _find_name(value: Mapping[str, Any], tools: DeclaredTools) -> tuple[str, str]:
    """Return the field of the name and the name; of several the one that names a declared tool, and "" for none."""
    words = [word for word in _NAME_WORDS if isinstance(value.get(word), str) and value[word].strip()]
    if not words:
        return "", ""
    word = words[0]
    if len(words) > 1:
        word = next((one for one in words if tools.resolve(value[one]) in tools.parameters), word)
    return word, tools.resolve(value[word])


def _find_arguments(value: Mapping[str, Any], word: str, name: str, tools: DeclaredTools) -> dict[str, Any]:
    """Return the arguments of a call; raises ValueError where something stands there that was not understood."""
    rest = {key: item for key, item in value.items() if key != word and item is not None}
    words = [key for key in rest if key in _ARGUMENT_WORDS]
    others = [key for key in rest if key not in words and key not in _BOOKKEEPING]
    if not others and words in (["arguments"], ["parameters"]):  # by far the most calls
        return plain_value(_as_arguments(rest[words[0]], {}))
    declared = tools.parameters.get(name, {}) if rest else {}
    fields = {key: _as_arguments(rest[key], declared, key) for key in words}
    filled = [arguments for arguments in fields.values() if arguments]
    beside = [key for key in rest if key in declared and fields.get(key) is None and key not in _BOOKKEEPING]
    if filled:
        if beside or any(arguments != filled[0] for arguments in filled):
            raise ValueError(f"arguments in several fields: {sorted((*fields, *beside))}")
        return plain_value(filled[0])
    unknown = [key for key in others if key not in declared]
    if unknown:
        raise ValueError(f"fields that are no arguments of the tool: {sorted(unknown)}")
    if not words:  # then the tool's own parameters may be called as bookkeeping is
        beside = [key for key in rest if key in declared and not (key == "type" and rest[key] == "function")]
    return plain_value({key: rest[key] for key in beside})


def _as_arguments(raw: Any, declared: Mapping[str, Any], word: str = "") -> dict[str, Any] | None:
    """Return the arguments in a field: a mapping, text of one up to twice, or a list of {"name", "value"}.

    Args:
        raw: The field's value; blank text and [] mean no arguments.
        declared: The tool's parameters.
        word: The field's name.

    Returns:
        The arguments; None where the field is itself an argument, since the tool declares one of its name.

    Raises:
        ValueError: It is neither.
    """
    try:
        value = {} if raw is None or (isinstance(raw, str) and not raw.strip()) else decode_text(raw)
    except ValueError:
        if word in declared:
            return None
        raise
    if isinstance(value, (list, tuple)) and all(
        isinstance(item, Mapping) and item.keys() == {"name", "value"} and isinstance(item["name"], str)
        for item in value
    ):
        value = {item["name"]: item["value"] for item in value}
    if word in declared and not (isinstance(value, Mapping) and value.keys() <= declared.keys()):
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"arguments must be a mapping, got {show(value)}")
    if isinstance(value.get("properties"), Mapping) and value.get("type") == "object":
        raise ValueError("a tool's definition and no call of it")
    return dict(value)


def _broken(value: Any) -> Problem:
    return Problem("broken_call", show(value))
