"""The rows of a training: encoded with the budget of its arguments, or refused with the remedy."""

import pytest

from fgtools.prompts import encode_rows
from fgtools.train import TrainingError
from fgtools.train.sides import check_side
from tests.toys import small_rows

ROWS = small_rows(80, 12)


def test_counts_are_those_of_the_rows_that_carry_labels(tokenizer):
    encoded = encode_rows(ROWS, tokenizer)
    side = check_side(encoded, "training", 2048)
    assert side == check_side(encoded.encoded, "training", None)
    assert side.build_dataset().column_names == ["input_ids", "labels"] and len(side.rows) == len(ROWS)


def test_rows_encoded_with_another_budget_are_refused(tokenizer):
    encoded = encode_rows(ROWS, tokenizer)
    longest = max(len(row.input_ids) for row in encoded.encoded)
    assert len(check_side(encoded, "training", longest).rows) == len(ROWS)
    with pytest.raises(TrainingError, match=rf"training rows must be .* {longest - 1} tokens, but .*{longest}\)"):
        check_side(encoded, "training", longest - 1)
    shorter = encode_rows(ROWS, tokenizer, "native", longest - 1)
    assert shorter.too_long
    with pytest.raises(TrainingError, match=rf"evaluation rows must be encoded .*\({longest - 1}\): call encode_rows"):
        check_side(shorter, "evaluation", longest)
