"""A training that is killed goes on as if nothing had happened; checkpoints are whole and its own."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from fgtools.__main__ import main
from fgtools.models import save_model
from fgtools.profiles import adapt_recipe, get_recipe
from fgtools.prompts import encode_rows
from fgtools.train import (
    TrainingError,
    build_trainer,
    choose_checkpoint,
    describe_training,
    remove_checkpoints,
    train,
)
from fgtools.train.checkpoints import CheckpointError
from fgtools.train.restarts import NotFinite
from tests.toys import small_rows, tiny_model, toy_arguments

pytestmark = pytest.mark.usefixtures("batch_run")
ROWS = small_rows(120, 30)
TIMED = {"tokens_per_second", "memory_gib", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
TIMED |= {"eval_num_tokens", "num_tokens"}  # TRL counts them from each start anew
TIMED |= {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}


class Kill(TrainerCallback):
    """Stands for a session that ends: nothing of the trainer runs after it."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def run(tokenizer, folder, config=None, recipe="native", resume=False, rows=ROWS, callbacks=(), **options):
    config = config or toy_arguments(recipe, n_rows=24)
    options |= {"resume": resume, "callbacks": callbacks}
    return train(tiny_model(), tokenizer, rows[:24], rows[24:], config, folder / "model", recipe, **options)


@pytest.fixture(scope="module")
def whole(tokenizer, tmp_path_factory):
    """The unbroken training that `run` makes by default: its result and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return run(tokenizer, folder), folder


@pytest.fixture(scope="module")
def saved_often(tokenizer, tmp_path_factory):
    """An unbroken training of each recipe that is saved every other step, with the options that make it."""
    made = {}

    def get(recipe):
        if recipe not in made:
            rows = tuple(row for row in ROWS if row["gold"]) if recipe == "tutorial" else ROWS
            config = toy_arguments(recipe, n_rows=24, eval_steps=2, save_steps=2)  # its own come too seldom here
            options = {"config": config, "recipe": recipe, "rows": (rows + rows)[:30]}
            folder = tmp_path_factory.mktemp(recipe)
            made[recipe] = run(tokenizer, folder, **options), folder, options
        return made[recipe]

    return get


def kill(tokenizer, folder, step, **options):
    with pytest.raises(KeyboardInterrupt):
        run(tokenizer, folder, **options, callbacks=[Kill(step)])


def told(history):
    """What must not depend on a break: everything but times."""
    return [{key: value for key, value in entry.items() if key not in TIMED} for entry in history if "step" in entry]


@pytest.mark.parametrize(("recipe", "step"), [("native", 3), ("native", 7), ("native", 11), ("tutorial", 11)])
def test_a_killed_training_goes_on_to_the_same_losses_and_weights(recipe, step, saved_often, tokenizer, tmp_path):
    whole, unbroken, options = saved_often(recipe)
    (tmp_path / "cut").mkdir()
    kill(tokenizer, tmp_path / "cut", step, **options)
    kept = sorted(path.name for path in (tmp_path / "cut" / "model.checkpoints").glob("checkpoint-*"))
    assert 1 <= len(kept) <= 2 and not (tmp_path / "cut" / "model").exists()
    resumed = run(tokenizer, tmp_path / "cut", resume=True, **options)
    assert 0 < resumed.resumed_at <= step and whole.resumed_at == 0
    assert told(resumed.history) == told(whole.history)
    assert (resumed.steps, resumed.saved_step, resumed.tokens) == (whole.steps, whole.saved_step, whole.tokens)
    ours, theirs = (load_file(path / "model" / "model.safetensors") for path in (tmp_path / "cut", unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (tmp_path / "cut" / "model.checkpoints").exists()


def test_a_training_killed_twice_and_in_the_midst_of_a_save_goes_on(whole, tokenizer, tmp_path, monkeypatch):
    folder = tmp_path
    kill(tokenizer, folder, 5)
    plain = torch.save

    def save(value, path, **options):
        if "checkpoint-8" in str(path):
            pathlib.Path(path).write_bytes(b"half of")
            raise KeyboardInterrupt
        return plain(value, path, **options)

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(torch, "save", save)
        run(tokenizer, folder, resume=True)
    there = {path.name: (path / "whole.json").is_file() for path in (folder / "model.checkpoints").glob("checkpoint-*")}
    assert there == {"checkpoint-6": True, "checkpoint-8": False}  # the older one is still there
    resumed = run(tokenizer, folder, resume=True)
    assert told(resumed.history) == told(whole[0].history) and resumed.resumed_at == 6


def test_train_called_again_after_an_interruption_goes_on(whole, tokenizer, tmp_path):
    arguments = toy_arguments(n_rows=24, output_dir=str(tmp_path / "checkpoints"))
    sides = [encode_rows(rows, tokenizer, "native", arguments.max_length) for rows in (ROWS[:24], ROWS[24:])]
    once = Kill(7)
    trainer = build_trainer(tiny_model(), tokenizer, *sides, arguments, callbacks=[once])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    once.step = None
    trainer.train()
    choice = choose_checkpoint(trainer, tokenizer, ROWS[24:])
    result = describe_training(trainer, choice)
    assert told(result.history) == told(whole[0].history) and result.resumed_at == 6
    ours, theirs = trainer.model.state_dict(), load_file(whole[1] / "model" / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    remove_checkpoints(trainer)
    with pytest.raises(TrainingError, match="has trained it already and left no checkpoint: load the model again"):
        trainer.train()


def test_resuming_without_a_checkpoint_starts_from_the_beginning(tokenizer, tmp_path):
    config = toy_arguments(n_rows=24, epochs=1)
    assert run(tokenizer, tmp_path, config, resume=True).resumed_at == 0


def test_checkpoints_of_another_training_are_not_touched(tokenizer, tmp_path):
    kill(tokenizer, tmp_path, 5)
    kept = sorted((tmp_path / "model.checkpoints").rglob("*"))
    others = [
        {"config": toy_arguments(n_rows=24, learning_rate=1e-3)},
        {"config": toy_arguments(n_rows=24, weight_decay=0.1)},
        {"config": toy_arguments(n_rows=24, max_length=1500)},
        {"rows": ROWS[::-1]},
        {"patience": 3},
    ]
    for other in others:
        with pytest.raises(CheckpointError, match=r"checkpoint-\d+ is another's .* give another --out, or delete"):
            run(tokenizer, tmp_path, resume=True, **other)
    with pytest.raises(CheckpointError, match=r"a checkpoint of this very training, after step \d+: pass --resume"):
        run(tokenizer, tmp_path)
    assert sorted((tmp_path / "model.checkpoints").rglob("*")) == kept


def test_a_loss_that_becomes_nan_leaves_earlier_checkpoints_whole(whole, tokenizer, tmp_path):
    class Spoil(TrainerCallback):
        def on_step_end(self, args, state, control, model, **_):
            if state.global_step == 6:
                with torch.no_grad():
                    model.model.norm.weight.fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"the loss must stay finite, but the .*loss is nan at step"):
        run(tokenizer, tmp_path, callbacks=[Spoil()])
    marks = [json.loads(path.read_text()) for path in (tmp_path / "model.checkpoints").rglob("whole.json")]
    assert marks and max(mark["step"] for mark in marks) <= 5
    for path in (tmp_path / "model.checkpoints").rglob("model.safetensors"):
        assert all(torch.isfinite(weight).all() for weight in load_file(path).values())
    resumed = run(tokenizer, tmp_path, resume=True)
    assert told(resumed.history) == told(whole[0].history)


def test_a_process_that_is_killed_leaves_what_the_next_one_goes_on_from(tokenizer, tmp_path, monkeypatch, capsys):
    """The command line, and a kill no program can catch."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    prepare = ["prepare", "--data", "sample", "--n-total", "110", "--n-eval", "10", "--out", str(tmp_path / "rows")]
    base = save_model(tiny_model(), tokenizer, tmp_path / "base")
    words = ["train", "--rows", str(tmp_path / "rows"), "--model", str(base), "--profile", "offline", "--epochs", "2"]
    words += ["--learning-rate", "3e-3", "--precision", "fp32", "--batch-size", "8", "--out"]
    assert main(prepare) == 0 and main([*words, str(tmp_path / "a")]) == 0
    out = str(tmp_path / "b")
    environment = {name: value for name, value in os.environ.items() if name not in ("FGTOOLS_BATCH", "TQDM_DISABLE")}
    command, errors = [sys.executable, "-m", "fgtools", *words, out], tmp_path / "errors"
    with errors.open("w") as file:
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=environment)
    try:
        while not list((tmp_path / "b" / "model.checkpoints").glob("*/whole.json")):
            assert job.poll() is None
            time.sleep(0.02)
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert errors.read_text() == ""  # no bar is drawn into a file
    capsys.readouterr()
    assert main([*words, out, "--resume"]) == 0
    assert "going on from the checkpoint after step" in capsys.readouterr().out
    first, second = (json.loads((tmp_path / name / "train.json").read_text()) for name in "ab")
    assert told(second["history"]) == told(first["history"]) and second["resumed_at"] > 0


