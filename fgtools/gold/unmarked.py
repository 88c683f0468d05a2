"""Calls without any mark in a turn's text: JSON, Python, and a declared tool's name followed by its arguments.

Knows text and the declared tools. What names a declared tool and gives arguments is a call, in a fence, after a label
or in prose: `get_weather(city="Oslo")`, {"name": "get_weather", ...}, "Action: get_weather / Action Input: {...}". A
text that looks like one and cannot be read is a problem (unread_call), and never a reply. A name alone, or `f()` in a
sentence, is a mention; so is JSON that names no tool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from fgtools.calls import Problem, ToolCall
from fgtools.gold.declared import DeclaredTools
from fgtools.gold.notations import GAP, MAX_CALL_CHARS, Marked, declines, find_close, read_arguments, read_native
from fgtools.gold.tags import parse_tagged_call
from fgtools.gold.values import Found, find_calls, parse_calls
from fgtools.schema.literals import parse_literals, parse_values
from fgtools.schema.signatures import parse_python_calls

_SIGNS = re.compile(r"[{(\[<=:\"]|--")
"""What every call without a mark holds somewhere."""

_VALUE_START = re.compile(r"[\[{](?=\s{0,60}[\[{\"'\]}])")
_FENCE = re.compile(r"```\w{0,20}")
_CODE = re.compile(r"(?:```\w{0,20}|print\b|[\s()\[\],;])+|\w{1,60}\s?=\s?")
"""What stands between calls in code: fences, brackets, print, assignments. Other text is prose."""

_RESULT = re.compile(
    r"^[ \t]{0,20}(?:observation|✿RESULT✿|(?:tool|function|api)[ _](?:output|result|response)s?)[ \t]{0,5}:",
    re.I | re.M,
)
"""A line that begins a result, which a text that goes on after its call has made up."""

_PYTHON = re.compile(r"\[?\s{0,20}[^\W\d][\w.]{0,199}\(.*\)\s{0,20}\]?", re.DOTALL)
_LABEL = re.compile(
    r"(?:^|\n)[ \t>*\-#\"'`{]{0,20}(?:action|api|call|name|(?:tool|function)(?:[_ ](?:call|name))?)"
    r"(?:[ \t]?\d{1,3})?[\"'`*]{0,3}[ \t]{0,5}[:=][ \t\"'`*]{0,9}$",
    re.IGNORECASE,
)
"""A label such as "Action:" or "**Tool:**", directly before a name."""

_LABELLED = re.compile(
    r"&lt;(?:tool|function)_?calls?&gt;|\btool_call\(|"
    r"(?:^|\n)[ \t*\"'`]{0,9}(?:action|tool|function)(?:[ _](?:input|args|arguments|parameters))[\"'`*]{0,3}[ \t]{0,5}:"
    r"|(?:^|\n)[ \t*]{0,9}(?:tool|function|tool_call|function_call)(?:[ _]name)?[*]{0,3}[ \t]{0,5}:[^\n]{1,200}\n"
    r"[ \t*]{0,9}(?:arguments|parameters|args|input)[*]{0,3}[ \t]{0,5}:\s{0,5}\{",
    re.IGNORECASE,
)
"""What announces a call whatever its name: "Action Input:", "Tool: ..." with "Arguments: {" below, escaped marks."""

_NAME_KEY = re.compile(
    r"[\"'](?:name|function|tool|action|api|recipient)(?:_?name)?[\"']\s{0,9}:\s{0,9}[\"']$", re.IGNORECASE
)
"""A key of JSON whose value is a tool's name, directly before that name."""

_KEY_BEGINS = re.compile(r"\{\s{0,9}[\"'](\w{1,100})[\"']\s{0,9}:?")
_ENDS_LABEL = re.compile(r"[\"'`*,. \t]{0,9}(?:\n|$|[\[(])")
_OPENING_TAG = re.compile(r"<$|<(?:name|tool|tool_name|function|function_name)>\s{0,9}$")
_GIVEN = re.compile(r"[\"'`*]{0,3}\s{0,3}(?:[:=]\s{0,3}[\w\"'\[{.\-]|(?:(?:to|as|of) )?[\"'])")
"""A value after a parameter's name: `=Oslo`, `: "Oslo"`, ` "Oslo"`."""

