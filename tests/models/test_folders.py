"""Odd and hostile model folders: each loads or is refused with a sentence, and no code of a folder is run."""

import ast
import re
import shutil
import sys

import pytest

from fgtools.__main__ import main
from fgtools.files import write_jsonl
from fgtools.models import ModelError, load_tokenizer, template
from fgtools.offline import CHECKPOINT
from fgtools.run.exits import find_shortage
from tests.model_folders import CASES, LOADS, change_weights, deny, outcome, poison
from tests.test_layers import MODULES
from tests.toys import small_rows

LOADERS = {"from_pretrained", "from_config", "pipeline"}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_the_table_is_long_and_its_labels_are_different():
    assert len(CASES) >= 80 and len({case.label for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_a_folder_loads_or_is_named_with_its_file(case, tmp_path, monkeypatch, recwarn):
    if "GiB" in case.wanted and sys.platform != "linux":
        pytest.skip("only Linux holds a process to a limit of memory")
    if case.change is deny:
        real = type(tmp_path).read_text

        def refuse(path, *how, **more):
            if path.name == "config.json":
                raise PermissionError(13, "Permission denied")
            return real(path, *how, **more)

        monkeypatch.setattr("pathlib.Path.read_text", refuse)  # permissions do not bind root
    if "seconds" in case.wanted:  # not for the others, which a busy machine may make slow
        monkeypatch.setattr(template, "RENDER_SECONDS", 0.5)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    said = outcome(case, tmp_path)
    assert re.search(case.wanted, said) if case.wanted != LOADS else said == LOADS, said
    assert "\n" not in said and len(said) < 700


def test_a_rendering_leaves_the_limit_of_memory_as_it_was():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    tokenizer = load_tokenizer("standin")
    tokenizer.chat_template = "{{ 'x' * 1000000000 }}"
    if sys.platform == "linux":
        with pytest.raises(ModelError, match=r"in 0\.5 GiB of memory") as caught:
            template.render_within_limits(tokenizer, [{"role": "user", "content": "x"}], None)
        assert not find_shortage(caught.value)  # the template is to blame, not the machine
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_arguments_by_name_are_no_power():
    tokenizer = load_tokenizer("standin")
    tokenizer.chat_template = "{% set x = dict(a=1) %}{{ dict(b=2, **x)['a'] }}{{ dict( **x)['a'] }}"
    template.check_template(tokenizer, "the file")


@pytest.mark.parametrize("command", ["evaluate", "check"])
def test_a_command_says_in_one_line_that_weights_are_no_numbers(command, tmp_path, capsys):
    shutil.copytree(CHECKPOINT, tmp_path / "copy")
    change_weights(poison(float("nan")))(tmp_path / "copy")
    rows = write_jsonl(tmp_path / "rows.jsonl", small_rows(20, 2))
    words = ["--rows", str(rows), "--out", str(tmp_path / "out")] if command == "evaluate" else []
    assert main([command, "--model", str(tmp_path / "copy"), *words]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: the weights of 'copy' must be numbers, but 1 of ")


def test_every_loader_is_told_to_run_no_code_of_a_model():
    calls, texts = 0, {module: path.read_text(encoding="utf-8") for module, path in MODULES.items()}
    for module, text in texts.items():
        for node in ast.walk(ast.parse(text)) if any(f"{name}(" in text for name in LOADERS) else ():
            name = getattr(getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", ""))
            if isinstance(node, ast.Call) and name in LOADERS:
                said = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
                assert said.get("trust_remote_code") is False, f"{module}, line {node.lineno}"
                calls += 1
    assert calls >= 4
