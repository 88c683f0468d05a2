"""The context of an answer: the turns before it as messages, with their calls and results.

Knows turns; not which of them are golds. Messages are as chat templates take them: {"role", "content"}, an assistant's
calls as `tool_calls`, and each result as a message of role "tool" with the tool's name (see `results`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fgtools.calls import Problem
from fgtools.gold.conversation import Turn
from fgtools.gold.results import parse_results
from fgtools.profiles import DEVELOPER_TEXT

_BOILERPLATE = re.compile(
    r"</?tools?>|</?tool_calls?>|</?function_calls?>|<tool_response>|<start_function_declaration>"
    r"|</?(?:think|thinking|reasoning|scratch_?pad)>"  # instructions for reasoning, which is removed
    r"|(?:function|tool)[- ]calling (?:ai )?(?:model|assistant|agent)|function signatures"
    r"|\b(?:have|with|given) access to (?:the )?(?:following|below|these) (?:tools|functions|apis)"
    r"|\b(?:set|list) of (?:available |possible |provided )?(?:tools|functions)\b",
    re.IGNORECASE,
)
_TOOLS_JSON = re.compile(r"""["']parameters["']\s*:\s*[\[{]""")

_MARKS = re.compile(
    r"(?:```|~~~)[\w-]*|<\|[^<>|]{1,40}\|>|</?[\w:-]{1,40}(?: [^<>]{0,80})?>|\[/?[A-Z][A-Z_]{3,30}\]"
    r"|^[ \t]*(?:action|action input|assistant|(?:function|tool)[ _-]?calls?)[ \t]*:[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
"""Fences, tags, bracketed words and labels that other notations put around calls."""


@dataclass(frozen=True)
class Context:
    """What a model has read before its answer.

    Attributes:
        messages: The developer turn, then users' and assistants' turns, calls and results.
        problems: stray_turn (left out: a result before any call, an assistant's words right before the answer),
            unanswered_call (an earlier call without a result).
    """

    messages: tuple[dict[str, Any], ...]
    problems: tuple[Problem, ...] = ()


def build_context(turns: Sequence[Turn]) -> Context:
    """Return the turns before an answer as messages.

    An assistant's words directly before its calls are the text of the calling message. Directly before the answer they
    are left out: the answer begins the model's turn, or goes on after its results.

    Args:
        turns: All turns before the answer, each of which could be read.

    Returns:
        The Context.
    """
    messages: list[dict[str, Any]] = []
    problems: list[Problem] = []
    waiting: tuple[int, list[str]] | None = None  # the turn that called last, and the tools it called
    place = 0
    while place < len(turns):
        turn, place = turns[place], place + 1
        if turn.role == "tool":
            first = place - 1
            while place < len(turns) and turns[place].role == "tool":
                place += 1
            if waiting is None:
                problems += [_stray(one, " before any call") for one in turns[first:place]]
                continue
            results = parse_results([(one.name, one.parsed.text) for one in turns[first:place]], waiting[1])
            messages += [{"role": "tool", "name": one.name, "content": one.content} for one in results]
            waiting = None
        elif turn.role == "user" or turn.parsed.text or turn.parsed.calls:
            if turn.role == "system":
                continue
            if waiting is not None:
                problems.append(Problem("unanswered_call", f"turn {waiting[0]}"))
            messages.append(_build_message(turn, messages))
            waiting = (turn.index, [call.name for call in turn.parsed.calls]) if turn.parsed.calls else None
    problems += [Problem("stray_turn", f"words before the answer: {text[:40]}") for text in _take_words(messages)]
    system = "\n".join(turn.parsed.text for turn in turns if turn.role == "system")
    developer = {"role": "developer", "content": developer_text(system)}
    return Context((developer, *messages), tuple(problems))


def _stray(turn: Turn, why: str) -> Problem:
    return Problem("stray_turn", f"{turn.role} turn {turn.index}{why}")


def _build_message(turn: Turn, before: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a user's or an assistant's turn as a message; words right before a call are taken from `before`."""
    message: dict[str, Any] = {"role": turn.role, "content": turn.parsed.text}
    if turn.role == "assistant" and turn.parsed.calls:
        in_marks = any(problem.kind == "other_notation" for problem in turn.parsed.problems)
        own = _drop_marks(turn.parsed.text) if in_marks else turn.parsed.text
        message["content"] = "\n".join([*_take_words(before), *([own] if own else [])])
        functions = [{"name": call.name, "arguments": call.arguments} for call in turn.parsed.calls]
        message["tool_calls"] = [{"type": "function", "function": one} for one in functions]
    return message


def _drop_marks(text: str) -> str:
    """Return what was said beside calls of another notation, without what is left of its marks."""
    lines = (line.strip() for line in _MARKS.sub("", text).splitlines())
    return "\n".join(line for line in lines if line)


def _take_words(messages: list[dict[str, Any]]) -> list[str]:
    """Take an assistant's words since a user's turn or a result off the end of `messages`; return them in order."""
    start = len(messages)
    while start and messages[start - 1]["role"] == "assistant" and "tool_calls" not in messages[start - 1]:
        start -= 1
    if not start or messages[start - 1]["role"] == "assistant":  # a greeting, or words after a call without a result
        return []
    words = [message["content"] for message in messages[start:]]
    del messages[start:]
    return words


def developer_text(system: str) -> str:
    """Return the developer turn's text: the row's own system text, then the sentence that switches to calling.

    A system text that introduces tools (their list, their JSON, how to write calls in another format) is dropped: the
    chat template declares the tools, and the rules of another format would contradict the answer.

    Args:
        system: The row's system text, or "".

    Returns:
        The text.
    """
    context = system.strip()
    if not context or _BOILERPLATE.search(context) or _TOOLS_JSON.search(context):
        return DEVELOPER_TEXT
    return context if DEVELOPER_TEXT in context else f"{context}\n{DEVELOPER_TEXT}"
