"""The rows of a training: encoded with the budget of its arguments, or refused with the remedy."""

import pytest

from fgtools.profiles import get_recipe
from fgtools.prompts import encode_rows
from fgtools.train import TrainingError, training_arguments
from fgtools.train.plan import plan_training
from fgtools.train.sides import check_side, require_readable
from tests.toys import fresh_model, small_rows

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


def test_rows_are_held_against_the_context_of_the_model(tokenizer, tmp_path):
    model, rows = fresh_model(), encode_rows(ROWS, tokenizer).encoded
    sides = check_side(rows[:8], "training", None), check_side(rows[8:], "evaluation", None)
    lengths = sorted(len(row.input_ids) for row in rows)
    model.config.max_position_embeddings = lengths[-1]
    require_readable(model, tokenizer, sides)
    arguments = training_arguments("native", max_length=lengths[-1] + 1, output_dir=tmp_path)
    plan = plan_training(arguments, get_recipe("native"), model, sides[0].rows, 1, False)
    assert f"MAX_LENGTH {lengths[-1] + 1}: above the model's context of {lengths[-1]} tokens" in plan.describe()
    arguments.max_length = lengths[-1]
    plan = plan_training(arguments, get_recipe("native"), model, sides[0].rows, 1, False)
    assert "MAX_LENGTH" not in plan.describe()
    model.config.max_position_embeddings = lengths[-1] - 1
    n_longer = sum(length == lengths[-1] for length in lengths)
    wanted = (
        f"{lengths[-1] - 1} tokens, but {n_longer} of 12 rows do not, the longest with {lengths[-1]}: set MAX_LENGTH"
    )
    with pytest.raises(TrainingError, match=wanted):
        require_readable(model, tokenizer, sides)
