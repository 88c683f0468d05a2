"""Two texts one above the other, character by character: where they agree, and what only one of them holds.

Knows texts; not what they mean. The alignment has the fewest edits (Levenshtein, by rapidfuzz), so the characters that
differ are those that a character error rate counts.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import groupby, zip_longest

GAP = "·"
"""Stands where one text holds nothing."""

LIMIT = 4000
"""Longest text that is aligned, in characters; how much is left out is written at its end."""

WIDTH = 84
"""Characters in a line."""

Column = tuple[bool, str, str]
"""Whether both texts hold the same here, the predicted character, the gold one; GAP where one text holds nothing."""


def align_characters(predicted: str, gold: str) -> list[Column]:
    """Align two texts with the fewest edits.

    Args:
        predicted: The first text.
        gold: The second one.

    Returns:
        Columns; without their gaps, they hold both texts.
    """
    from rapidfuzz.distance import Levenshtein

    columns: list[Column] = []
    for edit in Levenshtein.opcodes(predicted, gold):
        sides = predicted[edit.src_start : edit.src_end], gold[edit.dest_start : edit.dest_end]
        columns.extend((edit.tag == "equal", *pair) for pair in zip_longest(*sides, fillvalue=GAP))
    return columns


def render_alignment(predicted: str, gold: str) -> str:
    """Return a predicted text over its gold as HTML, what differs coloured and underlined.

    Args:
        predicted: The first text.
        gold: The second one.

    Returns:
        A <pre> element: two lines for every WIDTH characters. Line breaks are shown as ↵, texts are escaped.
    """
    columns = align_characters(_shorten(predicted), _shorten(gold))
    lines = []
    for start in range(0, len(columns), WIDTH):
        line = columns[start : start + WIDTH]
        lines.append("predicted  " + _mark_differences(line, 1, "#f8d7da"))
        lines.append("gold       " + _mark_differences(line, 2, "#d1e7dd") + "\n")
    text = "\n".join(lines) or "both are empty"
    return f"<pre style='line-height:1.4;overflow-x:auto'>{text}</pre>"


def _shorten(text: str) -> str:
    left_out = len(text) - LIMIT
    return text if left_out <= 0 else f"{text[:LIMIT]} … {left_out} more characters"


def _mark_differences(line: Sequence[Column], side: int, colour: str) -> str:
    """Return one side of a line as HTML, each stretch that differs in a span."""
    parts = []
    for same, stretch in groupby(line, key=lambda column: column[0]):
        text = html.escape("".join(_make_visible(column[side]) for column in stretch))
        style = f"background:{colour};color:#000;text-decoration:underline"
        parts.append(text if same else f"<span style='{style}'>{text}</span>")
    return "".join(parts)


def _make_visible(character: str) -> str:
    return "↵" if character == "\n" else character if character.isprintable() else "\ufffd"
