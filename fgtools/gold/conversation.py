"""A row's conversation as turns with known roles, their texts parsed.

Knows roles and the fields of turns; messages of all providers become turns in `messages`, and the text of a turn is
parsed by `turns`. It does not know which turn is the gold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fgtools.calls import Problem
from fgtools.gold.declared import DeclaredTools
from fgtools.gold.messages import normalize_message
from fgtools.gold.parts import normalize_word
from fgtools.gold.turns import ParsedTurn, parse_turn
from fgtools.schema.literals import decode_text, show

MAX_TURN_CHARS = 1_000_000
"""Longest text of a turn that is parsed, in characters; real ones stay far below."""

MAX_CONVERSATION_CHARS = 2_000_000
"""Longest conversation given as one text that is decoded, in characters."""

_CALL_ROLES = frozenset(
    {"function_call", "function_calls", "tool_call", "tool_calls", "tool_use", "toolcall", "functioncall"}
)
"""Roles of turns whose whole text is calls, without the marks around them (ShareGPT with tools, HammerBench)."""

_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(
        ("gpt", "assistant", "model", "ai", "bot", "chatbot", "chatgpt", "chat_gpt", *_CALL_ROLES), "assistant"
    ),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "environment"), "tool"),
    **{f"{who}_{what}": "tool" for who in ("tool", "function") for what in ("response", "result", "output")},
    **{f"{who}_{what}": "tool" for who in ("tool", "function") for what in ("responses", "results", "outputs")},
    **dict.fromkeys(("function_call_output", "tool_call_output"), "tool"),
}


@dataclass(frozen=True)
class Rejected:
    """Why a conversation has no gold.

    Attributes:
        reason: One of not_a_row, bad_conversation, too_long, not_text (an image, audio, a file), no_user_turn,
            no_assistant_turn, empty_request, broken_call, unread_call (in a notation that could not be read),
            broken_context (one of these in an earlier turn), unanswered_call (the turn before calls, without a result),
            conflicting_calls (text and fields of a message differ), after_result (the answer reports a tool's result),
            not_learnt (no answer is to be learnt), no_reply, unclosed_reasoning; under the tutorial recipe bad_row,
            no_user_turn, no_call.
        detail: What was found, for people.
        answer_turn: Index of the assistant turn that was looked at; -1 where it was the whole conversation.
    """

    reason: str
    detail: str
    answer_turn: int = -1


@dataclass(frozen=True)
class Turn:
    """One turn.

    Attributes:
        index: Its position in the conversation, from 0; of turns that were joined, the first one's.
        role: user, assistant, system, tool, or unreadable.
        parsed: The text; of an assistant's turn its calls, and its text without reasoning.
        is_learnt: Whether the turn may be a gold; where not, it is context.
        rejected: Why the turn is unreadable; else None.
        name: The tool that a tool's turn names beside its text; else "".
    """

    index: int
    role: str
    parsed: ParsedTurn
    is_learnt: bool = True
    rejected: Rejected | None = None
    name: str = ""


def is_user_role(word: Any) -> bool:
    """Return whether a role, in any spelling, is a user's."""
    return _ROLES.get(normalize_word(word)) == "user"


def parse_conversation(row: Mapping[str, Any]) -> list[Turn] | Rejected:
    """Parse a row's conversation.

    Assistant turns with calls that follow each other directly are joined: they are the parallel calls of one answer. A
    tool's turn directly after a user's that holds a call of a declared tool is the assistant's. A user's turn after a
    call that holds a result between marks, as Qwen's template writes it, or after "Observation:" is the tool's.

    Args:
        row: A mapping with `conversations`, a list of turns or JSON text of one, and `tools`.

    Returns:
        The turns, or why there are none. A turn that cannot be read has the role unreadable and its reason.
    """
    raw = row.get("conversations")
    if isinstance(raw, str) and len(raw) > MAX_CONVERSATION_CHARS:
        return Rejected("too_long", f"{len(raw)} characters in conversations, at most {MAX_CONVERSATION_CHARS}")
    try:
        raw = decode_text(raw) if isinstance(raw, str) and raw.strip() else raw
    except ValueError as error:
        return Rejected("bad_conversation", f"conversations cannot be read: {error}")
    if not isinstance(raw, (list, tuple)) or not raw:
        return Rejected("bad_conversation", f"conversations must be a list of turns, got {show(raw)}")
    tools = DeclaredTools(row.get("tools"))
    turns: list[Turn] = []
    for index, item in enumerate(raw):
        for message in [item] if _is_plain(item) else normalize_message(item):
            turn = _parse_turn(index, message, turns[-1].role if turns else "", tools)
            turns.append(_as_result(turn) if turns and _is_result(turn, turns[-1]) else turn)
    return _join_calls(turns)


def _is_result(turn: Turn, before: Turn) -> bool:
    """Return whether a user's turn after a call holds nothing but its result, between Qwen's or after ReAct's marks."""
    if turn.role != "user" or not (before.parsed.blocks or before.role == "tool"):
        return False
    text = turn.parsed.text.strip()
    return text.startswith("Observation:") or (text.startswith("<tool_response>") and text.endswith("</tool_response>"))


def _as_result(turn: Turn) -> Turn:
    text = turn.parsed.text.strip().removeprefix("Observation:").strip()
    return replace(turn, role="tool", parsed=ParsedTurn(text=text))


def _is_plain(item: Any) -> bool:
    """Return whether an item is a turn of text already."""
    return isinstance(item, Mapping) and isinstance(item.get("value"), str) and item.keys() <= {"from", "value"}


def _parse_turn(index: int, item: Any, before: str, tools: DeclaredTools) -> Turn:
    word, text = normalize_word(item.get("from")), item.get("value")
    role = _ROLES.get(word)
    text = "" if text is None else text
    if item.get("unreadable"):
        reason, detail = item["unreadable"]
        return _unreadable(index, reason, f"turn {index} {detail}")
    if role is None or not isinstance(text, str):
        reason = "has an unknown role" if role is None else "holds no text"
        return _unreadable(index, "bad_conversation", f"turn {index} {reason}: {show(item)}")
    if len(text) > MAX_TURN_CHARS:
        detail = f"turn {index} has {len(text)} characters, at most {MAX_TURN_CHARS} are read"
        return _unreadable(index, "too_long", detail)
    if word in _CALL_ROLES and "<tool_call>" not in text:
        text = f"<tool_call>\n{text}\n</tool_call>"
    parsed = parse_turn(text, tools) if role == "assistant" else ParsedTurn(text=text)
    if role == "tool" and before == "user":
        called = parse_turn(text, tools)
        if called.blocks and all(call.name in tools.parameters for call in called.calls):
            role, parsed = "assistant", called
    if item.get("repeated") is True:
        parsed = replace(parsed, problems=(*parsed.problems, Problem("repeated_call", text[:80])))
    name = tools.resolve(item["name"]) if role == "tool" and isinstance(item.get("name"), str) else ""
    return Turn(index, role, parsed, item.get("learn") is not False, name=name)


def _unreadable(index: int, reason: str, detail: str) -> Turn:
    return Turn(index, "unreadable", ParsedTurn(), rejected=Rejected(reason, detail))


def _join_calls(turns: list[Turn]) -> list[Turn]:
    joined: list[Turn] = []
    for turn in turns:
        last = joined[-1] if joined else None
        both_call = last is not None and last.parsed.blocks and turn.parsed.blocks
        if both_call and last.is_learnt == turn.is_learnt and not _waits(last.parsed):
            joined[-1] = replace(last, parsed=_join(last.parsed, turn.parsed))
        else:
            joined.append(turn)
    return joined


def _waits(parsed: ParsedTurn) -> bool:
    return any(problem.kind == "dependent_call" for problem in parsed.problems)


def _join(one: ParsedTurn, other: ParsedTurn) -> ParsedTurn:
    text = "\n".join(part for part in (one.text, other.text) if part)
    calls, problems = (*one.calls, *other.calls), (*one.problems, *other.problems)
    return ParsedTurn(calls, text, problems, one.blocks + other.blocks)
