"""The runner of the series: which stages, which parameters, what a failure leaves behind, what resuming skips."""

import os

import nbformat
import pytest

from fgtools.files import FileError, write_text
from fgtools.run import notebooks as pipeline
from fgtools.run.notebooks import PipelineError, StageError, run_series, select_stages
from fgtools.run.parameters import ParameterError
from fgtools.run.stages import STAGES, Stage


def write_notebook(folder, stage, source, parameters='RUN_DIR: str = ""  # where'):
    cell = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(notebook, folder / f"{stage}.ipynb")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Two stages: one counts how often it runs, the other fails when told to."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    count = "from pathlib import Path\np = Path(RUN_DIR, 'run.json')\nold = int(p.read_text()) if p.exists() else 0\n"
    write_notebook(
        folder, "01_setup", count + "p.write_text(str(old + 1))", 'RUN_DIR: str = ""  # a\nSEED: int = 1  # b'
    )
    write_notebook(
        folder,
        "02_data",
        "if FAIL: raise ValueError('rows are bad')",
        'RUN_DIR: str = ""  # a\nFAIL: bool = False  # b',
    )
    table = {"01_setup": Stage(writes=("run.json",)), "02_data": Stage(reads=("run.json",), may_read=("extra.json",))}
    monkeypatch.setattr(pipeline, "STAGES", table)
    return folder


def test_stages_are_chosen_by_number_or_name_and_run_in_order():
    assert select_stages([]) == tuple(STAGES)
    assert select_stages(["05_post_eval", "2"]) == ("02_data", "05_post_eval")
    with pytest.raises(PipelineError, match=r"--only takes the stages 01_setup.*got '7'"):
        select_stages(["7"])


def test_an_unknown_parameter_is_an_error_before_anything_runs(toy, tmp_path):
    with pytest.raises(ParameterError, match="'N_EVALS' is not a parameter of 01_setup, 02_data: they take FAIL, "):
        run_series(tmp_path / "out", {"N_EVALS": 3}, folder=toy)
    assert not (tmp_path / "out" / "notebooks").exists()


def test_a_failing_cell_is_named_and_the_executed_copy_stays(toy, tmp_path):
    with pytest.raises(StageError, match=r"02_data failed in cell \d+: ValueError: rows are bad"):
        run_series(tmp_path / "out", {"FAIL": True}, folder=toy)
    assert (tmp_path / "out" / "notebooks" / "02_data.ipynb").exists()
    assert (tmp_path / "out" / "run.json").read_text() == "1"


def test_resuming_skips_only_what_is_unchanged(toy, tmp_path):
    out = tmp_path / "out"
    run_series(out, folder=toy)
    again = run_series(out, folder=toy, resume=True)
    assert again == {"01_setup": 0, "02_data": 0}
    changed = run_series(out, {"SEED": 5}, folder=toy, resume=True)
    assert all(changed.values())  # a new run.json is a new input of 02_data
    assert not any(run_series(out, {"SEED": 5}, folder=toy, resume=True).values())
    (out / "extra.json").write_text("{}")  # what a stage reads when it is there is an input, too
    assert [*map(bool, run_series(out, {"SEED": 5}, folder=toy, resume=True).values())] == [False, True]
    (out / "run.json").unlink()
    assert run_series(out, {"SEED": 5}, folder=toy, resume=True)["01_setup"]


def test_resuming_runs_a_stage_whose_notebook_or_code_changed(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "PACKAGE", tmp_path / "package")
    write_text(tmp_path / "package" / "module.py", "a = 1")

    def is_skipped():
        return not run_series(tmp_path / "out", only=["01"], resume=True, folder=toy)["01_setup"]

    assert [is_skipped(), is_skipped()] == [False, True]
    write_text(tmp_path / "package" / "module.py", "a = 2")
    assert [is_skipped(), is_skipped()] == [False, True]
    notebook = toy / "01_setup.ipynb"
    write_text(notebook, notebook.read_text().replace("# a", "# changed"))
    assert [is_skipped(), is_skipped()] == [False, True]


def test_the_environment_is_as_before_when_the_series_is_over(toy, tmp_path, monkeypatch):
    monkeypatch.delenv("FGTOOLS_BATCH", raising=False)
    monkeypatch.setenv("MPLBACKEND", "agg")
    run_series(tmp_path / "out", only=["01"], folder=toy)
    assert "FGTOOLS_BATCH" not in os.environ and os.environ["MPLBACKEND"] == "agg"


def test_a_kernel_that_is_killed_is_a_failed_stage(toy, tmp_path):
    write_notebook(toy, "01_setup", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(StageError, match="01_setup failed, since its kernel was ended from outside, most often"):
        run_series(tmp_path / "out", only=["01"], folder=toy)


def test_without_notebooks_the_message_says_where_to_run(tmp_path):
    with pytest.raises(PipelineError, match=r"the notebooks must lie in .*: install the wheel, or run from a clone"):
        run_series(tmp_path / "out", folder=tmp_path / "nowhere")


def test_a_file_in_the_place_of_the_run_folder_is_an_error(toy, tmp_path):
    write_text(tmp_path / "out", "")
    with pytest.raises(FileError, match=r"RUN_DIR, --out\) must be a folder"):
        run_series(tmp_path / "out", folder=toy)


def test_lines_of_progress_are_shown_while_a_notebook_runs(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    said = ("estimate: about 2 min", "no progress", "step     1/34  0.40 rows/s, about 3 min left", "step  eval loss")
    write_notebook(folder, "01_setup", "\n".join(f"print({line!r}, flush=True)" for line in said))
    monkeypatch.setattr(pipeline, "STAGES", {"01_setup": Stage()})
    run_series(tmp_path / "out", folder=folder)
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("  ")] == [f"  {said[0]}", f"  {said[2]}"]
