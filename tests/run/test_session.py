"""The session: what is missing is installed without touching torch, and failures say what to do."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from fgtools.run import session
from fgtools.run.session import SessionError, describe_environment, find_missing, install_missing


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


def test_the_environment_names_versions_and_no_paths():
    environment = describe_environment()
    assert environment["torch"] == importlib.metadata.version("torch")
    assert not any("/" in value for value in environment.values())
