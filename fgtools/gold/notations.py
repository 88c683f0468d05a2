"""Calls after the marks of other formats than <tool_call>: which marks there are, and what may stand after one.

Knows marks and the ways to write a call after one: JSON, FunctionGemma's grammar, tags, a name followed by JSON or by
arguments in brackets. One reader takes them all, since data sets mix marks and bodies freely. It does not know turns.

    FunctionGemma  <start_function_call>call:f{a:<escape>x<escape>}<end_function_call>, and Gemma 4's <|tool_call>call:
    Glaive         <functioncall> {"name": "f", "arguments": '{"a": "x"}'}
    Mistral        [TOOL_CALLS] [{...}], [TOOL_CALLS]f[ARGS]{...}
    Llama          <|python_tag|>{...}, <|python_tag|>f.call(a="x"), <function=f>{...}</function>
    others         <TOOLCALL>, <|tool_call|>, <|tool_call_start|>[f(a="x")], <|action_start|><|plugin|>, <tool_code>,
                   functools[...], <invoke name="f">, the section marks of DeepSeek and Kimi, Qwen-Agent's flowers
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from fgtools.calls import Problem, ToolCall, parse_reply
from fgtools.calls.tokens import END_CALL, ESCAPE, START_CALL
from fgtools.gold.declared import DeclaredTools
from fgtools.gold.tags import parse_arg_keys, parse_tagged_call
from fgtools.gold.values import Found, parse_calls
from fgtools.schema.literals import parse_literals, parse_values, show
from fgtools.schema.signatures import parse_python_calls

MARKS = (
    r"<(?:[\w-]{1,20}:|[|｜][A-Z]{1,9}[|｜])?(?:tool|function)_?(?:calls?|uses?|code)\s*>"
    r"|<start_function_call>|<<function>>"
    r"|<(?:[\w-]{1,20}:|[|｜][A-Z]{1,9}[|｜])?(?:function(?:=|\s+name\s*=)|invoke\b)"
    r"|<[|｜](?:tool|function)[\s_▁]?calls?(?:[\s_▁](?!(?:section[\s_▁])?end|argument)[^<>|｜\n]{0,30})?[|｜]?>"
    r"|<\|(?:python_tag|action_start|START_ACTION|tools_prefix|recipient)\|>"
)
"""Opening marks that begin with "<", as a regular expression."""

RARE_MARKS = (
    (r"[TOOL_CALLS]", r"\[TOOL_CALLS\]"),
    (r"functools[", r"functools(?=\[)"),
    ("✿FUNCTION✿", r"✿FUNCTION✿\s{0,9}:?"),
)
"""Other opening marks: text that shows whether one is there, and its regular expression."""

MAX_CALL_CHARS = 100_000
"""Longest call that is not JSON, in characters; JSON is parsed whatever its length."""

_GAP_WORDS = (
    r"(?:with|and|the|a|an|following|these|those|this|using|input|inputs|args|arg|argument|arguments|parameter|parameters|"
    r"params|tool|function|call|api|json|action|payload|kwargs|values?|request|tool_input|tool_args|tool_arguments|"
    r"function_args|action_input|as|on|by|passing|its|my|here|are|is|it|so|now|will|be|follows|body)"
)
GAP = re.compile(
    rf"(?:\[CALL_ID\]\s?\w{{1,64}}|[\s\"'`*_:,\-=>~✿#\[\]()]|(?i:\b{_GAP_WORDS}\b|ARGS)"
    r"|<[|｜]?[\w▁ ]{1,40}[|｜]?>){0,60}"
)
"""What may stand between a tool's name and its arguments: punctuation, fences, marks, and words such as "with"."""

_SPACE = re.compile(r"(?:[\s,;`)\]]+|```\w{0,20})*")
_PASSED = re.compile(
    r"print\(|[^\W\d]\w{0,60}\s?=\s?(?=[\w.]{1,128}\()|function\s?<｜tool▁sep｜>|(?:json|python|tool_code|function)\b"
    r"|</?[|｜]?/?[\w:▁\-/ ]{1,40}[|｜]?>|\[/?\w{1,20}\]"
)
"""What may stand before a call: the beginning of a statement, the language of a fence, tags around calls."""

