"""What is compared between rows: their keys, near duplicates among them, and what a careless split would leak.

Knows row dicts; a key holds what splits, counts and comparisons need, and is small. Sides are made by `splits`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fgtools.rows.duplicates import cluster_texts, normalize_request

SIDES = ("train", "eval", "unseen")


class RowKey(NamedTuple):
    """What a split and its counts need to know of a row; small, so that a whole set fits in memory.

    Attributes:
        group: The row's group: request and tools.
        gold: Equal for equal golds, whatever the order of calls and arguments; "[]" where no call is right.
        declared: Names of its tools.
        called: Names its gold calls.
        side: The side it names itself, or "".
        request: Its users' turns, normalised for comparison.
        source: Where it comes from.
        scenario: Its scenario category.
    """

    group: str
    gold: str
    declared: tuple[str, ...]
    called: tuple[str, ...]
    side: str
    request: str
    source: str = ""
    scenario: str = ""


def build_key(row: Mapping[str, Any]) -> RowKey:
    """Give the key of a row dict."""
    users = [message["content"] for message in row.get("messages", ()) if message["role"] == "user"]
    return RowKey(
        group=row["group"],
        gold=json.dumps(sorted(json.dumps(call, sort_keys=True) for call in row["gold"])),
        declared=tuple(tool["function"]["name"] for tool in row["tools"]),
        called=tuple(call["name"] for call in row["gold"]),
        side=row["split"] if row.get("split") in SIDES else "",
        request=normalize_request("\n".join(users)),
        source=row.get("source", ""),
        scenario=row.get("scenario", ""),
    )


class Leaks(NamedTuple):
    """What a split of shuffled rows would have let through.

    Attributes:
        n_eval: Evaluation rows of that split.
        exact: Of these, rows whose request and tools stand among the training rows.
        request: Further rows whose request does, with other tools.
        near: Further rows whose request nearly does.
    """

    n_eval: int
    exact: int
    request: int
    near: int


class Clusters(NamedTuple):
    """Near duplicates among the requests of rows.

    Attributes:
        clusters: A number a row; rows with equal numbers are near duplicates.
        tested: Those of the numbers that hold a benchmark's request.
    """

    clusters: list[int]
    tested: frozenset[int]


def cluster_rows(keys: Sequence[RowKey], benchmark: Sequence[str] = ()) -> Clusters:
    """Find the near duplicates among the requests of rows, and of a benchmark's requests.

    Args:
        keys: The rows' keys.
        benchmark: Requests that must not be trained on.

    Returns:
        The Clusters.
    """
    texts = [*(key.request for key in keys), *(normalize_request(text) for text in benchmark)]
    clusters = cluster_texts(texts)
    return Clusters(clusters[: len(keys)], frozenset(clusters[: len(keys)]) & frozenset(clusters[len(keys) :]))


def count_leaks(keys: Sequence[RowKey], clusters: Sequence[int], n_eval: int) -> Leaks:
    """Say what a split of the rows as they stand, the last ones for evaluation, would let through.

    Args:
        keys: The rows' keys, in shuffled order.
        clusters: Their near duplicates.
        n_eval: Evaluation rows; at most half of the rows.

    Returns:
        The Leaks.
    """
    n_eval = min(n_eval, len(keys) // 2)
    cut = len(keys) - n_eval
    groups, requests = {key.group for key in keys[:cut]}, {key.request for key in keys[:cut]}
    trained = set(clusters[:cut])
    exact = request = near = 0
    for key, cluster in zip(keys[cut:], clusters[cut:], strict=True):
        if key.group in groups:
            exact += 1
        elif key.request in requests:
            request += 1
        else:
            near += cluster in trained
    return Leaks(n_eval, exact, request, near)
