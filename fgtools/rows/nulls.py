"""Null arguments of the calls in a row: what is dropped, what is left out, and what stays.

Knows calls and the schemas of their tools. Arrow gives every call the keys of all calls, and fills them with null: a
null for a parameter that the tool does not have is Arrow's, in a JSON-lines file exported from it as well, and dropped.
A null for a declared parameter was written by somebody; whether it is left out is for the recipe to say, and which of
them may be for `schema.nulls`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fgtools.calls import ToolCall
from fgtools.schema.nulls import LEFT_OUT, holds_null, leave_out_nulls


def clean_nulls(
    calls: Sequence[ToolCall], tools: Sequence[Mapping[str, Any]], keep: bool
) -> tuple[tuple[ToolCall, ...], Counter[str]]:
    """Drop null arguments that nobody wrote, and leave out those that say no more than their absence.

    Args:
        calls: The calls of a gold or of an earlier turn.
        tools: Function schemas in normal form.
        keep: Whether the nulls of declared arguments all stay.

    Returns:
        The calls, and how many null arguments there were, by kind: null_argument_dropped (not declared),
        null_argument_left_out, null_argument_kept_required, null_argument_kept_default, null_argument_kept_undeclared,
        null_argument_kept_in_list (for these four see `schema.nulls`; not counted where all stay).
    """
    calls, dropped = drop_undeclared_nulls(calls, tools)
    kinds = Counter({"null_argument_dropped": dropped} if dropped else {})
    if keep:
        return calls, kinds
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    calls, counts = leave_out_nulls(calls, schemas)
    for fate, count in counts.items():
        kinds[f"null_argument_{fate if fate == LEFT_OUT else f'kept_{fate}'}"] = count
    return calls, kinds


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
    if not any(holds_null(call.arguments) for call in calls):
        return tuple(calls), 0
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    cleaned = [_clean(call.arguments, schemas.get(call.name)) for call in calls]
    dropped = sum(count for _, count in cleaned)
    made = (ToolCall(call.name, arguments) for call, (arguments, _) in zip(calls, cleaned, strict=True))
    return tuple(made) if dropped else tuple(calls), dropped


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
