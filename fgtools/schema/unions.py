"""One schema for several: how the members of a union are shown as one.

Knows schemas in normal form (each with a concrete type) and plain values; not how they are written in data sets.

The chat template shows one type. Members of one type are merged so that all that is valid for a member stays valid:
properties and choices are united, and what only some members require or restrict is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

_MERGED_WORDS = frozenset({"type", "description", "enum", "const", "items", "properties", "required", "anyOf"})
"""Keywords that `_merge_alike` handles by itself; others are kept where all members agree."""


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return the values without repetitions, in order; unlike in Python, 1 and True differ."""
    return list({json.dumps(value, sort_keys=True): value for value in reversed(list(values))}.values())[::-1]


def alternatives(schemas: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the distinct schemas of a union of several types; [] where one type covers them all."""
    found = distinct(one for schema in schemas for one in schema.get("anyOf", [schema]))
    kinds = {schema.get("type") for schema in found}
    return found if len(kinds) > 1 and kinds != {"integer", "number"} else []


def without_alternatives(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without `anyOf`, which the chat template would print as data in the items of a list."""
    return {word: value for word, value in schema.items() if word != "anyOf"}


def widest(schemas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the one schema that is shown for the members of a union.

    Args:
        schemas: Schemas with a concrete type.

    Returns:
        The merged schema where all have one type; "number" for integers and numbers; "string" when one of them is a
        string (every value can be written as text); else the first. A description is kept.
    """
    found = distinct(schemas)
    if not found:
        return {"type": "string"}
    kinds = {schema.get("type") for schema in found}
    if len(kinds) == 1:
        return _merge_alike(found)
    if kinds == {"integer", "number"}:
        return {"type": "number", **_first_description(found)}
    if "string" in kinds:
        return {"type": "string", **_first_description(found)}
    return without_alternatives(found[0])


def _first_description(schemas: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    found = next((schema["description"] for schema in schemas if schema.get("description")), None)
    return {"description": found} if found else {}


def _merge_alike(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge schemas of one type."""
    if len(schemas) == 1:
        return schemas[0]
    merged: dict[str, Any] = {"type": schemas[0]["type"], **(_describe_values(schemas) or _first_description(schemas))}
    values = [schema.get("enum", [schema["const"]] if "const" in schema else None) for schema in schemas]
    if all(choices is not None for choices in values):
        merged["enum"] = distinct(choice for choices in values for choice in choices)
    if all("items" in schema for schema in schemas):
        merged["items"] = without_alternatives(widest(schema["items"] for schema in schemas))
    if merged["type"] == "object":
        merged.update(_merge_objects(schemas))
    first, *others = schemas
    for word, value in first.items():
        if word not in _MERGED_WORDS and all(word in other and other[word] == value for other in others):
            merged[word] = value
    if any(schema.get("nullable") is True for schema in schemas):
        merged["nullable"] = True
    return merged


def _describe_values(schemas: list[dict[str, Any]]) -> dict[str, str]:
    """Return a description of constants that are described one by one: "fast: no checks; slow: all checks"."""
    if not all("const" in schema for schema in schemas) or len({schema.get("description") for schema in schemas}) == 1:
        return {}
    said = [f"{schema['const']}: {schema['description']}" for schema in schemas if schema.get("description")]
    return {"description": "; ".join(said)}


def _merge_objects(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    entries: dict[str, list[dict[str, Any]]] = {}
    for schema in schemas:
        for name, spec in schema.get("properties", {}).items():
            entries.setdefault(name, []).append(spec)
    required = [name for name in schemas[0].get("required", ()) if all(name in s.get("required", ()) for s in schemas)]
    properties = {name: unite(specs) for name, specs in entries.items()}
    return {"properties": properties, **({"required": required} if required else {})}


def unite(schemas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return `widest` of the schemas, with all of them under `anyOf` where they have several types."""
    members = list(schemas)
    others = alternatives(members)
    return {**widest(members), **({"anyOf": others} if others else {})}


def common_type(values: Iterable[Any]) -> str | None:
    """Return the one JSON type of some values, null values aside; None where there is no single one."""
    kinds = {value_type(value) for value in values} - {"null"}
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else None


def value_type(value: Any) -> str:
    """Return the JSON type of a value."""
    if value is None:
        return "null"
    for kind, classes in (("boolean", bool), ("integer", int), ("number", float), ("string", str), ("object", dict)):
        if isinstance(value, classes):
            return kind
    return "array"
