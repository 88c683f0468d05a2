"""Checkpoints that were damaged: found by size and hash, named, and the one before is taken."""

import json
import os
import re
import shutil

import pytest
import torch

from fgtools.train.best import BestWeights
from fgtools.train.checkpoints import CheckpointError, CheckpointWriter, find_checkpoint
from fgtools.train.saving import Saving

PARTS = {"model.safetensors": 5000, "optimizer.pt": 9000, "scheduler.pt": 40, "trainer_state.json": 300}


@pytest.fixture
def writer(tmp_path):
    """A writer of two checkpoints, after steps 4 and 8; the best weights of both are those of step 2."""
    best = BestWeights(tmp_path)
    best.keep({"w": torch.ones(100)}, 2)
    made = CheckpointWriter(tmp_path, Saving("steps", 1, ""), best, 2)
    for step in (4, 8):
        write(made, step)
    return made


def write(writer, step, fail=False):
    def write_parts():
        folder = writer.folder / f"checkpoint-{step}"
        folder.mkdir()
        for name, size in PARTS.items():
            (folder / name).write_bytes(bytes([step]) * size)
        if fail:
            raise OSError(28, "No space left on device")

    writer.write({"identity": "i", "step": step, "seconds": 1.0, "precision": "fp32", "updates": step}, write_parts)


def list_steps(folder):
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    about = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def empty(path):
    path.write_bytes(b"")  # as after a loss of power


HARMS = {"cut": cut, "flip": flip, "empty": empty, "delete": lambda path: path.unlink()}
SAID = {
    "cut": r"{name} must have [\d,]+ bytes, but has [\d,]+",
    "flip": "{name} has other contents than were written",
    "empty": r"{name} must have [\d,]+ bytes, but has 0",
    "delete": "{name} is missing",
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", PARTS)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(name, harm, writer, tmp_path, capsys):
    HARMS[harm](tmp_path / "checkpoint-8" / name)
    assert find_checkpoint(tmp_path, "i", True).step == 4
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("checkpoint-8 is damaged, so it is deleted and the one before it is tried: checkpoint-8/")
    assert re.search(SAID[harm].format(name=f"checkpoint-8/{name}"), line)
    assert list_steps(tmp_path) == [4] and find_checkpoint(tmp_path, "i", True).step == 4
    assert capsys.readouterr().out == ""


def test_a_whole_checkpoint_is_taken_without_a_word_and_nothing_is_deleted(writer, tmp_path, capsys):
    found = find_checkpoint(tmp_path, "i", True)
    assert (found.step, found.best, found.updates) == (8, 2, 8) and list_steps(tmp_path) == [4, 8]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["{", "[]", "\x00" * 80])
def test_a_mark_that_cannot_be_read_is_none(text, writer, tmp_path, capsys):
    (tmp_path / "checkpoint-8" / "whole.json").write_text(text)
    assert find_checkpoint(tmp_path, "i", True).step == 4
    assert capsys.readouterr().out == "checkpoint-8 was not written to its end, so it is deleted\n"


def test_a_checkpoint_of_a_version_without_hashes_is_not_taken(writer, tmp_path, capsys):
    mark = tmp_path / "checkpoint-8" / "whole.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "files": {}}))
    assert find_checkpoint(tmp_path, "i", True).step == 4
    assert "whole.json lists no files" in capsys.readouterr().out


def test_damaged_best_weights_damage_the_checkpoints_that_name_them(writer, tmp_path, capsys):
    flip(tmp_path / "best-2.safetensors")
    assert find_checkpoint(tmp_path, "i", True) is None and list_steps(tmp_path) == []
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["checkpoint-8", "checkpoint-4", "no"]
    assert "best-2.safetensors has other contents" in lines[0]
    assert lines[2] == "no checkpoint is whole: the training starts from the beginning, which costs time alone"


def test_without_leave_to_go_on_nothing_is_deleted(writer, tmp_path):
    cut(tmp_path / "checkpoint-8" / "optimizer.pt")
    with pytest.raises(CheckpointError, match="a checkpoint of this very training, after step 8: pass --resume"):
        find_checkpoint(tmp_path, "i", False)
    with pytest.raises(CheckpointError, match="checkpoint-4 is another's"):
        find_checkpoint(tmp_path, "other", True)
    assert list_steps(tmp_path) == [4, 8]


def test_never_more_than_two_lie_there_and_one_is_always_whole(writer, tmp_path):
    seen = []
    plain = writer.make_room

    def look():
        plain()
        seen.append(list_steps(tmp_path))

    writer.make_room = look
    write(writer, 12)
    write(writer, 16, fail=True)
    assert seen == [[8], [12]] and list_steps(tmp_path) == [12]
    write(writer, 16)
    assert list_steps(tmp_path) == [12, 16] and find_checkpoint(tmp_path, "i", True).step == 16


@pytest.mark.parametrize(("limit", "left"), [(1, [8, 12]), (2, [8, 12]), (3, [4, 8, 12]), (None, [4, 8, 12])])
def test_the_limit_of_checkpoints_holds_while_one_is_written(limit, left, writer, tmp_path):
    writer.limit, during = limit, []
    plain = writer._finish
    writer._finish = lambda *given: (plain(*given), during.append(list_steps(tmp_path)))
    write(writer, 12)
    assert during == [left] and list_steps(tmp_path) == (left if limit != 1 else [12])


def test_the_mark_holds_every_file_with_size_and_hash(writer, tmp_path):
    mark = json.loads((tmp_path / "checkpoint-8" / "whole.json").read_text())
    names = {f"checkpoint-8/{name}" for name in PARTS} | {"best-2.safetensors"}
    assert set(mark["files"]) == names
    assert all(size == (tmp_path / name).stat().st_size for name, (size, _) in mark["files"].items())


def test_a_folder_that_holds_nothing_starts_from_the_beginning(tmp_path, capsys):
    assert find_checkpoint(tmp_path / "none", "i", True) is None
    (tmp_path / "checkpoint-4").mkdir()
    assert find_checkpoint(tmp_path, "i", False) is None  # interrupted, so it counts for nothing
    assert capsys.readouterr().out == "checkpoint-4 was not written to its end, so it is deleted\n"
    shutil.rmtree(tmp_path)


def test_weights_that_are_exchanged_leave_the_file_that_checkpoints_name_as_it_is(writer, tmp_path, monkeypatch):
    monkeypatch.setattr("fgtools.train.best.available_memory_bytes", lambda: 0)
    best, weights = BestWeights(tmp_path), {"w": torch.full((100,), 5.0)}
    best.load(2)
    for in_model, value in ((True, 1.0), (False, 5.0), (True, 1.0)):
        best.exchange(weights)
        assert best.in_model == in_model and weights["w"].tolist() == [value] * 100
        assert find_checkpoint(tmp_path, "i", True).step == 8
