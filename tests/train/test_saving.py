"""When checkpoints are written, what a kill loses, and what happens where disk or memory is short."""

import json
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from fgtools.models.lora import add_adapters, count_adapter_weights
from fgtools.profiles import get_recipe
from fgtools.prompts import encode_rows
from fgtools.prompts.encode import render_completion
from fgtools.train import TrainingError, build_trainer, choose_checkpoint, train, training_arguments
from fgtools.train import best as best_weights
from fgtools.train.best import BestWeights
from fgtools.train.checkpoints import CheckpointWriter, SaveWhenDue, find_checkpoint
from fgtools.train.plan import choose_micro_batches, measure_sizes, plan_training
from fgtools.train.saving import Saving, Sizes, choose_pause, estimate_seconds, measure_room, plan_saving
from fgtools.train.trainer import LabelledPositionsTrainer
from tests.toys import small_rows, tiny_model, toy_arguments

pytestmark = pytest.mark.usefixtures("batch_run")
ROWS = sorted((row for row in small_rows(80, 40) if row["gold"]), key=lambda row: len(str(row)))[:6]
SMALL, LARGE = Sizes(10**6, 10**6, 10**6), Sizes(10**9, 10**9, 10**9)
PLENTY = 10**12


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return encode_rows(ROWS, tokenizer).encoded


class Stop(TrainerCallback):
    """Stands for a kill after a step; counts the checkpoints that are there after every step."""

    def __init__(self, step=0):
        self.step, self.seen = step, {}

    def on_step_begin(self, args, state, control, **_):
        self.seen[state.global_step] = list_checkpoints(args.output_dir)
        if self.step and state.global_step == self.step:
            raise KeyboardInterrupt


def list_checkpoints(folder):
    return sorted(int(path.parent.name.split("-")[1]) for path in Path(folder).glob("checkpoint-*/whole.json"))


def fail(error):
    """Return a function that raises an error."""

    def call(*_, **__):
        raise error

    return call


def run(tokenizer, folder, resume=False, callbacks=(), **changes):
    config = toy_arguments(n_rows=4, epochs=4, batch_size=2, **changes)  # 8 steps, each evaluated and logged
    options = {"resume": resume, "callbacks": callbacks}
    return train(tiny_model(), tokenizer, ROWS[:4], ROWS[4:], config, folder / "model", **options)


@pytest.fixture
def third_is_best(monkeypatch):
    """Let the evaluation after step 3 be the best, and its weights answer right while others do not."""
    plain = LabelledPositionsTrainer.evaluation_loop

    def evaluate(self, *args, **options):
        output = plain(self, *args, **options)
        output.metrics["eval_choice"] = 0.9 if self.state.global_step == 3 else self.state.global_step / 100
        return output

    def reply(model, tokenizer, rows, **_):
        reply.calls += 1
        return ["" if reply.calls % 2 else render_completion(row) for row in rows]

    reply.calls = 0
    monkeypatch.setattr(LabelledPositionsTrainer, "evaluation_loop", evaluate)
    monkeypatch.setattr("fgtools.train.choice.generate_replies", reply)


@pytest.fixture
def by_time(monkeypatch):
    """Treat every checkpoint as large, and let it be due at all steps from a list."""
    monkeypatch.setattr("fgtools.train.saving.CHEAP_CHECKPOINT_BYTES", 0)
    due, plain = [], SaveWhenDue._is_time
    monkeypatch.setattr(CheckpointWriter, "is_due", lambda self, pauses=1: pauses == 1)
    monkeypatch.setattr(
        SaveWhenDue,
        "_is_time",
        lambda self, args, state, control: state.global_step in due and plain(self, args, state, control),
    )
    return due


def plan(sizes=SMALL, free=PLENTY, held=0, **changes):
    return plan_saving(toy_arguments(n_rows=4, epochs=4, batch_size=2, **changes), sizes, free, held)