_ATTRIBUTE = re.compile(r"\s{1,9}[\w\-]{1,100}\s{0,9}=")
_BRACKET = re.compile(r"\s?\(")
_EMPTY = re.compile(r"\s?\(\s{0,60}\)")
_JSON_LIKE = re.compile(r"\{\s{0,60}(?:[\"'}]|\w{1,100}\s{0,9}:|\Z)")
_WORDS = re.compile(r"[\w\s,./|*\-…`<>]*")

_MAX_ATTEMPTS = 200
"""Values and names of a text that are tried; real texts have a few."""

_MAX_SCANNED = 200_000
"""Characters that are looked through in all for the ends of brackets in vain."""


class Unmarked(NamedTuple):
    """What was found in a text without marks.

    Attributes:
        found: Calls, and Problems (broken_call, unread_call, other_notation); empty where there is no call.
        text: The text without them.
        declines: Whether the text says in the notation of calls that none is to be made.
    """

    found: tuple[Found, ...]
    text: str
    declines: bool = False


class _Piece(NamedTuple):
    """A part of the text: where it stands, and the calls or Problems in it.

    A mention is `f()`, which is a call only where the text holds nothing but code. JSON that is no call is a part too,
    with nothing found in it.
    """

    start: int
    end: int
    found: tuple[Found, ...] = ()
    is_mention: bool = False


def parse_unmarked(text: str, tools: DeclaredTools) -> Unmarked:
    """Parse a text without marks of calls; never raises on any text.

    Where the text goes on with results that it made up ("Observation: ..."), only what stands before them counts.

    Args:
        text: The text of a turn, without reasoning.
        tools: The row's tools.

    Returns:
        The Unmarked.
    """
    if not _SIGNS.search(text) and len(text.split()) > 6:
        return Unmarked((), text)
    result = _RESULT.search(text)
    if result and result.start():
        head = _parse(text[: result.start()], tools)
        if head.found:
            return head
    return _parse(text, tools)


def _parse(text: str, tools: DeclaredTools) -> Unmarked:
    bare = _FENCE.sub("", text).strip()
    if bare.startswith('"') and "{" in bare and (inner := _literals(f"[{bare}]")) and isinstance(inner[0][0], str):
        return _parse(inner[0][0], tools)  # JSON in JSON
    if bare == "[]":
        return Unmarked((), "", True)
    if bare.strip("`*\"' ") in tools.parameters:
        return Unmarked((Problem("unread_call", text[:80]),), text)
    values = _find_values(text, tools)
    pieces = [*values, *_find_named(text, values, tools)]
    pieces = sorted((piece for piece in pieces if piece.found), key=lambda piece: piece.start)
    if pieces and _CODE.sub("", _cut(text, pieces)).strip():  # there is prose
        pieces = [piece for piece in pieces if not piece.is_mention]
    found = [item for piece in pieces for item in piece.found]
    if not found:
        return _parse_undeclared(text, bare)
    rest = _cut(text, pieces)
    if all(isinstance(item, ToolCall) and declines(item, tools) for item in found):
        return Unmarked((), _LABEL.sub("", _FENCE.sub("", rest).strip()).strip(), True)
    return Unmarked((*found, Problem("other_notation", text[:80])), rest.strip())


def _cut(text: str, pieces: list[_Piece]) -> str:
    """Return the text without its pieces."""
    starts = [0, *(piece.end for piece in pieces)]
    ends = [*(piece.start for piece in pieces), len(text)]
    return "".join(text[start:end] for start, end in zip(starts, ends, strict=True))