_NAME = re.compile(r"[^\W\d][\w.\-/]{0,199}(?::\d{1,4}(?=\W))?")
_CLOSED = re.compile(r"""[()\[\]{}]|"(?:[^"\\]|\\.){0,100000}"|(?<=[=,(\[{:\s])'(?:[^'\\]|\\.){0,100000}'""", re.DOTALL)
_QUOTED_ARGUMENTS = re.compile(
    r"""\{\s{0,20}"name"\s{0,20}:\s{0,20}"([^"\n]{1,200})"\s{0,20},\s{0,20}"arguments"\s{0,20}:\s{0,20}'"""
)
"""Glaive's calls, whose arguments are JSON between single quotes."""

_QUOTED_END = re.compile(r"'\s{0,20}\}")
_BRACKET = re.compile(r"(?:\s{0,9}```python\s{0,9}tool_call)?\s?\(")  # ChatGLM's tool_call(...) follows the name
_BRACKET_END = re.compile(r"\s{0,60}\)")
_LAST_COMMA = re.compile(r",\s*\)\Z")
_BEFORE_KEYS = re.compile(r"\s{0,20}(?:<tool_sep>\s{0,20})?(?=<arg_key>)")
_OPEN, _CLOSE = "([{", ")]}"

_DECLINES = frozenset({"directly_answer", "directly-answer", "direct_answer", "no_tool", "none", "final_answer"})
"""Tools that mean an answer in words, in lower case (Command R, agents)."""


class Marked(NamedTuple):
    """What was found after a mark.

    Attributes:
        found: Calls and Problems, in order.
        end: The position after them.
        is_empty: Whether an empty list stands there: no call is to be made.
    """

    found: tuple[Found, ...]
    end: int
    is_empty: bool = False


def parse_marked(text: str, start: int, limit: int, tools: DeclaredTools) -> Marked:
    """Parse the calls that stand after an opening mark, one after the other; never raises on any text.

    Args:
        text: The turn's text.
        start: Position after the mark.
        limit: Position of the next opening mark, or the text's length; only JSON may go on beyond it, since a string in
            it may hold a mark.
        tools: The row's tools. The first call may name any tool; those that follow only declared ones, unless they are
            JSON or tags with a name.

    Returns:
        The Marked, its end at the first text that is no call.
    """
    found: list[Found] = []
    is_empty = False
    position = _SPACE.match(text, start, limit).end()
    while position < limit:
        one = read_call(text, position, limit, tools, any_name=not found)
        if one.end > position:
            found += one.found
            is_empty = is_empty or one.is_empty
        elif not (passed := _PASSED.match(text, position, limit)):
            break
        position = _SPACE.match(text, max(one.end, passed.end() if one.end <= position else 0), limit).end()
    return Marked(tuple(found), max(position, start), is_empty)


def read_call(text: str, position: int, limit: int, tools: DeclaredTools, any_name: bool = False) -> Marked:
    """Read the call, or the list of calls, that begins at a position; the end is the position where none does."""
    first = text[position]
    if first in "{[":
        return _read_value(text, position, limit, tools)
    if first == "<":
        found, length = parse_tagged_call(text[position : min(limit, position + MAX_CALL_CHARS)], tools)
        return Marked(tuple(found), position + length)
    if text.startswith("call:", position):
        return read_native(text, position, limit)
    name, end = find_name(text, position, tools)
    is_known = name in tools.parameters or (any_name and not _PASSED.match(text, position))
    return read_arguments(text, end, limit, name, tools) if name and is_known else Marked((), position)


def _read_value(text: str, position: int, limit: int, tools: DeclaredTools) -> Marked:
    values, end = parse_values(text, position)
    if values:
        kept = [value for value in values if value != []]
        found = [item for value in kept for item in parse_calls(value, tools)]
        calls = [item for item in found if not (isinstance(item, ToolCall) and declines(item, tools))]
        return Marked(tuple(calls), end, is_empty=not calls)
    if match := _QUOTED_ARGUMENTS.match(text, position):
        return _read_quoted(text, match, limit, tools)
    end = find_close(text, position, limit)
    if end < 0:
        return Marked((), position)
    try:
        found = [item for value in parse_literals(text[position:end]) for item in parse_calls(value, tools)]
    except ValueError:
        found = _python_calls(text[position:end], tools)
    return Marked(tuple(found), end) if found else Marked((), position)


def declines(call: ToolCall, tools: DeclaredTools) -> bool:
    """Return whether a call says that no call is needed: its tool is one such as directly_answer, and not declared."""
    return call.name.lower() in _DECLINES and call.name not in tools.parameters


