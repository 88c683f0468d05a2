"""Local files: every kind gives the same rows, nested columns lose Arrow's fillers, and damage is named by line."""

import csv
import json

import pytest

from fgtools.files import DataFileError
from fgtools.rows.datafiles import JsonLines, TableRows, open_local_rows

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
