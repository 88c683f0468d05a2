"""Requests that are the same but for a few characters, found with MinHash.

Knows texts and how alike two of them are; not rows or splits. Candidates come from datasketch's MinHash LSH (Broder
1997, locality-sensitive hashing), and each is checked with the exact Jaccard similarity of the two texts' shingles, so
that chance decides what is looked at but not what is called a near duplicate.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence

SHINGLE = 5
"""Characters of a shingle."""

THRESHOLD = 0.8
"""Jaccard similarity of shingles from which two requests are near duplicates: about one word of twelve changed."""

_PERMUTATIONS = 128
_CANDIDATES = 0.75
"""Share of THRESHOLD from which the index is tuned to propose a pair: lower finds more true pairs and checks more."""

_MAX_CHECKS = 64
"""Candidates compared exactly for one text; of thousands that differ by one word, the first ones connect all."""


def normalize_request(text: str) -> str:
    """Give a request without what makes no difference: case, white space, Unicode's compatibility forms."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(text: str) -> frozenset[str]:
    """Give the substrings of SHINGLE characters; of a shorter text the text itself."""
    return frozenset(text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1)))


def similarity(first: str, second: str) -> float:
    """Give the Jaccard similarity of two texts' shingles, in [0, 1]."""
    one, other = shingles(first), shingles(second)
    return len(one & other) / len(one | other)


def cluster_texts(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """Put texts that are near duplicates, directly or through others, into one cluster.

    Args:
        texts: Normalised texts; an empty one is alone in its cluster.
        threshold: Similarity from which two texts belong together, in (0, 1].

    Returns:
        A cluster number a text; equal numbers mean one cluster, which is named by the position of its first text.
    """
    first_of: dict[str, int] = {}
    for position, text in enumerate(texts):
        first_of.setdefault(text, position)
    distinct = [text for text in first_of if text]
    parents = {text: text for text in distinct}
    if len(distinct) > 1:
        _connect(distinct, threshold, parents)
    heads: dict[str, int] = {}
    for text in distinct:  # in the order of first sight
        heads.setdefault(_find(parents, text), first_of[text])
    return [heads[_find(parents, text)] if text else position for position, text in enumerate(texts)]


def _connect(distinct: Sequence[str], threshold: float, parents: dict[str, str]) -> None:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=_CANDIDATES * threshold, num_perm=_PERMUTATIONS, weights=(0.2, 0.8))
    blank = MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
    for position, text in enumerate(distinct):
        sketch = blank.copy()
        sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in sorted(shingles(text))])
        for candidate in sorted(index.query(sketch))[:_MAX_CHECKS]:
            other = distinct[candidate]
            one_root, other_root = _find(parents, text), _find(parents, other)
            if one_root != other_root and similarity(text, other) >= threshold:
                parents[one_root] = other_root
        index.insert(position, sketch, check_duplication=False)


def _find(parents: dict[str, str], text: str) -> str:
    while parents[text] != text:
        parents[text] = parents[parents[text]]
        text = parents[text]
    return text