def test_small_checkpoints_come_at_evaluations_and_large_ones_by_time():
    small, large = plan(eval_steps=5), plan(LARGE)
    assert (small.when, small.n_bytes) == ("evaluation", 4 * 10**6)
    assert small.reason == (
        "a checkpoint of 4.0 MB at every evaluation, since it is small: a kill loses at most 5 steps"
    )
    assert (large.when, large.n_bytes) == ("time", 4 * 10**9)
    assert (
        "takes 20 s at an assumed 200 MB/s, and writing may take 5% of a training, so the first comes after 7 min"
        in (large.reason)
    )
    assert plan(LARGE, load_best_model_at_end=False).n_bytes == 3 * 10**9  # no best weights are kept
    assert plan(eval_strategy="no", load_best_model_at_end=False).when == "time"


@pytest.mark.parametrize("seconds", [0.0, 0.1, 3.0, 20.0, 600.0])
def test_writing_takes_at_most_a_twentieth_of_the_time(seconds):
    assert seconds / (seconds + choose_pause(seconds)) <= 0.05 and choose_pause(seconds) >= 60
    assert estimate_seconds(4e9) == pytest.approx(20)


@pytest.mark.parametrize(
    ("changes", "when", "told"),
    [
        ({"save_steps": 4}, "steps", "every 4 steps, as save_steps says: a kill loses at most 4 steps"),
        ({"save_strategy": "no", "load_best_model_at_end": False}, "never", "a kill loses the whole training"),
        ({"save_strategy": "epoch", "load_best_model_at_end": False}, "epoch", "after every pass"),
        ({"save_strategy": "best"}, "best", "at every evaluation that is the best so far"),
    ],
)
@pytest.mark.parametrize("sizes", [SMALL, LARGE])
def test_what_the_arguments_say_of_checkpoints_holds_whatever_they_cost(changes, when, told, sizes):
    saving = plan(sizes, **changes)
    assert saving.when == when and told in saving.reason


def test_a_disk_without_room_is_found_before_training():
    with pytest.raises(TrainingError, match=r"room for the tuned model, 1.0 GB, but only 0.9 GB are free|999.0 MB"):
        plan(LARGE, free=999 * 10**6)
    without = plan(LARGE, free=7 * 10**9)
    assert without.when == "never" and "two of 4.0 GB must fit the disk" in without.reason
    assert "a kill loses the whole training" in without.reason
    assert plan(LARGE, free=4 * 10**9, held=4 * 10**9).when == "time"  # one of them is there already
    with pytest.raises(TrainingError, match="save_steps must be a number of steps, or 0"):
        plan(save_steps=-1, load_best_model_at_end=False)


def test_the_room_of_a_folder_that_is_not_there_yet(tmp_path):
    (tmp_path / "held").write_bytes(b"12345")
    free, held = measure_room(tmp_path)
    assert free > 0 and held == 5 and measure_room(tmp_path / "a" / "b")[1] == 0


def test_a_training_without_room_for_checkpoints_trains_and_one_without_any_stops(
    tokenizer, tmp_path, monkeypatch, capsys
):
    enough = 5 * measure_sizes(tiny_model(), 0).weights  # for the model, not for two checkpoints of four times that
    monkeypatch.setattr("fgtools.train.plan.measure_room", lambda _: (enough, 0))
    watch = Stop()
    assert run(tokenizer, tmp_path, callbacks=[watch]).checkpoints == 0
    assert not any(watch.seen.values()) and "no checkpoints: two of" in capsys.readouterr().out
    monkeypatch.setattr("fgtools.train.plan.measure_room", lambda _: (1000, 0))
    with pytest.raises(TrainingError, match="must have room for the tuned model"):
        run(tokenizer, tmp_path / "other")


def test_checkpoints_by_time_and_the_best_weights_survive_a_kill(third_is_best, by_time, tokenizer, tmp_path):
    whole = run(tokenizer, tmp_path / "whole")
    assert (whole.saved_step, whole.checkpoints) == (3, 0)
    by_time[:] = [2, 5, 8]  # none after the last step
    (tmp_path / "cut").mkdir()
    watch = Stop(7)
    with pytest.raises(KeyboardInterrupt):
        run(tokenizer, tmp_path / "cut", callbacks=[watch])
    folder = tmp_path / "cut" / "model.checkpoints"
    assert watch.seen == {0: [], 1: [], 2: [2], 3: [2], 4: [2], 5: [2, 5], 6: [2, 5], 7: [2, 5]}
    assert [path.name for path in folder.glob("best-*")] == ["best-3.safetensors"]
    resumed = run(tokenizer, tmp_path / "cut", resume=True)
    assert (resumed.resumed_at, resumed.saved_step, resumed.candidates) == (5, 3, whole.candidates)
    ours, theirs = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and not folder.exists()


