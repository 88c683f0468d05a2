"""Several processes: the same losses and weights as one, at the same rows a step; and errors that reach the caller."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors.torch import load_file

from fgtools.__main__ import main
from fgtools.files import read_jsonl, write_json, write_jsonl
from fgtools.models import load_model, load_tokenizer, save_model
from fgtools.models.load import find_model
from fgtools.profiles import get_recipe, resolve_profile
from fgtools.prompts import encode_rows
from fgtools.rows import load_rows
from fgtools.run import commands, training
from fgtools.run.folder import open_run
from fgtools.run.processes import ALL, LAUNCHED, ONE_GPU, LaunchError, choose_processes, count_gpus, hide_gpus, launch
from fgtools.run.settings import build_settings
from fgtools.run.training import ROWS, fit_choice, hold_out_rows, run_training
from fgtools.serve import write_taught_tools
from fgtools.train import (
    build_trainer,
    choose_checkpoint,
    describe_arguments,
    describe_training,
    remove_checkpoints,
    training_arguments,
)
from tests.run.test_exits import is_gone, wait_until
from tests.toys import tiny_model
from tests.train.test_resume import TIMED


@pytest.fixture(scope="module")
def prepared(tokenizer, tmp_path_factory):
    """A folder with the rows of a training, and a small model to start from in `base`."""
    folder = tmp_path_factory.mktemp("prepared")
    save_model(tiny_model(), tokenizer, folder / "base")
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
        str(prepared / "base"),
        "--profile",
        "offline",
        "--epochs",
        "1",
        "--learning-rate",
        "3e-3",
        "--precision",
        "fp32",
        "--out",
        str(out),
        *more,
    ]


def read(folder):
    return json.loads((folder / "train.json").read_text()), load_file(folder / "model" / "model.safetensors")


def start_by_hand(arguments):
    """As a user would start it."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    fixed = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*accelerate, *fixed, "-m", "fgtools", "train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)


def test_trls_engine_learns_in_two_processes_that_are_started_by_hand(prepared, tmp_path):
    """Another order of rows than in one process, so no equal losses; TRL's batches need a number that shares out."""
    job = start_by_hand(words(prepared, tmp_path, "--engine", "trl", "--batch-size", "8"))
    assert job.returncode == 0, job.stderr[-2000:]
    training, _ = read(tmp_path)
    losses = [entry["eval_loss"] for entry in training["history"] if "eval_loss" in entry]
    assert training["processes"] == 2 and losses[-1] < losses[0]


def test_a_failure_in_one_of_several_processes_is_told(tmp_path, capsys):
    with pytest.raises(LaunchError, match="`score` in 2 processes failed with status"):  # one that fails at once
        launch("score", 2, ["--rows", str(tmp_path / "nowhere"), "--replies", "none"])
    said = capsys.readouterr().out
    assert "nowhere" in said and "Traceback" not in said and said.count("error: ") == 1


@pytest.mark.parametrize("debug", [True, False])
def test_launched_processes_show_tracebacks_when_asked(debug, monkeypatch, capfd):
    monkeypatch.setattr("fgtools.run.processes.sys.executable", shutil.which("echo"))
    launch("train", 2, ["--rows", "r"], debug)
    assert capfd.readouterr().out.endswith(f"-m fgtools {'--debug ' if debug else ''}train --rows r\n")


