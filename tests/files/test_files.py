"""Files: whole writes, hashes of the inputs, and errors that name file and line."""

import contextlib
import os

import gguf
import numpy
import pytest

from fgtools.files import (
    DataFileError,
    read_json,
    read_jsonl,
    render_duration,
    replace_folder,
    sha256_of,
    write_json,
    write_jsonl,
    write_text,
)
from fgtools.gguf import read_gguf


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
    source = write_jsonl(tmp_path / "rows.eval.jsonl", [{"row_id": "a"}])
    path = write_json(tmp_path / "scores.base.json", {"n": 1}, inputs=[source])
    assert read_json(path) == {"n": 1, "inputs": {"rows.eval.jsonl": sha256_of(source)}}


def test_json_lines_are_written_from_objects_and_from_text_alike(tmp_path):
    row = {"row_id": "a", "text": "año \ud800"}
    path = write_jsonl(tmp_path / "rows.jsonl", [row, '{"row_id": "b"}'])
    assert read_jsonl(path) == [row, {"row_id": "b"}]
    assert path.read_bytes().count(b"\n") == 2 and "año".encode() in path.read_bytes()


def test_a_number_that_json_cannot_hold_is_an_error_and_nothing_is_lost(tmp_path):
    path = write_json(tmp_path / "train.json", {"loss": 1.0})
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"loss": 1.0}])
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"loss": float("nan")})
    with pytest.raises(ValueError, match="Out of range float"):
        write_jsonl(rows, [{"loss": 2.0}, {"loss": float("nan")}])
    assert read_json(path)["loss"] == 1.0 and read_jsonl(rows) == [{"loss": 1.0}]


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


def test_the_header_of_a_gguf_file_is_read_as_the_package_gguf_writes_it(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "arch")
    writer.add_array("texts", ["a", "é", ""])
    writer.add_array("numbers", [1.5, -2.0])
    writer.add_bool("yes", True)
    writer.add_tensor("flat", numpy.arange(5, dtype=numpy.float32))
    writer.add_tensor("wide", numpy.arange(6, dtype=numpy.float16).reshape(2, 3))
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    header = read_gguf(tmp_path / "x.gguf")
    assert header.metadata == {
        "general.architecture": "arch",
        "texts": ("a", "é", ""),
        "numbers": (1.5, -2.0),
        "yes": True,
    }
    assert [(one.name, one.shape, one.type) for one in header.tensors] == [("flat", (5,), 0), ("wide", (2, 3), 1)]
    content = (tmp_path / "x.gguf").read_bytes()
    assert content[header.tensors[1].offset :][:4] == b"\0\0\0\x3c"  # 0 and 1 in f16
    for size in range(len(content) - 100):  # wherever it is cut, and whatever is wrong in it
        damaged = bytearray(content[: header.tensors[0].offset])
        damaged[size % len(damaged)] ^= 0xFF
        for part in (content[:size], bytes(damaged)):
            (tmp_path / "damaged.gguf").write_bytes(part)
            with contextlib.suppress(DataFileError):
                read_gguf(tmp_path / "damaged.gguf")
    with pytest.raises(DataFileError, match="must exist"):
        read_gguf(tmp_path / "gone.gguf")


def test_a_folder_in_the_place_of_a_file_is_named_with_what_lies_in_it(tmp_path):
    for name in ("b.jsonl", "a.jsonl", ".hidden"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(
        DataFileError, match=r"must be a file, but is a folder: name the file in it, such as a.jsonl, b"
    ):
        read_jsonl(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFileError, match=r"is a folder: name the file in it$"):
        read_jsonl(tmp_path / "empty")


@pytest.mark.parametrize(("seconds", "said"), [(40.4, "40 s"), (1560, "26 min"), (11100, "3 h 05 min")])
def test_times_are_for_people(seconds, said):
    assert render_duration(seconds) == said
