"""One parameter's specification: what stands in its mapping or sentence, keyword by keyword.

Knows single specifications. It does not know nesting (`parameters`), nor which notation a set of them is written in
(`containers`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fgtools.schema.literals import plain_value
from fgtools.schema.types import JSON_TYPES, parse_type, type_of_values, value_type

_SAYS_OPTIONAL = re.compile(r"^\W*optional\b|[(\[]optional\b|,\s*optional\s*[.)]", re.IGNORECASE)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_text(value: Any) -> bool:
    """Tell text from everything else."""
    return isinstance(value, str)


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError, RecursionError, OverflowError):
        return False
    return True


_KEYWORDS: dict[str, Callable[[Any], bool]] = {
    "title": is_text,
    "format": is_text,
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

KEPT_WORDS = frozenset(_KEYWORDS)
"""Keywords whose values are copied, not read."""

SPEC_WORDS = KEPT_WORDS | {
    *("type", "description", "default", "enum", "choices", "items", "properties"),
    *("required", "optional", "example"),
}
"""Words that stand in a specification."""


@dataclass(frozen=True)
class Spec:
    """One parameter, read.

    Attributes:
        schema: JSON Schema with a concrete type.
        optional: True or False where it says so in so many words, else None.
        hint: Whether a default or its description suggests that it may be left out.
    """

    schema: dict[str, Any]
    optional: bool | None = None
    hint: bool = False


def string_schema() -> dict[str, Any]:
    """Give the schema of what says nothing of its type."""
    return {"type": "string"}


def text_spec(text: str) -> Spec:
    """Read a sentence such as "Optional. String. The city." or a bare type word."""
    schema: dict[str, Any] | None = None
    optional: bool | None = None
    position = 0
    while position < len(text):
        piece, end = _first_sentence(text, position)
        if piece.lower() in ("optional", "required"):
            optional = piece.lower() == "optional"
        else:
            reading = parse_type(piece)
            if schema is not None or not reading.known:
                break
            schema = reading.schema
            optional = reading.optional if reading.optional is not None else optional
        position = end
    rest = text[position:].strip()
    result = schema or string_schema()
    return Spec({**result, "description": rest} if rest else result, optional, bool(_SAYS_OPTIONAL.search(rest)))


def _first_sentence(text: str, start: int) -> tuple[str, int]:
    """Give what stands before the next full stop, colon or semicolon outside brackets, and where it ends."""
    depth = 0
    for index in range(start, min(len(text), start + 200)):
        depth += (text[index] in "[({<") - (text[index] in "])}>")
        if depth <= 0 and text[index] in ".:;\n":
            return text[start:index].strip(), index + 1
    return text[start : start + 200].strip(), min(len(text), start + 200)


def description_of(raw: Mapping[str, Any]) -> dict[str, str]:
    """Give {"description"}, or {} where there is none."""
    text = raw.get("description")
    if isinstance(text, (list, tuple)) and all(isinstance(part, str) for part in text):
        text = "\n".join(text)
    return {"description": text} if isinstance(text, str) and text else {}


def choices_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Give {"enum"} of any JSON values, or {} where there is none."""
    for word in ("enum", "choices"):
        if isinstance(raw.get(word), (list, tuple, set, frozenset)):
            entry = plain_entry("enum", raw[word])
            if entry.get("enum"):
                return entry
    return {}


def keywords_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Give the KEPT_WORDS whose values are valid."""
    kept: dict[str, Any] = {}
    for word in raw:
        if word in KEPT_WORDS and _KEYWORDS[word](raw[word]):
            kept.update(plain_entry(word, raw[word]))
    return kept


def plain_entry(word: str, value: Any) -> dict[str, Any]:
    """Give {word: value} in JSON's types, or {} where JSON cannot write the value."""
    try:
        return {word: plain_value(value)}
    except ValueError:
        return {}


def own_word(raw: Mapping[str, Any], optional: bool | None) -> bool | None:
    """Say whether a parameter calls itself optional (True) or required (False)."""
    for word, meaning in (("optional", True), ("required", False)):
        value = raw.get(word)
        if isinstance(value, str) and value.strip().lower() in ("true", "false", "yes", "no"):
            value = value.strip().lower() in ("true", "yes")
        if isinstance(value, bool):
            return meaning if value else not meaning
    return optional


def says_optional(raw: Mapping[str, Any]) -> bool:
    """Tell whether the description calls the parameter optional."""
    text = raw.get("description")
    return isinstance(text, str) and bool(_SAYS_OPTIONAL.search(text))


def inferred_type(raw: Mapping[str, Any]) -> str:
    """Give the type of a specification without one, from its other keywords."""
    if isinstance(raw.get("properties"), (Mapping, list)) or isinstance(raw.get("additionalProperties"), Mapping):
        return "object"
    if raw.get("items"):
        return "array"
    if found := choices_of(raw):
        return type_of_values(found["enum"]) or "string"
    for word in ("const", "default"):
        if raw.get(word) is not None and value_type(raw[word]) in JSON_TYPES:
            return value_type(raw[word])
    return "string"
