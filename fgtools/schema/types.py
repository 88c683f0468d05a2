"""Type expressions of published data sets, as JSON Schema.

Knows types written as text: JSON Schema's own words, Python's (builtins and typing), Java's and C's, with brackets,
unions, "optional" and short prose ("array of strings"). It does not know tools or parameters.

Text that is no type becomes "string": the chat template shows a type only when there is one, and every value can be
written as text. For the same reason a union is shown as one type (see `unions.widest`).
"""

from __future__ import annotations

import ast
import copy
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fgtools.schema.unions import common_type, unite, widest, without_alternatives

JSON_TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})

_SPELLINGS = {
    "string": "str string text char character charsequence stringbuilder varchar nvarchar date datetime time timestamp "
    "localdate localdatetime timedelta duration uuid guid uri url email path filepath file filename bytes bytearray "
    "enum any anytype unknown mixed variant password binary base64 anystr pathlike",
    "integer": "int integer long short byte int8 int16 int32 int64 uint uint8 uint16 uint32 uint64 bigint biginteger "
    "smallint tinyint",
    "number": "float number double decimal float16 float32 float64 real numeric bigdecimal",
    "boolean": "bool boolean",
    "array": "list array arraylist linkedlist tuple set frozenset hashset treeset sequence iterable iterator "
    "collection vector deque ndarray mutablesequence namedtuple abstractset",
    "object": "dict dictionary object map hashmap treemap linkedhashmap hashtable mapping mutablemapping json struct "
    "hash ordereddict defaultdict typeddict dataclass jsonobject",
    "null": "null none nonetype nil void undefined",
}
_WORDS = {word: kind for kind, words in _SPELLINGS.items() for word in words.split()}
_NESTING = re.compile(r"[\[<({]|\bof\b", re.IGNORECASE)
_MAX_NESTING = 24
_OPENING = {"[": "]", "<": ">", "(": ")", "{": "}"}
_OPTIONAL = re.compile(r"[\s,;:(\[-]*\boptional\b[\s)\].]*$", re.IGNORECASE)
_OPTIONAL_FIRST = re.compile(r"^[(\[]?optional[)\]]?[\s,:;.-]+(?=\w)", re.IGNORECASE)
_REQUIRED = re.compile(r"[\s,;:(\[-]*\brequired\b[\s)\].]*$", re.IGNORECASE)
_DEFAULT = re.compile(r"[\s,;(]+default(?:s|ed)?\b.*$", re.IGNORECASE | re.DOTALL)
_PROSE = re.compile(
    r"(?:an?\s+)?(list|array|arraylist|set|tuple|sequence|collection)s?\s+(?:of|<of>)\s+(.+)", re.IGNORECASE | re.DOTALL
)
_LITERAL = re.compile(r"(?:typing\.)?Literal\s*(\[.*\])", re.IGNORECASE | re.DOTALL)
_LEADING = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class ParsedType:
    """A parsed type expression.

    Attributes:
        schema: JSON Schema with a concrete `type`; a fresh object for every caller.
        optional: True where the text says that the parameter is optional, False where it says required, else None.
        known: Whether the whole text is a type.
    """

    schema: dict[str, Any]
    optional: bool | None
    known: bool


class _NotAType(Exception):
    """The text is no type expression."""


def parse_type(text: str) -> ParsedType:
    """Parse a type expression.

    Args:
        text: E.g. "int", "List[str], optional", "Dict[str, float]", "array of strings", "String[]".

    Returns:
        The ParsedType; a string type with `known` False for text that is no type.
    """
    schema, optional, known = _parse(text)
    return ParsedType(copy.deepcopy(schema) if len(schema) > 1 else {**schema}, optional, known)


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[dict[str, Any], bool | None, bool]:
    body, optional = _strip_marks(text.strip()[:500])
    try:
        if len(_NESTING.findall(body)) > _MAX_NESTING:
            raise _NotAType
        schema, nullable = _parse_expression(body)
    except _NotAType:
        leading = _LEADING.match(body)
        kind = _WORDS.get(leading.group().lower(), "string") if leading else "string"
        return _schema_of("string" if kind == "null" else kind), optional, False
    return schema, True if nullable else optional, True


def _strip_marks(body: str) -> tuple[str, bool | None]:
    optional: bool | None = None
    shorter = _DEFAULT.sub("", body)
    if shorter != body and shorter:
        body, optional = shorter, True
    if _OPTIONAL.search(body):
        body, optional = _OPTIONAL.sub("", body), True
    elif _REQUIRED.search(body):
        body, optional = _REQUIRED.sub("", body), False
    if _OPTIONAL_FIRST.search(body):
        body, optional = _OPTIONAL_FIRST.sub("", body), True
    if body.endswith("?"):
        body, optional = body[:-1], True
    return body.strip(" .:;"), optional


