"""Schemas composed of others: allOf, anyOf, oneOf, then and else, merged into one object as far as that is possible.

Knows schemas as data sets write them, without references; not types in normal form. What is merged allows everything
that the composed schema allows: properties are united, and required is what every branch requires.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fgtools.schema.references import DEFINITION_WORDS
from fgtools.schema.specs import listed_names, means_object

UNION_WORDS = ("anyOf", "oneOf")
_OPTIONAL_WORDS = ("then", "else")
_OPTIONAL_MAPS = ("dependentSchemas", "dependencies")

WORDS = frozenset({"allOf", *UNION_WORDS, *_OPTIONAL_WORDS, *_OPTIONAL_MAPS})
"""The words that compose a schema of others."""

_OBJECT_WORDS = frozenset(
    {"properties", "required", "additionalProperties", "title", "description", "not", "minProperties", "maxProperties"}
    | {"if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties", "propertyNames", "$schema"}
    | {"unevaluatedProperties", "examples", "default", "$id", *DEFINITION_WORDS}
)


def branches_of(raw: Mapping[str, Any], word: str) -> list[Any]:
    """Return the schemas under allOf, anyOf or oneOf; [] where the word is no list, as for a parameter of that name."""
    found = raw.get(word)
    return list(found) if isinstance(found, (list, tuple)) and all(isinstance(one, Mapping) for one in found) else []


def optional_branches_of(raw: Mapping[str, Any]) -> list[Any]:
    """Return the schemas that apply only under a condition: then, else, and those that a property brings with it."""
    found = [raw[word] for word in _OPTIONAL_WORDS if is_object(raw.get(word))]
    for word in _OPTIONAL_MAPS:
        if isinstance(raw.get(word), Mapping) and not isinstance(raw[word].get("type"), str):
            found += [schema for schema in raw[word].values() if is_object(schema)]
    return found


def is_null(raw: Any) -> bool:
    """Return whether a branch only says that the value may be null."""
    return isinstance(raw, Mapping) and raw.get("type") == "null"


def is_object(raw: Any) -> bool:
    """Return whether a schema describes an object, by its type or by what it says."""
    if not isinstance(raw, Mapping):
        return False
    if raw.get("type") is not None:
        return means_object(raw["type"])
    says = isinstance(raw.get("properties"), Mapping) or isinstance(raw.get("required"), (list, tuple))
    return says and set(raw) <= _OBJECT_WORDS


def merge_all(parts: Iterable[Any]) -> dict[str, Any]:
    """Merge schemas that hold together (allOf); of keywords that differ the last is kept.

    Args:
        parts: The schemas; those that are no mappings are left out.

    Returns:
        One schema with all properties, and everything required that one of them requires.
    """
    merged: dict[str, Any] = {}
    for part in parts:
        if not isinstance(part, Mapping):
            continue
        entries = dict(merged.get("properties") or {})
        given = part.get("properties")
        for name, spec in given.items() if isinstance(given, Mapping) else ():
            both = isinstance(spec, Mapping) and isinstance(entries.get(name), Mapping)
            entries[name] = {**entries[name], **spec} if both else spec
        required = [*listed_names(merged.get("required")), *listed_names(part.get("required"))]
        definitions = _united_definitions([merged, part])
        merged = {**merged, **part, **definitions}
        merged.update({"properties": entries} if entries else {})
        merged.update({"required": list(dict.fromkeys(required))} if required else {})
    return merged


def merge_branches(own: Mapping[str, Any], branches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge objects of which one holds (anyOf, oneOf) into the schema that holds beside all of them.

    Args:
        own: The schema beside the branches.
        branches: The branches; those that are null allow null.

    Returns:
        One object with all properties. A property that several describe differently gets them under anyOf.
    """
    real = [branch for branch in branches if not is_null(branch)]
    entries: dict[str, list[Any]] = {}
    for branch in real:
        given = branch.get("properties")
        for name, spec in given.items() if isinstance(given, Mapping) else ():
            entries.setdefault(name, []).append(spec)
    properties = dict(own["properties"]) if isinstance(own.get("properties"), Mapping) else {}
    for name, specs in entries.items():
        if name not in properties:
            properties[name] = _any_of(specs)
        elif len(specs) == len(real) and isinstance(properties[name], Mapping):
            properties[name] = _any_of([merge_all([properties[name], spec]) for spec in specs])
    common = [name for name in listed_names(real[0].get("required")) if all(_requires(one, name) for one in real)]
    result = {**own, "properties": properties, **_united_definitions([*real, own])}
    result["required"] = list(dict.fromkeys([*listed_names(own.get("required")), *common]))
    result["type"] = own.get("type") or "object"
    if len(real) < len(branches):
        result["type"] = ["object", "null"]
    if "description" not in own and (said := [one["description"] for one in real if _is_text(one.get("description"))]):
        result["description"] = "; or: ".join(dict.fromkeys(said))
    closed = [one.get("additionalProperties") for one in real]
    if "additionalProperties" not in own and isinstance(closed[0], bool) and closed == closed[:1] * len(closed):
        result["additionalProperties"] = closed[0]
    return result


def merge_optional(own: Mapping[str, Any], branches: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add the properties of schemas that apply only under a condition; nothing becomes required by them."""
    properties = dict(own["properties"]) if isinstance(own.get("properties"), Mapping) else {}
    for branch in branches:
        given = branch.get("properties")
        for name, spec in given.items() if isinstance(given, Mapping) else ():
            properties.setdefault(name, spec)
    return {**own, "type": own.get("type") or "object", "properties": properties}


def _any_of(specs: list[Any]) -> Any:
    found = list({repr(spec): spec for spec in specs}.values())
    return found[0] if len(found) == 1 else {"anyOf": found}


def _requires(branch: Mapping[str, Any], name: str) -> bool:
    return name in listed_names(branch.get("required"))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _united_definitions(schemas: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    united: dict[str, Any] = {}
    for schema in schemas:
        for word in DEFINITION_WORDS:
            if isinstance(schema.get(word), Mapping):
                united[word] = {**united.get(word, {}), **schema[word]}
    return united
