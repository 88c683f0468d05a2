"""Null arguments that say no more than an argument left out, and leaving them out.

Knows calls and the parameters of their tools; not rows or recipes, nor where a call stands. A null says no more than
its absence where the schema declares the argument, does not require it, and gives it no default but null; so at the top
level and inside objects. Any other null stays, since without it the call would say something else:

- required: without it the call would break its schema.
- default: without it the default would hold.
- undeclared: the schema does not say what the object may hold, so null may be a value like any other.
- in_list: the items of a list have places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fgtools.calls import ToolCall
from fgtools.schema.names import normalize_object

LEFT_OUT = "left_out"
"""What became of a null that is not kept; the others are named for why they are kept, as above."""


def leave_out_nulls(calls: Sequence[ToolCall], tools: Mapping[str, Any]) -> tuple[tuple[ToolCall, ...], dict[str, int]]:
    """Leave out the null arguments that say no more than an argument that is not there.

    Args:
        calls: The calls; not changed.
        tools: Parameters schema by tool name.

    Returns:
        The calls, the given ones where they hold no null; and count of their nulls by what became of them: "left_out",
        "required", "default", "undeclared" or "in_list".
    """
    if not any(holds_null(call.arguments) for call in calls):
        return tuple(calls), {}
    counts: Counter[str] = Counter()
    made = tuple(ToolCall(call.name, _leave_out(call.arguments, tools.get(call.name), counts)) for call in calls)
    return made, dict(counts)


def holds_null(value: Any) -> bool:
    """Return whether a part of a JSON value is null; the value itself does not count."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return any(item is None or holds_null(item) for item in inner)


def _leave_out(value: Any, schema: Any, counts: Counter[str]) -> Any:
    if isinstance(value, (list, tuple)):
        if places := sum(item is None for item in value):
            counts["in_list"] += places
        items = schema.get("items") if isinstance(schema, Mapping) else None
        return [_leave_out(item, items, counts) for item in value]
    if not isinstance(value, Mapping):
        return value
    properties, required = normalize_object(schema)
    kept: dict[str, Any] = {}
    for name, item in value.items():
        if item is None:
            fate = _null_fate(name, properties, required)
            counts[fate] += 1
            if fate == LEFT_OUT:
                continue
        kept[name] = _leave_out(item, properties.get(name), counts)
    return kept


def _null_fate(name: str, properties: Mapping[str, Any], required: frozenset[str]) -> str:
    """Return what becomes of a null argument."""
    if name in required:
        return "required"
    if name not in properties:
        return "undeclared"
    spec = properties[name]
    return "default" if isinstance(spec, Mapping) and spec.get("default") is not None else LEFT_OUT
