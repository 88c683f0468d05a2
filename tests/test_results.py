"""The README's figures are those of results/offline.json, and those are what the aims were compared with."""

import json
from pathlib import Path

from benchmarks.evaluate import render_results as render_speed
from benchmarks.evaluate import render_ways
from benchmarks.profile import render_profile
from benchmarks.seeds import render_results
from benchmarks.standin import render_trials
from benchmarks.train import render_results as render_training
from benchmarks.whole import render_whole
from fgtools.report.layout import render_markdown_table
from fgtools.run.export import build_export_table

ROOT = Path(__file__).parents[1]
RESULTS = json.loads((ROOT / "results" / "offline.json").read_text())


def test_the_readme_shows_the_table_of_the_results_file():
    assert render_results(RESULTS) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / "results" / "offline.png").read_bytes().startswith(b"\x89PNG")


def test_three_seeds_were_run_and_every_one_shows_a_lift_above_chance():
    runs = RESULTS["runs"]
    assert len(runs) >= 3 and len({run["seed"] for run in runs}) == len(runs)
    for run in runs:
        (before, n), (after, _) = run["shares"]["eval"]["right_tool_calls"]
        assert run["chance"] < before / n < 0.8 and after / n >= 0.9
        (_, _), (matched, total) = run["shares"]["eval"]["ast_match"]
        assert matched / total >= 0.8
        (_, _), (several, n_several) = run["shares"]["eval"]["several_calls"]
        assert several / n_several >= 0.6
        (_, _), (called, n_silent) = run["shares"]["eval"]["false_calls"]
        assert called / n_silent <= 0.25
        (before, _), (after, _) = run["shares"]["unseen"]["right_tool_calls"]
        assert after >= before


def test_the_page_of_the_stand_in_shows_the_trials_of_their_results_file():
    results = json.loads((ROOT / "results" / "standin.json").read_text())
    assert render_trials(results) in (ROOT / "docs" / "standin.md").read_text(encoding="utf-8")


def test_the_training_page_shows_the_table_of_its_results_file():
    result = json.loads((ROOT / "results" / "train.json").read_text())
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert render_training(result) in page and result["shape"] == "full"
    assert f"{max(result['gradient_difference'].values()):.0e}" in page


def test_the_evaluation_page_shows_the_speeds_of_its_results_file():
    results = json.loads((ROOT / "results" / "evaluate.json").read_text())
    assert render_speed(results) in (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert {"full", "standin"} <= set(results) and all(result["identical"] for result in results.values())


def test_the_serving_page_shows_the_tables_of_its_results_file():
    results = json.loads((ROOT / "results" / "export.json").read_text())
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for export in results.values():
        assert render_markdown_table(build_export_table(export)) in page
    lost = {variant["type"] for variant in results["gemma_3_270m"]["variants"] if variant["reading"] == "lost"}
    assert lost == {"q4_0"} and "`q4_0` lost every match" in page


def test_the_pages_show_what_a_gpu_measured_and_nothing_before():
    file = ROOT / "results" / "gpu.json"
    training, evaluation = (
        (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("training.md", "evaluation.md")
    )
    if not file.exists():
        assert "<!-- made from results/gpu.json" not in training + evaluation
        return
    result = json.loads(file.read_text())
    assert result["machine"]["device"] in training and result["machine"]["device"] in evaluation
    assert render_whole(result["whole"]) in training and render_profile(result["profile"]) in training
    assert render_ways(result["evaluate"]) in evaluation
