"""Two texts side by side, character by character: where they agree, and what only one of them holds.

Knows texts; not what they mean. The alignment is one of fewest edits (Levenshtein), as rapidfuzz finds it, so the
characters that differ are those a character error rate counts.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

GAP = "·"
"""Stands where one text holds nothing."""

LIMIT = 4000
"""Longest text that is aligned, in characters; the rest is left out, and said to be."""

_STYLES = {
    "predicted": "background:#f8d7da;color:#000;text-decoration:underline",
    "gold": "background:#d1e7dd;color:#000;text-decoration:underline",
}


class Piece(NamedTuple):
    """A stretch of the alignment.

    Attributes:
        same: Whether both texts hold the same here.
        predicted: What the first text holds; "" for a gap.
        gold: What the second one holds; "" for a gap.
    """

    same: bool
    predicted: str
    gold: str


def align_characters(predicted: str, gold: str) -> tuple[Piece, ...]:
    """Align two texts with the fewest edits.

    Args:
        predicted: The first text.
        gold: The second one.

    Returns:
        Pieces that, joined, give both texts back.
    """
    from rapidfuzz.distance import Levenshtein

    return tuple(
        Piece(one.tag == "equal", predicted[one.src_start : one.src_end], gold[one.dest_start : one.dest_end])
        for one in Levenshtein.opcodes(predicted, gold)
    )


@dataclass(frozen=True)
class Alignment:
    """A predicted text over its gold: two lines a stretch in a terminal, coloured and underlined in a notebook.

    Attributes:
        predicted: The first text.
        gold: The second one.
        width: Characters of a line.
    """

    predicted: str
    gold: str
    width: int = 84

    @cached_property
    def columns(self) -> tuple[tuple[bool, str, str], ...]:
        """(same, predicted character, gold character), GAP where there is none; line breaks are shown as ↵."""
        pieces = align_characters(_cut(self.predicted), _cut(self.gold))
        columns: list[tuple[bool, str, str]] = []
        for piece in pieces:
            length = max(len(piece.predicted), len(piece.gold))
            pair = (_visible(text).ljust(length, GAP) for text in piece[1:])
            columns.extend((piece.same, *characters) for characters in zip(*pair, strict=True))
        return tuple(columns)

    def _lines(self) -> list[tuple[tuple[bool, str, str], ...]]:
        return [self.columns[start : start + self.width] for start in range(0, len(self.columns), self.width)]

    def __str__(self) -> str:
        lines = []
        for line in self._lines():
            lines.append("predicted  " + "".join(column[1] for column in line))
            lines.append("gold       " + "".join(column[2] for column in line))
            marks = "".join(" " if column[0] else "^" for column in line).rstrip()
            lines.extend(["           " + marks] if marks else [])
        return "\n".join(lines) or "both are empty"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = []
        for line in self._lines():
            lines.append("predicted  " + _mark(line, 1, _STYLES["predicted"]))
            lines.append("gold       " + _mark(line, 2, _STYLES["gold"]) + "\n")
        text = "\n".join(lines) or "both are empty"
        return f"<pre style='line-height:1.4;overflow-x:auto'>{text}</pre>"


def _cut(text: str) -> str:
    left_out = len(text) - LIMIT
    return text if left_out <= 0 else f"{text[:LIMIT]} … {left_out} more characters"


def _visible(text: str) -> str:
    return "".join("↵" if one == "\n" else one if one.isprintable() else "\ufffd" for one in text)


def _mark(line: tuple[tuple[bool, str, str], ...], side: int, style: str) -> str:
    """Write one side of a line as HTML, each stretch that differs in a span."""
    parts: list[str] = []
    start = 0
    while start < len(line):
        end = start
        while end < len(line) and line[end][0] == line[start][0]:
            end += 1
        text = html.escape("".join(column[side] for column in line[start:end]))
        parts.append(text if line[start][0] else f"<span style='{style}'>{text}</span>")
        start = end
    return "".join(parts)
