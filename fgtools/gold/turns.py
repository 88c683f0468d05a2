"""The text of an assistant turn in published data: reasoning, <tool_call> blocks, and what is left to say.

Knows one turn's text. It does not know conversations or tools. The Hermes format has each call as JSON between
<tool_call> and </tool_call>, and reasoning between <think> and </think>; text written by models often breaks its rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fgtools.calls import Problem, ToolCall
from fgtools.gold.declared import DeclaredTools
from fgtools.schema.literals import decode_text, parse_literal, parse_values, plain_value, show

_REASONING = "think|thinking|thought|thoughts|reasoning|reason|scratch_pad|scratchpad|reflection|inner_monologue"
_MARK = re.compile(rf"<(?P<call>tool_call)\s*>|<(?P<close>/?)(?P<tag>{_REASONING})\b[^<>]*>", re.IGNORECASE)
_CALL_START = re.compile(r"<tool_call\s*>", re.IGNORECASE)
_CALL_END = re.compile(r"</tool_call\s*>", re.IGNORECASE)
_FENCE = re.compile(r"\s*(?:```[a-z]*\s*)?", re.IGNORECASE)
_CLOSING = re.compile(r"[\s`]*</tool_call\s*>", re.IGNORECASE)
_MAX_CLOSINGS = 20  # marks that are tried: a Python string may contain one, and trying all would take quadratic time

_NAME_WORDS = ("name", "function", "tool_name", "function_name")
_ARGUMENT_WORDS = ("arguments", "parameters", "args", "input")


@dataclass(frozen=True)
class ParsedTurn:
    """A parsed assistant turn.

    Attributes:
        calls: The calls outside reasoning, in order.
        text: The text outside of reasoning and call blocks, stripped.
        problems: broken_call (a block that could not be parsed), unclosed_call and trailing_text (parsed all the same),
            unclosed_reasoning.
        blocks: Number of call blocks outside of reasoning, broken ones included.
    """

    calls: tuple[ToolCall, ...] = ()
    text: str = ""
    problems: tuple[Problem, ...] = ()
    blocks: int = 0


def parse_turn(text: str, tools: DeclaredTools | None = None) -> ParsedTurn:
    """Parse the text of an assistant turn, from left to right; never raises on any text.

    Reasoning ends at its closing tag, or without one at the end of the turn. Where a turn begins inside reasoning (the
    opening tag was in the prompt), everything up to the closing tag is removed; a further closing tag is ignored. A
    mark inside a call's strings belongs to the call; calls inside reasoning do not count.

    Args:
        text: The turn's text.
        tools: The row's tools, which tell calls where no marks do.

    Returns:
        The ParsedTurn.
    """
    found: list[ToolCall | Problem] = []
    outside: list[str] = []
    blocks = position = 0
    reasoned = False
    while mark := _MARK.search(text, position):
        outside.append(text[position : mark.start()])
        if mark["call"]:
            blocks += 1
            parsed, position = _parse_block(text, mark.end())
            found.extend(parsed)
        elif mark["close"]:
            if not reasoned and text[mark.end() :].strip():
                found, outside, blocks = [], [], 0
            reasoned, position = True, mark.end()
        else:
            reasoned = True
            end = re.compile(rf"</{mark['tag']}\s*>", re.IGNORECASE).search(text, mark.end())
            if not end:
                found.append(Problem("unclosed_reasoning", text[mark.start() : mark.start() + 80]))
            position = end.end() if end else len(text)
    outside.append(text[position:])
    calls = tuple(item for item in found if isinstance(item, ToolCall))
    problems = tuple(item for item in found if isinstance(item, Problem))
    return ParsedTurn(calls, "".join(outside).strip(), problems, blocks)


def _parse_block(text: str, start: int) -> tuple[list[ToolCall | Problem], int]:
    """Parse a block from the end of its opening mark; return what is in it and the position after the block."""
    fence = _FENCE.match(text, start)
    values, end = parse_values(text, fence.end() if fence else start)
    found: list[ToolCall | Problem] = []
    if values:
        closing = _CLOSING.match(text, end)
        if closing:
            end = closing.end()
        else:
            stop, is_closed, after = _find_end(text, end)
            leftover = text[end:stop].strip()
            if leftover:  # brackets begin a second call, which is broken
                kind = "broken_call" if leftover.startswith(("{", "[")) else "trailing_text"
                found.append(Problem(kind, leftover[:80]))
            if is_closed:
                end = after
            else:  # the text after an unclosed block is the turn's again
                found.append(Problem("unclosed_call", text[start : start + 80]))
    else:
        values, end = _parse_python(text, start)
    for value in values:
        try:
            found.extend(_parse_calls(value))
        except RecursionError:
            found.append(_broken(value))
    if not any(isinstance(item, ToolCall) or item.kind == "broken_call" for item in found):
        found.append(Problem("broken_call", text[start : start + 80].strip()))
    return found, end


def _find_end(text: str, position: int) -> tuple[int, bool, int]:
    """Return the end of a block's text, whether its own closing mark ends it, and the position after that mark."""
    opening, closing = _CALL_START.search(text, position), _CALL_END.search(text, position)
    if closing and (not opening or closing.start() < opening.start()):
        return closing.start(), True, closing.end()
    end = opening.start() if opening else len(text)
    return end, False, end


def _parse_python(text: str, start: int) -> tuple[list[Any], int]:
    for closing in islice(_CALL_END.finditer(text, start), _MAX_CLOSINGS):
        with suppress(ValueError):
            return [parse_literal(text[start : closing.start()].strip(" \n\t`"))], closing.end()
    stop, is_closed, after = _find_end(text, start)
    if not is_closed:
        with suppress(ValueError):  # the caller reports a broken call
            return [parse_literal(text[start:stop])], after
    return [], after


def _parse_calls(value: Any) -> list[ToolCall | Problem]:
    """Return the calls of a decoded value, and a Problem for every part of it that is none."""
    try:
        value = decode_text(value)
    except ValueError:
        return [_broken(value)]
    if isinstance(value, (list, tuple)):
        parsed = [_parse_calls(item) if isinstance(item, (Mapping, str)) else [_broken(item)] for item in value]
        return [found for items in parsed for found in items]
    if not isinstance(value, Mapping):
        return [_broken(value)]
    if isinstance(value.get("tool_calls"), (list, tuple)):
        return _parse_calls(value["tool_calls"])
    if isinstance(value.get("function"), Mapping):
        return _parse_calls(value["function"])
    name = next((value[word] for word in _NAME_WORDS if isinstance(value.get(word), str) and value[word].strip()), None)
    if name is None:
        return [_broken(value)]
    try:
        given = next((value[word] for word in _ARGUMENT_WORDS if value.get(word) is not None), None)
        return [ToolCall(name, _parse_arguments(given))]
    except ValueError as error:
        return [Problem("broken_call", f"{name}: {error}"[:80])]


def _broken(value: Any) -> Problem:
    return Problem("broken_call", show(value))


def _parse_arguments(raw: Any) -> dict[str, Any]:
    """Return a call's arguments; text is decoded up to twice, and None, "" and [] mean no arguments."""
    if isinstance(raw, str) and not raw.strip():
        return {}
    value = decode_text(raw)
    if value is None or value == []:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"arguments must be a mapping, got {show(value)}")
    return plain_value(value)
