"""The gold of a conversation: the call or calls a model should answer with, or the reason why there is none.

Knows turns and their order. It does not know tool definitions: whether a called tool is declared is for `rows` to say.
Turns are parsed by `conversation`, what stands before an answer becomes messages in `context`, and the `tutorial`
recipe is in `tutorial`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from fgtools.calls import Problem, ToolCall
from fgtools.gold.context import build_context
from fgtools.gold.conversation import Rejected, Turn, is_user_role, parse_conversation
from fgtools.gold.turns import ParsedTurn
from fgtools.gold.tutorial import TutorialError, extract_tutorial_gold
from fgtools.profiles import DEVELOPER_TEXT, Recipe, get_recipe
from fgtools.schema.literals import show

_SENTENCE_END = re.compile(r"[.!?](?=\s)|[。！？]|(?=\n)")

MAX_CONTEXT_TURNS, MAX_CONTEXT_CHARS = 400, 200_000
"""Most turns, and characters of them, before a later answer of a conversation; each answer's row repeats them. Real
ones stay far below, and FunctionGemma reads 32,768 tokens, some 130,000 characters."""


@dataclass(frozen=True)
class Gold:
    """What a model should answer to which prompt.

    Attributes:
        calls: The calls of the answer; () where the right answer is no call.
        turn: Index of the prompt's user turn in the conversation, from 0.
        prompt_messages: The developer turn and all turns before the answer, calls and results included (see `context`).
        problems: What was wrong without hindering: kinds of `ParsedTurn` and of `Context`, dependent_call (a later call
            that waits for the result of this one was left out), repeated_call (in two fields of one message),
            later_calls (`extract_gold` only: later turns call too, and nothing is learnt from them).
        reply: The assistant's text without its reasoning where there is no call; else "".
        answer_turn: Index of the assistant turn with the calls or the reply.
    """

    calls: tuple[ToolCall, ...]
    turn: int
    prompt_messages: list[dict[str, Any]]
    problems: tuple[Problem, ...] = ()
    reply: str = ""
    answer_turn: int = -1


def extract_gold(row: Mapping[str, Any], recipe: str | Recipe = "native") -> Gold | Rejected:
    """Find the gold of a raw row.

    Native: reasoning is removed, the first assistant turn with calls decides, all its calls are the gold, and the user
    turn before it is the prompt turn; earlier turns are kept as context. Without any call the gold is no call: the last
    answer to a user, since an early one may be what the user then rejects. Turns with `learn` False are context and
    never the gold. Tutorial: the first block after the turn aligned with `task`.

    A call in another notation than <tool_call> blocks is read, or the row is rejected (unread_call); it is never kept
    as a reply. One broken call among several rejects the row, since half an answer would teach the model to stop too
    early. One exception is kept and counted (dependent_call): readable calls that come first, where the broken ones
    after them hold placeholders for their results, such as `${id}`. They are the whole first step.

    Args:
        row: A mapping with `conversations`: turns as {from, value} or {role, content}, or JSON text of them; and
            `tools`, which tell a call from other text where no marks do. `no_call` True means that no call is the right
            answer although no assistant turn says so; the gold's reply is "".
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
    turns = parse_conversation(row)
    if isinstance(turns, Rejected):
        return turns
    caller = next((turn for turn in turns if turn.parsed.blocks and turn.is_learnt), None)
    gold = _extract_calls(turns, caller) if caller else _extract_reply(turns, silent=row.get("no_call") is True)
    # An unreadable turn before the answer matters; where no answer was found, any may be the answer.
    end = gold.answer_turn if isinstance(gold, Gold) else len(turns)
    unreadable = next((turn.rejected for turn in turns if turn.rejected and turn.index < end), None)
    return unreadable or (_note_later_calls(turns, gold) if isinstance(gold, Gold) else gold)


def _note_later_calls(turns: Sequence[Turn], gold: Gold) -> Gold:
    """Return the gold with a problem where later turns of its conversation call too: nothing is learnt from them."""
    later = [turn.index for turn in turns if turn.index > gold.answer_turn and turn.parsed.blocks and turn.is_learnt]
    if not later:
        return gold
    return replace(gold, problems=(*gold.problems, Problem("later_calls", f"turns {show(later)} call as well")))


