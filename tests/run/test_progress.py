"""What is shown of a running series: one line that moves in a terminal, whole lines elsewhere, and what comes next."""

import io
import json

import pytest

from fgtools.files import write_text
from fgtools.run.folder import RunFolder
from fgtools.run.progress import (
    CLEAR,
    OFFLINE_SECONDS,
    RECORD,
    StageLine,
    describe_next_steps,
    describe_plan,
    keep_seconds,
    load_seconds,
)
from fgtools.run.stages import STAGES


def test_the_plan_says_how_long_it_takes_and_where_that_is_known_from(tmp_path):
    run, stages = RunFolder(tmp_path), tuple(STAGES)
    assert set(OFFLINE_SECONDS) == set(stages)
    offline = describe_plan(stages, run, {"RUN_DIR": str(tmp_path), "SEED": 41})
    assert offline.startswith(f"plan: 6 stages into {tmp_path}, about 5 min (an estimate for two CPU cores")
    own = {"DATA": "rows.csv"}
    assert load_seconds(run, own) == {} and "notebook 4 measures its training" in describe_plan(stages, run, own)
    assert "no earlier run tells" in describe_plan(("01_setup",), run, own)
    keep_seconds(run, "01_setup", 4.04)
    keep_seconds(run, "04_train", 7200)
    assert load_seconds(run, own) == {"01_setup": 4.0, "04_train": 7200.0}
    assert describe_plan(("01_setup", "04_train"), run, own).endswith(", about 2 h 00 min (as in the last run here)")


LINES = (
    "Executing Cell 7-----------------------------------",
    "step     0/540  eval loss 0.4714",
    "estimate: about 26 min on this machine",
    "step   135/540  loss 0.1",
    "anything else",
)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [100.0]
    monkeypatch.setattr("fgtools.run.progress.time.perf_counter", lambda: now[0])
    return now


def test_the_line_says_what_runs_since_when_and_what_is_left(clock):
    line = StageLine("04_train", "4 of 6", expected=120.0, n_cells=25, stream=io.StringIO())
    assert line.render(110.0) == "04_train  4 of 6 · 10 s · about 2 min left"
    assert line.render(300.0) == "04_train  4 of 6 · 3 min"  # longer than the last time: nothing is promised
    line.note(LINES[0])
    assert line.render(110.0) == "04_train  4 of 6 · 10 s · cell 7 of 25 · about 2 min left"
    line.note(LINES[1])
    clock[0] = 130.0
    line.note(LINES[3])  # a quarter in 30 s
    assert line.render(140.0) == "04_train  4 of 6 · 40 s · step 135/540 · about 80 s left"


def test_a_terminal_shows_one_line_and_nothing_of_it_stays(capsys, monkeypatch):
    stream = io.StringIO()
    with StageLine("04_train", "4 of 6", stream=stream) as line:
        for text in LINES:
            line.note(text)
        line._write(CLEAR + line.render(line.began + 3))
    assert capsys.readouterr().out == f"  {LINES[2]}\n"
    assert stream.getvalue().endswith(CLEAR) and "\n" not in stream.getvalue()
    assert "04_train  4 of 6 · 3 s · step 135/540" in stream.getvalue()


@pytest.mark.parametrize("environment", [{"FGTOOLS_BATCH": "1"}, {"TERM": "dumb"}, {}])
def test_where_nobody_watches_a_terminal_nothing_is_drawn(monkeypatch, capsys, environment):
    monkeypatch.setattr("fgtools.run.progress.is_watched", lambda: "TERM" in environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with StageLine("04_train", "4 of 6") as line:
        for text in (*LINES, "step     1/34  0.40 rows/s, about 3 min left"):
            line.note(text)
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines() == [f"  {LINES[2]}", "  step     1/34  0.40 rows/s, about 3 min left"]


def test_the_end_says_what_to_do_next(tmp_path):
    run = RunFolder(tmp_path)
    assert describe_next_steps(run) == ""
    write_text(tmp_path / "model" / "config.json", "{}")
    said = {}
    for model in ("standin", "google/functiongemma-270m-it"):
        write_text(tmp_path / "run.json", json.dumps({"model": model}))
        said[model] = describe_next_steps(run)
        assert "05_post_eval.ipynb" in said[model]
    assert "fgtools draft --tools tools.py" in said["standin"] and "functiongemma-270m-it" in said["standin"]
    assert f"fgtools call --model {tmp_path / 'model'}" in said["google/functiongemma-270m-it"]


def test_the_record_is_no_part_of_the_manifest(tmp_path):
    keep_seconds(RunFolder(tmp_path), "01_setup", 1)
    assert RECORD not in json.loads(RunFolder(tmp_path).write_manifest().read_text())["sha256"]