def _find_values(text: str, tools: DeclaredTools) -> list[_Piece]:
    """Return the JSON values and Python literals of a text, with the calls in those that are calls."""
    pieces: list[_Piece] = []
    position = attempts = 0
    left = _MAX_SCANNED
    while start := _VALUE_START.search(text, position):
        attempts += 1
        if attempts > _MAX_ATTEMPTS or left <= 0:
            return [*pieces, _too_many(text, start.start())]
        values, end = parse_values(text, start.start())
        if not values:
            limit = min(len(text), start.start() + left)
            end = find_close(text, start.start(), limit)
            values = _literals(text[start.start() : end]) if end >= 0 else []
        if not values:
            position = start.start() + 1
            left -= (limit if end < 0 else end) - start.start()
            continue
        calls = [call for value in values for call in find_calls(value, tools)]
        found = tuple(item for call in calls for item in parse_calls(call, tools))
        if not found and any(_names_tool(value, tools) for value in values):
            found = (Problem("unread_call", text[start.start() : start.start() + 80]),)
        pieces.append(_Piece(start.start(), end, found))
        position = end
    return pieces


def _names_tool(value: Any, tools: DeclaredTools) -> bool:
    """Return whether a mapping names a declared tool and holds a mapping of that tool's parameters."""
    fields = list(value.values()) if isinstance(value, Mapping) else []
    names = [name for name in fields if isinstance(name, str) and name in tools.parameters]
    inner = [item.keys() for item in fields if isinstance(item, Mapping) and item]
    return any(keys <= tools.parameters[name].keys() for name in names for keys in inner)


def _too_many(text: str, position: int) -> _Piece:
    """Return the rest of a text that holds more brackets or names than are tried: a call may stand in it."""
    return _Piece(
        position, len(text), (Problem("unread_call", f"too many brackets: {text[position : position + 50]}"),)
    )


def _literals(text: str) -> list[Any]:
    try:
        return [value for value in parse_literals(text) if isinstance(value, (Mapping, list))]
    except ValueError:
        return []


def _find_named(text: str, values: list[_Piece], tools: DeclaredTools) -> list[_Piece]:
    """Return the calls that a declared tool's name begins."""
    present = tuple(name for name in tools.parameters if name in text)
    if not present:
        return []
    pieces: list[_Piece] = []
    position = attempts = 0
    left = _MAX_SCANNED
    while match := _names(present).search(text, position):
        around = next((piece for piece in values if piece.start <= match.start() < piece.end), None)
        if around:
            position = around.end
            continue
        attempts += 1
        if attempts > _MAX_ATTEMPTS or left <= 0:
            return [*pieces, _too_many(text, match.start())]
        limit = min(len(text), match.end() + left)
        piece = _read_named(text, match, limit, tools)
        if _BRACKET.match(text, match.end()) and not (piece and isinstance(piece.found[0], ToolCall)):
            left -= limit - match.end()
        pieces += [piece] if piece else []
        position = max(piece.end, match.end()) if piece else match.end()
    return [*pieces, *_find_loose(text, values, pieces, present, tools)]


@lru_cache(maxsize=512)
def _names(names: tuple[str, ...]) -> re.Pattern[str]:
    listed = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(
        rf"(?<![\w.])(?:(?:functions?|tools?|default_api|api)\.)?(?P<name>{listed})(?:\.(?:call|run|invoke))?(?![\w\-])"
    )


def _read_named(text: str, match: re.Match[str], limit: int, tools: DeclaredTools) -> _Piece | None:
    """Return the call that a name begins, a Problem where it looks like one, or None for a mention in words."""
    name, start, end = match["name"], match.start(), match.end()
    before = text[max(0, start - 60) : start]
    if before.endswith("call:") and text.startswith("{", end):
        read = read_native(text, start - len("call:"), limit)
        return _Piece(start - len("call:"), read.end, read.found)
    if opening := _OPENING_TAG.search(before):
        begin = start - len(opening[0])
        found, length = parse_tagged_call(text[begin : begin + MAX_CALL_CHARS], tools)
        if not found and _ATTRIBUTE.match(text, end):
            found = [Problem("unread_call", text[begin : begin + 80])]
        return _Piece(begin, max(begin + length, end), tuple(found)) if found else None
    if empty := _EMPTY.match(text, end):
        return _Piece(start, empty.end(), (ToolCall(name, {}),), is_mention=True)
    read = read_arguments(text, end, limit, name, tools)
    if read.end >= 0:
        return _Piece(start, read.end, _checked(read, name, text[start:], tools))
    unread = Problem("unread_call", text[start : start + 80])
    if text[end : end + 2].lstrip().startswith("("):
        return _read_brackets(text, start, end, limit, name, tools, unread)
    if _NAME_KEY.search(before) or (before.endswith(('{"', "{'")) and text[end : end + 2] in ('":', "':")):
        return _Piece(start, end, (unread,))  # JSON that is broken or cut off
    gap = GAP.match(text, end).end()
    if _JSON_LIKE.match(text, gap) or _names_parameter(text, end, gap, name, tools):
        return _Piece(start, max(gap, end), (unread,))
    if _LABEL.search(before) and _ENDS_LABEL.match(text, end):
        return _Piece(start, end, (unread,))
    return None


