"""The notebooks run as committed, under the plain papermill and nbval commands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from fgtools.run.stages import STAGES
from tests.normal_form import NOTEBOOKS

UNSET = ("FGTOOLS_", "HF_", "HUGGING", "KAGGLE_", "JPY_", "COLAB_", "TQDM_")
"""Prefixes of environment variables that nobody has set who types a command in a fresh clone."""


def run_plainly(*words, cwd, kept=()):
    """Run a module as anyone would, on a machine without a GPU: the committed outputs are those of one.

    Of the variables of the environment that begin as in UNSET, those that begin as in `kept` stay.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith(UNSET) or name.startswith(kept)}
    command = [sys.executable, "-m", *words]
    environment = others | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """Run a copy of the committed notebooks under strict nbval, and return the run folder.

    The plain command but for the time that a cell or a kernel's start may take: a busy machine is slow, not wrong.
    """
    place = tmp_path_factory.mktemp("committed")
    shutil.copytree(NOTEBOOKS, place / "notebooks")
    patient = ("--nbval-cell-timeout=36000", "--nbval-kernel-startup-timeout=3600")
    outcome = run_plainly("pytest", "-q", "-p", "no:cacheprovider", "--nbval", *patient, "notebooks", cwd=place)
    return place / "runs" / "offline", outcome


def test_the_committed_notebooks_pass_strict_nbval(committed):
    _, outcome = committed
    assert outcome.returncode == 0, outcome.stdout[-6000:] + outcome.stderr[-2000:]
    cells = sum(
        cell.cell_type == "code"
        for stage in STAGES
        for cell in nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4).cells
    )
    assert f"{cells} passed" in outcome.stdout


def rate(scores, name):
    return scores[name]["k"] / scores[name]["n"]


def test_what_nbval_does_not_compare_stays_within_bounds(committed):
    run, _ = committed
    base, tuned = (json.loads((run / f"scores.{side}.json").read_text()) for side in ("base", "tuned"))
    assert base["n"] == tuned["n"] >= 280
    assert rate(base, "right_tool_calls") > base["chance"]
    assert rate(tuned, "right_tool_calls") >= 0.85 and rate(tuned, "ast_match") >= 0.75
    assert rate(tuned, "false_calls") <= 0.3
    assert rate(tuned, "in_grammar") >= 0.85 and rate(tuned, "tool_accuracy") >= 0.85
    comparison = json.loads((run / "compare.json").read_text())
    assert comparison["verdict"].startswith("AST match rose")
    training = json.loads((run / "train.json").read_text())
    losses = [entry["eval_loss"] for entry in training["history"] if "eval_loss" in entry]
    assert losses[-1] < 0.7 * losses[0] and training["n_too_long"] == 0
    card = (run / "card.md").read_text()
    assert "offline stand-in" in card and comparison["verdict"] in card


def test_the_committed_outputs_name_no_place_of_a_machine():
    for stage in STAGES:
        text = (NOTEBOOKS / f"{stage}.ipynb").read_text(encoding="utf-8")
        for trace in (str(Path.home()), str(NOTEBOOKS.parent), "/tmp/", "site-packages"):
            assert trace not in text, f"{stage} holds {trace}"
