"""What resuming runs again: by the contents of what went into a stage and of what it left, and by nothing else."""

import json
import os

import pytest

from fgtools.files import write_text
from fgtools.run import notebooks as pipeline
from fgtools.run.identity import hash_artifact
from fgtools.run.record import hash_package, load_records
from fgtools.run.stages import STAGES
from tests.hash_matrix import MAKERS, SOURCES, FakeSeries, damage, list_dependents


@pytest.fixture
def series(tmp_path):
    whole = FakeSeries(tmp_path)
    assert whole.resume() == list(STAGES) and whole.resume() == []
    return whole


def test_the_matrix_holds_every_artifact_of_the_table():
    named = {name.partition("/")[0] for name in MAKERS} - {"notebooks"}
    assert named == {name for files in STAGES.values() for name in (*files.writes, *files.may_write)}


@pytest.mark.parametrize("how", ["edited", "deleted"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_damaged_artifact_is_made_again_by_its_own_stage(name, how, series):
    before = hash_artifact(series.root / name)
    damage(series.root / name, how)
    assert series.resume() == [MAKERS[name]]  # it comes out the same, so nothing else depends on another file now
    assert hash_artifact(series.root / name) == before and series.resume() == []
    verb = "has changed" if how == "edited" else "is gone"
    assert f"{MAKERS[name]}  runs, since its output {name} {verb}" in series.said or not series.ran


@pytest.mark.parametrize("name", MAKERS)
def test_what_depends_on_an_artifact_that_comes_out_otherwise_is_made_again_too(name, series):
    damage(series.root / name, "deleted")
    series.round = 1
    assert series.resume() == list_dependents(MAKERS[name])
    assert series.resume() == []


@pytest.mark.parametrize(("name", "first"), [("DATA", "01"), ("TOOLS", "01"), ("MODEL", "01"), ("BENCHMARK", "02")])
def test_a_changed_source_runs_what_reads_it_and_what_follows(name, first, series):
    damage(series.folder / SOURCES[name], "edited")
    assert series.resume() == [stage for stage in STAGES if stage[:2] >= first]
    assert f"runs, since what {name} names has changed" in series.said and series.resume() == []


def test_an_edit_that_keeps_size_and_time_is_found(series):
    path = series.root / "model" / "model.safetensors"
    about = path.stat()
    damage(path, "edited")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert path.stat().st_size == about.st_size and series.resume() == ["04_train"]


def test_a_run_folder_that_is_renamed_linked_or_touched_is_the_same(series):
    moved = series.root.rename(series.folder / "elsewhere")
    assert series.resume(moved) == []
    (series.folder / "link").symlink_to(moved)
    assert series.resume(series.folder / "link") == []
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    assert series.resume(moved) == []


def test_what_is_gone_is_named_with_how_much_else(series):
    for name in ("config.json", "model.safetensors"):
        (series.root / "model" / name).unlink()
    assert series.resume() == ["04_train"]
    assert "since its output model/config.json is gone, and 1 more" in series.said


def test_a_changed_parameter_is_named(series):
    series.parameters["04_train"]["EPOCHS"] = 2.0
    assert series.resume() == ["04_train"]  # its contents do not depend on it here
    assert "since EPOCHS was 'not given' and is 2.0" in series.said


def test_a_record_that_cannot_be_read_is_none(series):
    write_text(series.root / "stages.json", '{"01_setup": "a hash of an older version", "02_data": {"code": 1}}')
    assert load_records(series.root) == {}
    assert series.resume() == list(STAGES) and "since it was not completed before" in series.said
    write_text(series.root / "stages.json", "{")
    assert load_records(series.root) == {}


def test_a_file_that_only_an_earlier_run_made_is_deleted_and_said(series, monkeypatch):
    monkeypatch.delitem(MAKERS, "scores.base.unseen.json")
    damage(series.root / "scores.base.json", "deleted")
    assert series.resume() == ["03_baseline", "05_post_eval", "06_publish"]
    assert "03_baseline  scores.base.unseen.json deleted: an earlier run left it, and this one has none" in series.said
    assert not (series.root / "scores.base.unseen.json").exists() and series.resume() == []


def test_the_manifest_lists_what_lies_there_although_notebook_6_did_not_run(series):
    damage(series.root / "self_check.json", "deleted")
    assert series.resume() == ["03_baseline"]
    listed = json.loads((series.root / "manifest.json").read_text())["sha256"]
    assert listed["self_check.json"] == hash_artifact(series.root / "self_check.json")
    assert series.resume() == []


def test_what_changes_while_a_stage_runs_is_a_change(series, monkeypatch):
    plain = series._execute

    def execute(notebook, run, *given):
        plain(notebook, run, *given)
        if notebook.stem == "04_train":
            write_text(run.root / "rows.train.jsonl", "other rows")

    damage(series.root / "train.json", "deleted")
    monkeypatch.setattr(series, "_execute", execute)
    assert series.resume() == ["04_train", "05_post_eval", "06_publish"]  # both read the rows, the training before
    monkeypatch.undo()
    assert series.resume() == ["02_data", "05_post_eval", "06_publish"]  # the rows are again those of the training


def test_of_run_json_the_settings_count_and_of_a_notebook_its_cells(tmp_path):
    saved = {"seed": 40, "written": "9:00", "device": "cpu", "environment": {}, "sources": {"data": "a"}}
    one, two, three = (write_text(tmp_path / name / "run.json", "") for name in "abc")
    write_text(one, json.dumps(saved))
    write_text(two, json.dumps({**saved, "written": "9:01", "device": "cuda"}, indent=2))
    write_text(three, json.dumps({**saved, "sources": {"data": "b"}}))
    assert hash_artifact(one) == hash_artifact(two) != hash_artifact(three)
    cell = {"cell_type": "code", "source": "a\nb", "outputs": [{"output_type": "stream", "text": "x"}], "metadata": {}}
    saved_again = {**cell, "source": ["a\n", "b"], "metadata": {"scrolled": True}, "id": "new", "execution_count": 3}
    edited = {**cell, "outputs": [{"output_type": "stream", "text": "y"}]}
    texts = [json.dumps({"cells": [one], "metadata": {}}) for one in (cell, saved_again, edited)]
    hashes = [hash_artifact(write_text(tmp_path / f"{number}.ipynb", text)) for number, text in enumerate(texts)]
    assert hashes[0] == hashes[1] != hashes[2]
    for broken in ("{", "[]", '{"cells": [1]}'):
        assert hash_artifact(write_text(tmp_path / "x.ipynb", broken))


def test_the_package_is_known_by_its_programs_and_what_it_brings_along(tmp_path):
    write_text(tmp_path / "module.py", "a = 1")
    write_text(tmp_path / "weights.bin", "1")
    before = hash_package(tmp_path)
    write_text(tmp_path / "__pycache__" / "module.pyc", "x")
    write_text(tmp_path / "notebooks" / "01_setup.ipynb", "{}")
    assert hash_package(tmp_path) == before
    write_text(tmp_path / "weights.bin", "2")
    assert hash_package(tmp_path) != before


def test_a_relative_path_of_a_file_is_told_to_notebooks_as_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "bench.jsonl", "{}")
    assert pipeline._find_file("BENCHMARK", "bench.jsonl") == str(tmp_path / "bench.jsonl")
    assert pipeline._find_file("BENCHMARK", "none.jsonl") == "none.jsonl"
    assert pipeline._find_file("SEED", "bench.jsonl") == "bench.jsonl"
