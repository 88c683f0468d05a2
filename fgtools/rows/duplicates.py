"""Which rows ask the same or nearly the same, and how many a careless split would leak into training.

Knows row dicts by their keys (what splits and counts compare), and texts by their shingles; sides are made by `splits`.
Near duplicates are searched with datasketch's MinHash LSH (Broder 1997, locality-sensitive hashing). Every candidate
pair is then checked with the exact Jaccard similarity of the two texts' shingles: the hash only decides which pairs are
compared.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fgtools.metrics.texts import normalize_request

SIDES = ("train", "eval", "unseen")

SHINGLE = 5
"""Characters of a shingle."""

THRESHOLD = 0.8
"""Jaccard similarity of shingles from which two requests are near duplicates: about one word of twelve changed."""

_PERMUTATIONS = 128
_CANDIDATES = 0.75
"""Share of THRESHOLD from which the index is tuned to propose a pair: lower finds more true pairs and checks more."""

_MAX_CHECKS = 64
"""Candidates compared exactly for one text; of thousands that differ by one word, the first ones connect all."""


class RowKey(NamedTuple):
    """The part of a row that splits and counts compare; small, so that the keys of a whole set fit in memory.

    Attributes:
        group: The row's group: request and tools.
        gold: Equal for equal golds, whatever the order of calls and arguments; "[]" where no call is right.
        declared: Names of its tools.
        called: Names its gold calls.
        side: The side the row itself names, or "".
        request: Its users' turns, normalized for comparison.
        source: Where it comes from.
        scenario: Its scenario category.
        conversation: Equal for rows that come from one conversation; "" where the row comes from one of its own.
    """

    group: str
    gold: str
    declared: tuple[str, ...]
    called: tuple[str, ...]
    side: str
    request: str
    source: str = ""
    scenario: str = ""
    conversation: str = ""


def build_key(row: Mapping[str, Any]) -> RowKey:
    """Return the key of a row dict."""
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
        conversation=row.get("conversation", ""),
    )


def count_leaks(keys: Sequence[RowKey], clusters: Sequence[int], n_eval: int) -> dict[str, int]:
    """Count what would leak into training if the last rows, in the order given, were the evaluation rows.

    Args:
        keys: The rows' keys, in shuffled order.
        clusters: One number per row, equal for rows that must stay together (`Splits.clusters`).
        n_eval: Evaluation rows wanted; at most half of the rows are taken.

    Returns:
        `n_eval`, the evaluation rows taken; and how many of them have their request and tools in a training row
        (`exact`), have their request alone there (`request`), or have there a near duplicate of their request or a row
        of their conversation (`near`); each counts once.
    """
    n_eval = min(n_eval, len(keys) // 2)
    cut = len(keys) - n_eval
    groups, requests = {key.group for key in keys[:cut]}, {key.request for key in keys[:cut]}
    trained = set(clusters[:cut])
    leaks = {"n_eval": n_eval, "exact": 0, "request": 0, "near": 0}
    for key, cluster in zip(keys[cut:], clusters[cut:], strict=True):
        if key.group in groups:
            leaks["exact"] += 1
        elif key.request in requests:
            leaks["request"] += 1
        else:
            leaks["near"] += cluster in trained
    return leaks


def compute_similarity(first: str, second: str) -> float:
    """Return the Jaccard similarity of two texts' shingles, in [0, 1]."""
    one, other = _shingles(first), _shingles(second)
    return len(one & other) / len(one | other)


def cluster_texts(texts: Sequence[str]) -> list[int]:
    """Put texts that are near duplicates, directly or through other texts, into one cluster.

    Args:
        texts: Normalized texts; an empty text has a cluster of its own.

    Returns:
        A cluster number per text: the position of the first text of its cluster.
    """
    first_of: dict[str, int] = {}
    for position, text in enumerate(texts):
        first_of.setdefault(text, position)
    parents = {position: position for text, position in first_of.items() if text}
    if len(parents) > 1:
        _connect(texts, parents)
    return [_find(parents, first_of[text]) if text else position for position, text in enumerate(texts)]


def link_conversations(keys: Sequence[RowKey], clusters: Sequence[int]) -> list[int]:
    """Join the clusters of rows that come from one conversation, since each of them holds what the others were told.

    Args:
        keys: The rows' keys.
        clusters: One number per row, as `cluster_texts` returns them.

    Returns:
        A number per row: the lowest of the clusters that were joined.
    """
    parents = {cluster: cluster for cluster in clusters}
    first_of: dict[str, int] = {}
    for key, cluster in zip(keys, clusters, strict=True):
        if key.conversation:
            first, last = sorted(
                (_find(parents, first_of.setdefault(key.conversation, cluster)), _find(parents, cluster))
            )
            parents[last] = first
    return [_find(parents, cluster) for cluster in clusters]


def _shingles(text: str) -> frozenset[str]:
    """Return the substrings of SHINGLE characters; of a shorter text the text itself."""
    return frozenset(text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1)))


def _connect(texts: Sequence[str], parents: dict[int, int]) -> None:
    """Join near duplicates in `parents`, a union-find forest over positions whose roots are the first of their tree."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=_CANDIDATES * THRESHOLD, num_perm=_PERMUTATIONS, weights=(0.2, 0.8))
    blank = MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
    for position in parents:
        sketch = blank.copy()
        shingles = sorted(_shingles(texts[position]))
        sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in shingles])
        for other in sorted(index.query(sketch))[:_MAX_CHECKS]:
            first, last = sorted((_find(parents, position), _find(parents, other)))
            if first != last and compute_similarity(texts[position], texts[other]) >= THRESHOLD:
                parents[last] = first
        index.insert(position, sketch, check_duplication=False)


def _find(parents: dict[int, int], position: int) -> int:
    """Return the root of a position's tree, shortening the path to it."""
    while parents[position] != position:
        parents[position] = parents[parents[position]]
        position = parents[position]
    return position
