"""Errors: the package's own have one base, so that the command line can show them and nothing else."""

import ast
import importlib
import inspect
import pkgutil

import pytest

import fgtools
from fgtools.__main__ import main
from fgtools.files import FgtoolsError, FileError, make_folder, read_text, sha256_of, write_text
from tests.test_layers import MODULES

PARSERS = {
    *("schema.literals", "schema.signatures", "schema.parameters", "schema.tools", "calls.parse"),
    *("gold.values", "gold.results"),
}
"""Modules whose plain ValueErrors never leave the package: their callers say what could not be read."""


def test_every_error_class_has_the_one_base():
    found = set()
    for module in pkgutil.walk_packages(fgtools.__path__, "fgtools."):
        if module.name.endswith("__main__"):
            continue
        for name, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(value, Exception) and value.__module__.startswith("fgtools") and not name.startswith("_"):
                found.add(value)
    assert len(found) > 15
    assert [value for value in found if not issubclass(value, FgtoolsError)] == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - PARSERS))
def test_no_error_for_people_is_a_plain_one(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = getattr(node.exc.func, "id", "")
            assert name not in ("ValueError", "RuntimeError", "OSError", "FileNotFoundError", "NotADirectoryError"), (
                f"{module}, line {node.lineno}: raise an error of the package, such as files.InputError"
            )


def test_errors_of_the_operating_system_name_the_file_and_a_remedy(tmp_path, monkeypatch):
    write_text(tmp_path / "file", "text")
    for action in (write_text, lambda path, _: make_folder(path)):
        with pytest.raises(
            FileError, match=r"file/below must be made in a folder, but .*/file is a file: give another"
        ):
            action(tmp_path / "file" / "below" / "x" if action is write_text else tmp_path / "file" / "below", "text")
    monkeypatch.setattr("pathlib.Path.read_text", _deny)
    monkeypatch.setattr("pathlib.Path.open", _deny)
    for action in (read_text, sha256_of):
        with pytest.raises(FileError, match="file must be read, but Permission denied"):
            action(tmp_path / "file")


def _deny(path, *_, **__):
    raise PermissionError(13, "Permission denied", str(path))


SCORE = ["score", "--rows", "r.jsonl", "--replies", "r.jsonl"]


def fail_with(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("fgtools.run.commands.load_rows", fail)


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), ValueError("x"), OSError("x"), RuntimeError("x")])
def test_errors_that_are_not_for_people_keep_their_traceback(monkeypatch, error):
    fail_with(monkeypatch, error)
    with pytest.raises(type(error)):
        main(SCORE)


def test_debug_shows_the_traceback_of_an_error_for_people(monkeypatch, capsys):
    fail_with(monkeypatch, FileError("r.jsonl must be read"))
    assert main(SCORE) == 1
    assert capsys.readouterr().err == "error: r.jsonl must be read\n"
    with pytest.raises(FileError):
        main(["--debug", *SCORE])


def test_the_version_is_shown(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("fgtools ")
