"""Several processes: the same losses and weights as one, at the same rows a step; and errors that reach the caller."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from fgtools.__main__ import main
from fgtools.training import LAUNCHED, LaunchError, launch_training

TIMEOUT = 240


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    assert main(["prepare", "--data", "sample", "--n-total", "130", "--n-eval", "10", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("FGTOOLS_BATCH", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def words(prepared, out, *more):
    return [
        "--rows",
        str(prepared),
        "--model",
        "standin",
        "--profile",
        "offline",
        "--epochs",
        "1",
        "--out",
        str(out),
        *more,
    ]


def read(folder):
    return json.loads((folder / "train.json").read_text()), load_file(folder / "model" / "model.safetensors")


def launch(arguments):
    """As a user would start it."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    fixed = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*accelerate, *fixed, "-m", "fgtools", "train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=dict(os.environ), check=False)


@pytest.mark.parametrize("engine", ["labelled", "trl"])
def test_two_processes_give_what_one_gives(engine, prepared, tmp_path, capsys):
    # 13 rows a step: the processes have unlike shares; TRL's batches need a number that shares out
    rows = ["--engine", engine, "--batch-size", "13" if engine == "labelled" else "8"]
    if engine == "labelled":
        assert main(["train", *words(prepared, tmp_path / "one", *rows)]) == 0
    job = launch(words(prepared, tmp_path / "two", *rows))
    assert job.returncode == 0, job.stderr[-2000:]
    if engine == "trl":  # another order of rows than in one process: it must run, and learn
        training, _ = read(tmp_path / "two")
        losses = [entry["eval_loss"] for entry in training["history"] if "eval_loss" in entry]
        assert training["processes"] == 2 and losses[-1] < losses[0]
        return
    one, weights = read(tmp_path / "one")
    two, others = read(tmp_path / "two")
    assert (one["processes"], two["processes"]) == (1, 2) and one["saved_step"] == two["saved_step"]
    assert job.stdout.count("engine labelled") == 1  # one process speaks
    for name, tolerance in (("loss", 1e-4), ("eval_loss", 1e-4), ("grad_norm", 1e-3), ("learning_rate", 1e-9)):
        ours, theirs = ([entry[name] for entry in run["history"] if name in entry] for run in (two, one))
        assert len(ours) == len(theirs) > 2 and ours == pytest.approx(theirs, rel=tolerance), name
    for name in ("mean_token_accuracy", "eval_exact_match"):
        ours, theirs = ([entry[name] for entry in run["history"] if name in entry] for run in (two, one))
        assert ours == pytest.approx(theirs, abs=0.02), name
    for name, weight in weights.items():
        assert torch.linalg.vector_norm(others[name] - weight) <= 1e-4 * torch.linalg.vector_norm(weight), name
    assert not (tmp_path / "two" / "model.checkpoints").exists()


def test_the_command_starts_processes_and_tells_of_a_failure(prepared, tmp_path, capsys, monkeypatch):
    assert main(["train", *words(prepared, tmp_path / "out", "--processes", "2", "--batch-size", "8")]) == 0
    assert json.loads((tmp_path / "out" / "train.json").read_text())["processes"] == 2
    assert "the model lies in" in capsys.readouterr().out
    with pytest.raises(LaunchError, match="the training in 2 processes failed with status"):
        launch_training(2, words(prepared / "nowhere", tmp_path / "failed"))
    assert "rows.train.jsonl must be there" in capsys.readouterr().out


def test_launched_processes_do_not_launch_more(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv(LAUNCHED, "1")
    monkeypatch.setattr("fgtools.training.subprocess", None)
    assert main(["train", *words(prepared, tmp_path, "--processes", "2")]) == 0
