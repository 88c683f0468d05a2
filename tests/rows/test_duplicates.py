"""Near duplicates: what MinHash finds equals what comparing every pair finds."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.metrics.texts import normalize_request
from fgtools.rows.duplicates import THRESHOLD, cluster_texts, compute_similarity

WORDS = "book a flight from oslo to rome for two people on the third of may with a window seat and no luggage".split()


def clusters_by_hand(texts):
    """The reference: connected components of all pairs at or above the threshold."""
    heads = list(range(len(texts)))
    for one, other in itertools.combinations(range(len(texts)), 2):
        if texts[one] and texts[other] and compute_similarity(texts[one], texts[other]) >= THRESHOLD:
            low, high = sorted((heads[one], heads[other]))
            heads = [low if head == high else head for head in heads]
    return heads


def test_the_clusters_are_those_of_comparing_every_pair():
    draw = random.Random(1)
    texts = []
    for _ in range(60):
        words = draw.sample(WORDS, 14)
        texts.append(" ".join(words))
        for changes in (1, 1, 3):
            copy = list(words)
            for _ in range(changes):
                copy[draw.randrange(len(copy))] = draw.choice(WORDS)
            texts.append(" ".join(copy))
    draw.shuffle(texts)
    expected = clusters_by_hand(texts)
    assert cluster_texts(texts) == expected
    assert len(set(expected)) < 200  # there is something to find


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What's the weather in Oslo?", "what's  the weather in OSLO?", True),
        ("Ｗｈａｔ's the weather in Oslo?", "What's the weather in Oslo?", True),
        ("What's the weather in Oslo today, please?", "What's the weather in Oslo today, please!", True),
        ("What's the weather in Oslo?", "Book me a table for two at eight.", False),
        ("", "", False),
        ("a", "b", False),
    ],
)
def test_what_counts_as_near(one, other, same):
    clusters = cluster_texts([normalize_request(one), normalize_request(other)])
    assert (clusters[0] == clusters[1]) == same


@given(st.lists(st.text(alphabet="ab ", max_size=12), max_size=8))
def test_equal_texts_share_a_cluster_named_by_the_first(texts):
    clusters = cluster_texts(texts)
    for position, (text, cluster) in enumerate(zip(texts, clusters, strict=True)):
        assert cluster <= position
        if text:
            assert clusters[texts.index(text)] == cluster
        else:
            assert cluster == position


def test_thousands_of_texts_that_differ_by_a_word_are_one_cluster():
    texts = [f"please remind me to call the dentist at the corner of main street, case number {i}" for i in range(2000)]
    assert len(set(cluster_texts(texts))) == 1
