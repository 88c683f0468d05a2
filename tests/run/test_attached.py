"""On Kaggle: one run among those attached, all files from it, hashes held, and a stranger's file never taken."""

import json
import os
import shutil

import pytest

from fgtools.files import InputError, write_json, write_text
from fgtools.run.attached import find_attached_runs
from fgtools.run.folder import MissingArtifactError, MixedRunError, open_run
from fgtools.run.settings import build_settings, load_settings

LAYOUTS = ["notebooks/ann/{}/run", "{}/run"]
SETTINGS = {"recipe": "native", "data": "sample", "model": "standin", "seed": 40}


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """A Kaggle session: an empty mount for inputs, and a working folder."""
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("KAGGLE_CACHE_MOUNT_FOLDER", str(tmp_path / "input"))
    monkeypatch.setenv("FGTOOLS_RUN_DIR", str(tmp_path / "working" / "run"))
    (tmp_path / "input").mkdir()
    return tmp_path


def attach(kaggle, slug, hour, files=(), layout=LAYOUTS[0], **more):
    """The output of a notebook of the run that was begun at an hour; files hold the hour, JSON ones their inputs."""
    folder = kaggle / "input" / layout.format(slug)
    written = f"2026-11-28T{hour:02}:00:00+00:00"
    write_json(folder / "run.json", {**SETTINGS, "written": written, **more})
    for name in files:
        if name.endswith(".json"):
            inputs = [folder.parents[1] / source / "run" / made for source, made in files[name]]
            write_json(folder / name, {"hour": hour}, inputs)
        else:
            write_text(folder / name, f'{{"row_id": "{hour}"}}\n')
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_stages_of_one_run_are_found_in_their_notebooks_outputs(layout, kaggle, capsys):
    first = attach(kaggle, "01-setup", 9, layout=layout)
    second = attach(kaggle, "02-data", 9, {"rows.eval.jsonl": (), "rows.unseen.jsonl": ()}, layout)
    run = open_run("", "")
    assert run.find("rows.eval.jsonl") == second / "rows.eval.jsonl" and run.inputs == (first, second)
    assert (run.root / "run.json").read_bytes() == (
        first / "run.json"
    ).read_bytes()  # what is written here belongs to it
    told = "attached run: written 2026-11-28T09:00:00+00:00, recipe native, data sample, model standin"
    places = [f"  {first}: run.json", f"  {second}: rows.eval.jsonl, rows.unseen.jsonl, run.json"]
    assert capsys.readouterr().out.splitlines() == [told, *places]
    assert open_run("", "").inputs == run.inputs


def test_of_two_runs_the_newest_is_taken_whole_and_a_parameter_names_the_other(kaggle, capsys):
    rows = {"rows.eval.jsonl": ()}
    older, newer = attach(kaggle, "02-data-old", 8, rows), attach(kaggle, "02-data", 9, rows)
    os.utime(older / "run.json", (2_000_000_000, 2_000_000_000))  # a mount's times say nothing
    assert [run.written[11:13] for run in find_attached_runs(kaggle / "input")] == ["09", "08"]
    assert open_run(kaggle / "a", "").find("rows.eval.jsonl") == newer / "rows.eval.jsonl"
    assert "not used, another run (written 2026-11-28T08:00:00+00:00, recipe native" in capsys.readouterr().out
    assert open_run(kaggle / "b", "02-data-old").find("rows.eval.jsonl") == older / "rows.eval.jsonl"
    for wrong, count in (("02-data", 2), ("03", 0)):
        with pytest.raises(InputError, match=rf"INPUT_RUN must be .*'{wrong}' fits {count} of 2:(?s:.*){older}"):
            open_run(kaggle / "c", wrong)


def test_a_run_that_the_folder_holds_is_gone_on_with_and_a_newer_one_is_told(kaggle, capsys):
    older = attach(kaggle, "01-old", 8)
    open_run("", "")
    attach(kaggle, "01-setup", 9)
    capsys.readouterr()
    assert open_run("", "").inputs == (older,)
    assert (
        "delete that folder to go on with a newer one that is attached: written 2026-11-28T09"
        in capsys.readouterr().out
    )
    with pytest.raises(
        InputError, match=r"INPUT_RUN must name the run that .* holds already, but '01-setup' is another"
    ):
        open_run("", "01-setup")
    assert open_run("").inputs == (older,) and capsys.readouterr().out == ""  # a command of the same notebook