def test_a_kill_right_after_the_best_keeps_no_second_copy_of_it(third_is_best, by_time, tokenizer, tmp_path):
    whole = run(tokenizer, tmp_path / "whole")
    by_time[:] = [3]
    (tmp_path / "cut").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(tokenizer, tmp_path / "cut", callbacks=[Stop(5)])
    assert not list((tmp_path / "cut" / "model.checkpoints").glob("best-*"))
    resumed = run(tokenizer, tmp_path / "cut", resume=True)
    assert (resumed.resumed_at, resumed.saved_step) == (3, 3)
    ours, theirs = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and whole.saved_step == 3


def test_a_checkpoint_whose_best_weights_are_gone_does_not_count(third_is_best, by_time, tokenizer, tmp_path):
    by_time[:] = [5]
    with pytest.raises(KeyboardInterrupt):
        run(tokenizer, tmp_path, callbacks=[Stop(7)])
    (tmp_path / "model.checkpoints" / "best-3.safetensors").unlink()
    assert run(tokenizer, tmp_path, resume=True).resumed_at == 0


def test_checkpoints_wait_for_a_step_that_is_logged_but_not_forever():
    due = {1: True, 2: False}
    writer = types.SimpleNamespace(saving=Saving("time", 1, ""), is_due=lambda pauses=1: due[pauses])
    args = toy_arguments(n_rows=8)
    state = types.SimpleNamespace(global_step=3, max_steps=8, epoch=0.5, is_world_process_zero=True, save_steps=0)

    def ask(should_log):
        control = types.SimpleNamespace(should_log=should_log, should_save=False, should_evaluate=False)
        SaveWhenDue(writer).on_step_end(args, state, control)
        return control.should_save

    assert (ask(True), ask(False)) == (True, False)
    due[2] = True
    assert ask(False)
    state.global_step = 8
    assert not ask(True)  # the model is saved right after


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"save_steps": 4}, [4, 8]),
        ({"save_strategy": "epoch", "load_best_model_at_end": False}, [2, 4, 6, 8]),
        ({"save_strategy": "best"}, [1, 2, 3]),
        ({"save_strategy": "no", "load_best_model_at_end": False}, []),
    ],
)
def test_checkpoints_are_written_when_they_should_be(changes, steps, third_is_best, tokenizer, tmp_path, monkeypatch):
    written, plain = [], CheckpointWriter.write
    monkeypatch.setattr(
        CheckpointWriter, "write", lambda self, mark, parts: (written.append(mark["step"]), plain(self, mark, parts))
    )
    result = run(tokenizer, tmp_path, save_total_limit=1, **changes)
    assert written == steps and result.checkpoints == len(steps)


def test_save_total_limit_holds(tokenizer, tmp_path):
    watch = Stop(7)
    with pytest.raises(KeyboardInterrupt):
        run(tokenizer, tmp_path, callbacks=[watch], save_total_limit=3)
    assert watch.seen[7] == [5, 6, 7] and watch.seen[2] == [1, 2]


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(tokenizer, tmp_path, monkeypatch, capsys):
    plain = torch.save

    def save(value, path, *args, **options):
        if "checkpoint-4" in str(path):
            raise RuntimeError("PytorchStreamWriter failed writing file: no space\nmore")
        return plain(value, path, *args, **options)

    monkeypatch.setattr(torch, "save", save)
    watch = Stop()
    result = run(tokenizer, tmp_path, callbacks=[watch])
    assert (result.steps, result.checkpoints, result.checkpoints_failed) == (8, 6, 1)
    assert watch.seen[4] == [3] and watch.seen[5] == [3, 5]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no checkpoint after")]
    assert line == (
        "no checkpoint after step 4: RuntimeError: PytorchStreamWriter failed writing file: no space; the training "
        "goes on, and a kill loses all that was done after step 3"
    )


