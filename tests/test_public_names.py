"""`import fgtools` offers the public functions by name, and loads a room only when it is asked for."""

import importlib
import subprocess
import sys
import types

import pytest

import fgtools

CONTRACT = {
    "schema": ("normalize_tools", "normalize_type"),
    "gold": ("extract_gold",),
    "rows": ("build_rows", "split_rows"),
    "calls": ("ToolCall", "render_calls", "parse_reply"),
    "metrics": ("score", "tc_cer", "compare"),
    "models": ("load_tokenizer", "load_model"),
    "prompts": ("render_prompt", "encode_row"),
    "generate": ("generate_replies", "generate_with_confidence"),
    "train": ("training_arguments", "build_trainer"),
}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in CONTRACT.items() for name in names])
def test_a_function_of_the_contract_is_its_rooms_own(room, name):
    assert getattr(fgtools, name) is getattr(importlib.import_module(f"fgtools.{room}"), name)


def test_every_name_that_is_offered_exists_and_is_shown():
    for name in fgtools.__all__:
        assert getattr(fgtools, name) is not None
        assert name in dir(fgtools)
    with pytest.raises(AttributeError, match="no attribute 'normalise_tools'"):
        fgtools.normalise_tools  # noqa: B018


def test_rooms_are_modules_whatever_their_functions_are_called():
    assert isinstance(fgtools.train, types.ModuleType) and callable(fgtools.train.train)
    check = "import fgtools; from fgtools import TrainResult; print(type(fgtools.train).__name__)"
    assert run_python(check) == "module"


def test_importing_the_package_loads_nothing_but_the_package():
    check = "import sys, fgtools; print(sorted(name for name in sys.modules if name.startswith('fgtools')))"
    assert run_python(check) == "['fgtools']"
    check = "import sys; from fgtools import parse_reply; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert run_python(check) == "False False"


def run_python(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
