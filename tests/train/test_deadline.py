"""A training with a time limit ends in time, with a model that is evaluated, chosen and saved; by a made-up clock."""

import types

import pytest
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl

from fgtools.files import InputError
from fgtools.train import train
from fgtools.train.deadline import StopInTime
from tests.toys import small_rows, tiny_model, toy_arguments
from tests.train.test_resume import told

pytestmark = pytest.mark.usefixtures("batch_run")


class Clock:
    """Stands for the time; moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def state(step, steps=100):
    return types.SimpleNamespace(global_step=step, max_steps=steps, eval_steps=10, is_world_process_zero=True)


ARGS = types.SimpleNamespace(num_train_epochs=2.0)


def stop_after(limit, reserve, seconds, evaluation=0.0, checkpoint=0.0, every=10, steps=100):
    """Go through a training whose steps, evaluations and checkpoints take so many seconds; return where it ended."""
    clock = Clock()
    stop, control = StopInTime(limit, reserve, clock), TrainerControl()
    stop.checkpoint = checkpoint  # else estimated from the size of the model
    stop.on_train_begin(ARGS, state(0, steps), control)
    clock.now += evaluation
    stop.on_evaluate(ARGS, state(0, steps), control)
    for step in range(1, steps + 1):
        clock.now += seconds
        control.should_evaluate = control.should_save = step % every == 0 or step == steps
        stop.on_step_end(ARGS, state(step, steps), control)
        if control.should_evaluate:
            clock.now += evaluation
            stop.on_evaluate(ARGS, state(step, steps), control)
        if control.should_save and step < steps:
            clock.now += checkpoint
            stop.on_save(ARGS, state(step, steps), control)
        if control.should_training_stop:
            break
    return step, clock.now - 1000, stop


def test_it_ends_after_the_last_step_whose_evaluation_and_saving_fit(capsys):
    step, took, stop = stop_after(limit=600, reserve=60, seconds=10, evaluation=20, checkpoint=5)
    # an evaluation to begin with, 40 steps, 3 evaluations and checkpoints on the way, and a last evaluation
    assert (step, took) == (40, 20 + 400 + 3 * 25 + 20) and took + 60 <= 600 < took + 60 + 10 + 20 + 5
    assert stop.stopped.startswith("stopped after step 40 of 100") and "0.8 epochs would fit" in stop.stopped
    assert capsys.readouterr().out.count("time: stopped after step 40 of 100") == 1


@pytest.mark.parametrize("limit", [61, 75, 130, 333, 900])
@pytest.mark.parametrize("costs", [(1, 0, 0), (3, 30, 0), (7, 11, 40)])
def test_whatever_the_costs_the_reserve_is_left(limit, costs):
    step, took, _ = stop_after(limit, 20, *costs)
    seconds, evaluation, checkpoint = costs
    assert took + 20 <= limit or step == 1  # a training that hardly has time takes one step
    if 1 < step < 100:
        assert took + 20 + seconds + evaluation + checkpoint > limit  # and none of it is wasted


def test_a_training_that_fits_is_not_stopped_and_nothing_is_said(capsys):
    step, _, stop = stop_after(10_000, 60, 10, evaluation=20, checkpoint=5)
    assert (step, stop.stopped, capsys.readouterr().out) == (100, "", "")


def test_one_that_will_not_get_through_is_told_after_its_first_steps(capsys):
    stop_after(600, 60, 10, steps=1000)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "time: the 980 steps to come take about 2 h 44 min at the pace of the first 20, and 7 min"
    )
    assert len(lines) == 2 and lines[1].startswith("time: stopped after step 54 of 1000")


def test_a_limit_that_is_none_is_an_error():
    with pytest.raises(InputError, match="a training needs time, but got 0 s"):
        StopInTime(0, 0)


class Pass(TrainerCallback):
    """Lets the clock go on by ten seconds a step."""

    def __init__(self, clock):
        self.clock = clock

    def on_step_begin(self, args, state, control, **_):
        self.clock.now += 10


def test_a_training_that_is_stopped_saves_its_model_and_goes_until_then_as_any_other(tokenizer, tmp_path):
    rows, clock = small_rows(120, 30), Clock()
    given = [tokenizer, rows[:24], rows[24:], toy_arguments(n_rows=24)]
    whole = train(tiny_model(), *given, tmp_path / "whole")
    callbacks = [Pass(clock), StopInTime(50, 5, clock)]
    result = train(tiny_model(), *given, tmp_path / "short", callbacks=callbacks)
    assert (result.steps, result.updates, whole.stopped) == (4, 4, "") and result.saved_step in range(1, 5)
    assert result.stopped.startswith(f"stopped after step 4 of {whole.steps}")
    early = [[one for one in history if one["step"] < 4] for history in (told(result.history), told(whole.history))]
    assert early[0] == early[1] and any("loss" in one for one in early[0])
    assert [one["step"] for one in result.history if "eval_loss" in one][-1] == 4
    saved = [load_file(tmp_path / name / "model.safetensors").keys() for name in ("short", "whole")]
    assert saved[0] == saved[1]
