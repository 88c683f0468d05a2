"""The text of an assistant turn in published data: reasoning, <tool_call> blocks, and what is left to say.

Knows one turn's text. It does not know conversations or tools. The Hermes format puts each call as JSON between
<tool_call> and </tool_call>, and reasoning between <think> and </think>; roll-outs of models break every rule of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgtools.calls import Problem, ToolCall
from fgtools.schema.literals import decode_text, parse_literal, parse_values, plain_value, show

_REASONING = "think|thinking|thought|thoughts|reasoning|reason|scratch_pad|scratchpad|reflection|inner_monologue"
_MARK = re.compile(rf"<(?P<call>tool_call)\s*>|<(?P<close>/?)(?P<tag>{_REASONING})\b[^<>]*>", re.IGNORECASE)
_CALL_START = re.compile(r"<tool_call\s*>", re.IGNORECASE)
_CALL_END = re.compile(r"</tool_call\s*>", re.IGNORECASE)
_FENCE = re.compile(r"\s*(?:```[a-z]*\s*)?", re.IGNORECASE)
_CLOSING = re.compile(r"[\s`]*</tool_call\s*>", re.IGNORECASE)
_MAX_CLOSINGS = 20  # a Python literal may hold the closing mark in a string; trying each mark is quadratic

_NAME_WORDS = ("name", "function", "tool_name", "function_name")
_ARGUMENT_WORDS = ("arguments", "parameters", "args", "input")


@dataclass(frozen=True)
class ParsedTurn:
    """An assistant turn, read.

    Attributes:
        calls: The calls outside reasoning, in order.
        text: What stands outside reasoning and call blocks, stripped.
        problems: broken_call (a block that could not be read), unclosed_call and trailing_text (read all the same),
            unclosed_reasoning.
        blocks: How many call blocks were met outside reasoning, readable or not.
    """

    calls: tuple[ToolCall, ...]
    text: str
    problems: tuple[Problem, ...]
    blocks: int


def parse_turn(text: str) -> ParsedTurn:
    """Read the text of an assistant turn, from left to right.

    Reasoning ends at its closing tag, an unclosed one at the end of the turn. A turn that begins inside reasoning (the
    prompt held the opening tag) loses everything up to the closing tag; a further closing tag means nothing. A mark
    inside a call's strings is text of the call, a call inside reasoning a draft.

    Args:
        text: The turn's text.

    Returns:
        The ParsedTurn; never raises on any text.
    """
    calls: list[ToolCall] = []
    problems: list[Problem] = []
    outside: list[str] = []
    blocks = position = 0
    reasoned = False
    while mark := _MARK.search(text, position):
        outside.append(text[position : mark.start()])
        if mark["call"]:
            blocks += 1
            found, noticed, position = _read_block(text, mark.end())
            calls.extend(found)
            problems.extend(noticed)
        elif mark["close"]:
            if not reasoned and text[mark.end() :].strip():
                calls, problems, outside, blocks = [], [], [], 0
            reasoned, position = True, mark.end()
        else:
            reasoned = True
            end = re.compile(rf"</{mark['tag']}\s*>", re.IGNORECASE).search(text, mark.end())
            if not end:
                problems.append(Problem("unclosed_reasoning", text[mark.start() : mark.start() + 80]))
            position = end.end() if end else len(text)
    outside.append(text[position:])
    return ParsedTurn(tuple(calls), "".join(outside).strip(), tuple(problems), blocks)


def _read_block(text: str, start: int) -> tuple[list[ToolCall], list[Problem], int]:
    """Read a block from the end of its opening mark; give calls, problems and where reading goes on."""
    fence = _FENCE.match(text, start)
    values, end = parse_values(text, fence.end() if fence else start)
    problems: list[Problem] = []
    if values:
        closing = _CLOSING.match(text, end)
        if closing:
            end = closing.end()
        elif not text[end:].strip():
            problems.append(Problem("unclosed_call", text[start : start + 80]))
            end = len(text)
        else:
            later = _next_end(text, end)
            leftover = text[end : later[0]].strip()
            if leftover.startswith(("{", "[")):  # a second object that is broken
                problems.append(Problem("broken_call", leftover[:80]))
            elif leftover:
                problems.append(Problem("trailing_text", leftover[:80]))
            if not later[1]:
                problems.append(Problem("unclosed_call", text[start : start + 80]))
                later = (end, True, end)  # what follows an unclosed block is text again
            end = later[2]
    else:
        values, end = _read_python(text, start)
    calls: list[ToolCall] = []
    for value in values:
        found, broken = _calls_of(value)
        calls.extend(found)
        problems.extend(broken)
    if not calls and not any(problem.kind == "broken_call" for problem in problems):
        problems.append(Problem("broken_call", text[start : start + 80].strip()))
    return calls, problems, end


def _next_end(text: str, position: int) -> tuple[int, bool, int]:
    """Give where a block's text ends, whether by its own closing mark, and where reading goes on."""
    opening, closing = _CALL_START.search(text, position), _CALL_END.search(text, position)
    if closing and (not opening or closing.start() < opening.start()):
        return closing.start(), True, closing.end()
    end = opening.start() if opening else len(text)
    return end, False, end


def _read_python(text: str, start: int) -> tuple[list[Any], int]:
    closing = _CALL_END.search(text, start)
    for _ in range(_MAX_CLOSINGS):
        if not closing:
            break
        try:
            return [parse_literal(text[start : closing.start()].strip(" \n\t`"))], closing.end()
        except ValueError:
            closing = _CALL_END.search(text, closing.end())
    end = _next_end(text, start)
    if not end[1]:
        try:
            return [parse_literal(text[start : end[0]])], end[2]
        except ValueError:
            pass  # reported as a broken call by the caller
    return [], end[2]


def _calls_of(value: Any) -> tuple[list[ToolCall], list[Problem]]:
    try:
        value = decode_text(value)
    except ValueError:
        return [], [Problem("broken_call", show(value))]
    if isinstance(value, (list, tuple)):
        readings = [_calls_of(item) if isinstance(item, (Mapping, str)) else _broken(item) for item in value]
        return [call for calls, _ in readings for call in calls], [item for _, broken in readings for item in broken]
    if not isinstance(value, Mapping):
        return _broken(value)
    if isinstance(value.get("tool_calls"), (list, tuple)):
        return _calls_of(value["tool_calls"])
    if isinstance(value.get("function"), Mapping):
        return _calls_of(value["function"])
    name = next((value[word] for word in _NAME_WORDS if isinstance(value.get(word), str) and value[word].strip()), None)
    if name is None:
        return _broken(value)
    try:
        arguments = _arguments(next((value[word] for word in _ARGUMENT_WORDS if value.get(word) is not None), None))
    except ValueError as error:
        return [], [Problem("broken_call", f"{name}: {error}"[:80])]
    return [ToolCall(name, arguments)], []


def _broken(value: Any) -> tuple[list[ToolCall], list[Problem]]:
    return [], [Problem("broken_call", show(value))]


def _arguments(raw: Any) -> dict[str, Any]:
    """Give a call's arguments; text is decoded up to twice, nothing at all is an empty mapping."""
    if isinstance(raw, str) and not raw.strip():
        return {}
    value = decode_text(raw)
    if value is None or value == []:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"arguments must be a mapping, got {show(value)}")
    return plain_value(value)
