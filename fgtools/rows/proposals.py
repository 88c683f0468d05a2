"""Calls proposed for a tool: together they use every parameter, and every choice that its schema names.

Knows schemas in normal form. Values come from the schema alone: choices, defaults, examples, bounds. A free text is a
placeholder such as "<city>", since nothing is invented here; who fills in the sheet writes the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fgtools.calls import ToolCall
from fgtools.metrics import has_valid_arguments
from fgtools.schema.signatures import parse_python_calls
from fgtools.schema.unions import distinct

MAX_CHOICES = 200
"""Most choices of one parameter that each get a call; a longer list would bury the other lines of a sheet."""

MAX_PROPOSED_DEPTH = 8
"""Deepest nesting of objects and lists for which values are proposed."""

_OPTIONAL_PER_CALL = 2
"""Optional parameters in one call, at most, as in requests that people write."""

_FORMATS = {
    "date": "2030-01-15",
    "date-time": "2030-01-15T07:30:00Z",
    "time": "07:30:00Z",
    "duration": "PT30M",
    "email": "name@example.org",
    "uri": "https://example.org",
    "url": "https://example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_TEXTS = (
    *("a", "A", "abc", "ABC", "AB", "1", "12", "123", "1234", "12345", "A1", "AB12", "ABC-123", "abc123", "07:30"),
    *("7:30", "2030-01-15", "01/15/2030", "2030-01", "+15550100", "+1-555-0100", "name@example.org", "example.org"),
    *("https://example.org", "#a1b2c3", "en", "en-US", "192.0.2.1", "1.0.0", "0.5", "a-b", "a_b", "/a/b"),
)
"""Texts that are tried where a pattern must match."""


def propose_calls(tool: Mapping[str, Any], at_least: int) -> list[ToolCall]:
    """Return calls of a tool that are valid under its schema, as far as values for them are known.

    Args:
        tool: A function schema in normal form.
        at_least: How many calls, unless the tool has fewer different ones; more where its choices need more.

    Returns:
        The calls, all different. Every parameter for which a value is known is in some call, and so is each of
        its choices, truth values, default and examples (of a list longer than MAX_CHOICES, the first). None where no
        value is known for a required parameter.
    """
    function = tool["function"]
    schema, name = function["parameters"], function["name"]
    values = {key: propose_values(key, spec) for key, spec in schema["properties"].items()}
    needed = [key for key in schema["required"] if values[key]]
    if len(needed) < len(schema["required"]):
        return []  # no value is known for what every call needs
    others = [key for key in values if values[key] and key not in needed]
    calls: list[ToolCall] = []
    covered = dict.fromkeys(values, 0)
    for number in range(at_least + sum(map(len, values.values()))):
        waiting = [key for key in (*needed, *others) if covered[key] < len(values[key])]
        if number >= at_least and not waiting:
            break
        first = [key for key in others if key in waiting] or others
        turn = number - 1 if needed else number  # the first call has what is required, alone
        chosen = [] if turn < 0 else _rotate(first, 0 if first is not others else turn)[: 1 + turn % _OPTIONAL_PER_CALL]
        arguments = {}
        for key in values:
            if key in needed or key in chosen:
                arguments[key] = values[key][covered[key] % len(values[key])]
                covered[key] += 1
        calls.append(ToolCall(name, arguments))
    texts = distinct(call.arguments for call in calls)
    calls = [ToolCall(name, found) for found in texts]
    return [call for call in calls if find_placeholders(call.arguments) or has_valid_arguments([call], {name: schema})]


def _rotate(keys: Sequence[str], by: int) -> list[str]:
    by = by % len(keys) if keys else 0
    return [*keys[by:], *keys[:by]]


def propose_values(name: str, schema: Mapping[str, Any], depth: int = 0) -> list[Any]:
    """Return different values that a schema allows, those it names itself first.

    Args:
        name: The parameter's name, for placeholders.
        schema: Its schema in normal form.
        depth: How many lists and objects enclose it.

    Returns:
        Valid values; where none is known, a placeholder for a text, as for a pattern that nothing here matches, and []
        for anything else.
    """
    if depth > MAX_PROPOSED_DEPTH:
        return []
    named = _named_values(schema)
    if "enum" in schema or "const" in schema:
        found = named
    elif "anyOf" in schema:
        found = named + [value for one in schema["anyOf"] for value in propose_values(name, one, depth + 1)]
    else:
        made = {"object": _objects, "array": _lists, "boolean": lambda *_: [True, False], "string": _texts}
        propose = made.get(schema["type"], _numbers)
        found = named + (propose(name, schema, depth) if schema["type"] != "null" else [])
    whole = {"type": "object", "properties": {name: schema}, "required": [name]}
    valid = [one for one in distinct(found) if has_valid_arguments([ToolCall("tool", {name: one})], {"tool": whole})]
    return valid or ([f"<{name}>"] if schema["type"] == "string" and "enum" not in schema else [])


def _named_values(schema: Mapping[str, Any]) -> list[Any]:
    """Return the values that a schema names: choices, default and examples."""
    found = list(schema.get("enum", [schema["const"]] if "const" in schema else []))[:MAX_CHOICES]
    found += [schema["default"]] if "default" in schema else []
    found += list(schema.get("examples", []))[:5]
    return [value for value in found if value is not None and value != ""]


def _objects(name: str, schema: Mapping[str, Any], depth: int) -> list[Any]:
    required = schema.get("required", [])
    properties = schema.get("properties", {})
    shown = {key: spec for key, spec in properties.items() if key in required or not _is_free(spec)}
    values = {key: propose_values(key, spec, depth + 1) for key, spec in shown.items()}
    values = {key: found for key, found in values.items() if found}
    if _is_free(schema) and depth == 0:
        extra = schema.get("additionalProperties")
        inner = propose_values("key", extra, depth + 1) if isinstance(extra, Mapping) else ["<key>"]
        return [{"key": value} for value in inner[:2]]
    if not values:
        return [{}]
    most = max(map(len, values.values()))
    whole = [{key: found[number % len(found)] for key, found in values.items()} for number in range(most)]
    return [{key: whole[0][key] for key in required if key in whole[0]}] * bool(required) + whole


def _is_free(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema is an object that names no properties."""
    return schema["type"] == "object" and not schema.get("properties") and "enum" not in schema