def test_weights_that_are_not_finite_are_not_written(tokenizer, tmp_path):
    class Spoil(TrainerCallback):
        def on_step_end(self, args, state, control, model, **_):
            if state.global_step == 3:
                control.should_evaluate = False
                with torch.no_grad():
                    model.model.norm.weight.fill_(float("nan"))

    arguments = {"save_steps": 1, "eval_strategy": "no", "load_best_model_at_end": False}
    with pytest.raises(TrainingError, match=r"the weights model\.norm\.weight are not finite after step 3"):
        run(tokenizer, tmp_path, callbacks=[Spoil()], **arguments)
    assert list_checkpoints(tmp_path / "model.checkpoints") == [1, 2]


@pytest.mark.parametrize("kind", ["little", "refused"])
def test_best_weights_are_kept_in_a_file_where_memory_is_short(
    kind, third_is_best, by_time, tokenizer, tmp_path, monkeypatch, capsys
):
    whole = run(tokenizer, tmp_path / "whole")
    if kind == "little":
        monkeypatch.setattr(best_weights, "available_memory_bytes", lambda: 1000)
    else:
        monkeypatch.setattr(best_weights, "copy_to_cpu", fail(RuntimeError("DefaultCPUAllocator: can't allocate")))
    by_time[:] = [5]
    (tmp_path / "cut").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(tokenizer, tmp_path / "cut", callbacks=[Stop(7)])
    folder = tmp_path / "cut" / "model.checkpoints"
    assert [path.name for path in folder.glob("best-*")] == ["best-3.safetensors"]  # no older ones are left
    resumed = run(tokenizer, tmp_path / "cut", resume=True)
    assert (resumed.resumed_at, resumed.saved_step, whole.saved_step) == (5, 3, 3)
    assert "best weights: kept in a file, since memory does not hold them" in capsys.readouterr().out
    ours, theirs = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_best_weights_that_can_be_kept_nowhere_leave_the_older_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(best_weights, "available_memory_bytes", lambda: 0)
    weights, kept = {"w": torch.ones(3)}, BestWeights(tmp_path)
    kept.keep(weights, 2)
    monkeypatch.setattr(best_weights, "save_file", fail(OSError("No space left on device")))
    weights["w"] += 1
    kept.keep(weights, 4)
    assert kept.step == 2 and "those after step 4 could not be kept" in capsys.readouterr().out
    assert load_file(kept.file_of(2))["w"].tolist() == [1, 1, 1]


def test_the_copy_is_overwritten_in_place_and_exchanged(tmp_path):
    weights, kept = {"w": torch.nn.Parameter(torch.tensor([1.0]))}, BestWeights(tmp_path)
    kept.keep(weights, 1)
    place = kept._copy["w"].data_ptr()
    for value, step in ((2.0, 2), (3.0, 3)):
        with torch.no_grad():
            weights["w"].fill_(value)
        if step == 2:
            kept.keep(weights, step)
    assert kept._copy["w"].data_ptr() == place and kept.step == 2
    kept.exchange(weights)
    assert weights["w"].item() == 2 and kept._copy["w"].item() == 3 and kept.in_model
    kept.exchange(weights)
    assert weights["w"].item() == 3 and kept._copy["w"].item() == 2 and not kept.in_model


def test_a_choice_that_was_made_is_returned_again(third_is_best, tokenizer, tmp_path):
    arguments = toy_arguments(n_rows=4, epochs=4, batch_size=2, output_dir=str(tmp_path / "checkpoints"))
    sides = [encode_rows(rows, tokenizer, "native", arguments.max_length) for rows in (ROWS[:4], ROWS[4:])]
    trainer = build_trainer(tiny_model(), tokenizer, *sides, arguments)
    trainer.train()
    first = choose_checkpoint(trainer, tokenizer, ROWS[4:])
    weights = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    assert choose_checkpoint(trainer, tokenizer, ROWS[4:]) is first and first.step == 3
    assert all(torch.equal(weight, weights[name]) for name, weight in trainer.model.state_dict().items())


