"""The committed notebooks: anatomy, size, normal form, and outputs that nbval really compares."""

import ast
import re

import nbformat
import pytest

from fgtools.run.parameters import list_parameters
from fgtools.run.stages import STAGES
from tests.normal_form import CELL_ID, NOTEBOOKS, normalize_notebook

PATHS = [NOTEBOOKS / f"{stage}.ipynb" for stage in STAGES]


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_series_is_these_six():
    assert sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")) == [path.name for path in PATHS]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_in_normal_form(path):
    text = path.read_text(encoding="utf-8")
    assert nbformat.writes(normalize_notebook(nbformat.reads(text, as_version=4))) + "\n" == text


def test_cells_are_few_short_and_define_nothing(notebook):
    assert len(notebook.cells) <= 36
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]
        assert len(lines) <= 14, cell.id
        defined = [
            node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        ]
        assert not defined, cell.id
        assert CELL_ID.match(cell.id), cell.id


def test_a_notebook_was_executed_top_to_bottom_without_errors(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def test_nearly_every_cell_is_compared_and_exceptions_have_a_reason(notebook):
    cells = code_cells(notebook)
    ignored = [cell for cell in cells if "nbval-ignore-output" in cell.metadata.get("tags", [])]
    assert len(ignored) <= max(2, len(cells) // 3)
    assert all(cell.source.splitlines()[0].startswith("# not compared:") for cell in ignored)


CALLS = {
    "02_data": ("normalize_tools", "extract_gold", "build_rows", "split_rows", "encode_row", "audit_rows"),
    "03_baseline": ("load_model", "render_prompt", "generate_replies", "parse_reply", "score", "tc_cer", "cer", "load"),
    "04_train": ("training_arguments", "build_trainer", "train", "choose_checkpoint", "save_model", "generate_replies"),
    "05_post_eval": ("load_model", "generate_run", "score", "compare"),
    "06_publish": ("render_card", "publish_model"),
}
"""What a reader sees called, cell by cell: the functions of the package, jiwer.cer and evaluate.load."""


@pytest.mark.parametrize("stage", CALLS)
def test_the_story_is_told_with_the_calls_themselves(stage):
    called = set()
    for cell in code_cells(nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4)):
        calls = [node.func for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
        called |= {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in calls}
    assert set(CALLS[stage]) <= called


def test_every_step_of_the_tutorial_is_named_where_it_is_done():
    cells = [cell for path in PATHS for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    text = "\n".join(" ".join(cell.source.split()) for cell in cells)
    assert {int(step) for step in re.findall(r"[Tt]utorial, step (\d+)", text)} == set(range(1, 11))


def test_the_anatomy_is_the_same_everywhere(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "**Reads**" in text and "**Writes**" in text and "## What we saw" in text
    tagged = [cell.id for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == ["parameters"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_parameter_is_annotated_and_explained(path):
    cell = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.id == "parameters")
    names = set(list_parameters(path))
    assert "RUN_DIR" in names
    for line in cell.source.splitlines():
        if "=" in line.split("#")[0]:
            assert ":" in line.split("=")[0] and "#" in line, line
