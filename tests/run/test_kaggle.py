"""The Kaggle commands: folders that Kaggle's own client takes, kernels pushed in order, failures in plain words."""

import ast
import json
import re
import shutil
import zipfile
from pathlib import Path

import nbformat
import pytest

from fgtools.__main__ import main
from fgtools.run import kaggle_build, kaggle_push
from fgtools.run.kaggle_build import DATA_SET, build_kaggle, build_wheel, fetch_wheels, load_build
from fgtools.run.kaggle_metadata import KERNELS, RUN_ALL, KaggleError, build_slug, load_series
from fgtools.run.kaggle_push import KERNEL_LIMIT, push_series
from fgtools.run.parameters import ParameterError
from fgtools.run.stages import STAGES
from tests.run.kaggle_client import FakeClient, load_real_client, refuse

ROOT = Path(__file__).parents[2]
OFFLINE = "ERROR: No matching distribution found for it"


def run_fake_pip(*words):
    """Stand for pip on a machine without network: the package's wheel is built, one other is there, the rest fail."""
    if words[0] == "wheel":
        Path(words[words.index("-w") + 1], "fgtools-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
        return ""
    if words[-1].startswith("trl"):
        Path(words[words.index("-d") + 1], "trl-1.16.0-py3-none-any.whl").write_bytes(b"wheel")
        return ""
    return OFFLINE


@pytest.fixture(autouse=True)
def no_user(monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A build for Ann with two parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kaggle_build, "_run_pip", run_fake_pip)
        out = tmp_path_factory.mktemp("kaggle") / "build"
        build_kaggle(out, "ann", {"N_EVAL": "20", "REPO_ID": "ann/it's"}, ROOT)
    return out


def read_kernel(built, name):
    return json.loads((built / name / "kernel-metadata.json").read_text())


def test_kaggles_own_client_takes_every_kernel(built, tmp_path, monkeypatch, capsys):
    client, sent = load_real_client(monkeypatch, tmp_path)
    capsys.readouterr()
    for name in KERNELS:
        client.kernels_push(str(built / name))
    assert capsys.readouterr().out == ""  # it would warn of a title that is not the id's slug
    assert [request.slug for request in sent][:2] == ["ann/functiongemma-1-setup", "ann/functiongemma-2-data"]
    for name, request in zip(KERNELS, sent, strict=True):
        trains = name != "06_publish"
        assert (request.enable_gpu, request.machine_shape) == (trains, "NvidiaTeslaT4" if trains else "")
        assert request.is_private and request.enable_internet and not request.enable_tpu
        assert request.dataset_data_sources == ["ann/fgtools-bundle"]
        assert request.model_data_sources == (
            ["google/functiongemma/transformers/functiongemma-270m-it/1"] if trains else []
        )
        assert "cells" in json.loads(request.text)
    assert sent[4].kernel_data_sources == [request.slug for request in sent[:4]]
    assert sent[-1].kernel_data_sources == []


def test_kaggles_own_client_takes_the_data_set(built, tmp_path, monkeypatch):
    client, sent = load_real_client(monkeypatch, tmp_path)
    taken = []
    monkeypatch.setattr(client, "_upload_file", lambda name, *_: taken.append(name))
    client.dataset_create_new(str(built / DATA_SET), quiet=True)
    (request,) = sent
    assert (request.owner_slug, request.slug, request.is_private) == ("ann", "fgtools-bundle", True)
    files = {path.name for path in (built / DATA_SET).iterdir()} - {"dataset-metadata.json"}
    assert {*taken} == files and all(path.is_file() for path in (built / DATA_SET).iterdir())


def test_a_slug_is_what_the_client_makes_of_the_title():
    from slugify import slugify

    saved = json.loads((ROOT / "kaggle-metadata.json").read_text())
    titles = [entry["title"] for entry in saved["kernels"]] + [saved["data_set"]["title"]]
    for title in [*titles, " A  b--C_d (2.0)! "]:
        assert build_slug(title) == slugify(title)


def test_a_kernel_holds_its_notebook_with_the_parameters_and_without_outputs(built):
    for name in STAGES:
        notebook = nbformat.read(built / name / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert cells and not any(cell.outputs for cell in cells)
        committed = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        given = {"01_setup": "N_EVAL: int = 20  #", "06_publish": """REPO_ID: str = "ann/it's"  #"""}.get(name)
        differ = [
            (ours.source, theirs.source)
            for ours, theirs in zip(notebook.cells, committed.cells, strict=True)
            if ours.source != theirs.source
        ]
        assert len(differ) == bool(given)
        if given:
            assert given in differ[0][0] and ast.parse(differ[0][0])
            lines = zip(differ[0][0].splitlines(), differ[0][1].splitlines(), strict=True)
            assert sum(a != b for a, b in lines) == 1


def test_run_all_sets_up_as_the_notebooks_do_and_runs_the_series(built):
    notebook = nbformat.read(built / RUN_ALL / f"{RUN_ALL}.ipynb", as_version=4)
    nbformat.validate(notebook)
    _, values, setup, run = (cell.source for cell in notebook.cells)
    first = nbformat.read(ROOT / "notebooks" / "01_setup.ipynb", as_version=4)
    assert setup in [cell.source for cell in first.cells] and "start_session" in setup
    space = {}
    exec(values, space)
    assert space["PARAMETERS"] == {"N_EVAL": "20", "REPO_ID": "ann/it's"}
    assert "run_series(run.root, PARAMETERS)" in run and ast.parse(run)


def test_a_build_without_network_names_what_is_missing_and_builds_the_rest(built):
    build = load_build(built)
    wanted = {"datasketch", "rapidfuzz", "evaluate", "jiwer", "liger-kernel"}
    assert {one.requirement.partition("==")[0] for one in build.missing} == wanted
    assert {one.python for one in build.missing} == {"3.12", "3.13"} and build.missing[0].reason == OFFLINE
    held = {path.name for path in (built / DATA_SET).iterdir()}
    assert held == {*build.sha256} >= {"fgtools-0.1.0-py3-none-any.whl", "trl-1.16.0-py3-none-any.whl"}
    assert {f"{stage}.ipynb" for stage in STAGES} <= held


def test_files_of_this_machine_go_into_the_data_set_and_are_found_in_either_layout(tmp_path, monkeypatch):
    monkeypatch.setattr(kaggle_build, "_run_pip", run_fake_pip)
    data, tools = tmp_path / "rows [1].csv", tmp_path / "tools.py"
    data.write_text("request,call\n")
    tools.write_text("def stop(): ...\n")
    build_kaggle(tmp_path / "k", "ann", {"DATA": str(data), "TOOLS": str(tools), "SEED": "7"}, ROOT)
    assert (tmp_path / "k" / DATA_SET / data.name).read_text() == data.read_text()
    search = read_search(tmp_path / "k" / "01_setup" / "01_setup.ipynb")
    whole = read_search(tmp_path / "k" / RUN_ALL / f"{RUN_ALL}.ipynb")
    assert str(tmp_path) not in search + whole
    for layout in ("fgtools-bundle", "datasets/ann/fgtools-bundle"):
        mount = tmp_path / layout.replace("/", "-") / "input"
        shutil.copytree(tmp_path / "k" / DATA_SET, mount / layout)
        shutil.copytree(tmp_path / "k" / DATA_SET, mount / "stranger")
        names, parameters = {}, {"PARAMETERS": {}}
        exec(search.replace("/kaggle/input", str(mount)), names)
        exec(whole.replace("/kaggle/input", str(mount)), parameters)
        assert names["DATA"] == str(mount / layout / data.name) == parameters["PARAMETERS"]["DATA"]
        assert names["TOOLS"] == str(mount / layout / tools.name) == parameters["PARAMETERS"]["TOOLS"]
    later = nbformat.read(tmp_path / "k" / "02_data" / "02_data.ipynb", as_version=4)
    assert "attached-files" not in [cell.id for cell in later.cells]  # it reads the place from run.json


def read_search(path):
    """The cell that finds attached files: it comes after the parameters."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    (cell,) = [cell for cell in notebook.cells if cell.id == "attached-files"]
    assert re.search("SEED|PARAMETERS = ", notebook.cells[notebook.cells.index(cell) - 1].source)
    return cell.source


@pytest.mark.parametrize(
    ("name", "file"), [("DATA", "rows"), ("DATA", "rows.csv.gz"), ("MODEL", "model.gguf"), ("TOOLS", "a/rows.csv")]
)
def test_what_cannot_go_into_the_data_set_is_an_error(tmp_path, name, file):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if file == "rows" else path.write_text("")
    (tmp_path / "rows.csv").write_text("")
    given = {"DATA": str(tmp_path / "rows.csv")} if name == "TOOLS" else {}
    said = "must have names of their own" if name == "TOOLS" else f"{name} must be a single file that is no archive"
    with pytest.raises(KaggleError, match=said):
        build_kaggle(tmp_path / "k", "ann", {**given, name: str(path)}, ROOT)


def test_a_folder_that_holds_something_else_is_not_replaced(built, tmp_path, monkeypatch):
    monkeypatch.setattr(kaggle_build, "_run_pip", run_fake_pip)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(KaggleError, match="--out must be a new folder or one of an earlier build"):
        build_kaggle(tmp_path, "ann", root=ROOT)
    again = tmp_path / "again"
    shutil.copytree(built, again)
    (again / DATA_SET / "fgtools-0.0.9-py3-none-any.whl").write_bytes(b"an older one")
    assert build_kaggle(again, "bob", root=ROOT).owner == load_build(again).owner == "bob"
    assert not (again / DATA_SET / "fgtools-0.0.9-py3-none-any.whl").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("owner", ["", "ann smith", "a/b", "-ann"])
def test_a_name_that_is_no_kaggle_user_is_an_error(owner):
    with pytest.raises(KaggleError, match="the kernels need the name of a Kaggle user"):
        load_series(ROOT / "kaggle-metadata.json", owner)


def test_what_cannot_be_built_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(ParameterError, match="'N_EVALS' is not a parameter"):
        build_kaggle(tmp_path / "out", "ann", {"N_EVALS": "3"}, ROOT)
    with pytest.raises(KaggleError, match=r"needs a clone of the repository, but fgtools, notebooks, .* not there"):
        build_kaggle(tmp_path / "out", "ann", root=tmp_path)
    assert not (tmp_path / "out").exists()


def write_wheel(folder, name, version, tag):
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as archive:
        info = f"{name}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")


def test_pip_fetches_wheels_of_kaggles_python_and_nothing_they_depend_on(tmp_path, monkeypatch):
    index, out = tmp_path / "index", tmp_path / "out"
    index.mkdir()
    write_wheel(index, "fast", "1.0", "cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64")
    write_wheel(index, "fast", "1.0", "cp312-cp312-win_amd64")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    missing = fetch_wheels(["fast==1.0"], ["3.12", "3.13"], out)
    assert [path.name.split("-")[2] for path in out.iterdir()] == ["cp312"]
    assert [(one.requirement, one.python) for one in missing] == [("fast==1.0", "3.13")]
    assert "No matching distribution" in missing[0].reason


def test_files_of_an_earlier_build_do_not_get_into_the_wheel(tmp_path):
    for name in kaggle_build._SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    stale = tmp_path / "build" / "lib" / "fgtools" / "renamed_since.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    with zipfile.ZipFile(build_wheel(tmp_path, tmp_path)) as archive:
        names = archive.namelist()
    assert "fgtools/notebooks/01_setup.ipynb" in names and "fgtools/renamed_since.py" not in names


def push(client, built, *words, **how):
    waits = []
    push_series(client, built, words, sleep=waits.append, **how)
    return waits


def test_the_data_set_is_uploaded_then_the_kernels_run_one_after_the_other(built, capsys):
    client = FakeClient(statuses={"functiongemma-2-data": [("QUEUED", None), ("RUNNING", None), ("COMPLETE", None)]})
    waits = push(client, built)
    assert [what for what in client.asked if "status" not in what[0]] == [
        ("dataset_create_new", False),
        *(("kernels_push", name) for name in STAGES),
    ]
    third = client.asked.index(("kernels_push", "03_baseline"))
    before = [what for what in client.asked[:third] if what[0] == "kernels_status"]
    assert (
        before
        == [("kernels_status", "ann/functiongemma-1-setup/3")] + [("kernels_status", "ann/functiongemma-2-data/3")] * 3
    )
    assert waits == [kaggle_push.POLL] * 2
    shown = capsys.readouterr().out
    assert "02_data       queued after 0 min\n02_data       running after 0 min\n02_data       complete" in shown


def test_a_data_set_that_is_there_gets_a_new_version(built):
    client = FakeClient(version=4)
    push(client, built, RUN_ALL)
    assert ("dataset_create_version", "fgtools 0.1.0") in client.asked and client.version == 5
    assert [name for what, name in client.asked if what == "kernels_push"] == [RUN_ALL]


def test_without_the_data_set_nothing_is_uploaded(built):
    client = FakeClient()
    push(client, built, "2", "03_baseline", with_data_set=False)
    assert [name for what, name in client.asked if what != "kernels_status"] == ["02_data", "03_baseline"]


def test_a_kernel_that_fails_stops_the_series_with_its_log_and_the_way_on(built, capsys):
    client = FakeClient(statuses={"functiongemma-2-data": [("ERROR", "exit code 1")]})
    with pytest.raises(KaggleError, match=r"02_data ended as error: exit code 1\n  ValueError: rows are bad"):
        push(client, built)
    assert ("kernels_push", "03_baseline") not in client.asked
    assert "kaggle push --out" in (shown := capsys.readouterr().out)
    assert shown.rstrip().endswith("--no-data-set --only 02_data 03_baseline 04_train 05_post_eval 06_publish")


def test_a_source_that_kaggle_leaves_out_is_an_error(built):
    model = "google/functiongemma/transformers/functiongemma-270m-it/1"
    client = FakeClient(answers={"01_setup": {"invalid_model_sources": [model]}})
    with pytest.raises(KaggleError, match=rf"without what Kaggle does not let it read \(model: {model}\).*licence"):
        push(client, built)
    client = FakeClient(answers={"01_setup": {"error": "Title is in use"}})
    with pytest.raises(KaggleError, match="Kaggle does not take 01_setup: Title is in use"):
        push(client, built)


def test_a_kernel_that_never_ends_is_an_error(built):
    client = FakeClient(statuses={"functiongemma-1-setup": [("RUNNING", None)] * 10_000})
    with pytest.raises(KaggleError, match="01_setup has not ended after 15 hours"):
        push(client, built)
    assert client.asked.count(("kernels_status", "ann/functiongemma-1-setup/3")) == KERNEL_LIMIT / kaggle_push.POLL


@pytest.mark.parametrize(
    ("status", "said"), [(401, "token is not valid"), (403, "may not do that"), (404, "nothing of"), (500, "try again")]
)
def test_what_the_server_refuses_is_said_without_its_address(built, monkeypatch, status, said):
    client = FakeClient()
    monkeypatch.setattr(client, "kernels_push", refuse(status))
    with pytest.raises(KaggleError, match=f"pushing 01_setup: Kaggle answers {status}: .*{said}") as raised:
        push(client, built, with_data_set=False)
    assert "secret" not in str(raised.value)


def test_kernels_of_another_user_are_not_pushed(built):
    with pytest.raises(KaggleError, match="built for 'ann', but the client is 'bob'"):
        push(FakeClient(user="bob"), built)


def test_without_credentials_the_message_says_how_to_get_them(built, tmp_path, monkeypatch, capsys):
    load_real_client(monkeypatch, tmp_path)
    assert main(["kaggle", "push", "--out", str(built)]) == 1
    told = capsys.readouterr()
    assert "finds no credentials" in told.err and "by hand, once, in the browser" in told.out
    assert "Authentication required" not in told.out


def test_status_and_output_name_every_kernel(built, monkeypatch, capsys):
    client = FakeClient(statuses={"functiongemma-4-train": [("ERROR", "out of memory")]})
    monkeypatch.setattr(kaggle_push, "connect", lambda: client)
    assert main(["kaggle", "status", "--out", str(built)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 7 and shown[3].endswith("ann/functiongemma-4-train  ERROR: out of memory")
    assert main(["kaggle", "output", "--out", str(built), "--only", "5"]) == 0
    assert client.asked[-1] == ("kernels_output", "ann/functiongemma-5-post-eval")
    assert "05_post_eval  2 files" in capsys.readouterr().out


def test_build_prints_what_lies_where_and_what_stays_by_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kaggle_build, "_run_pip", run_fake_pip)
    monkeypatch.setenv("KAGGLE_USERNAME", "ann")
    assert main(["kaggle", "build", "--out", str(tmp_path / "k"), "-p", "N_EVAL", "20"]) == 0
    shown = capsys.readouterr().out
    for expected in ("ann/functiongemma-run-all", "ann/fgtools-bundle", "N_EVAL = 20", "10 wheels are missing"):
        assert expected in shown
    for expected in ("licence", "phone", "secret", "HUGGINGFACE_TOKEN", "next: python -m fgtools kaggle push"):
        assert expected in shown


def test_a_folder_without_a_build_is_named(tmp_path, capsys):
    for action in ("push", "status", "output"):
        assert main(["kaggle", action, "--out", str(tmp_path)]) == 1
        assert "must be a folder that `kaggle build` made" in capsys.readouterr().err
    (tmp_path / "build.json").write_text('{"owner": "ann"}')
    assert main(["kaggle", "push", "--out", str(tmp_path)]) == 1
    assert "must be written by this version of fgtools: build anew" in capsys.readouterr().err
