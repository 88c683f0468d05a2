"""Tool declarations as FunctionGemma's chat template writes them, in plain Python: some ten times faster than Jinja.

Knows tools whose schemas are plain; for any other it says so, and the tokenizer's own template has to render it.
Whoever uses this compares it with that template first (`encoder`): the template decides, not this module. Format:
FunctionGemma's formatting guide, and its published renders (tests/golden).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgtools.calls import END_DECLARATION, ESCAPE, START_DECLARATION
from fgtools.files import FgtoolsError

_HIDDEN = frozenset({"description", "type", "properties", "required", "nullable"})
_PLAIN_ITEMS = frozenset({"type", "properties", "required"})


class NotPlainError(FgtoolsError, ValueError):
    """The tool holds what only the template itself can render."""


def render_declaration(tool: Mapping[str, Any]) -> str:
    """Write one declaration, with its marks.

    Args:
        tool: A function schema without control tokens.

    Returns:
        The text.

    Raises:
        NotPlainError: A part of the schema is of an unusual kind.
    """
    function = tool["function"]
    parameters = function.get("parameters")
    _require(isinstance(parameters, dict) and isinstance(parameters.get("type"), str))
    parts = [f"{START_DECLARATION}declaration:{_text(function.get('name'))}{{description:"]
    parts.append(f"{_quoted(function.get('description', ''))},parameters:{{")
    if parameters.get("properties"):
        parts.append(f"properties:{{{_properties(parameters['properties'])}}},")
    if parameters.get("required"):
        parts.append(f"required:{_quoted_list(parameters['required'])},")
    parts.append(f"type:{_quoted(parameters['type'].upper())}}}}}{END_DECLARATION}")
    return "".join(parts)


def _properties(properties: Any) -> str:
    _require(isinstance(properties, dict) and all(isinstance(name, str) for name in properties))
    order = sorted(properties, key=str.lower)
    return ",".join(f"{name}:{_property(properties[name])}" for name in order if name not in _HIDDEN)


def _property(schema: Any) -> str:
    _require(isinstance(schema, dict) and isinstance(schema.get("type"), str))
    kind = schema["type"].upper()
    middle = ""
    if kind == "STRING" and schema.get("enum"):
        middle = f",enum:{_quoted_list(schema['enum'])}"
    elif kind == "OBJECT":
        _require("properties" in schema)
        middle = f",properties:{{{_properties(schema['properties'])}}}"
        middle += f",required:{_quoted_list(schema['required'])}" if schema.get("required") else ""
    elif kind == "ARRAY" and schema.get("items"):
        middle = f",items:{{{_items(schema['items'])}}}"
    return f"{{description:{_quoted(schema.get('description', ''))}{middle},type:{_quoted(kind)}}}"


def _items(schema: Any) -> str:
    _require(isinstance(schema, dict) and schema.keys() <= _PLAIN_ITEMS and isinstance(schema.get("type"), str))
    parts = []
    if "properties" in schema:
        parts.append(f"properties:{{{_properties(schema['properties'])}}}")
    if "required" in schema:
        parts.append(f"required:{_quoted_list(schema['required'])}")
    return ",".join([*parts, f"type:{_quoted(schema['type'].upper())}"])


def _quoted(text: Any) -> str:
    return f"{ESCAPE}{_text(text)}{ESCAPE}"


def _quoted_list(texts: Any) -> str:
    _require(isinstance(texts, Sequence) and not isinstance(texts, str))
    return f"[{','.join(_quoted(text) for text in texts)}]"


def _text(text: Any) -> str:
    _require(isinstance(text, str))
    return text


def _require(plain: bool) -> None:
    if not plain:
        raise NotPlainError
