"""The parameters of a tool, in every notation of published data sets, as one JSON Schema object.

Knows three containers (a JSON Schema, one mapping entry per argument, a list of named arguments) and the specification
of a single parameter. It does not know tools, names or wrappers.

The result is made for FunctionGemma's chat template: every parameter has one concrete `type` of JSON Schema, every
object has `properties` (the template takes a mapping without them for a list of parameters), and `required` lists
existing properties only. Type words are those of `typewords`; unknown ones become "string".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fgtools.literals import MAX_DEPTH, decode_text, plain_value
from fgtools.typewords import JSON_TYPES, read_type, type_of_values, value_type, widest

MAX_NODES = 20_000
"""Most specifications read in one tool; references may multiply them without end."""

_META = frozenset({"description", "title", "type", "additionalProperties", "$schema", "$id", "$comment", "strict"})
_DEFINITIONS = ("$defs", "definitions")
_SPEC_WORDS = frozenset(
    (
        "type",
        "description",
        "default",
        "enum",
        "choices",
        "items",
        "required",
        "optional",
        "format",
        "example",
        "examples",
        "title",
        "minimum",
        "maximum",
        "pattern",
        "nullable",
    )
)
_STRUCTURE_WORDS = frozenset({"type", "items", "properties", "additionalProperties", "not", "if", "then", "else"})
_SAYS_OPTIONAL = re.compile(r"^\W*optional\b|[(\[]optional\b|,\s*optional\s*[.)]", re.IGNORECASE)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError, RecursionError, OverflowError):
        return False
    return True


_KEYWORDS: dict[str, Callable[[Any], bool]] = {
    "title": _is_text,
    "format": _is_text,
    "pattern": _is_pattern,
    "minimum": _is_number,
    "maximum": _is_number,
    "exclusiveMinimum": _is_number,
    "exclusiveMaximum": _is_number,
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "minLength": _is_count,
    "maxLength": _is_count,
    "minItems": _is_count,
    "maxItems": _is_count,
    "minProperties": _is_count,
    "maxProperties": _is_count,
    "uniqueItems": lambda value: isinstance(value, bool),
    "nullable": lambda value: isinstance(value, bool),
    "const": lambda value: True,
    "examples": lambda value: isinstance(value, list),
}
"""JSON Schema's keywords that are kept as they are, and when their value is valid (draft 2020-12)."""


@dataclass(frozen=True)
class _Spec:
    """One parameter, read: `optional` is what it says in so many words, `hint` what a default or its text suggests."""

    schema: dict[str, Any]
    optional: bool | None = None
    hint: bool = False


def normalize_parameters(raw: Any, beside: Any = None) -> dict[str, Any]:
    """Give the parameters of a tool as a JSON Schema object.

    A parameter is required when it says so itself, or else when a `required` list (inside or beside) names it. Where no
    such list exists, a JSON Schema requires nothing, and the other two notations everything but what is optional by a
    default or by its text. What calls itself optional is never required.

    Args:
        raw: The parameters field: a mapping, a list of named arguments, text of either, or None.
        beside: A `required` that stands beside the field.

    Returns:
        A fresh {"type": "object", "properties", "required"}, with valid keywords of `raw` kept.

    Raises:
        ValueError: The field is text that cannot be read, or nests too deep or too wide.
    """
    raw = decode_text(raw) if isinstance(raw, str) and raw.strip() else raw
    return _Reader(raw).container(raw, beside, 0)


def normalize_spec(raw: Any) -> dict[str, Any]:
    """Give the schema of one parameter.

    Args:
        raw: A type word, a specification mapping, a list of types, a plain sentence, or None.

    Returns:
        A fresh JSON Schema with a concrete `type`.

    Raises:
        ValueError: It nests too deep or too wide.
    """
    return _Reader(raw).spec(raw, 0).schema


