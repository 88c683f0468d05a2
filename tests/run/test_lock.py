"""One writer at a time: who is refused, by whom, what may go on side by side, and what a dead process leaves."""

import json
import os
import re
import subprocess
import sys

import pytest

from fgtools.run import lock
from fgtools.run.lock import FolderInUseError, hold_folder

HOLD = """
import sys, time
from pathlib import Path
from fgtools.run.lock import hold_folder
with hold_folder(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def stranger(monkeypatch):
    """Take away what tells a process that its parent holds the folder."""
    monkeypatch.setenv("FGTOOLS_HELD", "")  # so that it is as before when the test is over
    return lambda: os.environ.pop("FGTOOLS_HELD", None)


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (("run", ""), ("run", ""), True),
        (("run", ""), ("train", "model"), True),
        (("train", "model"), ("run", ""), True),
        (("train", "model"), ("train", "model"), True),
        (("train", "model"), ("evaluate", "replies.base.jsonl"), False),
        (("evaluate", "replies.a.jsonl"), ("evaluate", "replies.b.jsonl"), False),
        (("evaluate", "replies.a.jsonl"), ("evaluate", "replies.a.jsonl"), True),
    ],
)
def test_a_second_writer_is_refused_where_both_write_the_same(first, second, refused, tmp_path, stranger):
    with hold_folder(tmp_path, *first):
        stranger()
        if refused:
            started = r"since \d{4}-\d\d-\d\dT[\d:]+[+-][\d:]+"
            with (
                pytest.raises(FolderInUseError, match=rf"process {os.getpid()} \(`{first[0]}`, {started}\) does: wait"),
                hold_folder(tmp_path, *second),
            ):
                pass
        else:
            with hold_folder(tmp_path, *second):
                pass
    stranger()
    with hold_folder(tmp_path, *second):  # after its end nothing is refused, and nothing is left
        pass
    assert not list(tmp_path.iterdir())


def test_processes_that_the_holder_starts_may_write(tmp_path):
    with hold_folder(tmp_path, "run"), hold_folder(tmp_path, "train", "model"):
        assert os.environ["FGTOOLS_HELD"] == str(tmp_path)
    assert "FGTOOLS_HELD" not in os.environ


def test_another_folder_may_be_held_at_the_same_time(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with hold_folder(tmp_path / "a", "run"), hold_folder(tmp_path / "b", "run"):
        assert (tmp_path / "b" / ".lock").is_file()
    assert not list(tmp_path.rglob(".lock"))


def test_a_process_that_runs_is_named_and_one_that_was_killed_is_followed_with_a_line(tmp_path, capsys):
    job = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert job.stdout.readline() == "held\n"
        (tmp_path.parent / "link").symlink_to(tmp_path)
        for path in (tmp_path, tmp_path.parent / "link"):
            with pytest.raises(FolderInUseError, match=rf"kill {job.pid}`, or give `run` another --out"):
                hold_folder(path, "run").__enter__()
    finally:
        job.kill()
        job.wait()
        job.stdout.close()
    with hold_folder(tmp_path, "run"):
        told = capsys.readouterr().out
        assert re.fullmatch(rf"lock: process {job.pid} \(`run`, since .*\) ended without .* is taken over\n", told)
    with hold_folder(tmp_path, "run"):
        assert capsys.readouterr().out == ""


def test_a_damaged_lock_file_holds_nobody_up(tmp_path, capsys):
    for text in ("", "{", "[1]", json.dumps({"pid": "x"})):
        (tmp_path / ".lock").write_text(text)
        with hold_folder(tmp_path, "run"):
            assert capsys.readouterr().out == ""


def test_a_disk_without_locks_is_said_and_nothing_is_refused(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with hold_folder(tmp_path, "run"):
        assert "cannot be locked (Operation not supported)" in capsys.readouterr().out
    monkeypatch.setattr(lock, "fcntl", None)
    with hold_folder(tmp_path, "run"):
        pass