def extract_golds(row: Mapping[str, Any], recipe: str | Recipe = "native") -> tuple[Gold | Rejected, ...]:
    """Find every gold of a raw row that the recipe looks at.

    With `turns` "first" this is what `extract_gold` finds. With "all" it is one for each assistant turn that is to be
    learnt and that calls, or that answers a user in words where nothing was called for this request; words about a
    call's result are context only. Each is judged by itself: a turn whose calls cannot be read is rejected, and so is
    every answer after it, since its context would hold what nobody can read (broken_context).

    Args:
        row: As for `extract_gold`.
        recipe: As for `extract_gold`.

    Returns:
        One Gold or Rejected for each of these turns, in order, with its `answer_turn`; where there are none, the one
        reason why. A turn that cannot be read at all counts as one where no answer follows it.

    Raises:
        ValueError: The recipe is unknown.
    """
    recipe = get_recipe(recipe)
    if recipe.turns == "first" or not isinstance(row, Mapping):
        return (extract_gold(row, recipe),)
    turns = parse_conversation(row)
    answers = [] if isinstance(turns, Rejected) else _list_answers(turns)
    if not answers:
        return (extract_gold(row, recipe),)
    sizes = [0, *accumulate(len(turn.parsed.text) + len(str(turn.parsed.calls)) for turn in turns)]
    found: list[Gold | Rejected] = []
    for place in answers:
        answer = turns[place]
        if place > MAX_CONTEXT_TURNS or sizes[place] > MAX_CONTEXT_CHARS:
            detail = f"turn {answer.index} has {place} turns of {sizes[place]} characters before it: at most "
            detail += f"{MAX_CONTEXT_TURNS} turns of {MAX_CONTEXT_CHARS} characters are read"
            found.append(Rejected("too_long", detail, answer.index))
        else:
            found.append(_extract_answer(turns[: place + 2], answer))
    last = turns[answers[-1]].index
    left = [turn for turn in turns if turn.rejected and turn.index > last]
    return (*found, *(replace(turn.rejected, answer_turn=turn.index) for turn in left[:1]))


def _list_answers(turns: Sequence[Turn]) -> list[int]:
    """Return the places of turns that may be golds: those that call, and one answer to each request without a call."""
    answers: list[int] = []
    users = [place for place, turn in enumerate(turns) if turn.role == "user"]
    starts = [0, *users] if users[:1] != [0] else users
    for start, end in zip(starts, [*starts[1:], len(turns)], strict=True):
        said = [place for place in range(start, end) if turns[place].role == "assistant"]
        learnt = [place for place in said if turns[place].is_learnt]
        if any(turns[place].parsed.blocks for place in said):
            answers += [place for place in learnt if turns[place].parsed.blocks]
        elif learnt and turns[start].role == "user":
            answers.append(
                next((place for place in learnt if turns[place].parsed.text or turns[place].parsed.declines), learnt[0])
            )
    return answers


def _extract_answer(turns: Sequence[Turn], answer: Turn) -> Gold | Rejected:
    before = turns[: _place(turns, answer)]
    unreadable = next((turn.rejected for turn in before if turn.rejected), None)
    if unreadable:
        found: Gold | Rejected = unreadable
    elif unread := _find_unread_call(before):
        found = Rejected(
            "broken_context", f"turn {unread.index}, before turn {answer.index}, calls what cannot be read"
        )
    elif answer.parsed.blocks:
        found = _extract_calls(turns, answer)
    else:
        found = _extract_words(turns, answer)
    return replace(found, answer_turn=answer.index)


def _extract_calls(turns: Sequence[Turn], caller: Turn) -> Gold | Rejected:
    broken = find_broken(caller.parsed)
    if broken:
        return Rejected(broken.kind, f"turn {caller.index}: {broken.detail}")
    prompt = _last_user_turn(turns[: _place(turns, caller)])
    if prompt is None:
        return Rejected("no_user_turn", f"turn {caller.index} calls before any user turn")
    return _build_gold(turns, prompt, caller)


def find_broken(parsed: ParsedTurn) -> Problem | None:
    """Return the problem that keeps a turn's calls from being a gold, or None."""
    unread = next((item for item in parsed.problems if item.kind in ("broken_call", "unread_call")), None)
    if unread is None and not parsed.calls:
        return Problem("broken_call", "no call in it")
    return unread