def _checked(read: Marked, name: str, shown: str, tools: DeclaredTools) -> tuple[Found, ...]:
    """Return what was read; JSON after a name in prose is arguments only if the tool declares them."""
    declared = tools.parameters[name]
    strange = [item for item in read.found if isinstance(item, ToolCall) and item.arguments.keys() - declared.keys()]
    return (Problem("unread_call", shown[:80]),) if strange else read.found


def _names_parameter(text: str, end: int, gap: int, name: str, tools: DeclaredTools) -> bool:
    """Return whether a parameter of the tool and a value follow its name, as in "f with city=Oslo"."""
    word = re.compile(r"[\w\-]{1,100}").match(text, gap)
    if not word or word[0] not in tools.parameters[name] or gap == end:
        return False
    return text.startswith("--", gap - 2) or _GIVEN.match(text, word.end()) is not None


def _read_brackets(
    text: str, start: int, end: int, limit: int, name: str, tools: DeclaredTools, unread: Problem
) -> _Piece | None:
    """Return what brackets after a name mean, where they do not hold arguments that can be read."""
    opening = text.index("(", end)
    close = find_close(text, opening, limit)
    inside = text[opening + 1 : close - 1] if close >= 0 else text[opening + 1 : opening + 200]
    if close < 0 and opening == end:
        return _Piece(start, opening, (unread,))
    words = re.findall(r"[^\W\d]\w*", inside)
    if _WORDS.fullmatch(inside) and (opening > end or all(word in tools.parameters[name] for word in words)):
        return None  # an aside, or the tool's parameters by name
    if opening > end and not re.search(r"\w\s?=|[\"']", inside):
        return None
    return _Piece(start, max(close, opening), (unread,))


def _find_loose(
    text: str, values: list[_Piece], named: list[_Piece], present: tuple[str, ...], tools: DeclaredTools
) -> list[_Piece]:
    """Return a Problem for JSON of nothing but parameters of a tool which the text names in some sentence.

    JSON that is broken or cut off counts as such if its first key is one of them.
    """
    if any(piece.found for piece in (*values, *named)):
        return []
    for piece in values:
        for value in parse_values(text[piece.start : piece.end], 0)[0]:
            if (
                isinstance(value, Mapping)
                and value
                and any(value.keys() <= tools.parameters[name].keys() for name in present)
            ):
                return [_Piece(piece.start, piece.end, (Problem("unread_call", text[:80]),))]
    for key in _KEY_BEGINS.finditer(text):
        is_value = any(piece.start <= key.start() < piece.end for piece in values)
        if not is_value and any(key[1] in tools.parameters[name] for name in present):
            return [_Piece(key.start(), key.end(), (Problem("unread_call", text[:80]),))]
    return []


def _parse_undeclared(text: str, bare: str) -> Unmarked:
    """Return the calls of a text that is nothing but calls in Python, and a Problem where labels announce a call."""
    code = bare.removeprefix("print(").removesuffix(")") if bare.startswith("print(") else bare
    if len(code) < MAX_CALL_CHARS and _PYTHON.fullmatch(code):
        try:
            calls = [ToolCall(call["name"], call["arguments"]) for call in parse_python_calls(code)]
        except (ValueError, RecursionError):
            calls = []
        if any(call.arguments for call in calls) or (calls and code.startswith("[")):
            return Unmarked((*calls, Problem("other_notation", text[:80])), "")
    if _LABELLED.search(text):
        return Unmarked((Problem("unread_call", text[:80]),), text)
    return Unmarked((), text)
