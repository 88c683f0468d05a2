"""The run folder: whole writes, provenance, and errors that name the next step."""

import json

import pytest

from fgtools.files import FileError, sha256_of, write_text
from fgtools.run.folder import MissingArtifactError, RunFolder, open_run


def test_a_missing_input_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(MissingArtifactError, match=r"rows\.train\.jsonl must be there .* run 02_data first"):
        RunFolder(tmp_path).find("rows.train.jsonl")


def test_what_the_folder_lacks_is_taken_from_its_inputs(tmp_path):
    attached = tmp_path / "02-data" / "run"
    write_text(attached / "rows.eval.jsonl", '{"row_id": "a"}\n')
    write_text(attached / "model" / "config.json", "{}")
    run = RunFolder(tmp_path / "working", (attached,))
    assert run.read_rows("rows.eval.jsonl") == [{"row_id": "a"}]
    assert run.find("model") == attached / "model"
    write_text(run.root / "rows.eval.jsonl", "own")
    assert run.find("rows.eval.jsonl").read_text() == "own"


def test_a_folder_without_a_model_is_no_input(tmp_path):
    (tmp_path / "input" / "model").mkdir(parents=True)
    with pytest.raises(MissingArtifactError, match="run 04_train first"):
        RunFolder(tmp_path / "working", (tmp_path / "input",)).find("model")


def test_json_records_its_inputs_by_name_and_by_path(tmp_path):
    run = RunFolder(tmp_path / "run")
    source = run.write_rows("rows.eval.jsonl", [{"row_id": "a"}])
    other = write_text(tmp_path / "other.txt", "x")
    run.write_json("scores.base.json", {"n": 1}, inputs=["rows.eval.jsonl", other])
    hashes = {"rows.eval.jsonl": sha256_of(source), "other.txt": sha256_of(other)}
    assert run.read_json("scores.base.json") == {"n": 1, "inputs": hashes}


def test_the_manifest_lists_every_file_once(tmp_path):
    run = RunFolder(tmp_path)
    write_text(tmp_path / "model" / "config.json", "{}")
    write_text(tmp_path / "notebooks" / "01_setup.ipynb", "{}")
    write_text(tmp_path / "stages.json", "{}")
    run.write_manifest()
    run.write_manifest()
    listed = json.loads((tmp_path / "manifest.json").read_text())["sha256"]
    assert listed == {"model/config.json": sha256_of(tmp_path / "model" / "config.json")}


def test_the_manifest_lists_what_lies_in_attached_folders_too(tmp_path):
    first, last = tmp_path / "02", tmp_path / "06"
    for path in (first / "run.json", first / "figures" / "a.png", last / "run.json", last / "card.md"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.parent.name)
    run = RunFolder(last, (first,))
    listed = json.loads(run.write_manifest().read_text())["sha256"]
    assert [*listed] == ["card.md", "figures/a.png", "run.json"]
    assert listed["run.json"] == sha256_of(last / "run.json")


def test_the_run_folder_is_found_without_a_parameter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setenv("FGTOOLS_RUN_DIR", str(tmp_path / "elsewhere"))
    assert open_run().root == tmp_path / "elsewhere"
    monkeypatch.delenv("FGTOOLS_RUN_DIR")
    assert open_run().root.as_posix() == "runs/offline"
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"RUN_DIR, --out\) must be a folder"):
        open_run(tmp_path / "file")
