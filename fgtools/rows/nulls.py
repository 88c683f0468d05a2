"""Null arguments that are no arguments: Arrow gives every call the keys of all calls, and fills them with null.

Knows calls and the schemas of their tools. A null that stands for a declared parameter was written by somebody and
stays; a null for a parameter that the tool does not have is Arrow's, in a JSON-lines file exported from it as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgtools.calls import ToolCall


def drop_undeclared_nulls(
    calls: Sequence[ToolCall], tools: Sequence[Mapping[str, Any]]
) -> tuple[tuple[ToolCall, ...], int]:
    """Drop null arguments that the called tool does not declare.

    Args:
        calls: The gold calls.
        tools: Function schemas in normal form.

    Returns:
        The calls, the given ones where nothing was dropped, and how many arguments were dropped.
    """
    if not any(_holds_null(call.arguments) for call in calls):
        return tuple(calls), 0
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    cleaned = [_clean(call.arguments, schemas.get(call.name)) for call in calls]
    dropped = sum(count for _, count in cleaned)
    made = (ToolCall(call.name, arguments) for call, (arguments, _) in zip(calls, cleaned, strict=True))
    return tuple(made) if dropped else tuple(calls), dropped


def _holds_null(value: Any) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(item is None or _holds_null(item) for item in inner)


def _is_void(value: Any) -> bool:
    """Return whether a value is null, or a mapping of nothing else: Arrow fills missing structures in this way."""
    return value is None or (isinstance(value, Mapping) and bool(value) and all(map(_is_void, value.values())))


def _clean(value: Any, schema: Any) -> tuple[Any, int]:
    """Return a value without the null keys that its schema does not declare, and how many they were."""
    if not isinstance(schema, Mapping):
        return value, 0
    if isinstance(value, list):
        parts = [_clean(item, schema.get("items")) for item in value]
        return [item for item, _ in parts], sum(count for _, count in parts)
    declared = schema.get("properties")
    if not isinstance(value, Mapping) or not isinstance(declared, Mapping):
        return value, 0
    kept: dict[str, Any] = {}
    dropped = 0
    for name, item in value.items():
        if name not in declared and _is_void(item):
            dropped += 1
            continue
        kept[name], inner = _clean(item, declared.get(name))
        dropped += inner
    return kept, dropped
