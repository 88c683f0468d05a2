"""The session: what is missing is installed without touching torch, and failures say what to do."""

import importlib.metadata
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fgtools.run import session
from fgtools.run.processes import ONE_GPU
from fgtools.run.session import SessionError, describe_environment, find_missing, install_missing, start_session

VARIABLES = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE", "KAGGLEHUB_VERBOSITY")


@pytest.fixture
def environment(monkeypatch):
    """An environment of its own, without what a session sets; nothing is installed."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in (*VARIABLES, "CUDA_VISIBLE_DEVICES", ONE_GPU, "TOKENIZERS_PARALLELISM")
    }
    monkeypatch.setattr(os, "environ", kept)
    monkeypatch.setattr(session, "install_missing", lambda: None)
    monkeypatch.setattr(session, "find_gpu", lambda: None)
    return kept


def test_without_a_person_watching_no_library_shows_progress(environment, monkeypatch):
    monkeypatch.setattr(session, "is_watched", lambda: False)
    start_session()
    assert [environment.get(name) for name in VARIABLES] == ["1", "1", "1", "error"]


def test_for_a_person_progress_is_shown(environment, monkeypatch):
    monkeypatch.setattr(session, "is_watched", lambda: True)
    start_session()
    assert not {*VARIABLES} & {*environment}


def test_a_session_sees_one_gpu_unless_its_user_chose(environment):
    start_session()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment[ONE_GPU]) == ("0", "1")
    assert environment["TOKENIZERS_PARALLELISM"] == "false"
    environment.pop(ONE_GPU)
    environment["CUDA_VISIBLE_DEVICES"] = "1"
    start_session()
    assert environment["CUDA_VISIBLE_DEVICES"] == "1" and ONE_GPU not in environment


def test_warnings_of_libraries_are_not_shown(monkeypatch):
    logger = logging.getLogger("transformers")
    monkeypatch.setattr(logger, "level", logging.WARNING)
    session.quiet_libraries()
    assert logger.level == logging.ERROR


def test_nothing_is_missing_here():
    assert find_missing() == []


def test_absent_and_old_packages_are_listed(monkeypatch):
    versions = {"trl": "0.25.1", "jsonschema": "4.26.0"}

    def version(name):
        if name == "rapidfuzz":
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name, "99.0" if name != "trl" else "0.25.1")

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert find_missing() == ["rapidfuzz>=3.6", "trl>=1.16,<1.17"]


def test_installing_holds_the_torch_of_the_image(monkeypatch):
    asked = {}

    def run(command, **_):
        asked["command"] = command
        asked["held"] = Path(command[command.index("-c") + 1]).read_text()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(session, "find_missing", lambda: ["rapidfuzz>=3.6"])
    monkeypatch.setattr(session.subprocess, "run", run)
    for name in ("torch", "transformers", "datasets", "trl"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    install_missing()
    assert asked["held"] == f"torch=={importlib.metadata.version('torch')}\n"
    assert asked["command"][-1] == "rapidfuzz>=3.6" and "--upgrade" not in asked["command"]


def test_a_failed_installation_says_what_to_do(monkeypatch):
    monkeypatch.setattr(session, "find_missing", lambda: ["trl>=1.16,<1.17"])
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no matching distribution")
    monkeypatch.setattr(session.subprocess, "run", lambda *_, **__: failed)
    for name in ("torch", "transformers", "datasets", "trl"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SessionError, match=r"pip must install trl.*no matching distribution.*internet on"):
        install_missing()


def test_a_package_already_imported_asks_for_a_restart(monkeypatch):
    monkeypatch.setattr(session, "find_missing", lambda: ["trl>=1.16,<1.17"])
    monkeypatch.setitem(sys.modules, "transformers", object())
    with pytest.raises(SessionError, match="restart the kernel"):
        install_missing()


@pytest.mark.parametrize("code", [0, 1])
def test_kernels_are_installed_where_a_gpu_is_and_a_failure_is_a_line(code, monkeypatch, capsys):
    asked = []
    outcome = subprocess.CompletedProcess([], code, "", "WARNING: x\nERROR: no matching distribution")
    monkeypatch.setattr(session.subprocess, "run", lambda command, **_: asked.append(command) or outcome)
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(session, "find_gpu", lambda: None)
    session.install_kernels()
    assert asked == []
    monkeypatch.setattr(session, "find_gpu", lambda: Path("/dev/nvidia0"))
    session.install_kernels()
    (command,) = asked
    assert command[-1] == session.KERNELS and "--no-deps" in command
    told = capsys.readouterr().out
    assert ("is not installed (ERROR: no matching distribution): training computes with plain kernels" in told) == code


def test_kernels_that_are_there_are_not_installed_again(monkeypatch):
    monkeypatch.setattr(session, "find_gpu", lambda: Path("/dev/nvidia0"))
    monkeypatch.setattr(session.subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    session.install_kernels()  # liger-kernel belongs to the development tools


def test_the_environment_names_versions_and_no_paths():
    environment = describe_environment()
    assert environment["torch"] == importlib.metadata.version("torch")
    assert not any("/" in value for value in environment.values())