def _parse_expression(body: str) -> tuple[dict[str, Any], bool]:
    """Return the schema of an expression and whether it allows null; raises _NotAType."""
    if literal := _LITERAL.fullmatch(body):
        return _parse_literal(literal.group(1)), False
    if prose := _PROSE.fullmatch(body):
        inner, _ = _parse_expression(_singularize(prose.group(2)))
        return {"type": "array", "items": without_alternatives(inner)}, False
    parts = _split(body, ("|", " or ", "/"))
    if len(parts) > 1:
        return _narrow_union([_parse_expression(part) for part in parts])
    # String[] is a list of strings, but List[] only a list.
    if body.endswith("[]") and _WORDS.get(body[:-2].lower()) != "array":
        return {"type": "array", "items": without_alternatives(_parse_expression(body[:-2])[0])}, False
    name, arguments = _split_generic(body)
    if arguments is None:
        return _parse_word(name), False
    return _apply_generic(name, arguments)


def _parse_word(name: str) -> dict[str, Any]:
    if name.lower() not in _WORDS:
        raise _NotAType
    return _schema_of(_WORDS[name.lower()])


def _schema_of(kind: str) -> dict[str, Any]:
    # Without `properties` the chat template takes an object's other keywords for its parameters.
    return {"type": "object", "properties": {}} if kind == "object" else {"type": kind}


def _split_generic(body: str) -> tuple[str, list[str] | None]:
    match = re.fullmatch(r"([A-Za-z_][\w.]*)\s*(?:([\[<({])(.*)[\]>)}])?", body, re.DOTALL)
    if not match or (match.group(2) and body[-1] != _OPENING[match.group(2)]):
        raise _NotAType
    name = match.group(1).rsplit(".", 1)[-1]  # typing.List, java.util.ArrayList
    if match.group(2) is None:
        return name, None
    inner = match.group(3).strip()
    return name, [part for part in _split(inner, (",",)) if part] if inner else []


def _apply_generic(name: str, arguments: list[str]) -> tuple[dict[str, Any], bool]:
    lowered = name.lower()
    if lowered in ("optional", "nullable", "maybe"):
        return _parse_expression(arguments[0])[0] if arguments else {"type": "string"}, True
    if lowered in ("union", "oneof", "anyof"):
        return _narrow_union([_parse_expression(part) for part in arguments])
    if lowered in ("annotated", "final", "required", "notrequired", "classvar") and arguments:
        return _parse_expression(arguments[0])[0], lowered == "notrequired"
    schema = _parse_word(name)
    if schema["type"] == "array":
        items = [_parse_expression(part)[0] for part in arguments if part != "..."]
        return ({"type": "array", "items": without_alternatives(widest(items))} if items else schema), False
    if schema["type"] == "object" and len(arguments) == 2 and ":" not in "".join(arguments):
        return {**schema, "additionalProperties": _parse_expression(arguments[1])[0]}, False
    return schema, False  # varchar(20), decimal(10, 2): bounds of a column, not types


def _narrow_union(members: list[tuple[dict[str, Any], bool]]) -> tuple[dict[str, Any], bool]:
    real = [schema for schema, _ in members if schema.get("type") != "null"]
    nullable = len(real) < len(members) or any(optional for _, optional in members)
    if not real:
        return {"type": "null"}, nullable
    return unite(real), nullable


def _parse_literal(text: str) -> dict[str, Any]:
    try:
        choices = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _NotAType from error
    if not choices or not all(isinstance(choice, (str, int, float, bool, type(None))) for choice in choices):
        raise _NotAType
    return {"type": common_type(choices) or "string", "enum": list(choices)}


def _singularize(text: str) -> str:
    text = re.sub(r"\s+(?:objects?|values?|elements?|items?|type)$", "", text.strip(), flags=re.IGNORECASE)
    if text.lower() in _WORDS or not text.lower().endswith("s"):
        return text
    head, _, last = text.rpartition(" ")
    shorter = {"dictionaries": "dictionary", "hashes": "hash"}.get(last.lower(), last[:-1])
    return f"{head} {shorter}".strip()


def _split(text: str, separators: tuple[str, ...]) -> list[str]:
    """Split at the separators outside brackets."""
    parts, depth, start = [], 0, 0
    for mark in re.finditer("|".join(map(re.escape, (*"[<({]>)}", *separators))), text):
        if mark.group() not in separators:
            depth += 1 if mark.group() in _OPENING else -1
        elif depth == 0:
            parts.append(text[start : mark.start()].strip())
            start = mark.end()
    return [*parts, text[start:].strip()]