class Fragile(TrainerCallback):
    """Fails as fp16 does at the third step of the first attempt, and is killed at the second step of the next."""

    attempts = 0

    def on_train_begin(self, args, state, control, **_):
        Fragile.attempts += 1

    def on_step_end(self, args, state, control, **_):
        if Fragile.attempts == 1 and state.global_step == 3:
            raise NotFinite("made up")
        if Fragile.attempts == 2 and state.global_step == 2:
            raise KeyboardInterrupt


def test_what_fell_back_to_fp32_goes_on_in_fp32_without_checkpoints_of_fp16(tokenizer, tmp_path, capsys):
    short = sorted(ROWS, key=lambda row: len(str(row)))[:6]
    config = toy_arguments(n_rows=4, epochs=1, batch_size=1, precision="fp16")

    def go_on(resume):
        options = {"resume": resume, "callbacks": [Fragile()]}
        return train(tiny_model(), tokenizer, short[:4], short[4:], config, tmp_path / "model", **options)

    with pytest.raises(KeyboardInterrupt):
        go_on(False)
    (only,) = (tmp_path / "model.checkpoints").glob("checkpoint-*")
    assert only.name == "checkpoint-1" and json.loads((only / "whole.json").read_text())["precision"] == "fp32"
    result = go_on(True)
    assert (result.precision, result.resumed_at, result.steps) == ("fp32", 1, 4)
    assert "precision fp32: the checkpoint it goes on from was" in capsys.readouterr().out


def test_trainings_of_two_precisions_follow_each_other_in_one_process(tokenizer, tmp_path):
    """accelerate keeps its state for the whole process; the trainer must not inherit the format of the one before."""
    for precision in ("bf16", "fp32"):
        config = toy_arguments(n_rows=4, epochs=1, precision=precision, load_best_model_at_end=False)
        recipe = adapt_recipe(get_recipe("native"), engine="trl")
        result = train(tiny_model(), tokenizer, ROWS[:4], ROWS[4:6], config, tmp_path / precision, recipe)
        assert (result.precision, result.engine) == (precision, "trl")
