"""The session: one GPU, quiet libraries, and what it says of itself."""

import importlib.metadata
import logging
import os

import pytest

from fgtools import __version__
from fgtools.run import session
from fgtools.run.packages import SessionError
from fgtools.run.processes import ALL, ONE_GPU
from fgtools.run.session import describe_environment, start_session

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
    monkeypatch.setattr("fgtools.run.processes.count_gpus", lambda: 0)
    return kept


def test_without_a_person_watching_no_library_shows_progress(environment, monkeypatch):
    monkeypatch.setattr(session, "is_watched", lambda: False)
    start_session()
    assert [environment.get(name) for name in VARIABLES] == ["1", "1", "1", "error"]


def test_for_a_person_progress_is_shown(environment, monkeypatch):
    monkeypatch.setattr(session, "is_watched", lambda: True)
    start_session()
    assert not {*VARIABLES} & {*environment}


def test_a_session_on_two_gpus_sees_the_first_and_says_so(environment, monkeypatch, capsys):
    monkeypatch.setattr("fgtools.run.processes.count_gpus", lambda: 2)
    start_session()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment[ONE_GPU]) == ("0", ALL)
    assert environment["TOKENIZERS_PARALLELISM"] == "false"
    told = "2 GPUs are visible, and one process takes one of them: GPU 0; PROCESSES in notebooks 3 to 5 takes more\n"
    assert capsys.readouterr().out == told
    start_session()
    assert capsys.readouterr().out == ""


def test_another_version_that_is_still_loaded_asks_for_a_restart(environment, monkeypatch):
    monkeypatch.setattr(session, "find_version", lambda *_: "99.0")
    with pytest.raises(SessionError, match=rf"fgtools 99.0 is installed, but {__version__} is loaded: restart"):
        start_session()


def test_warnings_of_libraries_are_not_shown(monkeypatch):
    logger = logging.getLogger("transformers")
    monkeypatch.setattr(logger, "level", logging.WARNING)
    session.quiet_libraries()
    assert logger.level == logging.ERROR


def test_the_environment_names_versions_and_no_paths():
    environment = describe_environment()
    assert environment["torch"] == importlib.metadata.version("torch")
    assert not any("/" in value for value in environment.values())
