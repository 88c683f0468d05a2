"""Raw rows: the order the tutorial's shuffle gives, local files, and errors that name file, line and remedy."""

import json

import pytest

from fgtools.files import DataFileError
from fgtools.rows import build_rows, load_raw_rows
from fgtools.rows.sources import SourceError, choose_total, open_local_rows, shuffled_order


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
    assert all({**row, "source": "rows"} in [{**one, "source": "rows"} for one in rows] for row in raw.rows)


def test_a_row_without_id_gets_its_position(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"task": "a"}, {"task": "b"}])
    assert {(row["row_id"], row["task"]) for row in load_raw_rows(str(path), 2, 40).rows} == {("0", "a"), ("1", "b")}


def test_an_id_of_zero_is_an_id_and_a_row_id_comes_before_it(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"id": 5}, {"id": 0}, {"row_id": "own", "id": 7}])
    assert {row["row_id"] for row in load_raw_rows(str(path), 3, 40).rows} == {"5", "0", "own"}


def test_json_parquet_and_folders_hold_the_same_rows(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"row_id": "0", "tools": "[]"}, {"row_id": "1", "tools": "[]"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "d.csv").write_text('row_id,tools\n0,"[]"\n1,"[]"\n')
    assert [(name, list(part)) for name, part in open_local_rows(tmp_path)] == [(name, rows) for name in "abcd"]
    assert [(name, list(part)) for name, part in open_local_rows(tmp_path / "b.parquet")] == [("b", rows)]


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
    with pytest.raises(ValueError, match="N_TOTAL must be at least 1, or 0 for all rows of a file, got -1"):
        load_raw_rows("sample", -1, 40)


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "rows.txt").write_text("x")
    with pytest.raises(SourceError, match=r"must end in one of .*got '\.txt'"):
        load_raw_rows(str(tmp_path / "rows.txt"), 10, 40)


def test_a_hub_that_cannot_be_reached_is_a_clear_error(monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SourceError, match=r"the data set 'owner/data' is not in this machine's cache.*HF_HUB_OFFLINE"):
        load_raw_rows("owner/data", 10, 40)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(SourceError, match=r"cannot be reached for .*'owner/data': .*Internet on.*local file"):
        load_raw_rows("owner/data", 10, 40)


def test_a_hub_data_set_is_shuffled_as_the_tutorial_shuffles_it(monkeypatch):
    import datasets

    hub = datasets.Dataset.from_dict({"task": [f"t{i}" for i in range(30)]})
    monkeypatch.setattr(datasets, "load_dataset", lambda data, split: hub)
    raw = load_raw_rows("owner/data", 10, 40)
    assert [row["task"] for row in raw.rows] == hub.shuffle(seed=40).select(range(10))["task"][:]
    assert [row["row_id"] for row in raw.rows] == [str(i) for i in shuffled_order(30, 40)[:10]]


