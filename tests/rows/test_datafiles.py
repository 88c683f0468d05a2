"""Local files: every kind gives the same rows, nested columns lose Arrow's fillers, and damage is named by line."""

import csv
import gzip
import json
import os
from pathlib import Path

import pytest

from fgtools.files import DataFileError
from fgtools.rows import build_rows, load_raw_rows
from fgtools.rows.datafiles import JsonLines, SourceError, TableRows, open_local_rows
from tests.clock import measure_time

ROWS = [{"row_id": "0", "tools": "[]"}, {"row_id": "1", "tools": '[{"name": "f, g"}]'}]


def lines_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines_of(ROWS)),
        ("a.jsonl", "\ufeff" + lines_of(ROWS) + "\n\n"),
        ("a.jsonl", lines_of(ROWS).strip()),
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps({"data": ROWS})),
        ("a.json", lines_of(ROWS)),
    ],
)
def test_rows_are_read_whatever_the_file_is_called(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    ((stem, rows),) = open_local_rows(tmp_path / name)
    assert (stem, list(rows), len(rows)) == ("a", ROWS, 2)


def test_csv_and_parquet_hold_the_same_rows(tmp_path):
    import pyarrow
    import pyarrow.parquet

    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["row_id", "tools"])
        writer.writeheader()
        writer.writerows(ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "b.parquet")
    assert [list(rows) for _, rows in open_local_rows(tmp_path)] == [ROWS, ROWS]


def test_lines_are_read_one_by_one_and_in_any_order(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines_of({"n": number} for number in range(9)))
    rows = JsonLines(tmp_path / "a.jsonl")
    assert rows[4] == {"n": 4} and rows[-1] == {"n": 8} and list(rows[2:4]) == [{"n": 2}, {"n": 3}]
    assert [row["n"] for row in rows.select([7, 0, 7])] == [7, 0, 7]


def test_nulls_that_arrow_filled_in_are_no_parameters(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"tools": [{"name": "f", "parameters": {"a": {"type": "string"}}}], "task": None},
        {"tools": [{"name": "g", "parameters": {"b": {"type": "integer"}}}], "task": "t"},
    ]
    table = pyarrow.Table.from_pylist(rows)
    assert table.to_pylist()[0]["tools"][0]["parameters"]["b"] is None  # what Arrow does
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    ((_, read),) = open_local_rows(tmp_path / "a.parquet")
    assert list(read) == rows and read[1] == rows[1] and list(read.select([1, 0])) == rows[::-1]


def test_datasets_json_columns_are_values_again():
    datasets = pytest.importorskip("datasets", minversion="5.0")
    rows = [
        {"tools": [{"name": "f", "p": {"a": 1}}], "mixed": "text", "messages": [{"role": "user", "content": "q"}]},
        {"tools": [{"name": "g", "p": {"b": [None, "s"], "c": None}}], "mixed": {"x": 1}, "messages": []},
    ]
    table = datasets.Dataset.from_list(rows, on_mixed_types="use_json").data.table
    assert list(TableRows(table)) == rows


def test_bfcl_answers_are_joined_by_id(tmp_path):
    questions = [{"id": "simple_0", "question": "Q", "function": []}, {"id": "irrelevance_1", "question": "R"}]
    (tmp_path / "possible_answer").mkdir()
    (tmp_path / "BFCL_v4_simple.json").write_text(lines_of(questions))
    answers = [{"id": "simple_0", "ground_truth": [{"f": {}}]}]
    (tmp_path / "possible_answer" / "BFCL_v4_simple.json").write_text(lines_of(answers))
    ((_, rows),) = open_local_rows(tmp_path)
    assert list(rows) == [{**questions[0], "ground_truth": [{"f": {}}]}, questions[1]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a":\n', r"a\.jsonl, line 2: must be a JSON object"),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"a\.jsonl, line 2: must be a JSON object, got a list"),
        ("a.jsonl", '{"a": 1}\n\n{"a": 1}}\n', r"a\.jsonl, line 3: must be a JSON object, but Extra data"),
        ("a.json", '{"a": 1}', "must hold one JSON list of rows, got a dict"),
        ("a.json", "[", "reading it failed"),
        ("a.parquet", "not parquet", "must be a Parquet file"),
        ("a.csv", "a,b\n1,2,3\n", "row 2: must have as many fields as there are names"),
    ],
)
def test_damage_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataFileError, match=message):
        [list(rows) for _, rows in open_local_rows(tmp_path / name)]


def test_bytes_that_are_no_utf8_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(DataFileError, match=r"a\.jsonl, line 1: must be a JSON object, but .*utf-8"):
        list(JsonLines(tmp_path / "a.jsonl"))


CELLS = [{"request": "Über 7, è vero?", "call": 'f(a="x;y")'}, {"request": "No.", "call": None}]


