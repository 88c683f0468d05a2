"""Inputs that do not belong together: each notebook names the file that was changed and what to run again."""

import json

import pytest

from fgtools.files import write_json, write_jsonl, write_text
from fgtools.run.folder import MixedRunError, RunFolder
from fgtools.run.stages import STAGES

ROWS = ("rows.train.jsonl", "rows.eval.jsonl", "rows.unseen.jsonl")


@pytest.fixture
def run(tmp_path):
    """A run as the notebooks leave it: what says what it was made from holds the hashes."""
    write_text(tmp_path / "rows.csv", "request,call")
    write_text(tmp_path / "base" / "config.json", "{}")
    made = RunFolder(tmp_path / "run")
    write_settings(made, 40)
    write_stages(made)
    return made


def write_settings(run, seed):
    data, model = (run.root.parent / name for name in ("rows.csv", "base"))
    sources = {"data": run.hash_inputs([data])[data.name], "model": run.hash_inputs([model])["base"]}
    run.write_json("run.json", {"seed": seed, "data": str(data), "model": str(model), "sources": sources})


def write_stages(run):
    for name in ROWS:
        write_jsonl(run.root / name, [{"row_id": name}])
    write_json(run.root / "funnel.json", {}, run.hash_inputs([*ROWS, "run.json"]))
    run.write_json("audit.json", {"errors": []}, [*ROWS, "run.json", "funnel.json"])
    for side in ("base", "base.unseen", "tuned", "tuned.unseen"):
        if side == "tuned":
            write_json(run.root / "model" / "tools.json", {}, run.hash_inputs(ROWS[:2]))
            write_text(run.root / "model" / "config.json", "{}")
            run.write_json("train.json", {"steps": 3}, [*ROWS[:2], "run.json", "model"])
        run.write_rows(f"replies.{side}.jsonl", [{"row_id": "a", "reply": side}])
        rows = ROWS[2] if side.endswith("unseen") else ROWS[1]
        more = ["model"] if side.startswith("tuned") else ["run.json"]
        run.write_json(f"scores.{side}.json", {"n": 1}, [f"replies.{side}.jsonl", rows, *more])
    run.write_json("compare.json", {"n": 1}, ["scores.base.json", "scores.tuned.json", "replies.tuned.jsonl"])


@pytest.mark.parametrize(
    ("stage", "count"),
    [("02_data", 3), ("03_baseline", 6), ("04_train", 6), ("05_post_eval", 11), ("06_publish", 12)],
)
def test_where_all_is_well_a_notebook_says_so_in_one_line(stage, count, run):
    said = f"inputs: {count} of {count} unchanged since they were written, by their hashes"
    assert run.check_inputs(stage) == said


def test_a_file_of_which_no_hash_is_known_is_named_and_not_counted_as_unchanged(run):
    (run.root / "figures").mkdir()
    (run.root / "audit.json").unlink()
    assert run.check_inputs("03_baseline").startswith("inputs: 4 of 5 unchanged since they were written, by their")
    assert run.check_inputs("03_baseline").endswith("; no hash is known of funnel.json")
    assert run.check_inputs("06_publish").endswith("; no hash is known of funnel.json, figures")