class _Reader:
    """Reads one tool's parameters; holds its definitions and counts what it has read."""

    def __init__(self, root: Any) -> None:
        self.definitions: dict[str, Any] = {}
        self.open_references: list[str] = []
        self.nodes = 0
        if isinstance(root, Mapping):
            for word in _DEFINITIONS:
                found = root.get(word)
                if isinstance(found, Mapping):
                    self.definitions.update({f"#/{word}/{name}": spec for name, spec in found.items()})

    # containers

    def container(self, raw: Any, beside: Any, depth: int) -> dict[str, Any]:
        raw = self._dereference(raw)
        if isinstance(raw, (list, tuple)):
            return self._object({}, _named_entries(raw), [beside], True, depth)
        if not isinstance(raw, Mapping):
            return self._object({}, {}, [beside], False, depth)
        listed = [beside, None if isinstance(raw.get("required"), Mapping) else raw.get("required")]
        if _is_schema(raw):
            return self._object(raw, _schema_entries(raw), listed, False, depth)
        return self._object({}, _flat_entries(raw), listed, True, depth)

    def _object(
        self, meta: Mapping[str, Any], entries: Mapping[str, Any], listed: list[Any], flat: bool, depth: int
    ) -> dict[str, Any]:
        specs = {name: self.spec(entry, depth + 1) for name, entry in entries.items()}
        result: dict[str, Any] = {"type": "object"}
        result.update(_description(meta))
        result["properties"] = {name: spec.schema for name, spec in specs.items()}
        result["required"] = _required(specs, listed, flat)
        extra = meta.get("additionalProperties")
        if isinstance(extra, bool):
            result["additionalProperties"] = extra
        elif isinstance(extra, (Mapping, str)):
            result["additionalProperties"] = self.spec(extra, depth + 1).schema
        result.update(_kept_keywords(meta))
        return result

    # one parameter

    def spec(self, raw: Any, depth: int) -> _Spec:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise ValueError(f"parameters nest deeper than {MAX_DEPTH} levels or hold more than {MAX_NODES} parts")
        opened = len(self.open_references)
        raw = self._dereference(raw)
        try:
            if isinstance(raw, str):
                return _text_spec(raw)
            if isinstance(raw, (list, tuple)):
                return _Spec(self._type_list(raw, depth)) if all(_is_text(item) for item in raw) else _Spec(_string())
            if isinstance(raw, Mapping):
                return self._mapping_spec(raw, depth)
            return _Spec(_string())
        finally:
            del self.open_references[opened:]

    def _mapping_spec(self, raw: Mapping[str, Any], depth: int) -> _Spec:
        if raw and all(isinstance(value, Mapping) for value in raw.values()) and not set(raw) <= _STRUCTURE_WORDS:
            nested = self.container(raw, None, depth + 1)
            return _Spec({word: value for word, value in nested.items() if word != "required" or value})
        base, optional = self._base(raw, depth)
        schema: dict[str, Any] = {"type": base.pop("type")}
        schema.update(_description(raw) or _description(base))
        schema.update(_choices(raw) or ({"enum": base["enum"]} if "enum" in base else {}))
        if schema["type"] == "array":
            schema.update(self._items(raw, base, depth))
        if schema["type"] == "object":
            schema.update(self._nested(raw, base, depth))
        schema.update({word: value for word, value in base.items() if word in _KEYWORDS})
        schema.update(_kept_keywords(raw))
        schema.update({"default": base["default"]} if "default" in base else {})
        schema.update(_plain_entry("default", raw["default"]) if "default" in raw else {})
        return _Spec(schema, _own_word(raw, optional), "default" in raw or _says_optional(raw))

    def _base(self, raw: Mapping[str, Any], depth: int) -> tuple[dict[str, Any], bool | None]:
        """Give what the type (or its stand-ins) says: a schema with a concrete type, and whether it says optional."""
        kind = raw.get("type")
        if isinstance(kind, str) and kind.strip():
            reading = read_type(kind)
            if reading.known or not _has_structure(raw):
                return reading.schema, reading.optional
        elif isinstance(kind, (list, tuple)) and kind:
            return self._type_list(kind, depth), None
        elif isinstance(kind, Mapping):
            inner = self.spec(kind, depth + 1)
            return dict(inner.schema), inner.optional
        for word in ("anyOf", "oneOf"):
            if isinstance(raw.get(word), (list, tuple)) and raw[word]:
                return self._type_list(raw[word], depth), None
        if isinstance(raw.get("allOf"), (list, tuple)) and raw["allOf"]:
            return self._all_of(raw["allOf"], depth), None
        return {"type": _inferred_type(raw)}, None

    def _type_list(self, kinds: Any, depth: int) -> dict[str, Any]:
        schemas = [self.spec(kind, depth + 1).schema for kind in kinds]
        real = [schema for schema in schemas if schema["type"] != "null"]
        if not schemas:
            return _string()
        if not real:
            return {"type": "null"}
        nullable = {"nullable": True} if len(real) < len(schemas) else {}
        return {**widest(real), **nullable}

    def _all_of(self, parts: Any, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for part in parts:
            part = self._dereference(part)
            if isinstance(part, Mapping):
                properties = {**merged.get("properties", {}), **_mapping(part.get("properties"))}
                required = [*_names(merged.get("required")), *_names(part.get("required"))]
                merged = {**merged, **part}
                merged.update({"properties": properties} if properties else {})
                merged.update({"required": required} if required else {})
        return self.spec(merged, depth + 1).schema if merged else _string()

    def _items(self, raw: Mapping[str, Any], base: dict[str, Any], depth: int) -> dict[str, Any]:
        items = raw.get("items")
        if isinstance(items, (list, tuple)) and items:
            return {"items": widest([self.spec(item, depth + 1).schema for item in items])}
        if (isinstance(items, (Mapping, str)) and items) or items == {}:
            return {"items": self.spec(items, depth + 1).schema} if items else {}
        return {"items": base["items"]} if "items" in base else {}

    def _nested(self, raw: Mapping[str, Any], base: dict[str, Any], depth: int) -> dict[str, Any]:
        entries = _schema_entries(raw) if isinstance(raw.get("properties"), (Mapping, list)) else _leftovers(raw)
        required = raw.get("required")
        listed = [None if isinstance(required, bool) else required]
        nested = self._object({"additionalProperties": raw.get("additionalProperties")}, entries, listed, False, depth)
        if not entries:
            nested.update({word: base[word] for word in ("properties", "required") if word in base})
        if "additionalProperties" in base:
            nested.setdefault("additionalProperties", base["additionalProperties"])
        return {word: value for word, value in nested.items() if word != "type" and (word != "required" or value)}

    def _dereference(self, raw: Any) -> Any:
        while isinstance(raw, Mapping) and isinstance(raw.get("$ref"), str):
            name = raw["$ref"]
            beside = {word: value for word, value in raw.items() if word != "$ref"}
            target = self.definitions.get(name)
            if not isinstance(target, Mapping):
                return beside  # an unknown reference says nothing
            if name in self.open_references:
                return {"type": target.get("type", "object"), **beside}  # endless: its first level is shown
            self.open_references.append(name)
            raw = {**target, **beside}
        return raw


# what a container holds


def _is_schema(raw: Mapping[str, Any]) -> bool:
    """Tell a JSON Schema from one entry per argument, whose names may be "type" or "properties" too."""
    kind, properties = raw.get("type"), raw.get("properties")
    if isinstance(kind, Mapping):
        return False
    if _means_object(kind):
        return True
    if isinstance(properties, (list, tuple)):
        return True
    if not isinstance(properties, Mapping):
        return not kind and set(raw) <= (_META | {"required", *_DEFINITIONS}) and "type" in raw
    others = [word for word in raw if word not in _META and word not in ("properties", "required", *_DEFINITIONS)]
    if any(isinstance(raw[word], Mapping) for word in others):
        return False
    return not _looks_like_spec(properties)


def _means_object(kind: Any) -> bool:
    if isinstance(kind, (list, tuple)):
        return any(_means_object(item) for item in kind)
    return isinstance(kind, str) and read_type(kind).known and read_type(kind).schema["type"] == "object"


def _looks_like_spec(raw: Mapping[str, Any]) -> bool:
    kind = raw.get("type")
    words = set(raw) <= _SPEC_WORDS
    return words and (isinstance(kind, str) if "type" in raw else isinstance(raw.get("description"), str))


def _schema_entries(raw: Mapping[str, Any]) -> dict[str, Any]:
    properties = raw.get("properties")
    if isinstance(properties, Mapping):
        return {_name(name): spec for name, spec in properties.items()}
    if isinstance(properties, (list, tuple)):
        return _named_entries(properties)
    return _leftovers(raw)


def _leftovers(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Give the parameters that stand directly in an object without `properties`."""
    known = _META | _KEYWORDS.keys() | _SPEC_WORDS | {"properties", "anyOf", "oneOf", "allOf", "not", *_DEFINITIONS}
    return {_name(name): spec for name, spec in raw.items() if name not in known and isinstance(spec, Mapping) and spec}


def _flat_entries(raw: Mapping[str, Any]) -> dict[str, Any]:
    mappings = any(isinstance(spec, Mapping) for spec in raw.values())
    return {_name(name): spec for name, spec in raw.items() if not _is_meta(name, spec, mappings)}


def _is_meta(name: Any, spec: Any, mappings: bool) -> bool:
    """Tell a word about the arguments from an argument of that name."""
    if isinstance(spec, Mapping):
        return name in _DEFINITIONS
    if name in ("required", "optional"):
        return not isinstance(spec, str) or mappings
    return name in _META and mappings


def _named_entries(raw: Any) -> dict[str, Any]:
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


def _required(specs: Mapping[str, _Spec], listed: list[Any], flat: bool) -> list[str]:
    explicit = any(isinstance(names, (list, tuple, str, Mapping)) for names in listed)
    order = [name for names in listed for name in _names(names)]
    marked = any(spec.optional is False for spec in specs.values())

    def needs(name: str, spec: _Spec) -> bool:
        if spec.optional is not None:
            return not spec.optional
        if explicit:
            return name in order
        return flat and not marked and not spec.hint

    needed = [name for name, spec in specs.items() if needs(name, spec)]
    first = [name for name in dict.fromkeys(order) if name in needed]
    return [*first, *(name for name in needed if name not in first)]


def _names(raw: Any) -> list[str]:
    if isinstance(raw, str):
        return [name.strip() for name in raw.split(",") if name.strip()]
    if isinstance(raw, Mapping):
        return [_name(name) for name, value in raw.items() if value]
    return [name for name in raw if isinstance(name, str)] if isinstance(raw, (list, tuple)) else []


def _name(name: Any) -> str:
    return name if isinstance(name, str) else str(name)


# what a specification holds


def _string() -> dict[str, Any]:
    return {"type": "string"}


def _mapping(raw: Any) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def _text_spec(text: str) -> _Spec:
    """Read a sentence such as "Optional. String. The city." or a bare type word."""
    schema: dict[str, Any] | None = None
    optional: bool | None = None
    position = 0
    while position < len(text):
        piece, end = _first_sentence(text, position)
        if piece.lower() in ("optional", "required"):
            optional = piece.lower() == "optional"
        else:
            reading = read_type(piece)
            if schema is not None or not reading.known:
                break
            schema = reading.schema
            optional = reading.optional if reading.optional is not None else optional
        position = end
    rest = text[position:].strip()
    result = schema or _string()
    return _Spec({**result, "description": rest} if rest else result, optional, bool(_SAYS_OPTIONAL.search(rest)))


def _first_sentence(text: str, start: int) -> tuple[str, int]:
    """Give what stands before the next full stop, colon or semicolon outside brackets, and where it ends."""
    depth = 0
    for index in range(start, min(len(text), start + 200)):
        depth += (text[index] in "[({<") - (text[index] in "])}>")
        if depth <= 0 and text[index] in ".:;\n":
            return text[start:index].strip(), index + 1
    return text[start : start + 200].strip(), min(len(text), start + 200)


def _description(raw: Mapping[str, Any]) -> dict[str, str]:
    text = raw.get("description")
    if isinstance(text, (list, tuple)) and all(isinstance(part, str) for part in text):
        text = "\n".join(text)
    return {"description": text} if isinstance(text, str) and text else {}


def _choices(raw: Mapping[str, Any]) -> dict[str, Any]:
    for word in ("enum", "choices"):
        if isinstance(raw.get(word), (list, tuple, set, frozenset)):
            entry = _plain_entry("enum", raw[word])
            if entry.get("enum"):
                return entry
    return {}


def _kept_keywords(raw: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for word, is_valid in _KEYWORDS.items():
        if word in raw and is_valid(raw[word]):
            kept.update(_plain_entry(word, raw[word]))
    return kept


def _plain_entry(word: str, value: Any) -> dict[str, Any]:
    try:
        return {word: plain_value(value)}
    except ValueError:
        return {}  # a default that JSON cannot write is no default


def _own_word(raw: Mapping[str, Any], optional: bool | None) -> bool | None:
    """Say whether a parameter calls itself optional (True) or required (False)."""
    for word, meaning in (("optional", True), ("required", False)):
        value = raw.get(word)
        if isinstance(value, str) and value.strip().lower() in ("true", "false", "yes", "no"):
            value = value.strip().lower() in ("true", "yes")
        if isinstance(value, bool):
            return meaning if value else not meaning
    return optional


def _says_optional(raw: Mapping[str, Any]) -> bool:
    text = raw.get("description")
    return isinstance(text, str) and bool(_SAYS_OPTIONAL.search(text))


def _has_structure(raw: Mapping[str, Any]) -> bool:
    return isinstance(raw.get("properties"), Mapping) or isinstance(raw.get("items"), Mapping)


def _inferred_type(raw: Mapping[str, Any]) -> str:
    if isinstance(raw.get("properties"), (Mapping, list)) or isinstance(raw.get("additionalProperties"), Mapping):
        return "object"
    if raw.get("items"):
        return "array"
    if choices := _choices(raw):
        return type_of_values(choices["enum"]) or "string"
    for word in ("const", "default"):
        if raw.get(word) is not None and value_type(raw[word]) in JSON_TYPES:
            return value_type(raw[word])
    return "string"
