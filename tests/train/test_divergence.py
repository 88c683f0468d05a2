"""A training whose loss leaves its start for good is stopped; one that jumps and comes back is not."""

import math

import pytest

from fgtools.models import load_model
from fgtools.train import TrainingError, train
from fgtools.train.divergence import find_divergence
from tests.toys import fresh_model, small_rows, toy_arguments

# Recorded: losses of the log, one a step, and those of the evaluations, by step.
CURVES = {
    "four steps on a tuned Gemma 3 270M": ([0.53, 0.59, 1.15, 0.69], {0: 0.38, 1: 0.38, 2: 1.87, 3: 0.9, 4: 0.47}),
    "Gemma 3 270M, 34 steps": (
        [6.06, 6.06, 3.94, 2.54, 1.69, 1.73, 1.17, 0.95, 0.62, 1.0, 0.64, 0.73, *[0.4] * 19, 0.31, 0.13, 0.17],
        {0: 5.79, 6: 0.98, 12: 0.67, 18: 0.42, 24: 0.36, 30: 0.29, 34: 0.29},
    ),
    "64 steps of 4 rows on a tuned Gemma 3 270M": (
        [0.56, 0.92, 0.63, 0.61, 0.61, 0.14, 0.05, 0.22, 0.11, 0.24, 0.1, 0.2, *[0.05] * 52],
        {0: 0.68, 11: 0.38, 22: 0.17, 33: 0.16, 44: 0.13, 55: 0.13, 64: 0.13},
    ),
    "the stand-in, 52 steps of an adapter": (
        [0.45, 0.5, 0.44, 0.43, 0.58, 0.66, 0.49, 0.13, 0.42, 0.31, 0.4, 0.27, *[0.2] * 40],
        {0: 0.45, 9: 0.32, 18: 0.18, 27: 0.15, 36: 0.14, 45: 0.14, 52: 0.14},
    ),
}
TOO_FAST = [0.37, 0.21, 1.7, 2.62, 2.93, 3.16, 5.58, 5.33, 7.45, 6.44, 5.57, 4.79, 3.76, 8.47]  # 60 times the rate


def log_of(losses, evaluations=None, every=1):
    """The trainer's log: an evaluation stands behind the loss of its step."""
    entries = [{"step": step, "eval_loss": loss} for step, loss in (evaluations or {}).items()]
    entries += [{"step": step * every, "loss": loss} for step, loss in enumerate(losses, start=1)]
    return sorted(entries, key=lambda entry: (entry["step"], "eval_loss" in entry))


def stopped_at(history, max_steps):
    """The step at which a training with this log is stopped; None: never."""
    seen = (history[: n + 1] for n in range(len(history)))
    return next((log[-1]["step"] for log in seen if find_divergence(log, max_steps)), None)


@pytest.mark.parametrize("name", CURVES)
def test_recorded_trainings_that_came_back_pass(name):
    losses, evaluations = CURVES[name]
    assert stopped_at(log_of(losses, evaluations), len(losses)) is None


def test_a_recorded_training_at_60_times_its_rate_is_stopped():
    history = log_of(TOO_FAST, {0: 0.64, 10: 5.86})
    assert stopped_at(history, 60) == 14
    assert find_divergence(history, 60) == (
        "the loss, whose first values were 1.70 at most, has been above 2.20 since step 4 and is 8.47 at step 14"
    )
    assert stopped_at(history, 141) is None  # 14.1 steps are a tenth of it


def test_one_loss_that_came_back_starts_the_count_anew():
    assert stopped_at(log_of([1.0] * 3 + [9.0] * 9 + [1.1] + [9.0] * 9), 60) is None
    assert stopped_at(log_of([1.0] * 3 + [9.0] * 9 + [1.1] + [9.0] * 11), 60) == 24


def test_the_evaluations_are_held_against_their_own_start():
    assert stopped_at(log_of([5.0] * 30, {0: 0.2, 10: 0.3, 20: 0.2}), 60) is None  # easier rows than those it learns
    assert stopped_at(log_of([5.0] * 30, {0: 0.2, 10: 0.8, 20: 0.8}), 60) == 20
    assert stopped_at(log_of([9.0, 30.0, 60.0] + [58.0] * 20, {0: 6.8, 6: 50.0, 12: 55.0, 18: 58.0}), 34) == 18


def test_a_step_of_easy_rows_at_the_beginning_is_no_start():
    assert stopped_at(log_of([0.01, 0.9, 0.6] + [0.8] * 57, {0: 0.7}), 60) is None


@pytest.mark.parametrize(("start", "limit"), [(0.1, 0.6), (2.0, 2.5), (6.8, 8.5)])
def test_the_margin_is_half_a_nat_or_a_quarter(start, limit):
    for loss, stops in ((limit - 1e-6, False), (limit + 1e-6, True)):
        assert (stopped_at(log_of([start] * 3 + [loss] * 30), 60) is not None) is stops


def test_the_log_may_have_an_entry_for_many_steps_alone():
    assert stopped_at(log_of([1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0], every=5), 100) == 30
    assert find_divergence([], 10) == "" and find_divergence([{"step": 1, "learning_rate": 1.0}], 10) == ""


def test_a_training_that_diverges_stops_and_leaves_whole_checkpoints(batch_run, tokenizer, tmp_path):
    rows = small_rows(300, 60)
    arguments = toy_arguments(n_rows=48, epochs=5, eval_steps=5, save_steps=5)
    arguments.learning_rate = 0.12
    options = (tokenizer, rows[:48], rows[48:], arguments, tmp_path / "model")
    with pytest.raises(TrainingError, match=r"must come back .* lower LEARNING_RATE \(0.12\) and train again"):
        train(fresh_model(), *options)
    assert not (tmp_path / "model").exists()
    kept = sorted((tmp_path / "model.checkpoints").glob("checkpoint-*"))
    assert kept and all((folder / "whole.json").is_file() for folder in kept)
    weights = load_model(str(kept[0]), device="cpu", quiet=True).get_input_embeddings().weight
    assert all(math.isfinite(value) for value in weights.sum(1).tolist())
    with pytest.raises(TrainingError, match="must come back"):  # going on from there is the same training
        train(fresh_model(), *options, resume=True)
