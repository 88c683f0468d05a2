"""What a training shows while it runs."""

import types

import matplotlib.pyplot as plt
import pytest

from fgtools.report.curves import plot_training
from fgtools.train.callbacks import LiveCurves, NotFinite, OneLine, RequireFinite

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
    OneLine().on_evaluate(None, state(), None, metrics=HISTORY[-1])
    OneLine().on_evaluate(None, state(first=False), None, metrics=HISTORY[-1])
    assert capsys.readouterr().out == (
        "step    10/20  loss 1.0000  eval loss 0.9000  eval token accuracy 0.700  rows right 0.300\n"
    )


def test_curves_hold_every_figure_of_the_log():
    axes = plot_training(HISTORY)
    drawn = {one.get_title(loc="left"): one for one in axes.figure.axes}
    assert [len(line.get_xdata()) for line in drawn["Loss"].lines] == [2, 2]
    assert [len(line.get_xdata()) for line in drawn["Labels right at first choice"].lines] == [2, 2, 2]
    assert list(drawn["Learning rate"].lines[0].get_ydata()) == [1e-4, 5e-5]
    assert list(drawn["Tokens per second"].lines[0].get_ydata()) == [900, 950]
    assert list(drawn["Peak memory, GiB"].lines[0].get_ydata()) == [2, 3]
    plt.close(axes.figure)
    plt.close(plot_training([]).figure)


def test_live_curves_are_one_drawing_that_is_replaced(monkeypatch):
    shown, updated = [], []
    handle = types.SimpleNamespace(update=updated.append)
    monkeypatch.setattr("IPython.display.display", lambda figure, display_id: shown.append(figure) or handle)
    curves = LiveCurves()
    for step in (0, 5, 10, 15):
        curves.on_evaluate(None, state(step), None)
    assert (len(shown), len(updated)) == (1, 2) and not plt.get_fignums()


def test_a_loss_that_is_not_finite_is_named():
    with pytest.raises(NotFinite, match="eval_loss is nan at step 10"):
        RequireFinite().on_log(None, state(), None, logs={"eval_loss": float("nan")})
    RequireFinite().on_log(None, state(), None, logs={"loss": 1.0, "learning_rate": float("inf")})
