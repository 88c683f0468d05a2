"""Steps and micro-batches: every row once, like lengths together, no more tokens at once than the budget."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.train.plan import plan_steps, split_by_tokens

LENGTHS = st.lists(st.integers(1, 2000), min_size=0, max_size=200)


def count_padding(lengths, batches):
    """The tokens of padding in batches that are padded to their longest row."""
    return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches) - sum(lengths)


@given(LENGTHS, st.integers(1, 20), st.integers(0, 5), st.integers(0, 3))
def test_every_row_is_in_one_step(lengths, rows_per_step, seed, epoch):
    steps = plan_steps(lengths, rows_per_step, seed, epoch)
    assert sorted(row for step in steps for row in step) == list(range(len(lengths)))
    assert all(len(step) <= rows_per_step for step in steps)
    assert sum(len(step) < rows_per_step for step in steps) <= 1
    assert len(steps) == -(-len(lengths) // rows_per_step)
    assert steps == plan_steps(lengths, rows_per_step, seed, epoch)


def test_another_epoch_and_another_seed_have_another_order():
    lengths = list(range(100, 200))
    first = plan_steps(lengths, 4, 1, 0)
    assert first != plan_steps(lengths, 4, 1, 1) and first != plan_steps(lengths, 4, 2, 0)


def test_rows_of_a_step_are_of_like_length_and_steps_are_not_in_order():
    lengths = [37 * number % 1000 + 1 for number in range(1600)]
    steps = plan_steps(lengths, 16, 40, 0)
    padding = count_padding(lengths, steps) / sum(lengths)
    assert padding < 0.08  # 16 rows drawn at random are padded by some 90 % of their tokens
    firsts = [lengths[step[0]] for step in steps]
    assert sum(one > other for one, other in itertools.pairwise(firsts)) in range(30, 70)


def test_a_step_of_no_rows_is_refused():
    with pytest.raises(ValueError, match="rows_per_step must be at least 1, got 0"):
        plan_steps([1, 2], 0, 1, 0)


@given(LENGTHS, st.integers(1, 8000))
def test_micro_batches_hold_every_row_within_the_budget(lengths, budget):
    batches = split_by_tokens(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
        assert lengths[batch[0]] == max(lengths[row] for row in batch)


def test_a_budget_for_all_makes_one_batch_and_a_small_one_no_padding():
    lengths = [5, 9, 7]
    assert split_by_tokens(lengths, 27) == [[1, 2, 0]]
    assert split_by_tokens(lengths, 26) == [[1, 2], [0]]
    alone = split_by_tokens(lengths, 1)
    assert [len(batch) for batch in alone] == [1, 1, 1] and count_padding(lengths, alone) == 0
    assert count_padding(lengths, [[1, 2, 0]]) == 6
