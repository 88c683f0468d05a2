"""The notebooks run: as a papermill chain in both recipes, and as committed under the plain nbval command."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from fgtools.__main__ import main
from fgtools.files import read_json, read_jsonl, sha256_of
from fgtools.run.stages import STAGES
from tests.normal_form import NOTEBOOKS

SMALL = ("-p", "N_TOTAL", "150", "-p", "N_EVAL", "20", "-p", "EPOCHS", "0.3")

RECORDER = Path(__file__).with_name("recorder")


UNSET = ("FGTOOLS_", "HF_", "HUGGING", "KAGGLE_", "JPY_", "COLAB_")
"""Prefixes of environment variables that nobody has set who types a command in a fresh clone."""

ONLY_NATIVE = ("at labelled positions", "held out to choose", "split by group", "loss: completion")
"""What is said under the native recipe alone, in the outputs of its notebooks."""

ONLY_TUTORIAL = (
    "train: 130 eval: 20",
    "split by rows",
    "loss: all",
    "for the curve",
    "{args:<escape>{",
    "as in the tutorial",
)
"""The same for the tutorial recipe."""


def set_offline(patch):
    for name in ("HUGGINGFACE_TOKEN", "HF_TOKEN"):
        patch.delenv(name, raising=False)
    for name, value in {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "FGTOOLS_BATCH": "1"}.items():
        patch.setenv(name, value)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    set_offline(monkeypatch)


def read_log(path, out):
    """What each notebook read and wrote, in the order of the notebooks: top names below the run folder."""
    kernels = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        kernel, action, name = line.split(" ", 2)
        reads, writes = kernels.setdefault(kernel, (set(), set()))
        if name.startswith(".") or not (out / name).exists():  # temporary: gone when the stage is over
            continue
        if action == "write":
            writes.add(name)
        elif name not in writes:
            reads.add(name)
    return list(kernels.values())


@pytest.fixture(scope="module")
def chains(tmp_path_factory):
    """Run the series once in each recipe: by recipe the run folder, what was printed, and what each notebook opened."""
    results = {}
    for recipe in ("native", "tutorial"):
        folder = tmp_path_factory.mktemp(recipe)
        out, log, shown = folder / "run", folder / "opened.log", io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
            set_offline(patch)
            path = os.pathsep.join(filter(None, [str(RECORDER), os.environ.get("PYTHONPATH")]))
            for name, value in {"PYTHONPATH": path, "FGTOOLS_TEST_ROOT": out, "FGTOOLS_TEST_LOG": log}.items():
                patch.setenv(name, str(value))
            assert main(["run", "--profile", "offline", "--recipe", recipe, "--out", str(out), *SMALL]) == 0
        results[recipe] = out, shown.getvalue(), read_log(log, out)
    return results


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_the_series_runs_from_raw_rows_to_the_card(recipe, chains):
    out, shown, _ = chains[recipe]
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
    assert str(out.parent) not in text


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_the_notebooks_read_and_write_what_the_table_of_stages_says(recipe, chains):
    opened = chains[recipe][2]
    assert len(opened) == len(STAGES)
    for (stage, files), (reads, writes) in zip(STAGES.items(), opened, strict=True):
        assert {*files.reads} <= reads <= {*files.reads, *files.may_read}, stage
        assert {*files.writes} <= writes <= {*files.writes, *files.may_write}, stage


def test_what_the_table_calls_possible_happens_in_a_recipe(chains):
    for place, (stage, files) in enumerate(STAGES.items()):
        reads, writes = (set.union(*(opened[place][side] for _, _, opened in chains.values())) for side in (0, 1))
        assert {*files.may_read} <= reads and {*files.may_write} <= writes, stage


def read_outputs(folder):
    """The outputs of executed notebooks as text, all but those of the first, which compares the recipes."""
    texts = []
    for stage in list(STAGES)[1:]:
        cells = nbformat.read(folder / f"{stage}.ipynb", as_version=4).cells
        outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
        texts += [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join(texts)


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_what_the_notebooks_say_is_true_under_their_recipe(recipe, chains):
    said = read_outputs(chains[recipe][0] / "notebooks")
    own, other = (ONLY_NATIVE, ONLY_TUTORIAL) if recipe == "native" else (ONLY_TUTORIAL, ONLY_NATIVE)
    assert [words for words in own if words not in said] == []
    assert [words for words in other if words in said] == []
    assert "PRE: {'n': " in said and "POST: {'n': " in said


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_commands_make_what_the_notebooks_make(recipe, chains, tmp_path, capsys):
    out = chains[recipe][0]
    given = ["--n-total", "150", "--n-eval", "20", "--recipe", recipe, "--out", str(tmp_path)]
    assert main(["prepare", "--data", "sample", *given]) == 0
    for name in ("rows.train.jsonl", "rows.eval.jsonl", "rows.unseen.jsonl"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name
    given = ["--epochs", "0.3", "--recipe", recipe, "--out", str(tmp_path)]
    assert main(["train", "--rows", str(tmp_path), "--model", "standin", "--profile", "offline", *given]) == 0
    assert sha256_of(tmp_path / "model" / "model.safetensors") == sha256_of(out / "model" / "model.safetensors")
    budget = read_json(out / "scores.tuned.json")["max_new_tokens"]
    given = ["--max-new-tokens", str(budget), "--recipe", recipe, "--name", "tuned", "--out", str(tmp_path)]
    assert (
        main(["evaluate", "--model", str(tmp_path / "model"), "--rows", str(tmp_path / "rows.eval.jsonl"), *given]) == 0
    )
    assert read_jsonl(tmp_path / "replies.tuned.jsonl") == read_jsonl(out / "replies.tuned.jsonl")
    scores = [read_json(folder / "scores.tuned.json") for folder in (tmp_path, out)]
    assert {**scores[0], "inputs": ""} == {**scores[1], "inputs": ""}


def test_a_chain_can_resume_and_names_what_is_missing(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["run", "--out", str(out), "--only", "02"]) == 1
    assert "run 01_setup first" in capsys.readouterr().err
    for _ in range(2):
        assert main(["run", "--profile", "offline", "--out", str(out), "--only", "01", "--resume"]) == 0
    assert "skipped" in capsys.readouterr().out


def run_plainly(*words, cwd):
    """Run a module as anyone would, on a machine without a GPU: the committed outputs are those of one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(UNSET)}
    command = [sys.executable, "-m", *words]
    environment = kept | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=cwd)


def test_a_plain_papermill_run_leaves_no_progress_bar_and_no_widget(tmp_path):
    given = ["-p", "RUN_DIR", str(tmp_path / "run")]
    sizes = {"01_setup": ["-p", "N_TOTAL", "60", "-p", "N_EVAL", "8"], "04_train": ["-p", "EPOCHS", "0.5"]}
    for stage in list(STAGES)[:4]:
        more = sizes.get(stage, [])
        executed = tmp_path / f"{stage}.ipynb"
        outcome = run_plainly("papermill", f"{stage}.ipynb", str(executed), *given, *more, cwd=NOTEBOOKS)
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
    outcome = run_plainly("pytest", "-q", "-p", "no:cacheprovider", "--nbval", "notebooks", cwd=place)
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
