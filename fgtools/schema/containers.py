"""Sets of parameters: which notation one is written in, its entries by name, and which of them are required.

Knows three notations: a JSON Schema, one mapping entry per argument, a list of named arguments. What an entry says is
read by `specs`; `parameters` puts both together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fgtools.schema.specs import SPEC_WORDS, Spec
from fgtools.schema.types import parse_type

DEFINITION_WORDS = ("$defs", "definitions")
_META = frozenset({"description", "title", "type", "additionalProperties", "$schema", "$id", "$comment", "strict"})
_NESTING = frozenset(
    {"items", "properties", "additionalProperties", "patternProperties", "dependentSchemas", "required", "default"}
    | {"const", "example", "examples", "enum", "not", "if", "then", "else", "contains", "propertyNames"}
)
"""Words of JSON Schema whose value may be a mapping."""


def is_schema(raw: Mapping[str, Any]) -> bool:
    """Tell a JSON Schema from one entry per argument, whose names may be "type" or "properties" too."""
    kind, properties = raw.get("type"), raw.get("properties")
    if isinstance(kind, Mapping):
        return False
    if _means_object(kind):
        return True
    if isinstance(properties, (list, tuple)):
        return True
    if not isinstance(properties, Mapping):
        return not kind and set(raw) <= (_META | {"required", *DEFINITION_WORDS}) and "type" in raw
    others = [word for word in raw if word not in _META and word not in ("properties", "required", *DEFINITION_WORDS)]
    if any(isinstance(raw[word], Mapping) for word in others):
        return False
    return not _looks_like_spec(properties)


def _means_object(kind: Any) -> bool:
    if isinstance(kind, (list, tuple)):
        return any(_means_object(item) for item in kind)
    return isinstance(kind, str) and parse_type(kind).known and parse_type(kind).schema["type"] == "object"


def _looks_like_spec(raw: Mapping[str, Any]) -> bool:
    kind = raw.get("type")
    words = set(raw) <= SPEC_WORDS
    return words and (isinstance(kind, str) if "type" in raw else isinstance(raw.get("description"), str))


def schema_entries(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Give the parameters of a JSON Schema by name."""
    properties = raw.get("properties")
    if isinstance(properties, Mapping):
        return {_name(name): spec for name, spec in properties.items()}
    if isinstance(properties, (list, tuple)):
        return named_entries(properties)
    return leftovers(raw)


def leftovers(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Give the parameters that stand directly in an object without `properties`."""
    known = _NESTING | set(DEFINITION_WORDS)
    return {_name(name): spec for name, spec in raw.items() if name not in known and isinstance(spec, Mapping) and spec}


def flat_entries(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Give the parameters of a mapping with one entry per argument."""
    mappings = any(isinstance(spec, Mapping) for spec in raw.values())
    return {_name(name): spec for name, spec in raw.items() if not _is_meta(name, spec, mappings)}


def _is_meta(name: Any, spec: Any, mappings: bool) -> bool:
    """Tell a word about the arguments from an argument of that name."""
    if isinstance(spec, Mapping):
        return name in DEFINITION_WORDS
    if name in ("required", "optional"):
        return not isinstance(spec, str) or mappings
    return name in _META and mappings


def named_entries(raw: Any) -> dict[str, Any]:
    """Give the parameters of a list: names, {"name", ...} (OpenAPI's {"schema"} too), or {name: specification}."""
    entries: dict[str, Any] = {}
    for item in raw:
        if isinstance(item, str):
            entries.setdefault(item, None)
        elif isinstance(item, Mapping) and isinstance(item.get("name"), str):
            inner = item["schema"] if isinstance(item.get("schema"), Mapping) else {}
            spec = {**inner, **{word: value for word, value in item.items() if word not in ("name", "schema", "in")}}
            entries.setdefault(item["name"], spec)
        elif isinstance(item, Mapping) and len(item) == 1:
            name, spec = next(iter(item.items()))
            entries.setdefault(_name(name), spec)
    return entries


def required_names(specs: Mapping[str, Spec], listed: list[Any], flat: bool) -> list[str]:
    """Say which parameters are required.

    Args:
        specs: The parameters, read.
        listed: The `required` fields that were met, inside and beside; None for none.
        flat: Whether silence means required (one entry per argument, a list), unless another parameter says it is.

    Returns:
        Names of existing parameters, listed ones first and in their order.
    """
    explicit = any(isinstance(names, (list, tuple, str, Mapping)) for names in listed)
    order = [name for names in listed for name in listed_names(names)]
    marked = any(spec.optional is False for spec in specs.values())

    def needs(name: str, spec: Spec) -> bool:
        if spec.optional is not None:
            return not spec.optional
        if explicit:
            return name in order
        return flat and not marked and not spec.hint

    needed = [name for name, spec in specs.items() if needs(name, spec)]
    first = [name for name in dict.fromkeys(order) if name in needed]
    return [*first, *(name for name in needed if name not in first)]


def listed_names(raw: Any) -> list[str]:
    """Give the names of a `required` field: a list, a mapping of truth values, or names with commas between them."""
    if isinstance(raw, str):
        return [name.strip() for name in raw.split(",") if name.strip()]
    if isinstance(raw, Mapping):
        return [_name(name) for name, value in raw.items() if value]
    return [name for name in raw if isinstance(name, str)] if isinstance(raw, (list, tuple)) else []


def _name(name: Any) -> str:
    return name if isinstance(name, str) else str(name)
