"""What the published tutorial makes of tools and parameter types, result for result, weaknesses included.

Knows nothing of the native rules. It exists so that figures can be compared with the tutorial's. These functions never
change their arguments (the tutorial's do).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

_WORDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object", "list": "array"}
_WORDS |= {kind: kind for kind in _WORDS.values()}
_LIST = re.compile(r"List\[(.+)\]")
_DICT = re.compile(r"Dict\[(.+),(.+)\]")  # greedy: splits at the last comma


def normalize_tutorial_type(raw: Any) -> dict[str, Any]:
    """Return the schema that the tutorial makes of a parameter's type."""
    if isinstance(raw, Mapping):
        return copy.deepcopy(dict(raw)) if "type" in raw else {"type": "object"}
    if isinstance(raw, list):
        return {"type": "array"}
    if not isinstance(raw, str):
        return {"type": "string"}
    text = raw.strip()
    if text.lower() in _WORDS:
        return {"type": _WORDS[text.lower()]}
    if match := _LIST.fullmatch(text):
        return {"type": "array", "items": normalize_tutorial_type(match.group(1))}
    if match := _DICT.fullmatch(text):
        return {"type": "object", "additionalProperties": normalize_tutorial_type(match.group(2))}
    return {"type": "string"}


def normalize_tutorial_tools(raw: Any) -> list[dict[str, Any]]:
    """Return the function schemas that the tutorial makes of a row's tools field, as a fresh list."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw.strip())
        except (ValueError, RecursionError):
            return []
    if not isinstance(raw, list):
        return []
    return [_tool(tool) for tool in raw if isinstance(tool, Mapping)]


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    named = copy.deepcopy({"name": tool.get("name"), "description": tool.get("description", "")})
    return {"type": "function", "function": {**named, "parameters": _parameters(tool.get("parameters"))}}


def _parameters(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raw = {}
    if "type" in raw and "properties" in raw:
        return copy.deepcopy(raw if "required" in raw else {**raw, "required": []})
    properties = {name: _property(spec) for name, spec in raw.items()}
    return {"type": "object", "properties": properties, "required": list(raw)}


def _property(spec: Any) -> dict[str, Any]:
    if spec is None:
        spec = {}
    if not isinstance(spec, Mapping):
        return {"type": "string"}
    schema = normalize_tutorial_type(spec.get("type", "str"))
    if spec.get("description"):
        schema["description"] = copy.deepcopy(spec["description"])
    return schema
