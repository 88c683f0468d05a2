"""What specifications of parameters say, one by one and as a set.

Knows the keywords of one specification, whether it is a mapping or a sentence, and the three notations of a set of
them: a JSON Schema, a mapping with one entry per argument, a list of named arguments. It does not know nesting:
`parameters` puts both together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fgtools.schema.limits import MAX_DESCRIPTION, MAX_ENUM, require_at_most
from fgtools.schema.literals import decode_text, plain_value, show
from fgtools.schema.references import DEFINITION_WORDS, is_definitions
from fgtools.schema.types import parse_type
from fgtools.schema.unions import common_type, value_type

_META = frozenset({"description", "title", "type", "additionalProperties", "$schema", "$id", "$comment", "strict"})
_NESTING = frozenset(
    {"items", "properties", "additionalProperties", "patternProperties", "dependentSchemas", "required", "default"}
    | {"const", "example", "examples", "enum", "not", "if", "then", "else", "contains", "propertyNames"}
)
"""The words of JSON Schema whose value may be a mapping."""

DROPPED_WORDS = frozenset(
    {"not", "if", "dependentRequired", "patternProperties", "propertyNames", "contains", "minContains", "maxContains"}
    | {"unevaluatedProperties", "unevaluatedItems"}
)
"""Keywords of JSON Schema that restrict values and are left out, since no template shows them."""

_NEVER_NULL = frozenset(
    {"type", "description", "title", "format", "items", "properties", "required", "enum", "minimum", "maximum"}
    | {"pattern", "anyOf", "oneOf", "allOf", "$ref", "additionalProperties", "minLength", "maxLength", "minItems"}
    | {"maxItems", "nullable"}
)
"""Keywords that nobody writes with the value null: where one is null, a table has filled in what was not there."""

_NAME_WORDS = ("name", "parameter_name", "param_name", "argument_name", "arg_name", "param", "parameter", "arg", "key")
"""Fields of an argument's name in a list of arguments, best first."""

_SAYS_OPTIONAL = re.compile(r"^\W*optional\b|[(\[]optional\b|,\s*optional\s*[.)]", re.IGNORECASE)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int) and value >= 0


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError, RecursionError, OverflowError):
        return False
    return True


_KEYWORDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("title", "format"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("uniqueItems", "nullable"), lambda value: isinstance(value, bool)),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _is_count),
    "pattern": _is_pattern,
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "const": lambda value: True,
    "examples": lambda value: isinstance(value, list),
}
"""The keywords of JSON Schema (draft 2020-12) that are kept as they are, and when their value is valid."""

KEPT_WORDS = frozenset(_KEYWORDS)
"""Keywords whose values are copied without being parsed."""

_SPEC_WORDS = KEPT_WORDS | {
    *("type", "description", "default", "enum", "choices", "items", "properties"),
    *("required", "optional", "example"),
}


@dataclass(frozen=True)
class Spec:
    """One parsed parameter.

    Attributes:
        schema: JSON Schema with a concrete type.
        optional: True or False where the parameter itself says so, else None.
        hint: Whether a default, null as a value or the description suggests that it may be left out.
    """

    schema: dict[str, Any]
    optional: bool | None = None
    hint: bool = False


def parse_sentence(text: str) -> Spec:
    """Parse a sentence such as "Optional. String. The city." or a bare type word."""
    schema: dict[str, Any] | None = None
    optional: bool | None = None
    position = 0
    while position < len(text):
        piece, end = _first_sentence(text, position)
        if piece.lower() in ("optional", "required"):
            optional = piece.lower() == "optional"
        else:
            parsed = parse_type(piece)
            if schema is not None or not parsed.known:
                break
            schema = parsed.schema
            optional = parsed.optional if parsed.optional is not None else optional
        position = end
    rest = text[position:].strip()
    described = {"description": rest} if rest else {}
    return Spec({**(schema or {"type": "string"}), **described}, optional, bool(_SAYS_OPTIONAL.search(rest)))


def _first_sentence(text: str, start: int) -> tuple[str, int]:
    """Return the text up to the next full stop, colon or semicolon outside brackets, and where the next one starts."""
    depth = 0
    for index in range(start, min(len(text), start + 200)):
        depth += (text[index] in "[({<") - (text[index] in "])}>")
        if depth <= 0 and text[index] in ".:;\n":
            return text[start:index].strip(), index + 1
    return text[start : start + 200].strip(), min(len(text), start + 200)


