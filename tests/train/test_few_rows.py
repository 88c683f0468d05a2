"""Few rows: no step has rate 0, passes are added, no checkpoint is chosen by luck, an unchanged model is not saved."""

import dataclasses
import math

import pytest
import torch
from transformers import TrainerCallback, get_scheduler

from fgtools.profiles import RECIPES, get_recipe
from fgtools.run.training import fit_choice, hold_out_rows
from fgtools.train import TrainingError, describe_steps, fit_steps, train, training_arguments
from fgtools.train.arguments import rows_per_step
from fgtools.train.restarts import raise_warmup
from tests.toys import fresh_model, small_rows, tiny_model, toy_arguments

pytestmark = pytest.mark.usefixtures("batch_run")
ROWS = small_rows(80, 12)


class ReadRates(TrainerCallback):
    """Reads the rate of each optimizer step from the optimizer, and may stop the training like a lost session."""

    def __init__(self, stop=0):
        self.rates, self.stop = [], stop

    def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
        self.rates += [group["lr"] for group in optimizer.param_groups[:1]]

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.stop:
            raise KeyboardInterrupt


def list_rates(name, steps, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    own = list(schedule.lr_lambdas)
    schedule = raise_warmup(schedule, warmup)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates, [own[0](step) for step in range(steps)]


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"])
def test_every_step_of_any_number_of_steps_has_a_rate_above_zero(name):
    for steps in range(1, 101):
        for warmup in {0, math.ceil(0.03 * steps), min(10, steps)}:
            rates, theirs = list_rates(name, steps, warmup)
            assert min(rates) > 0 and max(rates) <= 1
            assert rates[warmup:] == theirs[warmup:]  # what follows the warm-up is transformers' own
    assert list_rates("cosine", 4, 1)[0] == pytest.approx([0.5, 1, 0.75, 0.25])


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_a_training_and_one_that_goes_on_have_the_same_rates(recipe, tokenizer, tmp_path):
    rows = [row for row in ROWS if row["gold"]][:6]
    config = toy_arguments(recipe, n_rows=4, epochs=4, batch_size=2, warmup_steps=2, eval_steps=2, save_steps=2)
    options = (rows[:4], rows[4:], config)
    whole, first, second = ReadRates(), ReadRates(stop=5), ReadRates()
    result = train(tiny_model(), tokenizer, *options, tmp_path / "whole", recipe, callbacks=[whole])
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model(), tokenizer, *options, tmp_path / "cut", recipe, callbacks=[first])
    resumed = train(tiny_model(), tokenizer, *options, tmp_path / "cut", recipe, resume=True, callbacks=[second])
    assert whole.rates == first.rates[:4] + second.rates and len(whole.rates) == result.steps == 8
    assert whole.rates[0] == pytest.approx(2e-3 / 3 if recipe == "native" else 0.0)
    assert min(whole.rates[1:]) > 0 and result.updates == resumed.updates == (8 if recipe == "native" else 7)


@pytest.mark.parametrize(
    ("recipe", "changes", "reason"),
    [
        ("tutorial", {}, "its 1 steps had learning rate 0, with which the tutorial's warm-up begins"),
        ("native", {"learning_rate": 0.0}, "its 1 optimizer steps had learning rate 0"),
        ("native", {"learning_rate": 1e-30}, r"1 optimizer steps with rates up to 5e-31 left all float32 values"),
    ],
)
def test_a_model_that_did_not_change_is_not_saved(recipe, changes, reason, tokenizer, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("older")
    rows = [row for row in ROWS if row["gold"]][:6]
    config = toy_arguments(recipe, n_rows=4, epochs=1, **changes)
    with pytest.raises(TrainingError, match=f"must change the weights, but {reason}"):
        train(fresh_model(), tokenizer, rows[:4], rows[4:], config, tmp_path / "model", recipe)
    assert (tmp_path / "model" / "config.json").read_text() == "older" and not list(tmp_path.glob("*.checkpoints"))


def test_adapters_that_did_not_change_are_not_saved(tokenizer, tmp_path):
    pytest.importorskip("peft")
    config = toy_arguments(n_rows=4, epochs=1, learning_rate=0.0)
    with pytest.raises(TrainingError, match="must change the weights"):
        train(tiny_model(), tokenizer, ROWS[:4], ROWS[4:6], config, tmp_path / "model", lora_rank=2)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("n_rows", "epochs", "rows"),
    [
        (3, 8, 4),
        (30, 8, 4),
        (50, 5, 4),
        (60, 8, 8),
        (100, 5, 8),
        (120, 8, 16),
        (200, 5, 16),
        (300, 4, 16),
        (465, 2, 16),
        (2700, 2, 16),
    ],
)
def test_few_rows_are_passed_over_more_often_in_smaller_steps(n_rows, epochs, rows):
    arguments = training_arguments(n_rows=n_rows)
    assert (arguments.num_train_epochs, rows_per_step(arguments)) == (epochs, rows)
    given = training_arguments(n_rows=n_rows, epochs=1, batch_size=12)
    assert (given.num_train_epochs, rows_per_step(given)) == (1, 12)
    assert fit_steps(get_recipe("tutorial"), n_rows) == RECIPES["tutorial"]


def test_the_stand_ins_own_training_keeps_its_passes():
    assert training_arguments(n_rows=2160, model="standin").num_train_epochs == 2


def test_the_steps_are_described_with_the_reason():
    def say(n_rows, **given):
        return describe_steps(training_arguments(n_rows=n_rows, **given), "native", "", n_rows)

    assert say(2700) == "2700 rows: 2 passes with 16 rows a step are 338 optimizer steps"
    few = say(30)
    assert few.startswith(
        "30 rows: 8 passes with 4 rows a step are 64 optimizer steps\nfew rows: 2 passes with 16 rows"
    )
    assert "so passes were added and steps made smaller (" in few
    assert say(100).startswith("100 rows: 5 passes with 8 rows a step are 65 optimizer steps\n")  # eight would overfit
    assert "so passes were added (" in say(200)
    assert "few steps: fewer than 60 teach little; by default, 8 passes" in say(30, epochs=1)


def test_a_checkpoint_is_chosen_only_by_enough_rows():
    recipe, rows = get_recipe("native"), list(ROWS)
    assert not fit_choice(recipe, 99).choose_best and fit_choice(recipe, 100) == recipe
    assert hold_out_rows(rows, ["evaluation"], fit_choice(recipe, len(rows)), 1) == (rows, ["evaluation"])
    arguments = training_arguments(dataclasses.replace(recipe, choose_best=False), n_rows=30)
    assert not arguments.load_best_model_at_end and (arguments.eval_steps, arguments.save_steps) == (11, 0)
