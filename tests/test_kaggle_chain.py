"""The six kernels on a simulated Kaggle, each on the read-only outputs of those before it, up to a publication."""

import json
from dataclasses import asdict

import nbformat
import pytest

from fgtools.files import write_text
from fgtools.profiles import RECIPES
from fgtools.run.folder import RunFolder
from fgtools.run.kaggle_build import Build
from fgtools.run.kaggle_metadata import RUN_ALL
from fgtools.run.publish import build_card
from fgtools.run.stages import STAGES
from tests.hub_server import HubServer
from tests.kaggle_session import LAYOUTS, OWNER, SECRET, KernelError, build_small, run_chain

REPO = f"{OWNER}/my-tools"


def allow_toys(notebook):
    """Put a cell before the card that lets notebook 6 publish the stand-in, whose weights are too few otherwise."""
    content = nbformat.read(notebook, as_version=4)
    place = next(number for number, cell in enumerate(content.cells) if "publish_model(" in cell.source)
    patch = "import fgtools.run.publish\n\nfgtools.run.publish.MIN_WEIGHTS = 0"
    content.cells.insert(place, nbformat.v4.new_code_cell(patch))
    nbformat.write(content, notebook)


def run_series(tmp_path, layout, recipe):
    """Run the six kernels and return their runs by name, and the hub that the last one published to."""
    built = build_small(tmp_path / "build", {"RECIPE": recipe, "REPO_ID": REPO, "DRY_RUN": "False"})
    allow_toys(built / "06_publish" / "06_publish.ipynb")
    with HubServer({SECRET: OWNER}) as hub:
        online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        runs = {run.name: run for run in run_chain(built, tmp_path, layout, variables=online)}
    print("\n".join(f"{layout} {recipe} {run.name} {run.seconds:.1f} s" for run in runs.values()))
    return runs, hub


def check_series(runs, hub, recipe):
    assert [*runs] == [*STAGES]
    for name, run in runs.items():
        held = {path.name for path in (run.output / "run").iterdir()}
        assert {*STAGES[name].writes} <= held, name
        assert SECRET not in run.notebook and not any(
            SECRET.encode() in path.read_bytes() for path in run.output.rglob("*") if path.is_file()
        )
    assert not (runs["05_post_eval"].output / "run" / "model").exists()  # what is attached is not copied
    assert json.loads((runs["01_setup"].output / "run" / "run.json").read_text())["recipe"] == recipe
    published = hub.repositories[REPO]
    card = published.files["README.md"].decode()
    assert published.private and "offline stand-in" in card
    attached = tuple(runs[name].output / "run" for name in [*STAGES][:-1])
    last = RunFolder(runs["06_publish"].output / "run", attached)
    assert card == (last.root / "card.md").read_text() == build_card(last, REPO)  # the last is the command's
    listed = {*json.loads((last.root / "manifest.json").read_text())["sha256"]}
    assert {"rows.train.jsonl", "model/model.safetensors", "scores.tuned.json", "card.md"} <= listed
    drawn = {f"figures/{path.name}" for run in runs.values() for path in (run.output / "run" / "figures").glob("*.png")}
    assert drawn == {name for name in published.files if name.startswith("figures/")} and len(drawn) > 8
    tuned = runs["04_train"].output / "run" / "model" / "config.json"
    assert published.files["config.json"] == tuned.read_bytes()


@pytest.mark.kaggle
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_six_kernels_run_one_after_the_other_and_publish(tmp_path, layout, recipe):
    check_series(*run_series(tmp_path, layout, recipe), recipe)


@pytest.mark.kaggle
def test_one_kernel_runs_the_whole_series_in_one_session(tmp_path):
    built = build_small(tmp_path / "build", {})
    (run,) = run_chain(built, tmp_path, "new", (RUN_ALL,))
    held = {path.name for path in (run.output / "run").iterdir()}
    assert {name for stage in STAGES.values() for name in stage.writes} <= held
    assert "AST match" in run.notebook and "image/png" in run.notebook


@pytest.mark.parametrize("code", ["1 / 0", "from pathlib import Path\nPath('/kaggle/input/mine').write_text('')"])
def test_a_kernel_that_fails_or_changes_its_inputs_is_told(tmp_path, code):
    build = Build("ann", "1", "ann/x", {"a": "ann/a"}, {}, (), (), {})
    metadata = {"code_file": "a.ipynb", "dataset_sources": ["ann/x"], "kernel_sources": []}
    folder = tmp_path / "build"
    (folder / "data_set").mkdir(parents=True)
    write_text(folder / "build.json", json.dumps(asdict(build)))
    write_text(folder / "a" / "kernel-metadata.json", json.dumps(metadata))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(notebook, folder / "a" / "a.ipynb")
    with pytest.raises(KernelError, match=r"a failed|a changed what was attached"):
        list(run_chain(folder, tmp_path, "new"))