EDITED = [
    ("02_data", "../rows.csv", "DATA .*rows.csv must be as it was when run.json was written.* run 01_setup again"),
    ("02_data", "../base/config.json", "MODEL .*base must be as it was .* run 01_setup again"),
    ("03_baseline", "../base/config.json", "MODEL .*base must be as it was .* run 01_setup again"),
    ("03_baseline", "rows.eval.jsonl", r"rows\.eval\.jsonl must be the one that funnel\.json .*run 02_data again"),
    ("03_baseline", "rows.unseen.jsonl", r"rows\.unseen\.jsonl must be the one that funnel\.json"),
    (
        "04_train",
        "rows.train.jsonl",
        r"rows\.train\.jsonl .* audit\.json .*run 02_data again; if the change is m",
    ),
    ("04_train", "rows.eval.jsonl", r"rows\.eval\.jsonl must be the one that audit\.json was made from"),
    ("04_train", "audit.json", r"audit\.json must be as it was written, but it was changed by hand: run 02_data again"),
    ("04_train", "funnel.json", r"funnel\.json must be the one that audit\.json was made from"),
    ("05_post_eval", "rows.eval.jsonl", r"rows\.eval\.jsonl must be the one that"),
    ("05_post_eval", "rows.train.jsonl", r"rows\.train\.jsonl must be the one that model was made from"),
    ("05_post_eval", "scores.base.json", r"scores\.base\.json .* changed by hand: run 03_baseline again"),
    ("05_post_eval", "model/config.json", r"model must be the one that train\.json was made from.*run 04_train again"),
    ("05_post_eval", "scores.base.unseen.json", r"scores\.base\.unseen\.json .*run 03_baseline again"),
    ("06_publish", "train.json", r"train\.json .* changed by hand: run 04_train again"),
    ("06_publish", "scores.tuned.json", r"scores\.tuned\.json .* changed by hand: run 05_post_eval again"),
    ("06_publish", "scores.base.json", r"scores\.base\.json"),
    ("06_publish", "model/config.json", r"model must be the one that .*run 04_train again"),
    ("06_publish", "compare.json", r"compare\.json .* changed by hand: run 05_post_eval again"),
    ("06_publish", "run.json", r"run\.json .* changed by hand: run 01_setup again"),
]


@pytest.mark.parametrize(("stage", "name", "words"), EDITED, ids=[f"{stage}-{name}" for stage, name, _ in EDITED])
def test_an_input_that_was_changed_by_hand_is_an_error_with_its_name_and_remedy(stage, name, words, run):
    path = run.root / name
    if path.suffix == ".json":
        write_text(path, json.dumps({**json.loads(path.read_text()), "n": 7}))
    else:
        write_text(path, path.read_text() + " ")
    with pytest.raises(MixedRunError, match=words):
        run.check_inputs(stage)


def test_a_notebook_that_was_run_again_makes_the_later_ones_old(run):
    write_jsonl(run.root / "rows.eval.jsonl", [{"row_id": "other"}])
    write_json(run.root / "funnel.json", {}, run.hash_inputs([*ROWS, "run.json"]))
    run.write_json("audit.json", {"errors": []}, [*ROWS, "run.json", "funnel.json"])
    assert run.check_inputs("03_baseline") and run.check_inputs("04_train")
    for stage, remedy in (("05_post_eval", "04_train|03_baseline"), ("06_publish", "05_post_eval|04_train")):
        with pytest.raises(
            MixedRunError, match=rf"02_data again if rows\.eval\.jsonl was changed by hand, else {remedy}"
        ):
            run.check_inputs(stage)


def test_other_settings_make_the_rows_old_but_the_same_ones_at_another_time_do_not(run):
    saved = run.read_json("run.json")
    run.write_json("run.json", {**saved, "written": "later", "device": "cuda:0"})
    assert run.check_inputs("03_baseline")
    write_settings(run, 41)
    for stage in list(STAGES)[2:]:
        with pytest.raises(MixedRunError, match=r"run\.json must be the one that .*01_setup again if .* else 0"):
            run.check_inputs(stage)


def test_scores_of_unseen_rows_that_are_no_more_may_be_deleted(run):
    write_jsonl(run.root / "rows.unseen.jsonl", [])
    for name in ("audit.json", "funnel.json"):
        (run.root / name).unlink()
    with pytest.raises(MixedRunError, match=r"or delete scores\.base\.unseen\.json if it is left from earlier rows"):
        run.check_inputs("05_post_eval")


def test_rows_that_are_changed_on_purpose_can_be_trained_on(run):
    write_jsonl(run.root / "rows.train.jsonl", [{"row_id": "mine"}])
    for check in (lambda: run.check_inputs("04_train"), run.check_rows):
        with pytest.raises(MixedRunError, match=r"if the change is meant, delete funnel\.json and audit\.json"):
            check()
    for name in ("audit.json", "funnel.json"):
        (run.root / name).unlink()
    assert run.check_inputs("04_train")
    run.check_rows()


def test_a_folder_of_an_older_version_has_nothing_to_hold(tmp_path):
    write_text(tmp_path / "run.json", '{"data": "sample", "model": "standin"}')
    write_text(tmp_path / "funnel.json", "{}")
    assert RunFolder(tmp_path).check_inputs("04_train")
