"""One version of every fact: pyproject, constraints, environment, kernels and the README agree."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from fgtools.profiles import FUNCTIONGEMMA, HERMES
from fgtools.run.kaggle_build import build_wheel
from fgtools.run.login import NAMES
from fgtools.run.packages import KERNELS, NEEDED
from fgtools.run.stages import STAGES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line and "#" not in line
)


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[><=\[]", requirement)[0] for requirement in requirements}


def test_every_direct_requirement_has_a_tested_version():
    extras = PROJECT["optional-dependencies"]
    direct = requirement_names(PROJECT["dependencies"] + [item for extra in extras.values() for item in extra]) - {
        "fgtools"
    }
    assert direct <= set(CONSTRAINTS)


def test_torch_is_not_capped_in_the_package():
    torch = [item for extra in PROJECT["optional-dependencies"].values() for item in extra if item.startswith("torch")]
    assert torch == ["torch>=2.6"]


def test_the_session_asks_for_no_more_than_the_package():
    extras = PROJECT["optional-dependencies"]
    assert set(NEEDED) <= requirement_names(PROJECT["dependencies"] + extras["train"] + extras["notebooks"])


def test_the_conda_environment_points_at_the_same_files():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip == ["-c constraints.txt", "-e .[dev]"]
    python = next(item for item in environment["dependencies"] if str(item).startswith("python="))
    assert float(python.removeprefix("python=3.")) >= float(PROJECT["requires-python"].removeprefix(">=3."))


def test_the_kernels_are_the_notebooks_in_order():
    metadata = json.loads((ROOT / "kaggle-metadata.json").read_text())
    kernels = metadata["kernels"]
    assert [kernel["notebook"] for kernel in kernels] == [*STAGES, "run_all"]
    assert (metadata["model"], metadata["data"]["hub"]) == (FUNCTIONGEMMA, HERMES)
    assert metadata["defaults"]["model_sources"] == [f"{FUNCTIONGEMMA}/1"] and metadata["secrets"] == [NAMES[0]]
    written = {name: stage for stage, files in STAGES.items() for name in (*files.writes, *files.may_write)}
    for kernel in kernels[:-1]:
        stage, attached = STAGES[kernel["notebook"]], {*kernel.get("kernel_sources", [])}
        assert attached >= {written[name] for name in (*stage.reads, *stage.may_read)}
        assert attached <= {*list(STAGES)[: list(STAGES).index(kernel["notebook"])]}


def test_the_bundle_holds_what_a_session_installs_and_kaggles_image_lacks():
    lacking = {"trl", "datasketch", "rapidfuzz", "evaluate", "jiwer"}
    wheels = json.loads((ROOT / "kaggle-metadata.json").read_text())["data_set"]["wheels"]
    assert lacking <= {*NEEDED} and {*wheels} == lacking | requirement_names([KERNELS])


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds what the wheel installs."""
    place = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(ROOT, place)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "installed")
    return place / "installed"


def test_the_wheel_holds_every_module_every_file_of_a_room_and_the_notebooks(installed):
    names = (path for path in (ROOT / "fgtools").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    expected = {path.relative_to(ROOT / "fgtools").as_posix() for path in names}
    expected |= {f"notebooks/{stage}.ipynb" for stage in STAGES}
    held = {path.relative_to(installed / "fgtools").as_posix() for path in installed.rglob("fgtools/**/*.*")}
    assert expected == {name for name in held if (installed / "fgtools" / name).is_file()}


def test_from_the_wheel_alone_a_notebook_runs_in_an_empty_folder(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "CUDA_VISIBLE_DEVICES": "", "FGTOOLS_BATCH": "1"}
    words = ["fgtools", "run", "--only", "01", "--profile", "offline", "--out", "run"]
    given = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "check": False}
    outcome = subprocess.run([sys.executable, "-P", "-m", *words], **given)
    assert outcome.returncode == 0, outcome.stderr
    assert "01_setup  done" in outcome.stdout
    assert json.loads((tmp_path / "run" / "run.json").read_text())["profile"] == "offline"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_ci_calls_the_test_command_of_the_readme():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme and "make test" in readme


MACHINE_PATH = re.compile(
    r"(?<![\w./~-])/(?:home|Users|root|work|workspace|tmp|opt|mnt|media|srv|var|scratch|private|usr/local)/(?!me\b)[\w.-]+"
    r"|\b[A-Za-z]:\\{1,2}Users\\{1,2}\w+"
)
"""A place on somebody's machine. Kaggle's /kaggle is every user's, Colab's /content too; /home/me is nobody's."""


@pytest.mark.parametrize("place", ["/home/ann/x", "/srv/ann", "'/tmp/a1'", "(/opt/conda/bin", r"C:\Users\ann"])
def test_a_place_on_a_machine_is_known_as_such(place):
    assert MACHINE_PATH.search(f"see {place}")


@pytest.mark.parametrize("place", ["/kaggle/input/x", "https://a.b/home/x", "./tmp/x", "~/tmp/x", "/home/me/x"])
def test_other_places_are_not(place):
    assert not MACHINE_PATH.search(f"see {place}")


def test_no_machine_path_is_committed():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture, weights
            continue
        found += [f"{name}: {match[0]}" for match in MACHINE_PATH.finditer(text)]
    assert found == []
