"""Scoring replies against gold: the public face of `outcomes`, `scores`, `comparison` and `cer`.

Knows rows, replies and the call grammar; not models. What the rungs of the ladder mean stands in `outcomes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgtools.metrics.cer import CerResult, tc_cer
from fgtools.metrics.comparison import Change, Comparison, compare
from fgtools.metrics.intervals import Ratio, Share
from fgtools.metrics.ladder import LADDER, RowScore, score_row
from fgtools.metrics.scores import Scores

__all__ = [
    "LADDER",
    "CerResult",
    "Change",
    "Comparison",
    "Ratio",
    "RowScore",
    "Scores",
    "Share",
    "compare",
    "score",
    "tc_cer",
]


def score(rows: Sequence[Mapping[str, Any]], replies: Sequence[str], style: str = "native") -> Scores:
    """Score replies against the gold of their rows.

    Args:
        rows: Row dicts, as build_rows makes them.
        replies: One reply a row, special tokens kept, in the same order.
        style: Call grammar of the replies: "native" or "tutorial".

    Returns:
        The Scores; every row counts, whatever its reply.

    Raises:
        ValueError: There are no rows, the lengths differ, the style is unknown, or a reply is not text.
    """
    if len(rows) != len(replies):
        raise ValueError(
            f"every row must have a reply, got {len(rows)} rows and {len(replies)} replies: generate for these rows"
        )
    if not rows:
        raise ValueError("at least one row must be scored, got none: check the rows file")
    if style not in ("native", "tutorial"):
        raise ValueError(f"style must be 'native' or 'tutorial', got {style!r}")
    return Scores(tuple(score_row(row, reply, style) for row, reply in zip(rows, replies, strict=True)), style=style)
