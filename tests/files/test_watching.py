"""Whether a person watches: a kernel with a live front end, or a terminal; nobody does under papermill or nbval."""

import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from fgtools.files import is_watched, track

ASK = "from fgtools.files import is_watched\nprint(is_watched())"
FRONT_ENDS = ("FGTOOLS_BATCH", "RANK", "KAGGLE_KERNEL_RUN_TYPE", "JPY_SESSION_NAME", "COLAB_RELEASE_TAG")


@pytest.fixture(autouse=True)
def no_front_end(monkeypatch):
    for name in FRONT_ENDS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shell(monkeypatch):
    """The shell of a kernel, as IPython gives it in one."""
    shell = SimpleNamespace(kernel=object(), user_ns={})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    return shell


def ask_a_kernel():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(ASK)])
    NotebookClient(notebook, kernel_name="python3", timeout=3600, startup_timeout=3600).execute()
    return notebook.cells[0].outputs[0].text.strip()


def test_a_kernel_without_a_front_end_is_not_watched():
    assert ask_a_kernel() == "False"


def test_a_kernel_of_a_jupyter_server_is_watched(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/02_data.ipynb")
    assert ask_a_kernel() == "True"


@pytest.mark.parametrize(
    ("name", "value", "watched"),
    [
        ("JPY_SESSION_NAME", "a.ipynb", True),
        ("COLAB_RELEASE_TAG", "release-colab", True),
        ("KAGGLE_KERNEL_RUN_TYPE", "Interactive", True),
        ("KAGGLE_KERNEL_RUN_TYPE", "Batch", False),
        ("VSCODE_CWD", "/", False),  # every terminal of the editor has it, and what is started there
    ],
)
def test_front_ends_are_known_by_what_they_set(shell, monkeypatch, name, value, watched):
    monkeypatch.setenv(name, value)
    assert is_watched() is watched


def test_vs_code_is_known_by_the_name_it_puts_into_the_notebook(shell):
    assert is_watched() is False
    shell.user_ns["__vsc_ipynb_file__"] = "a.ipynb"
    assert is_watched() is True


def test_a_kaggle_batch_run_is_not_watched_although_jupyter_names_a_session(shell, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert is_watched() is False


@pytest.mark.parametrize(("name", "value"), [("FGTOOLS_BATCH", "1"), ("RANK", "1")])
def test_a_batch_run_and_further_processes_are_never_watched(shell, monkeypatch, name, value):
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    monkeypatch.setenv(name, value)
    assert is_watched() is False


def test_outside_a_kernel_a_terminal_is_a_person(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        assert is_watched() is terminal
        assert list(track([1, 2], 2, "rows")) == [1, 2]
        assert ("rows" in capsys.readouterr().err) is terminal
