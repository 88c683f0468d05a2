"""Conversations in an application's words: messages of any provider and results of any Python function.

Knows messages, calls and results; no tools, no model. The model reads them as its training rows had them: a system text
becomes the developer turn, results stand in the order of their calls, and a result that is a JSON object is a mapping.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fgtools.calls import MAX_DEPTH, ToolCall, nests_too_deep
from fgtools.files import InputError
from fgtools.gold import developer_text, match_results, normalize_result
from fgtools.schema.literals import decode_json, plain_value

_SURROGATE = re.compile("[\ud800-\udfff]")
_ROLES = ("developer", "system", "user", "assistant", "tool")


def normalize_messages(request: str | Sequence[Mapping[str, Any]], developer: str) -> tuple[dict[str, Any], ...]:
    """Return a conversation that begins with the developer's turn.

    Args:
        request: What the user says; or messages {"role", "content"}, the user's or a tool's last, with calls as
            `tool_calls` and results as messages of role "tool" with `name` or `tool_call_id`.
        developer: The text of the developer's turn, where the messages have neither that nor a system's.

    Returns:
        New messages, names as given.

    Raises:
        InputError: There is no request, or a message cannot be read; the message is named.
    """
    messages = [{"role": "user", "content": request}] if isinstance(request, str) else list(request)
    if not messages or not all(isinstance(one, Mapping) for one in messages):
        raise InputError("a request must be text, or messages with role and content: give what the user says")
    read = [_read_message(one, number) for number, one in enumerate(match_results(messages))]
    last = read[-1]
    if last["role"] not in ("user", "tool") or (last["role"] == "user" and not last["content"].strip()):
        raise InputError(
            f"a request must be there, got {last['role']} {last['content']!r:.60} as the last message: end with what "
            "the user says, or with a tool's result"
        )
    if read[0]["role"] in ("developer", "system"):
        read[0] = {"role": "developer", "content": developer_text(read[0]["content"])}
    else:
        read.insert(0, {"role": "developer", "content": developer})
    if _SURROGATE.search(json.dumps(read, ensure_ascii=False)):
        raise InputError("messages must be Unicode text, got halves of surrogate pairs: paste them again")
    return tuple(read)


def _read_message(message: Mapping[str, Any], number: int) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise InputError(f"message {number}: role must be one of {', '.join(_ROLES)}, got {role!r}")
    if role == "tool":
        if not isinstance(message.get("name"), str):
            raise InputError(f"message {number}: a tool's message must have the tool's name, or its call's id: add it")
        return {"role": role, "name": message["name"], "content": normalize_tool_result(content)}
    if content is None and message.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise InputError(f"message {number}: content must be text, got {type(content).__name__}: join its parts")
    read: dict[str, Any] = {"role": role, "content": content}
    if message.get("tool_calls"):
        read["tool_calls"] = [_read_call(one, number) for one in message["tool_calls"]]
    return read


def _read_call(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    arguments = decode_json(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise InputError(
            f"message {number}: a call must be {{'function': {{'name', 'arguments'}}}}, its arguments a JSON object, "
            f"got {call!r:.60}"
        )
    try:
        return {"type": "function", "function": {"name": name, "arguments": plain_value(arguments)}}
    except ValueError as error:
        raise InputError(
            f"message {number}: arguments must be JSON, got {error}: turn them into JSON values"
        ) from error


def normalize_tool_result(result: Any) -> Mapping[str, Any] | str:
    """Return what a tool gave back as the content of its message.

    Args:
        result: A JSON value, text, or an exception that the tool raised. Text that holds a JSON object becomes that
            object, as in training rows; a list, a number or None becomes its JSON text; an exception {"error": ...}.

    Raises:
        InputError: It has no JSON form, or nests too deep.
    """
    if isinstance(result, BaseException):
        return {"error": f"{type(result).__name__}: {result}"}
    try:
        value = plain_value(result)
    except ValueError as error:
        raise InputError(
            f"a tool's result must be JSON (text, numbers, lists, mappings), got {type(result).__name__}, {error}: "
            "return such values, or turn it into text"
        ) from error
    if nests_too_deep(value):
        raise InputError(f"a tool's result must not nest deeper than {MAX_DEPTH} levels: flatten it")
    return normalize_result(value)


def build_message(text: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """Return the assistant's message of a reply."""
    functions = [{"name": call.name, "arguments": call.arguments} for call in calls]
    message: dict[str, Any] = {"role": "assistant", "content": text}
    return {**message, "tool_calls": [{"type": "function", "function": one} for one in functions]} if calls else message