def test_a_new_run_takes_nothing_that_is_attached(kaggle, capsys):
    attach(kaggle, "02-data", 9, {"rows.eval.jsonl": ()})
    run = open_run("")
    assert run.inputs == () and not (run.root / "run.json").exists() and capsys.readouterr().out == ""


def test_a_strangers_file_of_the_same_name_is_never_taken(kaggle):
    attach(kaggle, "01-setup", 9)
    other = attach(kaggle, "04-train", 8, {"train.json": ()})
    stranger = write_text(kaggle / "input" / "datasets" / "eve" / "logs" / "train.json", '{"seconds": 1}')
    write_text(stranger.parent / "run.json", '{"id": 7}')  # somebody else's file of that name, too
    run = open_run("", "")
    with pytest.raises(
        MissingArtifactError, match=r"run 04_train first\. 2 attached of that name are not taken"
    ) as error:
        run.find("train.json")
    assert str(stranger) in str(error.value) and str(other) in str(error.value)


def test_files_that_were_made_from_others_than_those_attached_are_refused(kaggle):
    attach(kaggle, "02-data", 9, {"rows.train.jsonl": (), "rows.eval.jsonl": ()})
    made_from = [("02-data", "rows.train.jsonl"), ("02-data", "rows.eval.jsonl")]
    attach(kaggle, "03-base", 9, {"scores.base.json": made_from[1:]})
    after = attach(kaggle, "05-post", 9, {"scores.tuned.json": (), "compare.json": [("03-base", "scores.base.json")]})
    run = open_run("", "")
    assert run.read_json("compare.json")["hour"] == 9
    write_text(kaggle / "input" / "notebooks" / "ann" / "02-data" / "run" / "rows.eval.jsonl", "other rows")
    for name in ("scores.base.json", "compare.json"):  # compare.json was made from scores of the rows before
        with pytest.raises(MixedRunError, match=r"scores\.base\.json was made from rows\.eval\.jsonl with the sha256"):
            run.find(name)
    assert run.find("scores.tuned.json") == after / "scores.tuned.json"


def test_a_data_file_of_the_user_is_no_input_of_the_run_though_its_name_is(kaggle):
    attach(kaggle, "02-data", 9, {"rows.train.jsonl": ()})
    folder = attach(kaggle, "01-setup", 9)
    run = open_run("", "")
    saved = json.loads((folder / "run.json").read_text())
    assert run.read_json("run.json") == saved  # its own copy; and 01 reads nothing of the run
    write_text(folder / "run.json", json.dumps({**saved, "inputs": {"rows.train.jsonl": "0" * 64}}))
    other = open_run(kaggle / "other", "01-setup")
    (other.root / "run.json").unlink()
    assert other.find("run.json") == folder / "run.json"


def test_two_trainings_of_one_run_are_told_apart_by_their_contents(kaggle):
    one = attach(kaggle, "04-train", 9, {"train.json": ()})
    two = attach(kaggle, "04-train-again", 9, {"train.json": ()})
    run = open_run("", "")
    assert run.find("train.json") == one / "train.json"
    write_text(two / "train.json", '{"hour": 10}')
    with pytest.raises(MixedRunError, match=r"one attached folder must hold train\.json of this run, but 2 hold it"):
        run.find("train.json")
    shutil.rmtree(two)
    assert run.find("train.json") == one / "train.json"


def test_off_kaggle_there_is_nothing_to_choose_among(tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert open_run(tmp_path, "").inputs == ()
    with pytest.raises(InputError, match="INPUT_RUN chooses among runs attached on Kaggle"):
        open_run(tmp_path, "01-setup")


@pytest.mark.parametrize(
    ("place", "profile", "model", "warned"),
    [
        ("kaggle", "auto", "", True),
        ("kaggle", "auto", "standin", False),
        ("kaggle", "offline", "", False),
        ("elsewhere", "auto", "", False),
    ],
)
def test_on_kaggle_without_a_gpu_nobody_trains_a_toy_unasked(
    place, profile, model, warned, kaggle, monkeypatch, capsys
):
    from fgtools.profiles import resolve_profile

    if place != "kaggle":
        monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE")
    resolved = resolve_profile(profile, None)
    settings = build_settings(resolved, "native", "", model, 40, 100, 10)
    told = "WARNING: notebook 1 found no GPU, and MODEL is not given: this run trains a toy model"
    assert (told in capsys.readouterr().out) == warned
    run = open_run("")
    run.write_json("run.json", {**settings.to_dict(), "model_asked": model, "reason": resolved.reason})
    assert load_settings(run) == settings
    assert (told in capsys.readouterr().out) == warned