def test_rows_of_several_files_keep_their_source_and_position(tmp_path):
    for name in "ab":
        write_rows(tmp_path / f"{name}.jsonl", [{"task": f"{name}{i}"} for i in range(6)])
    raw = load_raw_rows(str(tmp_path), 12, 40)
    order = shuffled_order(12, 40)
    assert [row["task"] for row in raw.rows] == [f"{'ab'[i // 6]}{i % 6}" for i in order]
    assert [(row["row_id"], row["source"]) for row in raw.rows] == [(str(i), "ab"[i // 6]) for i in order]
    assert [row["task"] for row in raw.rows[3:7]] == [row["task"] for row in raw.rows][3:7]
    assert raw.rows[2]["task"] == list(raw.rows)[2]["task"]


def test_rows_can_be_sent_to_another_process(tmp_path):
    import pickle

    path = write_rows(tmp_path / "rows.jsonl", [{"task": str(i), "pad": "x" * 5000} for i in range(100)])
    part = load_raw_rows(str(path), 100, 40).rows[10:12]
    sent = pickle.dumps(part)
    assert len(sent) < 3000 and list(pickle.loads(sent)) == list(part)


def test_split_configuration_and_revision_reach_the_hub(monkeypatch):
    import datasets

    asked = []
    hub = datasets.Dataset.from_dict({"task": ["a", "b"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: asked.append((names, options)) or hub)
    load_raw_rows("owner/data", 2, 40, split="validation", config="en", revision="v2")
    assert asked == [(("owner/data",), {"split": "validation", "name": "en", "revision": "v2"})]


TOOLS = [{"name": "f", "parameters": {"a": {"type": "string"}}}, {"name": "g", "parameters": {"b": {"type": "int"}}}]


@pytest.fixture
def nested_hub(monkeypatch, tmp_path):
    """A hub data set whose nested column Arrow fills with nulls, and the JSON file it was made from."""
    import datasets
    import huggingface_hub

    rows = [{"task": f"t{i}", "tools": [tool]} for i, tool in enumerate(TOOLS)]
    path = write_rows(tmp_path / "train.jsonl", rows)
    files = ["README.md", "data/train.jsonl", "data/test.jsonl"]

    class FakeApi:
        def list_repo_files(self, repo_id, *, repo_type, revision):
            assert (repo_id, repo_type, revision) == ("owner/data", "dataset", None)
            return files

    hub = datasets.Dataset.from_dict({"task": ["t0", "t1"], "tools": [[tool] for tool in TOOLS]})
    monkeypatch.setattr(datasets, "load_dataset", lambda data, split: hub)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda data, name, **_: str(path) if "train" in name else ""
    )
    return files


def test_nested_columns_are_read_from_the_files_themselves(nested_hub, capsys):
    raw = load_raw_rows("owner/data", 2, 40)
    assert sorted((row["task"], str(row["tools"])) for row in raw.rows) == [
        (f"t{i}", str([tool])) for i, tool in enumerate(TOOLS)
    ]
    assert "read from data/train.jsonl" in capsys.readouterr().out


def test_without_such_files_the_nulls_are_dropped(nested_hub, capsys):
    nested_hub[:] = ["README.md", "data/train.parquet"]
    raw = load_raw_rows("owner/data", 2, 40)
    tools = {row["task"]: row["tools"] for row in raw.rows}
    assert tools == {f"t{i}": [tool] for i, tool in enumerate(TOOLS)}
    assert "nulls are dropped from tools" in capsys.readouterr().out


def test_a_local_file_is_taken_whole_and_other_data_in_part(tmp_path, capsys, monkeypatch):
    (tmp_path / "sample").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of the sample's name is not the sample
    path = write_rows(tmp_path / "rows.jsonl", [{"row_id": str(i)} for i in range(12)])
    assert len(load_raw_rows(str(path), 0, 40).rows) == 12 and not capsys.readouterr().out
    assert len(load_raw_rows(str(path), 5, 40).rows) == 5
    assert capsys.readouterr().out == "rows.jsonl: taking 5 of 12 rows (N_TOTAL)\n"
    assert (choose_total(str(path)), choose_total("sample"), choose_total("owner/data")) == (0, 3000, 3000)


def test_a_configuration_is_read_from_its_own_files(nested_hub, monkeypatch, capsys):
    import datasets

    hub = datasets.load_dataset("owner/data", split="train")
    monkeypatch.setattr(datasets, "load_dataset", lambda data, split, name: hub)
    nested_hub[:] = ["en/train.jsonl", "de/train.jsonl"]
    load_raw_rows("owner/data", 2, 40, config="en")
    assert "read from en/train.jsonl, since" in capsys.readouterr().out


ALARMS = '''
def set_alarm(time: str, days: list[str] | None = None):
    """Set an alarm."""

def stop_alarm():
    """Stop it."""
'''


def test_tools_of_a_file_are_those_of_all_rows(tmp_path, capsys):
    (tmp_path / "tools.py").write_text(ALARMS)
    lines = ["request,call", 'Wake me at 7,"set_alarm(time=""7:00"")"', "Thanks,", "Stop,stop_alarm()", ",stop_alarm()"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    raw = load_raw_rows(str(tmp_path / "rows.csv"), 0, 1, tools=str(tmp_path / "tools.py"))
    assert "2 tools for all rows: set_alarm, stop_alarm" in capsys.readouterr().out
    for recipe in ("native", "tutorial"):
        row_set = build_rows(raw.rows, recipe)
        assert row_set.funnel["kept"] == (3 if recipe == "native" else 2)
        assert all(len(row["tools"]) == 2 for row in row_set.rows)
    assert build_rows(raw.rows).funnel["empty_request"] == 1
    assert len(raw.rows[1:]) == 3 and isinstance(raw.rows[0], dict)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Stop"}, {"role": "assistant", "content": "stop_alarm()"}]},
        {"question": "Stop", "function": [{"name": "g"}], "ground_truth": [{"stop_alarm": {}}]},
        {"query": "Stop", "answers": '[{"name": "stop_alarm", "arguments": {}}]', "tools": '[{"name": "g"}]'},
        {"text": json.dumps({"query": "Stop", "answers": [{"name": "stop_alarm"}], "tools": [{"name": "g"}]})},
    ],
)
def test_tools_of_a_file_replace_those_of_a_row_in_every_shape(tmp_path, row):
    (tmp_path / "tools.py").write_text(ALARMS)
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    row_set = build_rows(load_raw_rows(str(tmp_path / "rows.jsonl"), 0, 1, tools=str(tmp_path / "tools.py")).rows)
    assert [tool["function"]["name"] for tool in row_set.rows[0]["tools"]] == ["set_alarm", "stop_alarm"]
    assert row_set.problems.get("tools_replaced", 0) == (1 if {"function", "tools"} & set(row) else 0)


def test_the_sample_takes_no_tools_from_outside(tmp_path):
    with pytest.raises(ValueError, match="TOOLS must come with DATA of your own"):
        load_raw_rows("sample", 5, 1, tools="tools.py")


def test_a_row_of_no_known_shape_names_its_own_columns_alone(tmp_path):
    (tmp_path / "tools.py").write_text(ALARMS)
    (tmp_path / "rows.jsonl").write_text('{"a": 1}')
    row_set = build_rows(load_raw_rows(str(tmp_path / "rows.jsonl"), 0, 1, tools=str(tmp_path / "tools.py")).rows)
    assert row_set.rejected[0].reason == "unknown_shape" and "x00" not in repr(row_set.rejected[0].detail)
