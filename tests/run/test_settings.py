"""What notebooks and commands share: settings, preparing in both recipes, matching replies, the token budget."""

import json

import pytest

from fgtools.files import DataFileError, FgtoolsError, sha256_of
from fgtools.metrics import Confidence, GeneratedReply
from fgtools.models import ModelError
from fgtools.offline import CHECKPOINT
from fgtools.offline.samples import build_samples
from fgtools.profiles import PROFILES, ResolvedProfile
from fgtools.prompts.encode import token_budget
from fgtools.rows import RawRows, build_rows, load_raw_rows, prepare
from fgtools.rows.funnel import EmptySetError
from fgtools.run.evaluation import list_inputs, match_replies
from fgtools.run.folder import MissingArtifactError, RunFolder
from fgtools.run.notebooks import render_summary
from fgtools.run.settings import SourceOptions, build_settings, load_data, load_settings
from fgtools.serve.gguf import write_gguf

OFFLINE = ResolvedProfile(PROFILES["offline"], "no GPU is visible")


def raw_rows(n_rows=400):
    return RawRows(tuple(build_samples(n_rows, 3)), n_rows, "offline sample")


def test_settings_survive_the_run_folder(tmp_path):
    run = RunFolder(tmp_path)
    settings = build_settings(OFFLINE, "native", "", "", 40, 3000, 300)
    run.write_json("run.json", {**settings.to_dict(), "environment": {}})
    assert load_settings(run) == settings
    assert (settings.data, settings.model) == ("sample", "standin")
    every = build_settings(OFFLINE, "native", "", "", 40, 3000, 300, turns="all")
    run.write_json("run.json", every.to_dict())
    assert load_settings(run) == every != settings
    assert every.recipe.turns == "all"


def test_a_file_of_tools_is_read_at_once_and_kept_in_the_settings(tmp_path):
    (tmp_path / "tools.py").write_text("def stop(): ...")
    (tmp_path / "rows.csv").write_text("request,call\nStop,stop()\nHi,\n")
    given = "native", str(tmp_path / "rows.csv"), "", 40, 0, 1
    source = SourceOptions(tools=str(tmp_path / "tools.py"))
    settings, run = build_settings(OFFLINE, *given, source), RunFolder(tmp_path)
    run.write_json("run.json", {**settings.to_dict(), "environment": {}}, settings.files)
    assert load_settings(run) == settings and set(run.read_json("run.json")["inputs"]) == {"rows.csv", "tools.py"}
    assert all(row["tools"].startswith('[{"name": "stop"') for row in load_data(settings).rows)
    with pytest.raises(FgtoolsError, match=r"gone\.py must exist"):
        build_settings(OFFLINE, *given, SourceOptions(tools="gone.py"))


def test_a_gguf_file_as_the_model_is_checked_at_once_and_hashed(tmp_path, capsys):
    path = write_gguf(CHECKPOINT, tmp_path / "x.gguf", "q8_0").path
    given = "native", "", str(path), 40, 3000, 300
    settings, run = build_settings(OFFLINE, *given), RunFolder(tmp_path)
    assert "x.gguf: weights 99.7% Q8_0" in capsys.readouterr().out
    run.write_json("run.json", settings.to_dict(), settings.files)
    assert run.read_json("run.json")["inputs"] == {"x.gguf": sha256_of(path)}
    assert load_settings(run).banner.startswith("offline stand-in")
    assert list_inputs(tmp_path / "rows", str(path)) == [tmp_path / "rows", path]
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="it is cut off, download it again"):
        build_settings(OFFLINE, *given)
    other = build_settings(OFFLINE, "native", "", "owner/name:x.gguf", 40, 3000, 300)
    assert other.files == [] and list_inputs(tmp_path / "rows", other.model) == [tmp_path / "rows"]


def test_parameters_beat_the_profile():
    settings = build_settings(OFFLINE, "tutorial", "rows.jsonl", "folder", 1, 20, 5)
    assert (settings.data, settings.model, settings.recipe.name) == ("rows.jsonl", "folder", "tutorial")


@pytest.mark.parametrize(("n_total", "n_eval"), [(10, 10), (10, 0), (10, 11)])
def test_sizes_that_make_no_sense_are_named(n_total, n_eval):
    with pytest.raises(ValueError, match=f"N_EVAL must be at least 1 and less than N_TOTAL, got {n_eval} of {n_total}"):
        build_settings(OFFLINE, "native", "", "", 40, n_total, n_eval)


