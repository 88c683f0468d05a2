"""Raw rows: the order the tutorial's shuffle gives, local files, and errors that name file, line and remedy."""

import json

import pytest

from fgtools.artifacts import DataFileError
from fgtools.sources import SourceError, load_local_rows, load_raw_rows, shuffled_order


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_order_is_that_of_datasets_shuffle():
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"row": [f"r{i}" for i in range(57)]})
    assert [f"r{i}" for i in shuffled_order(57, 40)] == dataset.shuffle(seed=40)["row"][:]


def test_rows_of_local_files_are_taken_in_that_order_and_keep_missing_keys_missing(tmp_path):
    rows = [{"row_id": str(i), "tools": [{"name": "f"}] if i % 2 else [{"description": "d"}]} for i in range(20)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    raw = load_raw_rows(str(path), n_total=5, seed=40)
    assert [row["row_id"] for row in raw.rows] == [str(i) for i in shuffled_order(20, 40)[:5]]
    assert (raw.available, raw.origin) == (20, "rows.jsonl")
    assert all(row in rows for row in raw.rows)


def test_a_row_without_id_gets_its_position(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"task": "a"}, {"task": "b"}])
    assert {(row["row_id"], row["task"]) for row in load_raw_rows(str(path), 2, 40).rows} == {("0", "a"), ("1", "b")}


def test_json_parquet_and_folders_hold_the_same_rows(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"row_id": "0", "tools": "[]"}, {"row_id": "1", "tools": "[]"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "b.parquet")
    assert load_local_rows(tmp_path / "a.json") == load_local_rows(tmp_path / "b.parquet") == rows
    assert load_local_rows(tmp_path) == rows + rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", '{"a": 1}\n{"a":\n', r"rows\.jsonl, line 2: must be a JSON object"),
        ("rows.json", '{"a": 1}', "must hold one JSON list of rows, got a dict"),
        ("rows.json", "[", "reading it failed"),
        ("rows.parquet", "not parquet", "must be a Parquet file"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataFileError, match=message):
        load_raw_rows(str(path), 10, 40)


@pytest.mark.parametrize("data", ["missing.jsonl", "./missing", "nothing", "a/b/c"])
def test_missing_data_is_named_with_what_would_do(data):
    with pytest.raises(SourceError, match=f"DATA must be 'sample'.*got '{data}', which does not exist"):
        load_raw_rows(data, 10, 40)


def test_empty_data_is_an_error(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(SourceError, match="must hold at least one row"):
        load_raw_rows(str(tmp_path / "rows.jsonl"), 10, 40)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="but it holds none"):
        load_raw_rows(str(tmp_path / "folder"), 10, 40)
    with pytest.raises(ValueError, match="N_TOTAL must be at least 1, got 0"):
        load_raw_rows("sample", 0, 40)


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "rows.txt").write_text("x")
    with pytest.raises(SourceError, match=r"must end in one of .*got '\.txt'"):
        load_raw_rows(str(tmp_path / "rows.txt"), 10, 40)


def test_a_hub_that_cannot_be_reached_is_a_clear_error(monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        SourceError, match=r"'owner/data' could not be loaded \(ConnectionError\).*internet on.*local file"
    ):
        load_raw_rows("owner/data", 10, 40)


def test_a_hub_data_set_is_shuffled_as_the_tutorial_shuffles_it(monkeypatch):
    import datasets

    hub = datasets.Dataset.from_dict({"task": [f"t{i}" for i in range(30)]})
    monkeypatch.setattr(datasets, "load_dataset", lambda data, split: hub)
    raw = load_raw_rows("owner/data", 10, 40)
    assert [row["task"] for row in raw.rows] == hub.shuffle(seed=40).select(range(10))["task"][:]
    assert [row["row_id"] for row in raw.rows] == [str(i) for i in shuffled_order(30, 40)[:10]]
