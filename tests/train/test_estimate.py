"""How long a training will take: the arithmetic, the lines, and that measuring changes nothing."""

import random
import re
import types

import pytest
import torch
from safetensors.torch import load_file

from fgtools.prompts import encode_rows
from fgtools.train import build_trainer, estimate, train
from fgtools.train.arguments import training_arguments
from fgtools.train.estimate import (
    TellTimeLeft,
    Work,
    choose_measured_rows,
    describe_estimate,
    measure_speed,
    plan_work,
    render_duration,
)
from tests.toys import small_rows, tiny_model, toy_arguments

ROWS = small_rows(80, 12)


def test_the_work_of_a_training_is_counted():
    arguments = training_arguments(n_rows=272, epochs=2, batch_size=16)
    assert arguments.eval_steps == 10
    assert plan_work(arguments, [100] * 272, [50] * 30) == Work(34, 544, 54_400, 5, 7_500)  # steps 0, 10, 20, 30, 34
    assert plan_work(arguments, [100] * 272, [50] * 30, done=17) == Work(17, 272, 27_200, 2, 3_000)
    arguments.max_steps, arguments.eval_on_start = 10, False
    assert plan_work(arguments, [100] * 272, [50] * 30) == Work(10, 160, 16_000, 1, 1_500)


@pytest.mark.parametrize("budget", [1, 53, 400, 10_000])
def test_two_micro_batches_of_middle_length_are_measured(budget):
    lengths = [random.Random(3).randint(40, 400) for _ in range(50)]
    batches = choose_measured_rows(lengths, budget)
    assert 1 <= len(batches) <= 2 and all(batches)
    assert all(len(rows) == 1 or max(lengths[row] for row in rows) * len(rows) <= budget for rows in batches)
    assert choose_measured_rows([120], budget) == [[0]]


def test_rows_longer_than_a_micro_batch_are_measured_alone():
    measured = [row for rows in choose_measured_rows([10, 20, 300, 310, 320, 900], 53) for row in rows]
    assert sorted(measured) == [2, 3]


def test_the_first_micro_batch_is_not_counted_and_random_numbers_are_given_back(monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 12.0])
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(clock))
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    assert measure_speed(lambda rows: torch.rand(len(rows)), [[0], [1, 2]], [500, 60, 40]) == 50.0
    assert torch.equal(torch.rand(3), wanted)


def test_the_estimate_says_how_long_and_what_makes_it_shorter():
    said = describe_estimate(Work(34, 544, 100_000, 7, 30_000), 80.0, 2)
    assert said.startswith(
        "estimate: about 23 min on this machine: 544 rows (100,000 tokens) in 34 steps and 7 evaluations, at 80 "
        "tokens/s = 0.44 rows/s, measured on two micro-batches with 2 threads; checkpoints and the choice "
        "among them come on top\n"
    )
    for remedy in ("N_TOTAL", "MAX_LENGTH", "EPOCHS", "LORA_RANK", "GPU"):
        assert remedy in said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (1560, "26 min"), (3599, "1 h 00 min")]
)
def test_a_duration_is_for_people(seconds, said):
    assert render_duration(seconds) == said


def test_time_left_is_said_after_the_first_step_and_every_two_minutes(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now)
    tell = TellTimeLeft(16)
    for step in range(4, 9):  # after a break at step 4
        now += 50.0
        state = types.SimpleNamespace(global_step=step, max_steps=34, is_world_process_zero=True)
        tell.on_step_begin(None, state, None)
        now += 40.0
        state.global_step += 1
        tell.on_step_end(None, state, None)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "step     5/34  0.40 rows/s, about 19 min left"
    assert [re.match(r"step +(\d+)/34", line)[1] for line in said] == ["5", "7", "9"]


@pytest.mark.parametrize("rank", [0, 2])
def test_measuring_changes_no_result(rank, batch_run, monkeypatch, capsys, tokenizer, tmp_path):
    if rank:
        pytest.importorskip("peft")
    rows = ROWS
    for name, size in (("plain", estimate.REAL_PARAMETERS), ("measured", 0)):
        monkeypatch.setattr(estimate, "REAL_PARAMETERS", size)
        config = toy_arguments(n_rows=8, epochs=2)
        train(tiny_model(), tokenizer, rows[:8], rows[8:], config, tmp_path / name, lora_rank=rank)
        assert ("estimate: about" in (said := capsys.readouterr().out)) is (name == "measured")
        assert ("rows/s, about" in said) is (name == "measured")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "measured"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_measuring_leaves_no_gradient_and_no_trace_in_the_log(batch_run, monkeypatch, tokenizer, tmp_path):
    monkeypatch.setattr(estimate, "REAL_PARAMETERS", 0)
    arguments = toy_arguments(n_rows=8, output_dir=str(tmp_path))
    sides = [encode_rows(rows, tokenizer, "native", arguments.max_length) for rows in (ROWS[:8], ROWS[8:])]
    trainer = build_trainer(tiny_model(), tokenizer, *sides, arguments)
    before, state = dict(vars(trainer._window)), torch.get_rng_state()
    assert trainer._estimate().startswith("estimate: about ")
    assert all(weight.grad is None for weight in trainer.model.parameters())
    assert vars(trainer._window) == before and torch.equal(torch.get_rng_state(), state)