def test_a_later_notebook_without_settings_names_the_first(tmp_path):
    with pytest.raises(MissingArtifactError, match="run 01_setup first"):
        load_settings(RunFolder(tmp_path))


def test_native_rows_are_split_without_a_leak_and_written_with_a_funnel_that_adds_up(tmp_path):
    prepared = prepare(raw_rows(), "native", n_eval=40, seed=40)
    run = RunFolder(tmp_path)
    prepared.write(run.root)
    train, held = run.read_rows("rows.train.jsonl"), run.read_rows("rows.eval.jsonl")
    assert not {row["group"] for row in train} & {row["group"] for row in held}
    assert len(held) >= 36 and run.read_rows("rows.unseen.jsonl")
    funnel = run.read_json("funnel.json")
    assert sum(funnel["funnel"].values()) == funnel["rows_in"] == 400
    assert sum(sum(reasons.values()) for reasons in funnel["by_source"].values()) == 400
    assert funnel["split"]["train"] == len(train) and set(funnel["inputs"]) >= {"rows.train.jsonl", "rows.eval.jsonl"}
    no_call = sum(not row["gold"] for row in train)
    assert 0 < no_call <= 0.3 * len(train)


def test_tutorial_rows_are_split_before_they_are_built():
    raw = raw_rows()
    prepared = prepare(raw, "tutorial", n_eval=100, seed=40)
    last = {row["row_id"] for row in raw.rows[300:]}
    assert {row["row_id"] for row in prepared.splits.eval} <= last
    assert not {row["row_id"] for row in prepared.train} & last
    assert not prepared.splits.unseen and all(row["gold"] for row in prepared.train)


def test_data_without_a_usable_row_shows_the_funnel():
    raw = RawRows(({"row_id": "a", "conversations": None}, {"row_id": "b", "tools": "["}), 2, "rows.jsonl")
    with pytest.raises(
        EmptySetError, match=r"(?s)rows\.jsonl: at least one usable row.*got 0 usable of 2.*bad_conversation"
    ):
        prepare(raw, "native", n_eval=1, seed=40)


def test_one_row_is_too_few_for_two_sides(tmp_path):
    row = next(row for row in build_samples(50, 1) if build_rows([row]).rows)  # a usable one
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({key: row[key] for key in ("conversations", "tools", "task")}) + "\n"
    )
    with pytest.raises(EmptySetError, match="every side of the split must hold rows"):
        prepare(load_raw_rows(str(tmp_path / "rows.jsonl"), 10, 40), "native", n_eval=1, seed=40)


ROWS = [{"row_id": "a"}, {"row_id": "b"}]


def test_replies_find_their_rows():
    records = [{"row_id": "b", "reply": "2"}, {"row_id": "a", "reply": "1"}]
    assert match_replies(ROWS, records) == [GeneratedReply("1"), GeneratedReply("2")]
    records[0]["confidence"] = {"n_tokens": 3, "call": -0.5, "name": 0}
    assert match_replies(ROWS, records) == [GeneratedReply("1"), GeneratedReply("2", Confidence(3, -0.5, 0))]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"row_id": "a", "reply": "1"}], "every row must have a reply, but 1 have none, the first 'b'"),
        ([{"row_id": "a", "reply": "1"}] * 2, "must have one reply, but 'a' has two"),
        ([{"row_id": name, "reply": ""} for name in "abc"], "must belong to a row, but 1 do not, such as 'c'"),
        ([{"row_id": "a"}], "reply 1 must hold the texts row_id and reply"),
        ([{"row_id": "a", "reply": None}], "reply 1 must hold the texts row_id and reply"),
        *(
            ([{"row_id": "a", "reply": "1", "confidence": one}], r"reply 1: confidence must be .* but got")
            for one in (1, [], {}, {"n_tokens": 0, "call": -1, "name": -1}, {"n_tokens": 1, "call": 0.1, "name": -1})
        ),
        ([{"row_id": "a", "reply": "1", "confidence": {"n_tokens": 1, "call": None, "name": True}}], "reply 1: conf"),
    ],
)
def test_replies_that_do_not_fit_are_named(records, message):
    with pytest.raises(DataFileError, match=message):
        match_replies(ROWS, records)


@pytest.mark.parametrize(("longest", "budget"), [(1, 16), (12, 16), (13, 16), (40, 64), (100, 128)])
def test_the_budget_leaves_a_quarter_of_room(longest, budget):
    assert token_budget(longest) == budget


def test_a_run_without_results_has_an_empty_summary(tmp_path):
    assert render_summary(RunFolder(tmp_path)) == ""
