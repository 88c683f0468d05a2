"""How often verdicts fire where nothing changed: the page's table, and a few trials of what it counts."""

import json
from pathlib import Path

import numpy

from benchmarks.verdicts import count_verdicts, render_results

ROOT = Path(__file__).parents[1]


def test_the_evaluation_page_shows_the_verdicts_of_its_results_file():
    results = json.loads((ROOT / "results" / "verdicts.json").read_text())
    assert render_results(results) in (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    of_14 = [run for run in results["runs"] if run["tools"] == 14]
    assert len(of_14) == 3 and results["rows_a_tool"] == 10 and results["trials"] >= 500
    for run in results["runs"]:
        assert max(run["groups"], run["any_groups"]) < 0.08 * results["trials"]
        assert run["any_rows"] > 0.1 * results["trials"]


def test_verdicts_that_take_rows_as_independent_fire_where_tools_differ():
    trials = 40
    counts = count_verdicts(14, 2.0, trials, numpy.random.default_rng(1))
    assert counts["rows"] > 0.15 * trials and counts["any_rows"] > 0.3 * trials
    assert max(counts["groups"], counts["any_groups"]) < 0.12 * trials
