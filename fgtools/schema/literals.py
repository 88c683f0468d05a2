"""Values written as text, in JSON or as Python literals, and which values have a JSON form.

Knows text and plain values; it does not know what they mean. Published data sets have tools and calls as JSON, as JSON
inside JSON, and as the `repr` of Python objects.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from fgtools.schema.limits import MAX_LITERAL

MAX_RAW_DEPTH = 64
"""Deepest nesting of values in raw data. Real ones stay below 10; chat templates recurse, so that a limit is needed."""

_DECODER = json.JSONDecoder(strict=False)  # data sets often have raw line breaks inside strings
_NEXT = re.compile(r"[\s,;]*(?=[{\[])")  # what may stand before the next object or list
_NAMES = {"true": True, "false": False, "null": None}


class _JsonNames(ast.NodeTransformer):
    """Allows JSON's true, false and null in a Python literal."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Replace true, false and null by their Python constants."""
        return ast.copy_location(ast.Constant(_NAMES[node.id]), node) if node.id in _NAMES else node


def parse_literal(text: str) -> Any:
    """Parse one value: JSON, else a Python literal (in which JSON's constants are allowed).

    Args:
        text: The text; white space around it is allowed.

    Returns:
        The value. A Python literal may hold tuples, sets or bytes, and JSON text numbers that are not finite;
        `plain_value` makes sure of a JSON form.

    Raises:
        ValueError: The text is neither, or nests too deep for the parser.
    """
    try:
        return _DECODER.decode(text.strip())
    except RecursionError as error:
        raise ValueError("nested too deep to be parsed") from error
    except ValueError:
        pass  # a Python literal then
    if len(text) > MAX_LITERAL:
        raise ValueError(f"no JSON, and too long for a Python literal: {text.strip()[:60]!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of odd backslashes in the data
            tree = _JsonNames().visit(ast.parse(text.strip(), mode="eval"))
        return ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"neither JSON nor a Python literal: {text.strip()[:60]!r}") from error


def parse_literals(text: str) -> list[Any]:
    """Parse every value of a text that holds one or several JSON values, or one Python literal.

    Args:
        text: Values one after the other, with white space, commas or semicolons between them.

    Returns:
        At least one value.

    Raises:
        ValueError: The text, or a part of it, cannot be parsed.
    """
    try:
        return [parse_literal(text)]
    except ValueError:
        values, end = parse_values(text, 0)
        if not values or text[end:].strip():
            raise
        return values


def parse_values(text: str, position: int) -> tuple[list[Any], int]:
    """Parse JSON objects and lists one after the other, up to the first text that is neither.

    Args:
        text: The text.
        position: Index of the first character to look at.

    Returns:
        The values, and the index after the last one.
    """
    values: list[Any] = []
    while match := _NEXT.match(text, position):
        try:
            value, position = _DECODER.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            break
        values.append(value)
    return values, position


def decode_text(value: Any, times: int = 2) -> Any:
    """Decode a value that may be text of a value.

    Args:
        value: Any value.
        times: How often text is decoded at most.

    Returns:
        The value itself if it is not text.

    Raises:
        ValueError: The text cannot be parsed.
    """
    for _ in range(times):
        if not isinstance(value, str):
            break
        value = parse_literal(value)
    return value


def plain_value(value: Any, depth: int = 0) -> Any:
    """Copy a value into JSON's types: tuples and sets become lists, keys become text.

    Args:
        value: Any value.
        depth: How many lists and mappings of the whole enclose it.

    Returns:
        A copy that shares nothing mutable with `value`.

    Raises:
        ValueError: The value has no JSON form (not finite, bytes, an object), nests deeper than MAX_RAW_DEPTH, or is an
            integer of more than 4,000 bits.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if value.bit_length() > 4000:
            raise ValueError("an integer of more than 4,000 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a number must be finite, got {value}")
        return value
    if depth >= MAX_RAW_DEPTH:
        raise ValueError(f"nested deeper than {MAX_RAW_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_key(key): plain_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        ordered = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [plain_value(item, depth + 1) for item in ordered]
    raise ValueError(f"no JSON value: {type(value).__name__}")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)  # as json.dumps writes such keys
    raise ValueError(f"no JSON key: {type(key).__name__}")


def show(value: Any) -> str:
    """Return the first 80 characters of a value's repr, for messages; never raises."""
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):  # an integer of thousands of digits, or too deep nesting
        return type(value).__name__


def decode_json(value: Any) -> Any:
    """Decode text of a list or mapping; anything else, and text that cannot be decoded, is returned as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return decode_text(value, times=1)
    except ValueError:
        return value
