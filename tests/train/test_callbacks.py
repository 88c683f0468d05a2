"""What a training shows while it runs."""

import types

import pytest

from fgtools.train.restarts import NotFinite, OneLine, RequireFinite

HISTORY = [
    {"step": 0, "eval_loss": 2.0, "eval_mean_token_accuracy": 0.1, "eval_exact_match": 0.0},
    {
        "step": 5,
        "loss": 1.5,
        "mean_token_accuracy": 0.4,
        "learning_rate": 1e-4,
        "tokens_per_second": 900,
        "memory_gib": 2,
    },
    {
        "step": 10,
        "loss": 1.0,
        "mean_token_accuracy": 0.6,
        "learning_rate": 5e-5,
        "tokens_per_second": 950,
        "memory_gib": 3,
    },
    {"step": 10, "eval_loss": 0.9, "eval_mean_token_accuracy": 0.7, "eval_exact_match": 0.3},
]


def state(step=10, first=True):
    return types.SimpleNamespace(log_history=HISTORY, global_step=step, max_steps=20, is_world_process_zero=first)


def test_one_line_an_evaluation_from_the_first_process(capsys):
    OneLine().on_evaluate(None, state(first=False), None, metrics=HISTORY[-1])
    assert not capsys.readouterr().out
    OneLine().on_evaluate(None, state(), None, metrics=HISTORY[-1])
    assert capsys.readouterr().out == (
        "step    10/20  loss 1.0000  eval loss 0.9000  eval token accuracy 0.700  rows right 0.300\n"
    )


def test_a_loss_that_is_not_finite_is_named():
    with pytest.raises(NotFinite, match="eval_loss is nan at step 10"):
        RequireFinite().on_log(None, state(), None, logs={"eval_loss": float("nan")})
    RequireFinite().on_log(None, state(), None, logs={"loss": 1.0, "learning_rate": float("inf")})
