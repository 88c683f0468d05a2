"""The run folder: whole writes, provenance, and errors that name the next step."""

import json
import os

import pytest

from fgtools.files import DataFileError, read_json, read_jsonl, replace_folder, sha256_of, write_text
from fgtools.run.folder import MADE_BY, MissingArtifactError, RunFolder, open_run


def test_a_missing_input_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(MissingArtifactError, match=r"rows\.train\.jsonl must be there .* run 02_data first"):
        RunFolder(tmp_path).find("rows.train.jsonl")


def test_inputs_of_attached_notebooks_are_found_by_name(tmp_path):
    attached = tmp_path / "input" / "notebooks" / "someone" / "02-data" / "run"
    write_text(attached / "rows.eval.jsonl", '{"row_id": "a"}\n')
    write_text(attached / "model" / "config.json", "{}")
    run = RunFolder(tmp_path / "working", (tmp_path / "input",))
    assert run.read_rows("rows.eval.jsonl") == [{"row_id": "a"}]
    assert run.find("model") == attached / "model"


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    target = write_text(tmp_path / "funnel.json", "old")
    monkeypatch.setattr(os, "replace", _fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["funnel.json"]


def _fail(*_):
    raise OSError("disk full")


def test_json_records_the_hashes_of_its_inputs(tmp_path):
    run = RunFolder(tmp_path)
    source = run.write_rows("rows.eval.jsonl", [{"row_id": "a", "text": "año \ud800"}])
    run.write_json("scores.base.json", {"n": 1}, inputs=["rows.eval.jsonl"])
    assert run.read_json("scores.base.json") == {"n": 1, "inputs": {"rows.eval.jsonl": sha256_of(source)}}
    assert run.read_rows("rows.eval.jsonl")[0]["text"] == "año \ud800"


def test_a_number_that_json_cannot_hold_is_an_error_and_nothing_is_lost(tmp_path):
    run = RunFolder(tmp_path)
    run.write_json("train.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="Out of range float"):
        run.write_json("train.json", {"loss": float("nan")})
    assert run.read_json("train.json")["loss"] == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\nnot json\n', r"rows\.jsonl, line 2: must be a JSON object"),
        ('{"a": 1}\n\n[1]\n', r"rows\.jsonl, line 3: must be a JSON object, got a list"),
        ("[" * 100_000, r"line 1: must be a JSON object"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataFileError, match=message):
        read_jsonl(path)


def test_text_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DataFileError, match="must be UTF-8 text, but byte 7 is not"):
        read_jsonl(path)


def test_missing_and_foreign_json_files_are_named(tmp_path):
    with pytest.raises(DataFileError, match=r"run\.json must exist"):
        read_json(tmp_path / "run.json")
    write_text(tmp_path / "run.json", "[1]")
    with pytest.raises(DataFileError, match="must hold one JSON object, got a list"):
        read_json(tmp_path / "run.json")
    write_text(tmp_path / "run.json", "{")
    with pytest.raises(DataFileError, match="reading it failed"):
        read_json(tmp_path / "run.json")


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    write_text(tmp_path / "model" / "old.bin", "old")
    write_text(tmp_path / "new" / "new.bin", "new")
    replace_folder(tmp_path / "new", tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_the_manifest_lists_every_file_once(tmp_path):
    run = RunFolder(tmp_path)
    write_text(tmp_path / "model" / "config.json", "{}")
    write_text(tmp_path / "notebooks" / "01_setup.ipynb", "{}")
    run.write_manifest()
    run.write_manifest()
    listed = json.loads((tmp_path / "manifest.json").read_text())["sha256"]
    assert listed == {"model/config.json": sha256_of(tmp_path / "model" / "config.json")}


def test_the_run_folder_is_found_without_a_parameter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setenv("FGTOOLS_RUN_DIR", str(tmp_path / "elsewhere"))
    assert open_run().root == tmp_path / "elsewhere"
    monkeypatch.delenv("FGTOOLS_RUN_DIR")
    assert open_run().root.as_posix() == "runs/offline"
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="RUN_DIR must be a folder"):
        open_run(tmp_path / "file")


def test_every_handed_over_file_has_one_maker():
    assert set(MADE_BY.values()) == {"01_setup", "02_data", "03_baseline", "04_train", "05_post_eval", "06_publish"}
