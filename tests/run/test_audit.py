"""The audit before a training: a saved one counts only for the very rows, recipe, template, tokenizer and budget."""

import copy

import pytest

from fgtools.__main__ import main
from fgtools.offline.samples import build_samples
from fgtools.profiles import PROFILES, ResolvedProfile, adapt_recipe, get_recipe
from fgtools.rows import build_rows
from fgtools.run import training
from fgtools.run.folder import RunFolder
from fgtools.run.settings import build_settings
from fgtools.run.training import audit_for_training
from fgtools.train import training_arguments

NATIVE = get_recipe("native")
NAMES = ("rows.train.jsonl", "rows.eval.jsonl")


@pytest.fixture
def audited(tmp_path, tokenizer):
    """A run folder with rows and their audit, and what the audit is asked for with."""
    rows = build_rows(build_samples(24, 5)).rows
    run = RunFolder(tmp_path)
    sides = {"train": rows[:8], "eval": rows[8:12]}
    inputs = [run.write_rows(name, side) for name, side in zip(NAMES, sides.values(), strict=True)]
    run.write_json("audit.json", audit_for_training(run, sides, inputs, tokenizer, NATIVE) | {"saved": True}, inputs)
    return {"run": run, "sides": sides, "inputs": inputs, "tokenizer": tokenizer, "recipe": NATIVE}


def test_the_saved_audit_of_the_same_is_taken(audited, capsys):
    capsys.readouterr()
    assert audit_for_training(**audited)["saved"]
    assert audit_for_training(**audited, max_length=NATIVE.max_length)["saved"]
    assert capsys.readouterr().out == ""


def test_an_audit_of_anything_else_is_made_anew_and_said(audited, tokenizer, capsys):
    other = copy.deepcopy(tokenizer)
    other.chat_template = tokenizer.chat_template + " "
    changes = (
        {"recipe": get_recipe("tutorial")},
        {"recipe": adapt_recipe(NATIVE, over_length="prune")},
        {"max_length": NATIVE.max_length - 1},
        {"tokenizer": other},
    )
    for change in changes:
        assert "saved" not in audit_for_training(**audited | change), change
        assert "the saved audit is of other rows or settings" in capsys.readouterr().out
    audited["run"].write_rows(NAMES[1], audited["sides"]["train"])
    assert "saved" not in audit_for_training(**audited)


def test_without_a_saved_audit_one_is_made_and_not_written(audited, capsys):
    path = audited["run"].root / "audit.json"
    path.unlink()
    assert audit_for_training(**audited)["lengths"]["n"] == 8
    assert "there is no audit yet" in capsys.readouterr().out and not path.exists()


def test_a_run_is_not_trained_on_an_audit_of_other_rows(audited, monkeypatch, capsys):
    run, launched = audited["run"], []
    rows = audited["sides"]["train"]
    run.write_rows(NAMES[1], rows)  # the same rows on both sides, which the saved audit has not seen
    settings = build_settings(ResolvedProfile(PROFILES["offline"], ""), "native", "", "", 40, 20, 8)
    arguments = training_arguments("native", model="standin", output_dir=run.root / "model.checkpoints")
    monkeypatch.setattr(training, "launch", lambda *words: launched.append(words))
    for ignored in (True, False):
        training.run_training(run, settings, arguments, NATIVE, processes=2, ignore_audit=ignored)
        command, count, words = launched.pop()
        assert (command, count) == ("train", 2) and ("--ignore-audit" in words) is ignored
    assert main([command, *words]) == 1
    assert "leaks: 8 of 8" in capsys.readouterr().err and not (run.root / "model").exists()
