"""Python text in data sets: signatures that declare a tool, and calls such as `[f(a=1), g(b="x")]`.

Knows text only and runs none of it: a signature is taken from its syntax tree, a call from its brackets and quotes.
Type hints are read by `annotations` and `types`, docstrings by `docstrings`. NexusRaven and xLAM's sources publish
tools in this form, ToolACE, BFCL and Gorilla calls.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from typing import Any

from fgtools.schema.annotations import Scope, describe_annotation, describe_default
from fgtools.schema.docstrings import Described, parse_docstring
from fgtools.schema.literals import parse_literal, plain_value

_DEF = re.compile(r"^\s*(?:@[^\n]*\n\s*)*(?:async\s+)?def\s")
_CALLED = re.compile(r"[^\W\d][\w.]*\s*\(")
_OWN_ARGUMENTS = frozenset({"self", "cls"})
_OPEN, _CLOSE = "([{", ")]}"
_MARKS = frozenset(_OPEN + _CLOSE + ",")
_BEFORE_VALUE = frozenset({"", *"=,([{:"})


def is_signature(text: str) -> bool:
    """Return whether text may declare a Python function: `def f(...)`, or `f(a: int, b="x")` alone."""
    if _DEF.match(text):
        return True
    body = text.strip().rstrip(":").rstrip()
    return bool(_CALLED.match(body)) and (body.endswith(")") or body.rpartition("->")[0].rstrip().endswith(")"))


def parse_signature(text: str) -> dict[str, Any]:
    """Parse a function's signature, with its docstring where there is one.

    Args:
        text: `def f(city: str, days: int = 1) -> dict:` with or without a body, or `f(city: str)` alone.

    Returns:
        The definition as {"name", "description", "parameters": {name: {"type", "description", "default"}}, "required":
        [names]}. `self`, *args and **kwargs are left out.

    Raises:
        ValueError: The text is no signature.
    """
    return describe_function(_parse_function(text), Scope())


def describe_function(function: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> dict[str, Any]:
    """Return the definition of a function, as `parse_signature` does; `scope` has what else its file defines."""
    summary, documented = parse_docstring(ast.get_docstring(function) or "")
    arguments = [*function.args.posonlyargs, *function.args.args]
    defaults: list[ast.expr | None] = [None] * (len(arguments) - len(function.args.defaults))
    pairs = list(zip(arguments, [*defaults, *function.args.defaults], strict=True))
    pairs += list(zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True))
    parameters: dict[str, Any] = {}
    required: list[str] = []
    for argument, default in pairs:
        if argument.arg in _OWN_ARGUMENTS and argument is pairs[0][0]:
            continue
        hint, description = documented.get(argument.arg, Described())
        spec = describe_annotation(argument.annotation, scope) or {"type": hint or "Any"}
        spec.update({"description": description} if description else {})
        facts = {} if default is None else describe_default(default, scope)
        parameters[argument.arg] = {**spec, **facts}
        if not {"default", "optional"} & set(facts):
            required.append(argument.arg)
    return {"name": function.name, "description": summary, "parameters": parameters, "required": required}


def _parse_function(text: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    body = text.strip()
    if not _DEF.match(body):
        body = f"def {body.rstrip(':').rstrip()}: ..."
    for source in (body, f"{body.rstrip(':').rstrip()}:\n    pass"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(source)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        if tree.body and isinstance(tree.body[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
            return tree.body[0]
    raise ValueError(f"no Python signature: {body[:60]!r}")


def parse_python_calls(text: str) -> list[dict[str, Any]]:
    """Parse calls written as Python: `[f(a=1), g.h(b="x")]` or one call alone.

    Names may have spaces and parentheses (ToolACE has "Market Trends API" and "Feed (Posts)"); values are Python
    literals or JSON.

    Args:
        text: The whole text; white space around it is allowed.

    Returns:
        {"name", "arguments"} in order; [] for "[]".

    Raises:
        ValueError: The text is anything else, or an argument has no name, or its value is no literal.
    """
    body = text.strip()
    if body.startswith("[") and body.endswith("]"):
        body = body[1:-1]
    calls = []
    for part in _split(body):
        start = _find_opening(part)
        name = part[:start].strip()
        if start < 0 or not name or any(mark in name for mark in '"{}[]\n=<>'):
            raise ValueError(f"no call: {part[:60]!r}")
        calls.append({"name": name, "arguments": dict(_parse_argument(pair) for pair in _split(part[start + 1 : -1]))})
    return calls


def _parse_argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name or any(mark in name for mark in "\"'{}[]() "):
        raise ValueError(f"an argument must be name=value: {text[:60]!r}")
    return name, plain_value(parse_literal(value))


def _find_opening(text: str) -> int:
    """Return the position of the bracket that the last character closes; -1 where it closes none."""
    opened: list[int] = []
    last = -1
    for index, character in _scan(text):
        if character in _OPEN:
            opened.append(index)
        elif character in _CLOSE and opened:
            last = opened.pop()
    return last if text.endswith(")") and not opened and last >= 0 and text[last] == "(" else -1


def _split(text: str) -> list[str]:
    """Split at commas outside brackets and quotes; raises ValueError where brackets or quotes do not match."""
    parts: list[str] = []
    stack: list[str] = []
    start = 0
    for index, character in _scan(text):
        if character in _OPEN:
            stack.append(character)
        elif character in _CLOSE:
            if not stack or _OPEN.index(stack.pop()) != _CLOSE.index(character):
                raise ValueError(f"brackets do not match: {text[:60]!r}")
        elif not stack:
            parts.append(text[start:index].strip())
            start = index + 1
    if stack:
        raise ValueError(f"brackets or quotes are left open: {text[:60]!r}")
    last = text[start:].strip()
    return [*parts, last] if last or parts else []


def _scan(text: str) -> Iterator[tuple[int, str]]:
    """Yield the brackets and commas outside quotes, with their positions; raises ValueError where a quote is open."""
    quote, skip, before = "", False, ""
    for index, character in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = character == "\\"
            quote = "" if character == quote else quote
        elif character in "\"'" and before in _BEFORE_VALUE:
            quote = character  # elsewhere an apostrophe is part of a name
        elif character in _MARKS:
            yield index, character
        before = before if character.isspace() else character
    if quote:
        raise ValueError(f"brackets or quotes are left open: {text[:60]!r}")
