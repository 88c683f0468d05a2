"""One <tool_call> block: the calls in it, whatever a model wrote there.

Knows the text after an opening mark. The Hermes format has a call as JSON between <tool_call> and </tool_call>; other
models put a list of calls, a Python literal, or the body of another notation between the same marks.
"""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import islice
from typing import Any

from fgtools.calls import Problem, ToolCall
from fgtools.gold.declared import DeclaredTools
from fgtools.gold.notations import parse_marked
from fgtools.gold.values import Found, parse_calls
from fgtools.schema.literals import parse_literal, parse_values, show

_MARK = re.compile(r"<(?P<close>/?)tool_call\s*>", re.IGNORECASE)
_FENCE = re.compile(r"\s*(?:```[a-z]*\s*)?", re.IGNORECASE)
_CLOSING = re.compile(r"[\s`]*</tool_call\s*>", re.IGNORECASE)
_LITERAL_START = ("{", "[", "(", '"', "'")
_PLACEHOLDER = re.compile(
    r"[\"']\s{0,9}:\s{0,9}\[?\s{0,9}(?:\$\{|\$[A-Za-z_]|\{\{|<[A-Za-z]|\{[^\"'{}:\n]{1,80}\}"
    r"|(?!(?:true|false|null|None|True|False|NaN|Infinity)\b)[A-Za-z_][\w.\[\]]{0,80}\s{0,9}[,}(\]])"
)
"""An argument that stands for the result of another call: `"id": ${id}`, `"id": {{id}}`, `"id": pet.id`."""

_MAX_CLOSINGS = 20  # marks that are tried: a Python string may contain one


def parse_block(text: str, start: int, tools: DeclaredTools) -> tuple[list[Found], int]:
    """Parse a block from the end of its opening mark; never raises on any text.

    Args:
        text: The turn's text.
        start: Position after the mark.
        tools: The row's tools.

    Returns:
        At least one call or Problem (broken_call, dependent_call, unclosed_call, trailing_text, other_notation), and
        the position after the block.
    """
    fence = _FENCE.match(text, start)
    values, end = parse_values(text, fence.end() if fence else start)
    found: list[Found] = []
    if values:
        noted, end = _close(text, start, end)
        found += noted
    else:
        stop, is_closed, after = _find_end(text, start)
        values, end = _parse_python(text, start, stop)
        if not values:
            other = parse_marked(text[start:stop], 0, stop - start, tools)
            is_cut = not is_closed and "<arg_key>" in text[start:stop]  # arguments may be missing
            if not is_cut and other.end >= stop - start and any(isinstance(item, ToolCall) for item in other.found):
                return [*other.found, Problem("other_notation", text[start : start + 80].strip())], after
    for value in values:
        try:
            found.extend(parse_calls(value, tools))
        except RecursionError:
            found.append(Problem("broken_call", show(value)))
    if not any(isinstance(item, ToolCall) or item.kind == "broken_call" for item in found):
        found.append(_broken(text[start : _find_end(text, start)[0]]))
    return found, end


def _close(text: str, start: int, end: int) -> tuple[list[Found], int]:
    """Return what is wrong with the end of a block whose values end at a position, and the position after the block."""
    closing = _CLOSING.match(text, end)
    if closing:
        return [], closing.end()
    found: list[Found] = []
    stop, is_closed, after = _find_end(text, end)
    leftover = text[end:stop].strip()
    if leftover:  # brackets begin a second call, which is broken
        is_call = leftover.startswith(("{", "["))
        found.append(_broken(leftover) if is_call else Problem("trailing_text", leftover[:80]))
    if is_closed:
        return found, after
    return [*found, Problem("unclosed_call", text[start : start + 80])], end  # the text after it is the turn's again


def _broken(block: str) -> Problem:
    """Return the Problem of a call that cannot be parsed: it is broken, or it waits for the result of another call."""
    block = block.strip(" \n\t`")
    waits = block.endswith(("}", "]")) and _PLACEHOLDER.search(block)
    return Problem("dependent_call" if waits else "broken_call", block[:80])


def _find_end(text: str, position: int) -> tuple[int, bool, int]:
    """Return the end of a block's text, whether its own closing mark ends it, and the position after that mark."""
    mark = _MARK.search(text, position)
    if mark and mark["close"]:
        return mark.start(), True, mark.end()
    end = mark.start() if mark else len(text)
    return end, False, end


def _parse_python(text: str, start: int, stop: int) -> tuple[list[Any], int]:
    """Parse a Python literal up to a closing mark, or without one up to where the block ends."""
    _, is_closed, after = _find_end(text, start)
    if not text[start:stop].lstrip(" \n\t`").startswith(_LITERAL_START):
        return [], after
    closings = (mark for mark in _marks_of_block(text, start) if mark["close"])
    for closing in islice(closings, _MAX_CLOSINGS):
        with suppress(ValueError):
            return [parse_literal(text[start : closing.start()].strip(" \n\t`"))], closing.end()
    if not is_closed:
        with suppress(ValueError):  # the caller reports a broken call
            return [parse_literal(text[start:stop])], after
    return [], after


def _marks_of_block(text: str, start: int) -> list[re.Match[str]]:
    """Return the closing marks before the next block begins."""
    marks = []
    for mark in _MARK.finditer(text, start):
        if not mark["close"] or len(marks) >= _MAX_CLOSINGS:
            break
        marks.append(mark)
    return marks
