"""The gold of a conversation: the call or calls a model should answer with, or the reason why there is none.

Knows turns and roles. It does not know tool definitions: whether a called tool is declared is for `rows` to say. The
text of a turn is parsed by `turns`; the `tutorial` recipe is in `tutorial`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgtools.calls import Problem, ToolCall
from fgtools.gold.turns import ParsedTurn, parse_turn
from fgtools.gold.tutorial import TutorialError, extract_tutorial_gold
from fgtools.profiles import DEVELOPER_TEXT, Recipe, get_recipe
from fgtools.schema.literals import decode_text, plain_value, show

_CALL_ROLES = frozenset({"function_call", "tool_call"})
"""Roles of turns whose whole text is calls, without the marks around them (ShareGPT with tools)."""

_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model", *_CALL_ROLES), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
}

_BOILERPLATE = re.compile(
    r"</?tools?>|</?tool_calls?>|</?function_calls?>|<tool_response>|<start_function_declaration>"
    r"|</?(?:think|thinking|reasoning|scratch_?pad)>"  # instructions for reasoning, which is removed
    r"|(?:function|tool)[- ]calling (?:ai )?(?:model|assistant|agent)|function signatures"
    r"|\b(?:have|with|given) access to (?:the )?(?:following|below|these) (?:tools|functions|apis)"
    r"|\b(?:set|list) of (?:available |possible |provided )?(?:tools|functions)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s)|[。！？]|(?=\n)")
_TOOLS_JSON = re.compile(r"""["']parameters["']\s*:\s*[\[{]""")


@dataclass(frozen=True)
class Gold:
    """What a model should answer to which prompt.

    Attributes:
        calls: The calls of the first turn that calls anything; () where the right answer is no call.
        turn: Index of the prompt's user turn in the conversation, from 0.
        prompt_messages: The developer turn and the conversation up to the prompt's user turn, as {"role", "content"}.
        problems: What was wrong without hindering: kinds of `ParsedTurn`, stray_turn.
        reply: The assistant's text without its reasoning where there is no call; else "".
        answer_turn: Index of the assistant turn with the calls or the reply.
    """

    calls: tuple[ToolCall, ...]
    turn: int
    prompt_messages: list[dict[str, str]]
    problems: tuple[Problem, ...] = ()
    reply: str = ""
    answer_turn: int = -1


@dataclass(frozen=True)
class Rejected:
    """Why a conversation has no gold.

    Attributes:
        reason: One of not_a_row, bad_conversation, no_user_turn, no_assistant_turn, empty_request, broken_call,
            no_reply, unclosed_reasoning; under the tutorial recipe bad_row, no_user_turn, no_call.
        detail: What was found, for people.
    """

    reason: str
    detail: str


@dataclass(frozen=True)
class _Turn:
    """One turn: role is user, assistant, system, tool, or unreadable (then the text says why).

    Only the text of an assistant turn is parsed for reasoning and calls.
    """

    index: int
    role: str
    parsed: ParsedTurn


def extract_gold(row: Mapping[str, Any], recipe: str | Recipe = "native") -> Gold | Rejected:
    """Find the gold of a raw row.

    Native: reasoning is removed, the first assistant turn with call blocks decides, all its readable calls are the
    gold, and the user turn before it is the prompt turn; earlier turns are kept as context. Without any block the gold
    is no call, at the first user turn that has a reply. Tutorial: the first block after the turn aligned with `task`.

    Args:
        row: A mapping with `conversations`: turns as {from, value} or {role, content}, or JSON text of them. `no_call`
            True means that no call is the right answer although no assistant turn says so; the gold's reply is "".
        recipe: "native" or "tutorial" (arguments as found, even when they are not a mapping).

    Returns:
        Gold, or Rejected with its reason.

    Raises:
        ValueError: The recipe is unknown.
    """
    recipe = get_recipe(recipe)
    if not isinstance(row, Mapping):
        return Rejected("not_a_row", f"a row must be a mapping, got {show(row)}")
    if recipe.call_style == "tutorial":
        return _extract_tutorial(row)
    turns = _parse_turns(row.get("conversations"))
    if isinstance(turns, Rejected):
        return turns
    caller = next((turn for turn in turns if turn.parsed.blocks), None)
    gold = _extract_calls(turns, caller) if caller else _extract_reply(turns, silent=row.get("no_call") is True)
    # An unreadable turn before the answer matters; where no answer was found, any may be the answer.
    end = gold.answer_turn if isinstance(gold, Gold) else len(turns)
    unreadable = next((turn for turn in turns[:end] if turn.role == "unreadable"), None)
    return Rejected("bad_conversation", unreadable.parsed.text) if unreadable else gold


def _extract_calls(turns: list[_Turn], caller: _Turn) -> Gold | Rejected:
    if not caller.parsed.calls:
        detail = next((item.detail for item in caller.parsed.problems if item.kind == "broken_call"), "")
        return Rejected("broken_call", f"turn {caller.index}: {detail}")
    prompt = _last_user_turn(turns[: caller.index])
    if prompt is None:
        return Rejected("no_user_turn", f"turn {caller.index} calls before any user turn")
    return _build_gold(turns, prompt, caller)


def _extract_reply(turns: list[_Turn], silent: bool) -> Gold | Rejected:
    first = next((turn.index for turn in turns if turn.role == "user"), len(turns))
    answer = next((turn for turn in turns[first:] if turn.role == "assistant"), None)
    prompt = _last_user_turn(turns[: answer.index] if answer else turns)
    if prompt is None:
        return Rejected("no_user_turn", f"{len(turns)} turns, none of a user")
    if silent and not answer:
        return _build_gold(turns, prompt, _Turn(prompt.index, "assistant", ParsedTurn()))
    if answer and answer.parsed.text:
        return _build_gold(turns, prompt, answer)
    if not answer:
        return Rejected("no_assistant_turn", f"{len(turns)} turns, no reply to a user")
    if any(problem.kind == "unclosed_reasoning" for turn in turns for problem in turn.parsed.problems):
        return Rejected("unclosed_reasoning", "the reasoning of the first reply is never closed")
    return Rejected("no_reply", "the first reply is empty once reasoning is removed")


def _last_user_turn(turns: list[_Turn]) -> _Turn | None:
    return next((turn for turn in reversed(turns) if turn.role == "user"), None)


def _build_gold(turns: list[_Turn], prompt: _Turn, answer: _Turn) -> Gold | Rejected:
    if not prompt.parsed.text.strip():
        return Rejected("empty_request", f"turn {prompt.index} is empty")
    context = turns[: prompt.index + 1]
    between = turns[prompt.index + 1 : answer.index]
    stray = [f"tool turn {turn.index} before any call" for turn in context if turn.role == "tool"]
    stray += [f"{turn.role} turn {turn.index}" for turn in between if turn.role != "system"]
    system = "\n".join(turn.parsed.text for turn in context if turn.role == "system")
    said = [turn for turn in context if turn.role == "user" or (turn.role == "assistant" and turn.parsed.text)]
    messages = [{"role": turn.role, "content": turn.parsed.text} for turn in said]
    developer = {"role": "developer", "content": developer_text(system)}
    problems = (*answer.parsed.problems, *(Problem("stray_turn", detail) for detail in stray))
    calls, reply = answer.parsed.calls, "" if answer.parsed.calls else answer.parsed.text
    return Gold(calls, prompt.index, [developer, *messages], problems, reply, answer.index)


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


def shorten_reply(text: str, limit: int) -> str:
    """Return the first whole sentences or lines of a reply.

    Args:
        text: The reply.
        limit: Most characters that are kept; the first sentence is kept whole, however long it is. 0: no limit.

    Returns:
        The text; the whole reply where it is short enough.
    """
    if not limit or len(text) <= limit:
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    fitting = [end for end in ends if end <= limit]
    end = fitting[-1] if fitting else next(iter(ends), len(text))
    return text[:end].rstrip()


def _parse_turns(raw: Any) -> list[_Turn] | Rejected:
    try:
        raw = decode_text(raw) if isinstance(raw, str) and raw.strip() else raw
    except ValueError as error:
        return Rejected("bad_conversation", f"conversations cannot be read: {error}")
    if not isinstance(raw, (list, tuple)) or not raw:
        return Rejected("bad_conversation", f"conversations must be a list of turns, got {show(raw)}")
    return [_parse_turn(index, item) for index, item in enumerate(raw)]


def _parse_turn(index: int, item: Any) -> _Turn:
    if not isinstance(item, Mapping):
        return _Turn(index, "unreadable", ParsedTurn(text=f"turn {index} must be a mapping, got {show(item)}"))
    given = item.get("from") if item.get("from") is not None else item.get("role")
    word = given.strip().lower() if isinstance(given, str) else ""
    role = _ROLES.get(word)
    text = _parse_content(item["value"] if item.get("value") is not None else item.get("content"))
    if role is None or text is None:
        reason = "has an unknown role" if role is None else "holds no text"
        return _Turn(index, "unreadable", ParsedTurn(text=f"turn {index} {reason}: {show(item)}"))
    if word in _CALL_ROLES and "<tool_call>" not in text:
        text = f"<tool_call>\n{text}\n</tool_call>"
    return _Turn(index, role, parse_turn(text) if role == "assistant" else ParsedTurn(text=text))


def _parse_content(raw: Any) -> str | None:
    """Return a turn's text: parts ({"type": "text", "text"}) joined, structured results as JSON; None for the rest."""
    if raw is None:
        return ""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, (list, tuple)) and raw and all(isinstance(part, Mapping) for part in raw):
        texts = [part.get("text") for part in raw]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    try:
        return json.dumps(plain_value(raw), ensure_ascii=False) if isinstance(raw, (Mapping, list, tuple)) else None
    except ValueError:
        return None


def _extract_tutorial(row: Mapping[str, Any]) -> Gold | Rejected:
    try:
        found = extract_tutorial_gold(row)
    except (TutorialError, RecursionError) as error:
        return Rejected("bad_row", str(error))
    if found is None:
        roles = [str(turn.get("from")).lower().strip() for turn in row["conversations"]]
        if not any(_ROLES.get(role) == "user" for role in roles):
            return Rejected("no_user_turn", f"{len(roles)} turns, none of a user")
        return Rejected("no_call", "no readable call between the task's user turn and the next one")
    call, turn = found
    developer = {"role": "developer", "content": DEVELOPER_TEXT}
    return Gold((call,), turn, [developer, {"role": "user", "content": row.get("task") or ""}])
