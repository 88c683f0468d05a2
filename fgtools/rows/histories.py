"""Rows that unfold one history: the conversation of one row is the beginning of another's.

Knows conversations in the Hermes shape by digests of their beginnings, never their texts, so that a whole data set is
compared in one pass. Each row of a history teaches its own last answer: answers that a shorter row teaches are context
in the longer ones, and a split keeps the rows of a history on one side.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fgtools.rows.fields import ASSISTANTS, CONTENT, ROLE, first_of
from fgtools.rows.formats import normalize_row
from fgtools.schema.literals import decode_json

_IGNORED = frozenset({"system", "developer"})
"""Speakers left out: texts of theirs may name the date or the tools, and the history is the same."""

_SPEAKERS = {**dict.fromkeys(ASSISTANTS, "assistant"), "human": "user", "user": "user"}

_CALL_MARK = re.compile(
    r"<tool_call|tool_calls?\b|<\|?function|functioncall|start_function_call|\"name\"|'name'|python_tag|to=functions",
    re.IGNORECASE,
)
"""What tells a call after a result from words about the result; wrong only in which copy of an answer is taught."""


_BLOCK = "<tool_call"
"""Begins a call in the Hermes shape."""


class Answer(NamedTuple):
    """An assistant's turn in a conversation.

    Attributes:
        index: Its position.
        digest: Digest of the turns up to it.
        is_own: Whether it calls or answers a user; False for words about a tool's result.
    """

    index: int
    digest: int
    is_own: bool


class Digests(NamedTuple):
    """A conversation by the digests of its beginnings.

    Attributes:
        whole: Digest of all its turns; 0 for no conversation.
        answers: The turns of its assistant, and calls in turns of other roles.
        is_cut: Whether it ends with a call that answers a user, after other calls: a conversation that was cut there.
    """

    whole: int = 0
    answers: tuple[Answer, ...] = ()
    is_cut: bool = False


@dataclass(frozen=True)
class Place:
    """A row's place in a history.

    Attributes:
        conversation: The same for all rows of the history, and for no other; "" for a row that is alone.
        taught: Indices of the turns that shorter rows teach, or would if they were there.
    """

    conversation: str
    taught: frozenset[int] = frozenset()

    def apply(self, row: Any) -> Any:
        """Return a row in the Hermes shape with these turns as context, and with the name of its conversation."""
        turns = decode_json(row.get("conversations")) if isinstance(row, Mapping) else None
        if not isinstance(turns, (list, tuple)):
            return row
        marked = [{**turn, "learn": False} if index in self.taught else turn for index, turn in enumerate(turns)]
        name = {"conversation_id": self.conversation} if self.conversation else {}
        return {**row, "conversations": marked, **name}


def digest_rows(raw_rows: Iterable[Any], shape: str = "auto") -> list[Digests]:
    """Return the digests of raw rows of any shape."""
    return [digest_row(normalize_row(raw, shape)) for raw in raw_rows]


def digest_row(row: Any) -> Digests:
    """Return the digests of a row in the Hermes shape; those of no conversation for anything else."""
    turns = decode_json(row.get("conversations")) if isinstance(row, Mapping) else None
    if not isinstance(turns, (list, tuple)) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        return Digests()
    running = hashlib.blake2b(digest_size=8)
    answers: list[Answer] = []
    n_calls = 0
    is_cut = False
    before = "user"
    for index, turn in enumerate(turns):
        role = first_of(turn, *ROLE)
        word = role.strip().lower() if isinstance(role, str) else ""
        speaker = _SPEAKERS.get(word, word)
        if speaker in _IGNORED:
            continue
        text = _text_of(first_of(turn, *CONTENT))
        running.update(f"\x00{speaker}\x01{text}".encode("utf-8", "replace"))
        if speaker != "user":
            is_own = speaker == "assistant" and before in ("user", "assistant")
            is_own = is_own or bool(_CALL_MARK.search(text if speaker == "assistant" else speaker))
            is_call = _BLOCK in text or "call" in speaker
            is_cut = is_call and before == "user" and n_calls > 0
            n_calls += is_call
            answers.append(Answer(index, int.from_bytes(running.digest()), is_own))
        else:
            is_cut = False
        before = speaker
    return Digests(int.from_bytes(running.digest()), tuple(answers), is_cut)


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except (ValueError, TypeError, RecursionError):
        return ""


def find_histories(rows: Sequence[Digests], cut_rows: bool = True) -> dict[int, Place]:
    """Find the rows that unfold one history.

    Args:
        rows: The digests of all rows of a data set.
        cut_rows: Whether a row whose shorter ones are not there has a place too, where its conversation is cut after a
            call: that call is what such a row was written for.

    Returns:
        The Place of each row that is part of a history, by its position. A longer row in which nothing but words about
        a tool's result is new makes no history: it stays as it is, a copy of the shorter one.
    """
    wholes: dict[int, int] = {}
    for position, row in enumerate(rows):
        if row.whole:
            wholes.setdefault(row.whole, position)
    parents: dict[int, int] = {}
    taught: dict[int, frozenset[int]] = {}
    for position, row in enumerate(rows):
        shorter = [answer for answer in row.answers if answer.digest in wholes and answer.digest != row.whole]
        if shorter and any(answer.is_own for answer in row.answers if answer.index > shorter[-1].index):
            known = (answer.index for answer in row.answers if answer.index <= shorter[-1].index)
            taught[position] = frozenset(known)
            for answer in shorter:
                _join(parents, wholes[row.whole], wholes[answer.digest])
    places = {}
    for position, row in enumerate(rows):
        first = wholes.get(row.whole)
        if first is not None and first in parents:
            places[position] = Place(f"history/{_find(parents, first)}", taught.get(position, frozenset()))
        elif cut_rows and row.is_cut:
            places[position] = Place("", frozenset(answer.index for answer in row.answers[:-1]))
    return places


def _join(parents: dict[int, int], one: int, other: int) -> None:
    first, last = sorted((_find(parents, one), _find(parents, other)))
    parents[last] = first


def _find(parents: dict[int, int], position: int) -> int:
    """Return the root of a position's tree, shortening the path to it."""
    parents.setdefault(position, position)
    while parents[position] != position:
        parents[position] = parents[parents[position]]
        position = parents[position]
    return position
