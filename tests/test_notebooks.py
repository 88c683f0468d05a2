"""The notebooks run: as a papermill chain in both recipes, and as committed under strict nbval."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from fgtools.__main__ import main
from fgtools.run.stages import STAGES
from tests.normal_form import NOTEBOOKS

SMALL = ("-p", "N_TOTAL", "150", "-p", "N_EVAL", "20", "-p", "EPOCHS", "0.3")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for name in ("HUGGINGFACE_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FGTOOLS_BATCH", "1")


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_the_series_runs_from_raw_rows_to_the_card(recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["run", "--profile", "offline", "--recipe", recipe, "--out", str(out), *SMALL]) == 0
    shown = capsys.readouterr().out
    assert all((out / name).exists() for stage in STAGES.values() for name in stage.writes)
    for expected in ("measure", "before", "after", "comparison.png", "06_publish.ipynb"):
        assert expected in shown, expected
    scores = [json.loads((out / f"scores.{side}.json").read_text()) for side in ("base", "tuned")]
    assert [row["row_id"] for row in scores[0]["rows"]] == [row["row_id"] for row in scores[1]["rows"]]
    budgets = [one["max_new_tokens"] for one in scores]
    assert budgets == [128, 64] if recipe == "tutorial" else budgets[0] == budgets[1]
    manifest = json.loads((out / "manifest.json").read_text())["sha256"]
    assert {"card.md", "compare.json", "model/model.safetensors", "figures/comparison.png"} <= set(manifest)
    text = (out / "card.md").read_text() + "".join(path.read_text() for path in out.glob("*.json"))
    assert str(tmp_path) not in text


def test_a_chain_can_resume_and_names_what_is_missing(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["run", "--out", str(out), "--only", "02"]) == 1
    assert "run 01_setup first" in capsys.readouterr().err
    for _ in range(2):
        assert main(["run", "--profile", "offline", "--out", str(out), "--only", "01", "--resume"]) == 0
    assert "skipped" in capsys.readouterr().out


def test_a_plain_papermill_run_leaves_no_progress_bar_and_no_widget(tmp_path, monkeypatch):
    for name in ("FGTOOLS_BATCH", "FGTOOLS_RUN_DIR", "HF_HUB_OFFLINE", "KAGGLE_KERNEL_RUN_TYPE", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    given = ["-p", "RUN_DIR", str(tmp_path / "run")]
    for stage, more in (
        ("01_setup", ["-p", "N_TOTAL", "60", "-p", "N_EVAL", "8"]),
        ("02_data", []),
        ("03_baseline", []),
    ):
        executed = tmp_path / f"{stage}.ipynb"
        command = [sys.executable, "-m", "papermill", str(NOTEBOOKS / f"{stage}.ipynb"), str(executed), *given, *more]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False, cwd=NOTEBOOKS)
        assert outcome.returncode == 0, outcome.stderr[-3000:]
        cells = nbformat.read(executed, as_version=4).cells
        outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
        assert outputs and not [one for one in outputs if one.get("name") == "stderr"], stage
        assert "widget" not in json.dumps(outputs), stage


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """Run a copy of the committed notebooks under strict nbval, with the plain command, and return the run folder."""
    place = tmp_path_factory.mktemp("committed")
    shutil.copytree(NOTEBOOKS, place / "notebooks")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FGTOOLS_", "HF_", "HUGGING"))}
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "notebooks"],
        env=kept | {"CUDA_VISIBLE_DEVICES": ""},  # the committed outputs are those of a machine without a GPU
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )
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
    assert rate(tuned, "right_tool_calls") >= 0.75 and rate(tuned, "ast_match") >= 0.5
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
