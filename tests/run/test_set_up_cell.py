"""The set-up cell, before the package is there: which wheel it takes, from where, and what it says without one."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from fgtools.run.stages import STAGES
from tests.normal_form import NOTEBOOKS

NOTES = {stage: nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4) for stage in STAGES}
CELLS = {stage: next(cell.source for cell in note.cells if cell.id == "set-up") for stage, note in NOTES.items()}


def write_wheel(folder, version, python=">=3.11"):
    """A wheel of fgtools with nothing in it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"fgtools-{version}.dist-info"
    parts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: fgtools\nVersion: {version}\nRequires-Python: {python}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"fgtools-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in parts.items():
            wheel.writestr(name, text)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A notebook's folder without a clone around it, where fgtools may be installed; pip is recorded."""
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    return tmp_path


def run_cell(place, monkeypatch, source="", installed=False):
    """Run the cell with `place`/input for /kaggle/input; return the commands it gives, without Python's own path."""
    asked, started = [], []
    cell = CELLS["01_setup"].replace("/kaggle/input/", f"{place}/input/").replace('SOURCE = ""', f"SOURCE = {source!r}")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", lambda command, check: asked.append(command[1:]))
        patch.setattr(importlib.util, "find_spec", lambda name: installed or None)
        patch.setattr("fgtools.run.session.start_session", lambda: started.append(True))
        exec(compile(cell, "set-up", "exec"), {})
    assert started == [True]
    return asked


def test_the_cell_is_the_same_in_every_notebook():
    assert len({*CELLS.values()}) == 1


def test_of_several_wheels_in_any_place_pip_takes_the_newest_that_fits(place, monkeypatch):
    write_wheel(place / "input" / "fgtools-bundle", "0.9.0")
    write_wheel(place / "elsewhere", "0.10.0")
    (place / "input" / "datasets" / "ann").mkdir(parents=True)
    (place / "input" / "datasets" / "ann" / "bundle").symlink_to(place / "elsewhere")
    write_wheel(place / "input" / "datasets" / "ann" / "later", "0.11.0", python=">=4")
    (words,) = run_cell(place, monkeypatch, installed=True)  # an older one is replaced
    assert words[:6] == ["-m", "pip", "install", "-q", "-U", "--no-deps"] and words[-1] == "fgtools"
    subprocess.run([sys.executable, *words, "--target", str(place / "out")], check=True)
    assert [path.name for path in (place / "out").glob("fgtools*")] == ["fgtools-0.10.0.dist-info"]


def test_on_colab_an_uploaded_wheel_or_a_given_address_is_taken(place, monkeypatch):
    address = "https://example.org/fgtools-0.1.0-py3-none-any.whl"
    assert run_cell(place, monkeypatch, address) == [["-m", "pip", "install", "-q", "-U", "--no-deps", address]]
    write_wheel(Path(), "0.1.0")
    (words,) = run_cell(place, monkeypatch)
    assert words[-3:] == ["--no-index", "--find-links=.", "fgtools"]


def test_in_a_clone_the_clone_is_installed_unless_it_is_there(place, monkeypatch):
    (place / "pyproject.toml").touch()
    assert run_cell(place, monkeypatch) == [["-m", "pip", "install", "-q", "-U", "--no-deps", ".."]]
    assert run_cell(place, monkeypatch, installed=True) == []


def test_with_nothing_to_install_the_error_says_what_to_do(place, monkeypatch):
    with pytest.raises(FileNotFoundError, match="attach the data set with the fgtools wheel, upload the wheel, or set"):
        run_cell(place, monkeypatch)
