"""The table of promises: every row names tests that exist, and the comparison that the kills end with can fail."""

import ast
import re
from pathlib import Path

import pytest

from tests.survive import is_equal

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "survival.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not re.match(r"\| (---|fault)", line)
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_promise_names_tests_that_exist(row):
    fault, promise, held_by = row
    assert fault and promise.endswith(".")
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", held_by)
    assert named and held_by.count("::") == len(named)
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"


def test_the_page_names_the_command_that_kills():
    assert "make survive" in PAGE and "\nsurvive:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "docs/survival.md" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        ({"n": 1, "share": 0.50001, "rows": [{"reply": "a"}], "inputs": {"x": "2"}}, True),
        ({"n": 2, "share": 0.5, "rows": [{"reply": "a"}]}, False),
        ({"n": 1, "share": 0.51, "rows": [{"reply": "a"}]}, False),
        ({"n": 1, "share": 0.5, "rows": [{"reply": "b"}]}, False),
        ({"n": 1, "share": 0.5, "rows": []}, False),
        ({"n": 1, "share": 0.5}, False),
    ],
)
def test_results_are_equal_but_for_the_last_digits_of_fractions(other, equal):
    one = {"n": 1, "share": 0.5, "rows": [{"reply": "a"}], "inputs": {"x": "1"}}
    assert is_equal(one, other) == equal
