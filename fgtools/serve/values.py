"""Argument values in the types that a schema asks for, where nothing is lost by it.

Knows JSON values and schemas in normal form; no calls and no models. Four conversions are made: a number without a
fraction to an integer, a text that is exactly how a number is written to that number, "true" and "false" to a boolean,
and an integer to a text. Each one is told. Every other value stays as it is, for the validation to name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]{0,14})\Z")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,6})\.[0-9]{1,8}\Z")
_BOOLEANS = {"true": True, "false": False}
_EXACT = 2**53
"""Below it, every number without a fraction is exactly one integer."""


def convert_values(value: Any, schema: Any, path: str = "") -> tuple[Any, list[str]]:
    """Return a value in the types of its schema.

    Args:
        value: The arguments of a call, or a value in them.
        schema: Its schema; alternatives (`anyOf`) are left to the validation.
        path: The name of the value, with dots, for what is told.

    Returns:
        A copy with the converted values, and one sentence for each of them, such as "hour: '5' became 5".
    """
    if not isinstance(schema, Mapping) or "anyOf" in schema:
        return value, []
    told: list[str] = []
    if isinstance(value, Mapping):
        declared = schema.get("properties")
        declared = declared if isinstance(declared, Mapping) else {}
        copied = {}
        for name, item in value.items():
            copied[name], found = convert_values(item, declared.get(name), f"{path}.{name}" if path else str(name))
            told += found
        return copied, told
    if isinstance(value, list):
        items = []
        for number, item in enumerate(value):
            converted, found = convert_values(item, schema.get("items"), f"{path}.{number}")
            items.append(converted)
            told += found
        return items, told
    converted = _convert(value, schema.get("type"))
    if type(converted) is type(value):
        return value, []
    return converted, [f"{path}: {value!r} became {converted!r}"[:200]]


def _convert(value: Any, kind: Any) -> Any:
    """Return a single value in a type, or as it is."""
    if kind == "integer" and isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if kind in ("integer", "number") and isinstance(value, str) and _INTEGER.match(value):
        return int(value)
    if kind == "number" and isinstance(value, str) and _DECIMAL.match(value):
        return float(value)
    if kind == "boolean" and isinstance(value, str):
        return _BOOLEANS.get(value, value)
    if kind == "string" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value