def test_how_long_a_checkpoint_took_decides_when_the_next_is_due(tmp_path, monkeypatch, capsys):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr("fgtools.train.checkpoints.time.perf_counter", lambda: clock.now)
    writer = CheckpointWriter(tmp_path, Saving("time", 4 * 10**9, ""), BestWeights(tmp_path), 1)
    writer.begin(0)
    clock.now = 399.0
    assert not writer.is_due()
    clock.now = 400.0  # 20 seconds by the assumed speed, 20 times
    assert writer.is_due() and not writer.is_due(pauses=2)

    def write_parts():
        (tmp_path / "checkpoint-7").mkdir()
        (tmp_path / "checkpoint-7" / "optimizer.pt").write_bytes(b"states")
        clock.now += 5

    writer.write({"identity": "i", "step": 7, "seconds": 1.0, "precision": "fp32", "updates": 7}, write_parts)
    assert capsys.readouterr().out == (
        "checkpoint after step 7: took 5 s, so one follows every 2 min, and a kill loses at most that\n"
    )
    assert not writer.is_due()
    clock.now += 100
    assert writer.is_due() and (writer.written, writer.seconds) == (1, 5)
    mark = json.loads((tmp_path / "checkpoint-7" / "whole.json").read_text())
    assert mark["best"] == 0 and find_checkpoint(tmp_path, "i", True).step == 7


@pytest.mark.parametrize(("rank", "fits"), [(0, False), (16, True)])
def test_a_gpu_too_small_for_the_optimizers_states_is_told_before_the_first_step(rank, fits, encoded, monkeypatch):
    model = tiny_model()
    trained = sum(weight.nbytes for weight in model.parameters())
    monkeypatch.setattr("fgtools.train.plan.free_memory_bytes", lambda _: 3 * trained - 1)
    options = (toy_arguments(n_rows=4), get_recipe("native"), model, encoded, 1, False, rank)
    if fits:
        assert plan_training(*options).micro_batches.tokens > 100
        return
    with pytest.raises(
        TrainingError, match=r"gradients and AdamW's states .* set LORA_RANK \(--lora-rank\), such as 16"
    ):
        plan_training(*options)


def test_a_row_that_may_not_fit_even_with_checkpointing_is_told(encoded):
    shape = tiny_model().config
    assert "by the estimate not even so: lower MAX_LENGTH" in choose_micro_batches(shape, 2048, 0.1, 10**5).reason


def test_the_weights_of_adapters_are_counted_as_peft_makes_them():
    wanted = count_adapter_weights(tiny_model(), 4)
    adapted = add_adapters(tiny_model(), 4)
    assert wanted == sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert measure_sizes(tiny_model(), 4).weights == 4 * wanted


def test_memory_that_runs_out_in_an_evaluation_halves_its_batches(encoded, tokenizer, tmp_path, monkeypatch, capsys):
    trainer = build_trainer(tiny_model(), tokenizer, encoded, encoded, toy_arguments(output_dir=str(tmp_path)))
    trainer.tokens = 10**6
    wanted, plain = trainer.evaluate(), trainer._read
    seen = []

    def read(model, inputs):
        seen.append(len(inputs["labels"]))
        if seen[-1] > 2:
            raise torch.OutOfMemoryError("fake")
        return plain(model, inputs)

    monkeypatch.setattr(trainer, "_read", read)
    got = trainer.evaluate()
    assert seen == [6, 3, 1, 2, 3, 1, 2] and got["eval_exact_match"] == wanted["eval_exact_match"]
    assert got["eval_loss"] == pytest.approx(wanted["eval_loss"], rel=1e-5)
    assert "out of memory: an evaluation batch is read again in parts of 3 rows" in capsys.readouterr().out
    seen.clear()
    trainer.evaluate()
    assert max(seen) <= 2  # smaller ones from the start
    monkeypatch.setattr(trainer, "_read", fail(torch.OutOfMemoryError("always")))
    with pytest.raises(torch.OutOfMemoryError, match="always"):
        trainer.evaluate()


def test_memory_that_runs_out_before_the_first_step_says_what_to_lower(encoded, tokenizer, tmp_path, monkeypatch):
    trainer = build_trainer(tiny_model(), tokenizer, encoded, encoded, toy_arguments(output_dir=str(tmp_path)))
    monkeypatch.setattr(trainer, "_fused_kernels", fail(torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(
        TrainingError, match=r"fit the memory, but CUDA out of memory\.: lower MAX_LENGTH or BATCH_SIZE"
    ):
        trainer.train()


def test_the_tutorials_checkpoints_are_the_trainers_own_too():
    arguments = training_arguments("tutorial", n_rows=961)
    assert arguments.save_steps == 0 and arguments.eval_steps == 10
