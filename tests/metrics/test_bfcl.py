"""The AST match agrees with BFCL's own checker, and where it differs a rule says why."""

import json
from pathlib import Path

import pytest

from fgtools.metrics import score_row
from tests.bfcl import CHANGES, WHY, render_agreement
from tests.toys import GOLDEN, load_cases

CASES = load_cases(GOLDEN / "bfcl.jsonl")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['row']['row_id']} {case['change']}")
def test_the_verdict_is_that_of_bfcls_checker(case):
    """The verdicts were taken from the package itself: see `tests/bfcl.py`."""
    ours = score_row(case["row"], case["reply"]).ast_match
    if case["why"]:
        assert case["why"] in WHY and ours != case["valid"]
    else:
        assert ours == case["valid"]


def test_the_golden_verdicts_are_of_both_kinds_and_of_every_change():
    valid = [case["valid"] for case in CASES]
    assert len(CASES) > 90 and valid.count(True) > 20 and valid.count(False) > 50
    assert {case["change"] for case in CASES} == set(CHANGES)
    assert sum(bool(case["why"]) for case in CASES) < 0.1 * len(CASES)
    assert {"enum", "unicode"} <= {case["why"] for case in CASES}


def test_no_disagreement_on_real_rows_is_unexplained():
    result = json.loads((ROOT / "results" / "bfcl.json").read_text())
    assert result["agree"] + sum(result["differ"].values()) == result["n"] > 10_000
    by_choice = result["differ"]["enum"] + result["differ"]["unicode"]
    assert "unexplained" not in result["differ"] and result["agree"] + by_choice > 0.98 * result["n"]
    assert render_agreement(result) in (ROOT / "docs" / "evaluation.md").read_text()
