"""Character error rate: jiwer is the reference wherever it does not strip."""

import math

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.metrics import tc_cer

WORDS = st.text("abcde é日{}:<>", min_size=1, max_size=12).filter(lambda text: text == text.strip() and text)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6))
def test_the_rate_equals_jiwers(pairs):
    predictions, references = map(list, zip(*pairs, strict=True))
    assert tc_cer(predictions, references).rate == pytest.approx(jiwer.cer(references, predictions), rel=1e-12)


@pytest.mark.parametrize(
    ("predictions", "references", "edits", "characters", "rate"),
    [
        ([""], ["abc"], 3, 3, 1.0),
        (["abcdef"], ["abc"], 3, 3, 1.0),
        (["xxxxxx"], ["ab"], 6, 2, 3.0),
        (["kitten", "a"], ["sitting", "a"], 3, 8, 3 / 8),
        ([" a"], ["a"], 1, 1, 1.0),
    ],
)
def test_counts_come_first_and_the_corpus_is_pooled(predictions, references, edits, characters, rate):
    result = tc_cer(predictions, references)
    assert (result.n, result.edits, result.characters, result.rate) == (len(predictions), edits, characters, rate)
    assert result.low <= result.rate <= result.high


@pytest.mark.parametrize(
    ("predictions", "references", "shown"), [([""], [""], "0/0"), (["abc"], [""], "3/0"), ([], [], "0/0")]
)
def test_without_a_character_of_reference_there_are_counts_and_no_rate(predictions, references, shown):
    result = tc_cer(predictions, references)
    assert str(result) == shown and (result.n, result.characters) == (len(predictions), 0)
    assert all(map(math.isnan, (result.rate, result.low, result.high)))
    saved = result.to_dict()
    assert (saved["edits"], saved["rate"], saved["low"], saved["high"]) == (result.edits, None, None, None)


def test_lists_of_different_length_and_things_that_are_no_text_are_named():
    with pytest.raises(ValueError, match="got 1 predictions and 2 references"):
        tc_cer(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="prediction 1 must be text, got NoneType"):
        tc_cer(["a", None], ["a", "b"])
