"""Calls to text, in FunctionGemma's grammar and in the tutorial's.

Knows values and the grammar; no tokenizer, and no schema to check the values against.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping

from fgtools.calls.call import MAX_DEPTH, ToolCall, nests_too_deep
from fgtools.calls.tokens import CONTROL_TOKEN, END_CALL, ESCAPE, SPECIAL_TOKEN, START_CALL
from fgtools.files import InputError

STRUCTURE = re.compile(r"[{}\[\],:]")
"""The characters that separate names and values in a call."""


def render_calls(calls: Iterable[ToolCall], style: str = "native") -> str:
    """Write calls one after the other, as the model is trained to write them, without the stop token.

    Native arguments are sorted by name without regard to case, as the chat template does. An argument name that the
    grammar cannot write bare (it has structure characters or outer white space, or is empty) is written between
    <escape> marks; the parser accepts both.

    Args:
        calls: The calls.
        style: "native" or "tutorial".

    Returns:
        The text; "" for no calls.

    Raises:
        ValueError: The style is unknown, or a call has something the grammar cannot carry: the <escape> mark inside a
            string, a tool name with a brace, a control token or outer white space, a number that is not finite, a key
            that is not text, nesting deeper than MAX_DEPTH.
    """
    if style not in ("native", "tutorial"):
        raise InputError(f"style must be 'native' or 'tutorial', got {style!r}")
    return "".join(_render_call(call, style) for call in calls)


def is_writable(name: object) -> bool:
    """Return whether the grammar can carry a tool name; dots, dashes, inner spaces and letters of any script it can."""
    if not isinstance(name, str) or not name or name != name.strip():
        return False
    return "{" not in name and not SPECIAL_TOKEN.search(name)


def _render_call(call: ToolCall, style: str) -> str:
    name = call.name
    if not is_writable(name):
        raise InputError(
            f"a tool name must be text without '{{', control tokens or outer white space, got {name!r}: rename the tool"
        )
    if not isinstance(call.arguments, Mapping):
        raise InputError(
            f"arguments of {name!r} must be a mapping, got {type(call.arguments).__name__}: decode them first"
        )
    if style == "tutorial":
        if nests_too_deep(call.arguments):
            raise InputError(f"arguments must not nest deeper than {MAX_DEPTH} levels")
        text = json.dumps(call.arguments, ensure_ascii=False)
        return f"{START_CALL}call:{name}{{args:{_render_string(text)}}}{END_CALL}"
    return f"{START_CALL}call:{name}{render_value(call.arguments)}{END_CALL}"


def _render_string(value: str) -> str:
    if ESCAPE in value:
        raise InputError(f"a string cannot hold the mark {ESCAPE}, got {value[:80]!r}: reject or rewrite the row")
    return f"{ESCAPE}{value}{ESCAPE}"


def render_key(key: object) -> str:
    """Write an argument name, between <escape> marks where it could be taken for structure.

    Args:
        key: The name.

    Returns:
        The text.

    Raises:
        ValueError: The name is not text, or has the <escape> mark in it.
    """
    if not isinstance(key, str):
        raise InputError(f"an argument name must be text, got {key!r}")
    return key if is_bare(key) else _render_string(key)


def is_bare(key: str) -> bool:
    """Return whether an argument name is written without <escape> marks."""
    return bool(key) and key == key.strip() and not STRUCTURE.search(key) and not CONTROL_TOKEN.search(key)


def render_value(value: object, depth: int = 0) -> str:
    """Write a JSON value in FunctionGemma's grammar.

    Args:
        value: The value.
        depth: How many lists and mappings of the call enclose it.

    Returns:
        The text: strings between marks, names sorted, `None` for null.

    Raises:
        ValueError: The value nests too deep, has the <escape> mark in a string, or is no JSON value.
    """
    if depth > MAX_DEPTH:
        raise InputError(f"arguments must not nest deeper than {MAX_DEPTH} levels")
    if value is None:
        return "None"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _render_string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"a number must be finite, got {value}")
        return repr(value)
    if isinstance(value, Mapping):
        pairs = [(render_key(key), render_value(item, depth + 1), key) for key, item in value.items()]
        pairs.sort(key=lambda pair: pair[2].lower())
        return "{" + ",".join(f"{key}:{item}" for key, item, _ in pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(render_value(item, depth + 1) for item in value) + "]"
    raise InputError(f"an argument must be a JSON value, got {type(value).__name__}")