def test_launched_processes_do_not_launch_more(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv(LAUNCHED, "1")
    monkeypatch.setattr("fgtools.run.processes.subprocess", None)
    assert main(["train", *words(prepared, tmp_path, "--epochs", "0.2", "--processes", "2")]) == 0


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Stand for a machine with some GPUs."""

    def have(count):
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\n" + "".join(f"echo 'GPU {i}: Tesla T4'\n" for i in range(count)))
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        monkeypatch.setenv(ONE_GPU, ALL)

    return have


def test_more_processes_are_started_where_there_are_gpus_and_rows_enough(gpus, monkeypatch):
    gpus(2)
    assert count_gpus() == 2
    assert choose_processes(5000) == (2, "one for each of 2 GPUs")
    assert choose_processes(300) == (1, "2 GPUs, but 300 rows are answered sooner than a second process starts")
    assert choose_processes(300, 2) == (2, "asked for")
    with pytest.raises(ValueError, match="PROCESSES must be at most the number of GPUs, 2, got 3"):
        choose_processes(300, 3)
    monkeypatch.delenv(ONE_GPU)
    assert count_gpus() == 1  # shown by the user: the other one is not for us
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_processes(5000) == (1, "0 GPU(s)") and choose_processes(1, 2) == (2, "asked for")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3,5")
    assert count_gpus() == 3
    with pytest.raises(ValueError, match="PROCESSES must be at least 0, got -1"):
        choose_processes(1, -1)


@pytest.mark.parametrize("shown", [None, "1,0"])
def test_one_process_takes_the_first_of_two_gpus_and_those_it_starts_see_both(shown, gpus, monkeypatch, capfd):
    gpus(2)
    monkeypatch.delenv(ONE_GPU)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if shown:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert hide_gpus() == ""  # started by a launcher
    monkeypatch.delenv("LOCAL_RANK")
    first = "0" if shown is None else "1"
    assert hide_gpus() == f"2 GPUs are visible, and one process takes one of them: GPU {first}"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == first and count_gpus() == 2
    assert hide_gpus() == ""  # once
    script = Path(os.environ["PATH"].split(os.pathsep)[0]) / "show"
    script.write_text("#!/bin/sh\necho GPUs ${CUDA_VISIBLE_DEVICES-all}, ${FGTOOLS_ONE_GPU-not} hidden\n")
    script.chmod(0o755)
    monkeypatch.setattr("fgtools.run.processes.sys.executable", str(script))
    launch("train", 2, [])
    assert capfd.readouterr().out == f"GPUs {shown or 'all'}, not hidden\n"


@pytest.mark.parametrize(
    ("command", "more", "hint"),
    [("check", [], ""), ("train", ["--rows", "r", "--out", "o"], "; --processes takes more"), ("score", None, None)],
)
def test_a_command_says_that_it_takes_one_of_two_gpus(command, more, hint, gpus, monkeypatch, capsys):
    gpus(2)
    monkeypatch.delenv(ONE_GPU)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(commands, command, lambda options: None)
    words = ["--rows", "r", "--replies", "p"] if more is None else ["--model", "m", *more]  # score needs no GPU
    assert main([command, *words]) == 0
    told = "" if hint is None else f"2 GPUs are visible, and one process takes one of them: GPU 0{hint}\n"
    assert capsys.readouterr().err == told
    if command == "train":  # both are asked for
        monkeypatch.delenv(ONE_GPU)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        assert main([command, *words, "--processes", "2"]) == 0 and capsys.readouterr().err == ""


def test_one_gpu_is_left_as_it_is(gpus, monkeypatch):
    gpus(1)
    monkeypatch.delenv(ONE_GPU)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert hide_gpus() == "" and "CUDA_VISIBLE_DEVICES" not in os.environ


WAITING = """
import os, time
from pathlib import Path
from fgtools.run import commands

def wait(options):
    Path(options.rows, str(os.getpid())).touch()
    time.sleep(3600)

commands.score = wait
"""
"""Read by every Python at its start: a command that needs no torch takes long."""

LAUNCHING = "import sys; from fgtools.run.processes import launch; launch('score', 2, sys.argv[1:])"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_processes_end_with_the_one_that_started_them(tmp_path, monkeypatch):
    """Killed outright: what it started must not go on writing into the folder."""
    (tmp_path / "sitecustomize.py").write_text(WAITING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    rows = tmp_path / "rows"
    rows.mkdir()
    job = subprocess.Popen([sys.executable, "-c", LAUNCHING, "--rows", str(rows), "--replies", "none"])
    wait_until(lambda: job.poll() is not None or len(list(rows.iterdir())) == 2)  # in the midst of it
    below = psutil.Process(job.pid).children(recursive=True)
    assert {int(path.name) for path in rows.iterdir()} < {one.pid for one in below}  # and the launcher
    job.kill()
    job.wait()
    wait_until(lambda: all(is_gone(one.pid) for one in below))


def test_two_processes_generate_what_one_generates_and_write_once(prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FGTOOLS_BATCH")
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    rows = ["--model", "standin", "--rows", str(prepared / "rows.eval.jsonl"), "--max-new-tokens", "24"]
    for name, processes in (("one", "1"), ("two", "2")):
        assert main(["evaluate", *rows, "--out", str(tmp_path), "--name", name, "--processes", processes]) == 0
    one, two = (read_jsonl(tmp_path / f"replies.{name}.jsonl") for name in ("one", "two"))
    for line, other in zip(one, two, strict=True):  # in other batches: fp32 to 1e-4
        figures = line.pop("confidence"), other.pop("confidence")
        assert figures[0] == pytest.approx(figures[1], abs=1e-4)
    assert one == two and len(one) == 13
    scores = [json.loads((tmp_path / f"scores.{name}.json").read_text()) for name in ("one", "two")]
    assert scores[0]["rows"] == scores[1]["rows"]
    assert not list(tmp_path.glob("*.part*"))
    said = capsys.readouterr().out
    assert said.count("known tool") == 2  # one table an evaluation
    assert "\r" not in said and "%|" not in said  # the two draw no bar into a file


def test_every_seed_is_scored_on_the_same_rows_which_chose_no_checkpoint(prepared, tmp_path, monkeypatch, capsys):
    def link_standin(_, seed, out, share):
        (out.root / "model").symlink_to(find_model("standin"))
        return SimpleNamespace(to_dict=lambda: {"saved_step": seed})

    monkeypatch.setattr(commands, "_train_once", link_standin)
    assert main(["train", *words(prepared, tmp_path, "--seeds", "1", "2")]) == 0
    rows, shown = load_rows(prepared / ROWS[1]), capsys.readouterr().out
    assert f"the same {len(rows)} rows" in shown and "mean" in shown.splitlines()[-2]
    for seed in (1, 2):
        folder = tmp_path / f"seed-{seed}"
        scores = json.loads((folder / "scores.tuned.json").read_text())
        assert [one["row_id"] for one in scores["rows"]] == [row["row_id"] for row in rows]
        assert f"{scores['ast_match']['k']}/{len(rows)} = " in shown
        assert set(scores["inputs"]) == {"replies.tuned.jsonl", ROWS[1], "model"}
        assert len(read_jsonl(folder / "replies.tuned.jsonl")) == len(rows) and not list(folder.glob("*.part*"))


@pytest.fixture(scope="module")
def trainings(prepared, tmp_path_factory):
    """One training in one process and in two: their folders, the arguments, and what the two processes printed.

    The notebook's call starts the command, with one process; the command of the same words starts two. Nine rows a
    step, so the processes have unlike shares.
    """
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    run = open_run(one)
    write_jsonl(one / ROWS[0], read_jsonl(prepared / ROWS[0])[:96])  # of 100 rows and more some are held out
    shutil.copy(prepared / ROWS[1], one / ROWS[1])
    settings = build_settings(resolve_profile("offline", None), "native", "", str(prepared / "base"), 40, 130, 10)
    numbers = {"epochs": 1, "n_rows": 88, "learning_rate": 3e-3, "precision": "fp32"}
    arguments = training_arguments(settings, **numbers, output_dir=one / "model.checkpoints")
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = 3, 3
    arguments.lr_scheduler_type, arguments.weight_decay, arguments.warmup_steps = "linear", 5.0, 0
    arguments.hub_token, arguments.eval_steps, arguments.save_steps = "hf_secret", 4, 4
    asked = []

    def start(command, processes, words):
        asked.append((command, processes))
        assert main([command, *words]) == 0
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            assert main([command, *words, "--out", str(two), "--processes", "2"]) == 0
        asked.append(shown.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGTOOLS_BATCH", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(training, "launch", start)
        run_training(run, settings, arguments, settings.recipe, processes=3)
    assert asked[0] == ("train", 3)
    return one, two, arguments, asked[1]


def test_two_processes_give_what_one_gives(trainings):
    (one, weights), (two, others) = map(read, trainings[:2])
    assert (one["processes"], two["processes"]) == (1, 2) and one["saved_step"] == two["saved_step"]
    assert one["updates"] == two["updates"] == one["steps"] > 0  # no step of either has rate 0
    said = trainings[3]
    assert "the model lies in" in said and said.count("engine labelled") == 1  # one process speaks
    for name, tolerance in (("loss", 1e-4), ("eval_loss", 1e-4), ("grad_norm", 1e-3), ("learning_rate", 1e-9)):
        ours, theirs = ([entry[name] for entry in run["history"] if name in entry] for run in (two, one))
        assert len(ours) == len(theirs) >= 2 and ours == pytest.approx(theirs, rel=tolerance), name
    for name in ("mean_token_accuracy", "eval_exact_match"):
        ours, theirs = ([entry[name] for entry in run["history"] if name in entry] for run in (two, one))
        assert ours == pytest.approx(theirs, abs=0.02), name
    for name, weight in weights.items():
        assert torch.linalg.vector_norm(others[name] - weight) <= 1e-4 * torch.linalg.vector_norm(weight), name


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_changed_on_the_arguments_holds_in_every_process(processes, prepared, trainings):
    run, arguments = open_run(trainings[processes - 1]), trainings[2]
    result, steps = run.read_json("train.json"), -(-len(load_rows(trainings[0] / ROWS[0])) // 9)
    assert (result["processes"], result["steps"]) == (processes, steps)  # too few rows to hold any out
    assert result["checkpoints"] == steps // 4 > 0 and not list(run.root.glob("model.checkpoints/*"))
    assert {"model.safetensors", "tools.json"} <= {path.name for path in (run.root / "model").iterdir()}
    told = result["arguments"]
    named = {"lr_scheduler_type": "linear", "output_dir": "model.checkpoints"}
    assert told == json.loads(json.dumps({**describe_arguments(arguments), **named}))
    assert (told["per_device_train_batch_size"], told["gradient_accumulation_steps"]) == (3, 3)
    rates = {entry["step"]: entry["learning_rate"] for entry in result["history"] if "learning_rate" in entry}
    assert rates[2] == pytest.approx(3e-3 * (steps - 1) / steps) and rates[steps] == pytest.approx(3e-3 / steps)
    decayed = load_file(run.root / "model" / "model.safetensors")
    plain = load_file(prepared / "base" / "model.safetensors")
    name = "model.layers.0.mlp.gate_proj.weight"
    norms = [torch.linalg.vector_norm(weights[name]).item() for weights in (decayed, plain)]
    assert norms[0] < 0.995 * norms[1]  # without weight decay it grows
    assert "hf_secret" not in "".join(path.read_text() for path in run.root.glob("*.json"))


def test_the_command_and_the_notebooks_calls_give_the_same(prepared, tmp_path):
    assert main(["train", *words(prepared, tmp_path / "command"), "--batch-size", "8"]) == 0
    recipe = fit_choice(get_recipe("native"), len(load_rows(prepared / ROWS[0])))
    rows_train, rows_dev = hold_out_rows(*(load_rows(prepared / name) for name in ROWS), recipe, 40)
    base = str(prepared / "base")
    model, tokenizer = load_model(base, quiet=True), load_tokenizer(base)
    numbers = {"epochs": 1, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32", "n_rows": len(rows_train)}
    arguments = training_arguments(recipe, model=base, output_dir=tmp_path / "checkpoints", **numbers)
    train_set, dev_set = (encode_rows(rows, tokenizer, recipe, arguments.max_length) for rows in (rows_train, rows_dev))
    trainer = build_trainer(model, tokenizer, train_set, dev_set, arguments, recipe, resume=True)
    trainer.train()
    choice = choose_checkpoint(trainer, tokenizer, rows_dev, recipe)
    result = describe_training(trainer, choice)
    save_model(model, tokenizer, tmp_path / "calls" / "model")
    remove_checkpoints(trainer)
    assert not (tmp_path / "checkpoints").exists()
    inputs = [prepared / name for name in ROWS]
    write_taught_tools(tmp_path / "calls" / "model", rows_train, tokenizer, recipe, result.left_out, inputs)
    open_run(tmp_path / "calls").write_json("train.json", result.to_dict(), [*inputs, tmp_path / "calls" / "model"])
    taught = [(tmp_path / name / "model" / "tools.json").read_bytes() for name in ("command", "calls")]
    assert taught[0] == taught[1] and b'"shown": ' in taught[0]
    (one, weights), (two, others) = (read(tmp_path / name) for name in ("command", "calls"))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    for told in (one, two):
        for name in ("seconds", "tokens_per_second", "peak_memory_bytes"):
            assert told.pop(name) > 0
        assert told.pop("checkpoint_seconds") >= 0 and len(told.pop("content_sha256")) == 64  # it covers the times
        del told["arguments"]["output_dir"]
        told["history"] = [{k: v for k, v in entry.items() if k not in TIMED} for entry in told["history"]]
    assert one == two


def test_a_file_of_arguments_stands_for_all_numbers(prepared, tmp_path, capsys):
    file = tmp_path / "arguments.json"
    write_json(file, describe_arguments(training_arguments(model="standin", epochs=1)))
    given = ["train", *words(prepared, tmp_path / "out")[:-8], "--out", str(tmp_path / "out"), "--arguments", str(file)]
    assert main([*given, "--epochs", "3"]) == 1
    assert "--arguments holds every number of a training, so --epochs must not be given" in capsys.readouterr().err
    assert main([*given, "--seeds", "1", "2"]) == 1
    assert "so --seeds must not be given" in capsys.readouterr().err
    file.write_text(json.dumps({"learning_rat": 1}))
    assert main(given) == 1
    assert "'learning_rat' is none" in capsys.readouterr().err
