"""What pip is asked for: what is missing, one by one, from attached wheels first; and what is told of it."""

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from fgtools.run import packages
from fgtools.run.packages import SessionError, describe_changes, find_missing, find_wheel_folders, install_missing

GONE = subprocess.CompletedProcess([], 1, "", "WARNING: x\nERROR: no matching distribution")
DONE = subprocess.CompletedProcess([], 0, "", "")


@pytest.fixture
def image(monkeypatch):
    """An image with some versions, on which pip is recorded: what it is asked for is there afterwards."""
    versions = {"torch": "2.10.0", "datasets": "4.0.0", "pyarrow": "18.1.0", "accelerate": "1.13.0", "fsspec": "2025.3"}
    requires = {"trl": ["accelerate>=1.4", "datasets>=4.7", "pyarrow>=21; python_version > '3'", "torch>=9"]}
    requires["jiwer"] = ["click>=8.1", "fsspec>=2026", "nothing; extra == 'dev'"]
    new = {"trl": "1.16.0", "jiwer": "4.0.0", "click": "8.5.1", "fsspec": "2026.1"}
    asked = []

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    def run(command, **_):
        asked.append(command[command.index("--no-deps") + 1 :])
        names = {word.partition(">")[0] for word in command}
        versions.update({name: new[name] for name in names & {*new}})
        return DONE

    monkeypatch.setattr(packages.importlib.metadata, "version", version)
    monkeypatch.setattr(packages.importlib.metadata, "requires", requires.get)
    monkeypatch.setattr(packages, "_list_versions", lambda: dict(versions))
    monkeypatch.setattr(packages, "NEEDED", {"trl": "trl>=1.16,<1.17", "jiwer": "jiwer>=4.0", "torch": "torch>=2.6"})
    monkeypatch.setattr(packages.subprocess, "run", run)
    for name in ("trl", "jiwer", "click", "fsspec"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return asked


def test_nothing_is_missing_here():
    assert find_missing() == []


def test_absent_and_old_packages_are_listed(monkeypatch):
    def version(name):
        if name == "rapidfuzz":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.25.1" if name == "trl" else "99.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert find_missing() == ["rapidfuzz>=3.6", "trl>=1.16,<1.17"]


def test_what_is_missing_is_installed_and_the_image_stays_but_for_what_is_too_old(image, capsys):
    install_missing()
    assert image == [["trl>=1.16,<1.17", "jiwer>=4.0"], ["click>=8.1", "fsspec>=2026"]]
    assert capsys.readouterr().out.splitlines() == [
        "installing trl>=1.16,<1.17, jiwer>=4.0 (torch stays as it is)",
        "installing click>=8.1, fsspec>=2026 (torch stays as it is)",
        "installed: click 8.5.1, jiwer 4.0.0, trl 1.16.0",
        "replaced: fsspec 2025.3 -> 2026.1",
        "kept: datasets 4.0.0, although trl asks for >=4.7: the series was run with it",
        "kept: pyarrow 18.1.0, although trl asks for >=21: the series was run with it",
        "kept: torch 2.10.0, although trl asks for >=9: torch never changes",
    ]
    install_missing()
    assert len(image) == 2 and capsys.readouterr().out == ""


def test_where_nothing_was_replaced_that_is_told():
    told = ["installed: b 2", "replaced: nothing of what was there"]
    assert describe_changes({"a": "1"}, {"a": "1", "b": "2"}) == told


def test_wheels_of_attached_data_sets_are_used_first_and_the_index_only_after_them(monkeypatch, tmp_path):
    wheels = tmp_path / "datasets" / "me" / "bundle" / "wheels"
    wheels.mkdir(parents=True)
    (wheels / "trl-1.16.0-py3-none-any.whl").touch()
    (tmp_path / "trl-notes.txt").touch()
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("KAGGLE_CACHE_MOUNT_FOLDER", str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert find_wheel_folders() == [wheels]
    Path("jiwer-4.0.0-py3-none-any.whl").touch()  # uploaded beside the notebook, as on Colab
    assert find_wheel_folders() == [wheels, tmp_path / "here"]
    asked, outcomes = [], [GONE, DONE]
    monkeypatch.setattr(packages.subprocess, "run", lambda command, **_: asked.append(command) or outcomes.pop(0))
    assert packages.install(["trl"], [wheels]) == ""
    assert [command[-3:] for command in asked] == [
        ["--no-index", f"--find-links={wheels}", "trl"],
        ["--no-deps", f"--find-links={wheels}", "trl"],
    ]


def test_a_failed_installation_says_what_to_do(image, monkeypatch):
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: GONE)
    with pytest.raises(SessionError, match=r"pip must install trl.*no matching distribution.*internet on, or attach"):
        install_missing()


def test_a_package_already_imported_asks_for_a_restart(image, monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", object())
    with pytest.raises(SessionError, match=r"must be installed before jiwer is imported.*pip install --no-deps \"trl>"):
        install_missing()
    assert image == []


@pytest.mark.parametrize("loaded", ["pyarrow", "huggingface_hub", "numpy", "yaml"])
def test_what_a_new_package_asks_for_is_not_replaced_under_a_loaded_one(loaded, image, monkeypatch, capsys):
    package = "pyyaml" if loaded == "yaml" else loaded
    asks = packages.importlib.metadata.requires
    monkeypatch.setattr(
        packages.importlib.metadata, "requires", lambda name: [f"{package}>=99"] if name == "trl" else asks(name)
    )
    monkeypatch.setattr(packages, "ENOUGH", {})
    importlib.import_module(loaded)
    with pytest.raises(SessionError, match=rf"before {package} is imported.*--no-deps.*\"{package}>=99\".*restart the"):
        install_missing()
    assert image == [["trl>=1.16,<1.17", "jiwer>=4.0"]]  # nothing after that


@pytest.mark.parametrize("outcome", [DONE, GONE])
def test_kernels_are_installed_where_a_gpu_is_and_a_failure_is_a_line(outcome, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(packages.subprocess, "run", lambda command, **_: asked.append(command) or outcome)
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    packages.install_kernels(None)
    assert asked == []
    packages.install_kernels(Path("/dev/nvidia0"))
    (command,) = asked
    assert command[-1] == packages.KERNELS and "--no-deps" in command
    told = capsys.readouterr().out
    assert ("is not installed (ERROR: no matching distribution): training computes with plain kernels" in told) == (
        outcome is GONE
    )


def test_kernels_that_are_there_are_not_installed_again(monkeypatch):
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    packages.install_kernels(Path("/dev/nvidia0"))  # liger-kernel belongs to the development tools
