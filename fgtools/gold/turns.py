"""The text of an assistant turn in published data: reasoning, calls in any notation, and what is left to say.

Knows one turn's text and the declared tools; not conversations. Calls stand in <tool_call> blocks (`blocks`), after the
marks of other formats (`notations`, `harmony`) or without any mark (`unmarked`); reasoning stands between <think> and
</think>, or tags like these, and is removed before any call is looked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from fgtools.calls import Problem, ToolCall
from fgtools.gold.blocks import parse_block
from fgtools.gold.declared import DeclaredTools
from fgtools.gold.harmony import is_harmony, parse_harmony
from fgtools.gold.notations import MARKS, RARE_MARKS, parse_marked
from fgtools.gold.unmarked import parse_unmarked
from fgtools.gold.values import Found

_REASONING = "think|thinking|thought|thoughts|reasoning|reason|scratch_pad|scratchpad|reflection|inner_monologue"
_MARK = re.compile(
    rf"<(?P<call>tool_call)\s*>|<(?P<close>/?)(?P<tag>{_REASONING})\b[^<>]*>|(?P<other>{MARKS})", re.IGNORECASE
)
_ANY_MARK = re.compile("|".join([_MARK.pattern, *(pattern for _, pattern in RARE_MARKS)]), re.IGNORECASE)
_OTHER_REASONING = {
    **{"[THINK]": "<think>", "[/THINK]": "</think>", "◁think▷": "<think>", "◁/think▷": "</think>"},
    **{"<|START_THINKING|>": "<think>", "<|END_THINKING|>": "</think>"},
    **{
        "<seed:think>": "<think>",
        "</seed:think>": "</think>",
        "<|channel>thought": "<think>",
        "<channel|>": "</think>",
    },
    **{"<|inner_prefix|>": "<think>", "<|inner_suffix|>": "</think>"},
    **{"<|thought_start|>": "<think>", "<|thought_end|>": "</think>"},
}
"""Marks of reasoning of other formats, and the tags that they stand for."""

_TAGGED = re.compile(r"<[^<>]{0,40}?(?:function(?:=|\s+name\s*=)|invoke\b)", re.IGNORECASE)
_CALL_BEGINS = re.compile(r"\s*(?:[{\[]|<|[\w.\-]{1,200}\()")


@dataclass(frozen=True)
class ParsedTurn:
    """A parsed assistant turn.

    Attributes:
        calls: The calls outside reasoning, in order.
        text: The text outside of reasoning and calls, stripped.
        problems: broken_call (a call that could not be parsed), unread_call (a mark or text of a call in a notation
            that could not be read), dependent_call (at the end, with placeholders for the results of the calls before
            it), other_notation (not in <tool_call> blocks, but parsed), unclosed_call and
            trailing_text (parsed all the same), unclosed_reasoning.
        blocks: Number of calls' blocks and marks outside of reasoning, broken ones included; 0 where there is no call.
        declines: Whether the turn says in the notation of calls that none is to be made, as an empty list does.
    """

    calls: tuple[ToolCall, ...] = ()
    text: str = ""
    problems: tuple[Problem, ...] = ()
    blocks: int = 0
    declines: bool = False


class _Other(NamedTuple):
    """What stands after a mark of another format: its calls, the position after them, and whether it declines."""

    found: tuple[Found, ...]
    end: int
    is_block: bool
    is_empty: bool


def parse_turn(text: str, tools: DeclaredTools | None = None) -> ParsedTurn:
    """Parse the text of an assistant turn, from left to right; never raises on any text.

    Reasoning ends at its closing tag, or without one at the end of the turn. Where a turn begins inside reasoning (the
    opening tag was in the prompt), everything up to the closing tag is removed; a further closing tag is ignored. A
    mark inside a call's strings belongs to the call; calls inside reasoning do not count. Calls without any mark are
    looked for where no mark was found.

    Args:
        text: The turn's text.
        tools: The row's tools, which tell calls where no marks do.

    Returns:
        The ParsedTurn.
    """
    tools = tools or DeclaredTools()
    for mark, tag in _OTHER_REASONING.items():
        text = text.replace(mark, tag) if mark in text else text
    if is_harmony(text):
        items, said = parse_harmony(text, tools)
        noted = [Problem("other_notation", text[:80])] if items else []
        return _gather([*items, *noted], said, len(items), False)
    pattern = _ANY_MARK if any(sign in text for sign, _ in RARE_MARKS) else _MARK
    found: list[Found] = []
    outside: list[str] = []
    blocks = position = 0
    reasoned = declines = False
    while mark := pattern.search(text, position):
        outside.append(text[position : mark.start()])
        if mark["call"]:
            blocks += 1
            parsed, position = parse_block(text, mark.end(), tools)
            found.extend(parsed)
        elif mark["tag"] and mark["close"]:
            if not reasoned and text[mark.end() :].strip():
                found, outside, blocks = [], [], 0
            reasoned, position = True, mark.end()
        elif mark["tag"]:
            reasoned = True
            end = re.compile(rf"</{mark['tag']}\s*>", re.IGNORECASE).search(text, mark.end())
            if not end:
                found.append(Problem("unclosed_reasoning", text[mark.start() : mark.start() + 80]))
            position = end.end() if end else len(text)
        else:
            other = _parse_other(text, mark, pattern, tools)
            blocks, position = blocks + other.is_block, other.end
            found, declines = [*found, *other.found], declines or other.is_empty
    outside.append(text[position:])
    said = "".join(outside).strip()
    if not blocks:
        unmarked = parse_unmarked(said, tools)
        found, said = [*found, *unmarked.found], unmarked.text
        blocks, declines = blocks + bool(unmarked.found), declines or unmarked.declines
    return _gather(found, said, blocks, declines)


def _gather(found: list[Found], said: str, blocks: int, declines: bool) -> ParsedTurn:
    last = max((place for place, item in enumerate(found) if isinstance(item, ToolCall)), default=len(found))
    if any(isinstance(item, Problem) and item.kind == "dependent_call" for item in found[:last]):
        found = [_as_broken(item) for item in found]  # a later call is there, or no call to depend on
    calls = tuple(item for item in found if isinstance(item, ToolCall))
    problems = tuple(item for item in found if isinstance(item, Problem))
    return ParsedTurn(calls, said, problems, blocks, declines and not blocks)


def _as_broken(item: Found) -> Found:
    is_dependent = isinstance(item, Problem) and item.kind == "dependent_call"
    return Problem("broken_call", item.detail) if is_dependent else item


def _parse_other(text: str, mark: re.Match[str], pattern: re.Pattern[str], tools: DeclaredTools) -> _Other:
    """Parse what stands after a mark of another format; a mark around further marks is none of its own."""
    start = mark.start() if _TAGGED.match(mark[0]) else mark.end()
    following = pattern.search(text, mark.end())
    limit = following.start() if following else len(text)
    read = parse_marked(text, start, limit, tools)
    shown = text[mark.start() : mark.start() + 80].strip()
    if not read.found:
        if read.is_empty or (following and not text[read.end : limit].strip()):
            return _Other((), read.end, False, read.is_empty)
        return _Other((Problem("unread_call", shown),), limit, True, False)
    found = (*read.found, Problem("other_notation", shown))
    if _CALL_BEGINS.match(text, read.end, limit):
        found = (*found, Problem("unread_call", text[read.end : read.end + 80].strip()))
    return _Other(found, read.end, True, False)
