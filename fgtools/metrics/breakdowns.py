"""Scores by number of tools, number of calls, prompt length, tools seen in training, and type of argument.

Knows scores of rows; not replies. Every part is a Scores object, with the same measures, counts and intervals; parts
without rows are left out. Intervals of arguments are over groups of rows, as all intervals of scores.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from fgtools.files import InputError
from fgtools.metrics.groups import Groups
from fgtools.metrics.intervals import Ratio, bootstrap_ratio, measure_share
from fgtools.metrics.ladder import RowScore
from fgtools.metrics.scores import Scores, group_rows, require_same_ids

Parts = dict[str, Scores]
"""Label -> the scores of its rows, in display order."""


def split_by_tools(scores: Scores) -> Parts:
    """Split scores by the number of declared tools."""
    return _split(scores, lambda row: row.n_tools, (1, 3, 7))


def split_by_calls(scores: Scores) -> Parts:
    """Split scores by the number of gold calls."""
    return _split(scores, lambda row: row.n_gold, (0, 1, 2))


def split_by_length(scores: Scores) -> Parts:
    """Split scores at the quartiles of the prompt's length, in characters of messages and tools, not tokens."""
    lengths = sorted(row.prompt_characters for row in scores.rows)
    quarters = sorted({lengths[len(lengths) * part // 4 - 1] for part in (1, 2, 3) if len(lengths) >= 4})
    return _split(scores, lambda row: row.prompt_characters, quarters)


def split_by_seen(scores: Scores, rows: Sequence[Mapping[str, Any]], trained: Collection[str]) -> Parts:
    """Split scores by whether training declared the tools of the gold calls; rows without a call are a third part.

    Args:
        scores: The scores.
        rows: The rows that were scored, in the same order.
        trained: Names of all tools that the training rows declare.

    Returns:
        The parts "seen in training", "not seen" (at least one was not) and "no call due".

    Raises:
        ValueError: The rows are not those that were scored, in their order.
    """
    require_same_ids((row.row_id for row in scores.rows), (row["row_id"] for row in rows))
    due, seen = [{call["name"] for call in row["gold"]} for row in rows], set(trained)
    places = [2 if not names else 0 if names <= seen else 1 for names in due]
    return _group(scores, places, ("seen in training", "not seen", "no call due"))


def require_same_parts(before: Parts, after: Parts) -> None:
    """Require that two sets of parts hold the same rows.

    Raises:
        ValueError: They differ in their names or in a part's rows.
    """
    ids = [
        {name: sorted(row.row_id for row in scores.rows) for name, scores in parts.items()} for parts in (before, after)
    ]
    if ids[0] != ids[1]:
        sizes = [{name: len(rows) for name, rows in parts.items()} for parts in ids]
        raise InputError(
            f"both must be the same rows in the same parts, got {sizes[0]} and {sizes[1]} rows: split both alike"
        )


def count_argument_types(scores: Scores) -> dict[str, Ratio]:
    """Return the share of right ones among the gold arguments, by JSON type, the most common type first.

    Returns:
        JSON type -> Ratio; its interval is the bootstrap's over groups of the rows that hold the type, or Wilson's of
        these rows where all arguments are right or all wrong, since there the bootstrap has no width.
    """
    counts: dict[str, list[tuple[int, int]]] = {}
    holding: dict[str, list[RowScore]] = {}
    for row in scores.rows:
        for kind, right, gold in row.arguments_by_type:
            counts.setdefault(kind, []).append((right, gold))
            holding.setdefault(kind, []).append(row)
    ratios = {kind: _pool(pairs, group_rows(holding[kind])) for kind, pairs in counts.items()}
    return dict(sorted(ratios.items(), key=lambda item: (-item[1].denominator, item[0])))


def _pool(pairs: Sequence[tuple[int, int]], groups: Groups) -> Ratio:
    ratio = bootstrap_ratio(*zip(*pairs, strict=True), groups)
    if ratio.numerator not in (0, ratio.denominator):
        return ratio
    low, high = measure_share([ratio.numerator > 0] * len(pairs), groups).interval
    return dataclasses.replace(ratio, low=low, high=high)


def _split(scores: Scores, measure: Callable[[RowScore], int], edges: Sequence[int]) -> Parts:
    """Split scores at upper edges, each inclusive; the last part has no upper edge."""
    labels = [_label(edges, place) for place in range(len(edges) + 1)]
    return _group(scores, [bisect_left(edges, measure(row)) for row in scores.rows], labels)


def _group(scores: Scores, places: Sequence[int], labels: Sequence[str]) -> Parts:
    """Return the parts in the order of their labels; a row's place is the index of its label."""
    parts = {}
    for place, label in enumerate(labels):
        rows = tuple(row for row, own in zip(scores.rows, places, strict=True) if own == place)
        if rows:
            parts[label] = dataclasses.replace(scores, rows=rows)
    return parts


def _label(edges: Sequence[int], place: int) -> str:
    low = edges[place - 1] + 1 if place else 0
    if place == len(edges):
        return f"{low:,} or more"
    if place == 0 and edges[0] > 1:
        return f"up to {edges[0]:,}"
    return f"{edges[place]:,}" if place == 0 or low == edges[place] else f"{low:,} to {edges[place]:,}"