def _lists(name: str, schema: Mapping[str, Any], depth: int) -> list[Any]:
    least, most = schema.get("minItems", 0), schema.get("maxItems", 2)
    found = propose_values(name, schema["items"], depth + 1) if "items" in schema else [f"<{name}>"]
    if not found or least > 20:
        return []
    singles = [[found[(number + step) % len(found)] for step in range(max(1, least))] for number in range(len(found))]
    pairs = [found[:2]] if len(found) > 1 and least <= 2 <= most else []
    return pairs + singles


def _numbers(name: str, schema: Mapping[str, Any], depth: int) -> list[Any]:
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    found = [value for value in (low, high) if value is not None]
    if len(found) < 2:
        start = low if low is not None else 0 if high is None or high >= 2 * step else high - 3 * step
        found += [start + step, start + 2 * step]
    else:
        middle = (high - low) / 2
        found.append(low + (middle if schema["type"] == "number" and step == 1 else step * round(middle / step)))
    if step != 1:
        found += [step * round(value / step) for value in found]
    whole = [int(value) for value in found if float(value).is_integer()]
    return whole if schema["type"] == "integer" else [*whole, *(value for value in found if value not in whole)]


def _texts(name: str, schema: Mapping[str, Any], depth: int) -> list[Any]:
    if schema.get("format") in _FORMATS and "pattern" not in schema:
        return [_FORMATS[schema["format"]]]
    if "pattern" in schema:
        return list(_TEXTS)
    text = f"<{name}>"
    if len(text) < schema.get("minLength", 0) <= 500:
        text = f"<{name}{'.' * (schema['minLength'] - len(text))}>"
    if len(text) > schema.get("maxLength", len(text)):
        return [one for one in _TEXTS if len(one) <= schema["maxLength"]][:2]
    return [text]


def render_call(call: ToolCall) -> str:
    """Render a call as a sheet holds it: `set_alarm(time="7:00", days=["mon"])`, or JSON where a name forbids it."""
    pairs = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items()]
    text = f"{call.name}({', '.join(pairs)})"
    given = {"name": call.name, "arguments": call.arguments}
    try:
        if "\n" not in text and parse_python_calls(text) == [given]:
            return text
    except ValueError:
        pass  # a name holds marks of this notation
    return json.dumps(given, ensure_ascii=False)


def find_placeholders(value: Any, name: str = "") -> list[str]:
    """Return the placeholders that are left in a value, such as "<city>".

    Args:
        value: A call's arguments, or a value inside them.
        name: The name of the parameter that holds the value.

    Returns:
        The placeholders; a text in such brackets that is not the parameter's name is none.
    """
    if isinstance(value, str):
        return [value] if name and re.fullmatch(rf"<{re.escape(name)}\.*>", value) else []
    if isinstance(value, Mapping):
        return [found for key, item in value.items() for found in find_placeholders(item, str(key))]
    if isinstance(value, (list, tuple)):
        return [found for item in value for found in find_placeholders(item, name)]
    return []