def _extract_reply(turns: Sequence[Turn], silent: bool) -> Gold | Rejected:
    users = [position for position, turn in enumerate(turns) if turn.role == "user"]
    if not users:
        return Rejected("no_user_turn", f"{len(turns)} turns, none of a user")
    exchanges = [
        (turns[start], turns[start + 1 : end]) for start, end in zip(users, [*users[1:], len(turns)], strict=True)
    ]
    answered = [(prompt, answers) for prompt, answers in exchanges if any(turn.role == "assistant" for turn in answers)]
    learnt = [pair for pair in answered if any(turn.role == "assistant" and turn.is_learnt for turn in pair[1])]
    if silent and not learnt:  # earlier answers are context
        return _build_gold(turns, turns[users[-1]], Turn(turns[users[-1]].index, "assistant", ParsedTurn()))
    if not answered:
        return Rejected("no_assistant_turn", f"{len(turns)} turns, no reply to a user")
    if not learnt:
        return Rejected("not_learnt", "every assistant turn is switched off or marked as undesired")
    unread = _find_unread_call(turns)
    if unread:
        return Rejected("unread_call", f"turn {unread.index} is followed by a result: {unread.parsed.text[:80]}")
    _, answers = learnt[-1]
    replies = [turn for turn in answers if turn.role == "assistant" and turn.is_learnt]
    answer = next((turn for turn in replies if turn.parsed.text or turn.parsed.declines), replies[0])
    return _extract_words(turns, answer)


def _extract_words(turns: Sequence[Turn], answer: Turn) -> Gold | Rejected:
    """Return the gold of an answer without a call."""
    place = _place(turns, answer)
    start = max(place for place, turn in enumerate(turns[:place]) if turn.role == "user")
    if _find_unread_call([answer, *turns[place + 1 : place + 2]]):
        return Rejected("unread_call", f"turn {answer.index} is followed by a result: {answer.parsed.text[:80]}")
    if any(turn.parsed.blocks or turn.role == "tool" for turn in turns[start:place]):
        return Rejected(
            "after_result", f"turn {answer.index} reports the result of a call and is no answer to its user"
        )
    if answer.parsed.text or answer.parsed.declines:
        return _build_gold(turns, turns[start], answer)
    if any(problem.kind == "unclosed_reasoning" for turn in turns for problem in turn.parsed.problems):
        return Rejected("unclosed_reasoning", "the reasoning of the reply is never closed")
    return Rejected("no_reply", "the last reply is empty once reasoning is removed")


def _find_unread_call(turns: Sequence[Turn]) -> Turn | None:
    """Return the first assistant turn that must be a call, since a tool's result follows it, but is none."""
    pairs = [(turn, after) for turn, after in pairwise(turns) if turn.role == "assistant" and after.role == "tool"]
    return next((turn for turn, _ in pairs if turn.is_learnt and not turn.parsed.blocks), None)


def _place(turns: Sequence[Turn], turn: Turn) -> int:
    return next(place for place, other in enumerate(turns) if other is turn)


def _last_user_turn(turns: Sequence[Turn]) -> Turn | None:
    return next((turn for turn in reversed(turns) if turn.role == "user"), None)


def _build_gold(turns: Sequence[Turn], prompt: Turn, answer: Turn) -> Gold | Rejected:
    if not prompt.parsed.text.strip():
        return Rejected("empty_request", f"turn {prompt.index} is empty")
    before = turns[: next((place for place, turn in enumerate(turns) if turn is answer), len(turns))]
    broken = next((turn for turn in before if turn.parsed.blocks and find_broken(turn.parsed)), None)
    if broken:
        return Rejected("broken_context", f"turn {broken.index}, before turn {answer.index}, calls what cannot be read")
    context = build_context(before)
    if context.messages[-1].get("tool_calls"):
        return Rejected("unanswered_call", f"turn {answer.index} follows a call without a result or another request")
    calls, reply = answer.parsed.calls, "" if answer.parsed.calls else answer.parsed.text
    problems = (*answer.parsed.problems, *context.problems)
    return Gold(calls, prompt.index, list(context.messages), problems, reply, answer.index)


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


def _extract_tutorial(row: Mapping[str, Any]) -> Gold | Rejected:
    try:
        found = extract_tutorial_gold(row)
    except (TutorialError, RecursionError) as error:
        return Rejected("bad_row", str(error))
    if found is None:
        if not any(is_user_role(turn.get("from")) for turn in row["conversations"]):
            return Rejected("no_user_turn", f"{len(row['conversations'])} turns, none of a user")
        return Rejected("no_call", "no readable call between the task's user turn and the next one")
    call, turn = found
    developer = {"role": "developer", "content": DEVELOPER_TEXT}
    return Gold((call,), turn, [developer, {"role": "user", "content": row.get("task") or ""}])