def csv_text(delimiter):
    lines = [("request", "call"), *((row["request"], row["call"] or "") for row in CELLS)]
    return "".join(delimiter.join('"' + cell.replace('"', '""') + '"' for cell in line) + "\r\n" for line in lines)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", csv_text(",").encode(), ""),
        ("A.CSV", csv_text(";").encode(), "separated by semicolons"),
        ("a.csv", csv_text("\t").encode("utf-8-sig"), "separated by tabs"),
        ("a.tsv", csv_text("\t").encode(), ""),
        ("a.csv", csv_text(",").encode("utf-16"), ""),
        ("a.csv", csv_text(";").encode("cp1252"), "read as Windows-1252"),
        ("a.csv.gz", gzip.compress(csv_text(",").encode(), mtime=0), ""),
        ("a.ndjson", lines_of(CELLS).encode(), ""),
        ("a.JSONL", lines_of(CELLS).encode(), ""),
        ("a.jsonl.gz", gzip.compress(lines_of(CELLS).encode(), mtime=0), ""),
        ("a.json.gz", gzip.compress(json.dumps(CELLS).encode(), mtime=0), ""),
        ("a.json.gz", gzip.compress(lines_of(CELLS).encode(), mtime=0), ""),
        ("a.jsonl", lines_of(CELLS).encode("utf-16"), ""),
        ("a.json", json.dumps({"rows": [{"row_idx": n, "row": row} for n, row in enumerate(CELLS)]}).encode(), ""),
    ],
)
def test_files_are_read_as_people_have_them(tmp_path, capsys, name, content, said):
    (tmp_path / name).write_bytes(content)
    ((stem, rows),) = open_local_rows(tmp_path / name)
    assert (stem.lower(), list(rows)) == ("a", CELLS)
    out = capsys.readouterr().out
    assert said in out if said else not out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,b\n\x00,1\n", "holds zero bytes: save it as UTF-8"),
        ("a.json", b'["\xff"]', "must be UTF-8 text, but byte 2 is not"),
        ("a.csv", b"\xff\xfea", "must be utf-16 text"),
        ("a.csv", b"a\n\x81\n", "must be cp1252 text"),
        ("a.jsonl.gz", b"plain", "must be packed with gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n{', mtime=0)[:-9], "unpacking it failed"),
        ("a.arrow", b"no arrow", "must be an Arrow file"),
    ],
)
def test_other_damage_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataFileError, match=message):
        open_local_rows(tmp_path / name)


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    for path in (tmp_path / "a.jsonl", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(SourceError, match="is a pipe or a device"):
            open_local_rows(path)


def test_what_is_no_data_in_a_folder_is_skipped_and_said(tmp_path, capsys):
    (tmp_path / "b.jsonl").write_text(lines_of(ROWS))
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "README.md").write_text("words")
    (tmp_path / ".hidden.jsonl").write_text("broken")
    (tmp_path / "settings.json").write_text('{"a": 1}')
    (tmp_path / "inner.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert [name for name, _ in open_local_rows(tmp_path)] == ["b"]
    folder = tmp_path.name
    said = "README.md, dataset_info.json, inner.jsonl, pipe.jsonl, settings.json"
    assert capsys.readouterr().out == f"{folder}: skipped {said}, which hold no rows\n"


def test_a_folder_without_data_says_where_some_is(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text(lines_of(ROWS))
    with pytest.raises(SourceError, match="holds none: its folder data holds some, give that one"):
        open_local_rows(tmp_path)
    (tmp_path / "only.json").write_text("{}")
    with pytest.raises(SourceError, match=r"must hold files of rows, but data, only\.json are none"):
        open_local_rows(tmp_path)


def test_a_data_set_saved_to_disk_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(str(tmp_path / "one"))
    saved.shuffle(seed=1).save_to_disk(str(tmp_path / "shuffled"))
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(str(tmp_path / "two"))
    ((name, rows),) = open_local_rows(tmp_path / "one")
    assert (name, list(rows)) == ("one", ROWS)
    ((_, shuffled),) = open_local_rows(tmp_path / "shuffled")
    assert sorted(shuffled, key=str) == sorted(ROWS, key=str)
    with pytest.raises(DataFileError, match="holds the splits test, train: give the folder of one of them"):
        open_local_rows(tmp_path / "two")
    (arrow,) = (tmp_path / "one").glob("*.arrow")
    ((_, rows),) = open_local_rows(arrow)
    assert list(rows) == ROWS


def test_a_long_line_is_not_parsed_but_counted(tmp_path):
    good = {"request": "q", "call": "f()", "tools": [{"name": "f"}]}
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of([good, {**good, "request": "x" * 12_000_000}, good]))
    rows = load_raw_rows(str(path), 0, 40).rows
    with measure_time() as took:
        made = build_rows(rows)
    assert took.seconds < 1.0
    assert made.funnel == {"kept": 2, "too_long": 1}
    assert made.rejected[0].row_id == "line 2" and "longer than 5,000,000 bytes" in made.rejected[0].detail
    made = build_rows([{**good, "tools": "[" + " " * 10_000_000 + "]"}])
    assert made.funnel == {"kept": 0, "too_long": 1} and "tools has 10,000,002 characters" in made.rejected[0].detail
