"""The notebooks run as a papermill chain in both recipes, and the commands make what they make.

The tutorial's recipe by `python -m fgtools run`; the native one by the plain papermill command, notebook by notebook,
where nothing says that nobody watches.
"""

import contextlib
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from fgtools.__main__ import main
from fgtools.files import read_json, read_jsonl, sha256_of
from fgtools.run.folder import RunFolder
from fgtools.run.identity import CONTENT_HASH
from fgtools.run.notebooks import render_summary
from fgtools.run.publish import build_card
from fgtools.run.stages import STAGES
from tests.normal_form import NOTEBOOKS
from tests.test_notebooks import run_plainly

SMALL = ("-p", "N_TOTAL", "150", "-p", "N_EVAL", "20", "-p", "EPOCHS", "0.6")
"""Few rows and two steps: a single one of the tutorial's has rate 0, and teaches nothing."""

RECORDER = Path(__file__).with_name("recorder")

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


def run_by_command(out):
    """Run the series by the command, and return where the executed notebooks lie and what it printed."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert main(["run", "--profile", "offline", "--recipe", "tutorial", "--out", str(out), *SMALL]) == 0
    return out / "notebooks", shown.getvalue()


def run_by_papermill(out):
    """Run notebook after notebook by plain papermill; return where the executed ones lie and no words."""
    given = {"01_setup": SMALL[:6], "04_train": SMALL[6:]}
    executed = out.parent / "notebooks"
    executed.mkdir()
    for stage in STAGES:
        words = [f"{stage}.ipynb", str(executed / f"{stage}.ipynb"), "--start-timeout", "3600"]  # on a busy machine
        words += ["-p", "RUN_DIR", str(out), *given.get(stage, ())]
        outcome = run_plainly("papermill", *words, cwd=NOTEBOOKS, kept=("FGTOOLS_TEST_",))
        assert outcome.returncode == 0, outcome.stderr[-3000:]
    return executed, ""


@pytest.fixture(scope="module")
def chains(tmp_path_factory):
    """Run the series once in each recipe: by recipe the run folder, the notebooks, their words, what each opened."""
    results = {}
    for recipe, run in (("native", run_by_papermill), ("tutorial", run_by_command)):
        folder = tmp_path_factory.mktemp(recipe)
        out, log = folder / "run", folder / "opened.log"
        with pytest.MonkeyPatch.context() as patch:
            set_offline(patch)
            path = os.pathsep.join(filter(None, [str(RECORDER), os.environ.get("PYTHONPATH")]))
            for name, value in {"PYTHONPATH": path, "FGTOOLS_TEST_ROOT": out, "FGTOOLS_TEST_LOG": log}.items():
                patch.setenv(name, str(value))
            notebooks, shown = run(out)
        results[recipe] = SimpleNamespace(out=out, notebooks=notebooks, shown=shown, opened=read_log(log, out))
    return results


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_the_command_ends_with_what_was_made(recipe, chains):
    shown = chains[recipe].shown or render_summary(RunFolder(chains[recipe].out))
    for expected in ("measure", "before", "after", "figures  "):
        assert expected in shown, expected
    assert recipe == "native" or "notebooks   6 in" in shown


def test_a_plain_papermill_run_leaves_no_progress_bar_and_no_widget(chains):
    for stage in STAGES:
        cells = nbformat.read(chains["native"].notebooks / f"{stage}.ipynb", as_version=4).cells
        outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
        assert outputs and not [one for one in outputs if one.get("name") == "stderr"], stage
        assert stage > "05" or "widget" not in json.dumps(outputs), stage


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_the_series_runs_from_raw_rows_to_the_card(recipe, chains):
    out = chains[recipe].out
    assert all((out / name).exists() for stage in STAGES.values() for name in stage.writes)
    scores = [json.loads((out / f"scores.{side}.json").read_text()) for side in ("base", "tuned")]
    assert [row["row_id"] for row in scores[0]["rows"]] == [row["row_id"] for row in scores[1]["rows"]]
    budgets = [one["max_new_tokens"] for one in scores]
    assert budgets == [128, 64] if recipe == "tutorial" else budgets[0] == budgets[1]
    manifest = json.loads((out / "manifest.json").read_text())["sha256"]
    named = {"card.md", "compare.json", "model/model.safetensors", "model/tools.json", "figures/comparison.png"}
    assert named <= set(manifest)
    assert build_card(RunFolder(out)) == (out / "card.md").read_text()  # of the command publish, and of notebook 6
    text = (out / "card.md").read_text() + "".join(path.read_text() for path in out.glob("*.json"))
    assert str(out.parent) not in text


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_the_notebooks_read_and_write_what_the_table_of_stages_says(recipe, chains):
    opened = chains[recipe].opened
    assert len(opened) == len(STAGES)
    for (stage, files), (reads, writes) in zip(STAGES.items(), opened, strict=True):
        assert {*files.reads, *files.checks} <= reads <= {*files.reads, *files.may_read, *files.checks}, stage
        assert {*files.writes} <= writes <= {*files.writes, *files.may_write}, stage


def test_what_the_table_calls_possible_happens_in_a_recipe(chains):
    for place, (stage, files) in enumerate(STAGES.items()):
        reads, writes = (set.union(*(one.opened[place][side] for one in chains.values())) for side in (0, 1))
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
    said = read_outputs(chains[recipe].notebooks)
    own, other = (ONLY_NATIVE, ONLY_TUTORIAL) if recipe == "native" else (ONLY_TUTORIAL, ONLY_NATIVE)
    assert [words for words in own if words not in said] == []
    assert [words for words in other if words in said] == []
    assert "PRE: {'n': " in said and "POST: {'n': " in said


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_commands_make_what_the_notebooks_make(recipe, chains, tmp_path, capsys):
    out = chains[recipe].out
    given = ["--n-total", "150", "--n-eval", "20", "--recipe", recipe, "--out", str(tmp_path)]
    assert main(["prepare", "--data", "sample", *given]) == 0
    for name in ("rows.train.jsonl", "rows.eval.jsonl", "rows.unseen.jsonl"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name
    given = ["--epochs", "0.6", "--recipe", recipe, "--out", str(tmp_path)]
    assert main(["train", "--rows", str(tmp_path), "--model", "standin", "--profile", "offline", *given]) == 0
    for name in ("model.safetensors", "tools.json"):
        assert sha256_of(tmp_path / "model" / name) == sha256_of(out / "model" / name), name
    budget = read_json(out / "scores.tuned.json")["max_new_tokens"]
    given = ["--max-new-tokens", str(budget), "--recipe", recipe, "--name", "tuned", "--out", str(tmp_path)]
    assert (
        main(["evaluate", "--model", str(tmp_path / "model"), "--rows", str(tmp_path / "rows.eval.jsonl"), *given]) == 0
    )
    ours, theirs = (read_jsonl(folder / "replies.tuned.jsonl") for folder in (tmp_path, out))
    for one, other in zip(ours, theirs, strict=True):  # perhaps in other batches: fp32 to 1e-4
        assert one.pop("confidence") == pytest.approx(other.pop("confidence"), abs=1e-4)
    assert ours == theirs
    scores = [read_json(folder / "scores.tuned.json") for folder in (tmp_path, out)]
    without = dict.fromkeys(("inputs", CONTENT_HASH))
    assert {**scores[0], **without} == {**scores[1], **without}


def test_a_chain_can_resume_and_names_what_is_missing(chains, tmp_path, capsys):
    assert main(["run", "--out", str(tmp_path / "run"), "--only", "02"]) == 1
    assert "run 01_setup first" in capsys.readouterr().err
    out = str(chains["tutorial"].out)
    assert main(["run", "--profile", "offline", "--recipe", "tutorial", "--out", out, *SMALL, "--resume"]) == 0
    assert capsys.readouterr().out.count("skipped") == len(STAGES)