def _read_quoted(text: str, match: re.Match[str], limit: int, tools: DeclaredTools) -> Marked:
    """Read Glaive's arguments: JSON between single quotes, with apostrophes inside that are not escaped."""
    ends = [end for end in _QUOTED_END.finditer(text, match.end(), min(limit, match.end() + MAX_CALL_CHARS))]
    if not ends:
        return Marked((), match.start())
    last = ends[-1]
    arguments = text[match.end() : last.start()].replace("\\'", "'")
    return Marked(tuple(parse_calls({"name": match[1], "arguments": arguments}, tools)), last.end())


def read_native(text: str, position: int, limit: int) -> Marked:
    """Read a call in FunctionGemma's grammar that stands at a position without its opening mark."""
    part = text[position : min(limit, position + MAX_CALL_CHARS)].replace('<|"|>', ESCAPE)
    end = part.find("<tool_call|>")
    part = part[:end] + END_CALL if end >= 0 else part
    reply = parse_reply(START_CALL + part)
    kinds = {problem.kind for problem in reply.problems} - {"white_space", "stray_token", "missing_end"}
    if kinds or not reply.calls:
        return Marked((Problem("broken_call", text[position : position + 80]),), limit)
    closing = text.find(END_CALL, position, limit)
    return Marked(reply.calls, closing + len(END_CALL) if closing >= 0 and end < 0 else limit)


def find_name(text: str, position: int, tools: DeclaredTools) -> tuple[str, int]:
    """Return the tool's name that stands at a position, and the position after it; "" for none."""
    match = _NAME.match(text, position)
    named = [name for name in tools.parameters if text.startswith(name, position)]
    longest = max(named, key=len, default="")
    if match and len(match[0]) > len(longest):
        word = match[0].partition(":")[0].rstrip(".-/")
        end = match.end() if ":" in match[0] else position + len(word)
        return tools.resolve(word), end
    return longest, position + len(longest)


def read_arguments(text: str, position: int, limit: int, name: str, tools: DeclaredTools) -> Marked:
    """Read the arguments that stand after a tool's name: in brackets, as JSON or in tags.

    Args:
        text: The turn's text.
        position: Position after the name.
        limit: Where the text of the call ends at the latest, JSON apart.
        name: The tool's name.
        tools: The row's tools.

    Returns:
        The Marked, its end before the position where no arguments stand.
    """
    if bracket := _BRACKET.match(text, position, limit):
        start = bracket.end() - 1
        values, after = parse_values(text, bracket.end())
        declared = tools.parameters.get(name, {}).keys()
        closing = _BRACKET_END.match(text, after) if len(values) == 1 and isinstance(values[0], Mapping) else None
        if closing and values[0].keys() <= declared:  # f({"a": 1})
            return Marked(tuple(parse_calls({"name": name, "arguments": values[0]}, tools)), closing.end())
        end = find_close(text, start, limit)
        found = _python_calls(f"f{text[start:end]}", tools, name) if end >= 0 else []
        return Marked(tuple(found), end) if found else Marked((), -1)
    if keys := _BEFORE_KEYS.match(text, position, limit):
        found, length = parse_arg_keys(text[keys.end() : limit], name, tools)
        return Marked(tuple(found), keys.end() + length)
    values, end = parse_values(text, GAP.match(text, position, limit).end())
    if not values:
        return Marked((), -1)
    if len(values) > 1:
        return Marked((Problem("broken_call", f"{name}: {show(values)}"[:80]),), end)
    return Marked(tuple(parse_calls({"name": name, "arguments": values[0]}, tools)), end)


def _python_calls(text: str, tools: DeclaredTools, name: str = "") -> list[Found]:
    try:
        calls = parse_python_calls(_LAST_COMMA.sub(")", text))
    except (ValueError, RecursionError):
        return []
    return [ToolCall(name or tools.resolve(call["name"]), call["arguments"]) for call in calls]


def find_close(text: str, position: int, limit: int) -> int:
    """Return the position after the bracket that closes the one at a position, strings skipped; -1 where none does."""
    stack: list[str] = []
    for match in _CLOSED.finditer(text, position, min(limit, position + MAX_CALL_CHARS)):
        character = match[0]
        if character in _OPEN:
            stack.append(character)
        elif character in _CLOSE:
            if not stack or _OPEN.index(stack.pop()) != _CLOSE.index(character):
                return -1
            if not stack:
                return match.end()
    return -1