def description_of(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return {"description"}, or {} where there is none."""
    text = raw.get("description")
    if isinstance(text, (list, tuple)) and all(isinstance(part, str) for part in text):
        text = "\n".join(text)
    if not isinstance(text, str) or not text:
        return {}
    require_at_most(MAX_DESCRIPTION, len(text), "characters of a parameter's description")
    return {"description": text}


def choices_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"enum"} of any JSON values, or {} where there is none."""
    for word in ("enum", "choices"):
        if isinstance(raw.get(word), (list, tuple, set, frozenset)):
            require_at_most(MAX_ENUM, len(raw[word]), "choices of a parameter")
            entry = plain_entry("enum", raw[word])
            if entry.get("enum"):
                return entry
    return {}


def keywords_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the KEPT_WORDS whose values are valid."""
    valid = {word: raw[word] for word in raw if word in KEPT_WORDS and _KEYWORDS[word](raw[word])}
    return {name: plain for word, value in valid.items() for name, plain in plain_entry(word, value).items()}


def plain_entry(word: str, value: Any) -> dict[str, Any]:
    """Return {word: value} in JSON's types, or {} where the value has no JSON form."""
    try:
        return {word: plain_value(value)}
    except ValueError:
        return {}


def is_marked_optional(raw: Mapping[str, Any], optional: bool | None) -> bool | None:
    """Return whether a parameter is marked optional (True) or required (False); `optional` where it is not marked."""
    for word, meaning in (("optional", True), ("required", False), ("is_required", False), ("isRequired", False)):
        value = raw.get(word)
        if isinstance(value, str) and value.strip().lower() in ("true", "false", "yes", "no"):
            value = value.strip().lower() in ("true", "yes")
        if isinstance(value, bool):
            return meaning if value else not meaning
    return optional


def says_optional(raw: Mapping[str, Any]) -> bool:
    """Return whether the description says that the parameter is optional."""
    text = raw.get("description")
    return isinstance(text, str) and bool(_SAYS_OPTIONAL.search(text))


def inferred_type(raw: Mapping[str, Any]) -> str:
    """Return the type of a specification that names none, going by its other keywords."""
    if isinstance(raw.get("properties"), (Mapping, list)) or isinstance(raw.get("additionalProperties"), Mapping):
        return "object"
    if raw.get("items"):
        return "array"
    if found := choices_of(raw):
        return common_type(found["enum"]) or "string"
    if "const" in raw and raw["const"] is None:
        return "null"
    given = next((raw[word] for word in ("const", "default") if raw.get(word) is not None), None)
    return "string" if given is None else value_type(given)


def is_schema(raw: Mapping[str, Any]) -> bool:
    """Return whether a mapping is a JSON Schema, and not one entry per argument ("type" may be an argument's name)."""
    kind, properties = raw.get("type"), raw.get("properties")
    if isinstance(kind, Mapping):
        return False
    if means_object(kind) or isinstance(properties, (list, tuple)):
        return True
    if not isinstance(properties, Mapping):
        return not kind and set(raw) <= (_META | {"required", *DEFINITION_WORDS}) and "type" in raw
    known = _META.union(("properties", "required", *DEFINITION_WORDS))
    others = [word for word in raw if word not in known]
    if any(isinstance(raw[word], Mapping) for word in others):
        return False
    return not _looks_like_spec(properties)


def means_object(kind: Any) -> bool:
    """Return whether a type word, or one of a list of them, is one for objects."""
    if isinstance(kind, (list, tuple)):
        return any(means_object(item) for item in kind)
    return isinstance(kind, str) and parse_type(kind).known and parse_type(kind).schema["type"] == "object"


def _looks_like_spec(raw: Mapping[str, Any]) -> bool:
    described = isinstance(raw.get("type" if "type" in raw else "description"), str)
    return described and set(raw) <= _SPEC_WORDS


def schema_entries(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a JSON Schema by name."""
    properties = raw.get("properties")
    if isinstance(properties, Mapping):
        return {str(name): spec for name, spec in properties.items()}
    if isinstance(properties, (list, tuple)):
        return named_entries(properties)[0]
    # some objects have their parameters beside the keywords
    return {
        str(name): spec
        for name, spec in raw.items()
        if name not in _NESTING and isinstance(spec, Mapping) and spec and not _holds_definitions(name, spec)
    }


def flat_entries(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a mapping with one entry per argument."""
    mappings = any(isinstance(spec, Mapping) for spec in raw.values())
    return {str(name): spec for name, spec in raw.items() if not _is_meta(name, spec, mappings)}


def _is_meta(name: Any, spec: Any, mappings: bool) -> bool:
    """Return whether an entry says something about the arguments and is not an argument of that name."""
    if isinstance(spec, Mapping):
        return _holds_definitions(name, spec)
    if name in ("required", "optional"):
        return not isinstance(spec, str) or mappings
    return name in _META and mappings


def _holds_definitions(name: Any, spec: Any) -> bool:
    return name in DEFINITION_WORDS and is_definitions(spec)


def split_entries(raw: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the arguments of {"required": ..., "optional": ...}, each a list or mapping of arguments, or None."""
    if not raw or not set(raw) <= {"required", "optional"}:
        return None
    found: list[dict[str, Any]] = []
    for word, listed in raw.items():
        if isinstance(listed, Mapping) and all(isinstance(spec, (Mapping, str)) for spec in listed.values()):
            if isinstance(listed.get("type"), str):
                return None  # an argument of that name
            listed = [
                {**(spec if isinstance(spec, Mapping) else {"type": spec}), "name": n} for n, spec in listed.items()
            ]
        if not isinstance(listed, (list, tuple)) or not all(isinstance(item, Mapping) for item in listed):
            return None
        found += [{**item, "required": word == "required"} for item in listed]
    return found


def without_nulls(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a specification without null values, where one of them cannot have been written by its author."""
    if not any(value is None and word in _NEVER_NULL for word, value in raw.items()):
        return raw
    return {word: value for word, value in raw.items() if value is not None}


def filled_names(entries: Mapping[str, Any], required: list[Any], flat: bool) -> list[str]:
    """Return the names that a table filled in for a tool which has no such parameters: their value is null.

    Args:
        entries: The specifications by name.
        required: The `required` fields; a name in one of them is the tool's own.
        flat: Whether the notation is no JSON Schema; there a parameter may have no specification, and null is one
            only where other parameters have some.

    Returns:
        The names, in order.
    """
    own = {name for names in required for name in listed_names(names)}
    null = [name for name, spec in entries.items() if _is_null(spec) and name not in own]
    described = any(isinstance(spec, Mapping) and not _is_null(spec) for spec in entries.values())
    return null if described or not flat else []


def _is_null(spec: Any) -> bool:
    return spec is None or (isinstance(spec, Mapping) and bool(spec) and all(part is None for part in spec.values()))


def named_entries(raw: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters of a list of names, {"name", ...} (also OpenAPI's {"schema"}) or {name: specification}.

    Args:
        raw: The list.

    Returns:
        The specifications by name; and what was left out, as text: items without a name, and second ones of a name.
    """
    entries: dict[str, Any] = {}
    left: list[str] = []
    for item in raw:
        pairs = _name_entries(item)
        left.extend([] if pairs else [show(item)])
        for name, spec in pairs:
            left.extend([name[:80]] if name in entries else [])
            entries.setdefault(name, spec)
    return entries, left


def _name_entries(item: Any) -> list[tuple[str, Any]]:
    """Return the parameters that an item of a list names, with their specifications; [] where it names none."""
    if isinstance(item, str):
        return [(item, {})]
    if not isinstance(item, Mapping):
        return []
    word = next((word for word in _NAME_WORDS if isinstance(item.get(word), str)), None)
    if word is not None and (word == "name" or len(item) > 1):
        inner = item["schema"] if isinstance(item.get("schema"), Mapping) else {}
        beside = {key: value for key, value in item.items() if key not in (word, "schema", "in")}
        return [(item[word], {**inner, **beside})]
    if len(item) == 1 or all(isinstance(spec, Mapping) for spec in item.values()):
        return [(str(name), spec) for name, spec in item.items()]
    return []


def required_names(specs: Mapping[str, Spec], listed: list[Any], flat: bool) -> list[str]:
    """Return the names of the required parameters.

    Args:
        specs: The parsed parameters by name.
        listed: The `required` fields inside and beside the parameters; None where there is none.
        flat: Whether a parameter is required when nothing says otherwise, as in the notations that are no JSON Schema;
            not so where another parameter is marked as required.

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
    return list(dict.fromkeys([*(name for name in order if name in needed), *needed]))


def listed_names(raw: Any) -> list[str]:
    """Return the names in a `required` field: a list, a mapping of truth values, or names with commas between them."""
    if isinstance(raw, str) and raw.lstrip().startswith("["):
        with suppress(ValueError):  # names with commas between them
            raw = decode_text(raw)
    if isinstance(raw, str):
        return [name.strip() for name in raw.split(",") if name.strip()]
    if isinstance(raw, Mapping):
        return [str(name) for name, value in raw.items() if value]
    return [name for name in raw if isinstance(name, str)] if isinstance(raw, (list, tuple)) else []
