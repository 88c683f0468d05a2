"""The trials on real weights: each is run once, and the tables are made from results/real.json alone."""

import copy
import json
from pathlib import Path

import pytest

from benchmarks import trials
from benchmarks.real import build_sides, list_grid
from benchmarks.real_tables import pick, render_grid, render_recipes, render_run, render_steps, render_trials
from benchmarks.trials import Trial, measure_steps, run_trial, score_model
from fgtools.metrics import score
from fgtools.models.load import find_model
from tests.toys import small_rows

pytestmark = pytest.mark.usefixtures("batch_run")
ROWS = small_rows(80, 14)


def test_a_trial_is_run_once_and_again_where_its_numbers_change(tmp_path, monkeypatch):
    start, sides = str(find_model("standin")), {"eval": ROWS[8:]}
    trial = Trial("small", learning_rate=1e-3, epochs=1, rows_a_step=4)
    first = run_trial(trial, start, ROWS[:8], sides, tmp_path)
    assert (first["steps"], first["n_rows"], first["rows_a_step"], first["learning_rate"]) == (2, 8, 4, 1e-3)
    assert first["sides"]["eval"]["n"] == 6 and not (tmp_path / "small.model").exists()
    replies = (tmp_path / "small.eval.jsonl").read_text().splitlines()
    assert [json.loads(line)["row_id"] for line in replies] == [row["row_id"] for row in ROWS[8:]]

    def fail(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(trials, "_train", fail)
    assert run_trial(trial, start, ROWS[:8], sides, tmp_path) == first
    for changed in ((trial, ROWS[1:8]), (Trial("small", learning_rate=2e-3, epochs=1, rows_a_step=4), ROWS[:8])):
        with pytest.raises(AssertionError, match="trained again"):
            run_trial(changed[0], start, changed[1], sides, tmp_path)
    table = render_trials([first], ["small"])
    assert table.splitlines()[2].startswith("| small | 8 | 1 x 2 | 0.")


def test_a_model_is_scored_once(tmp_path):
    start, file = str(find_model("standin")), tmp_path / "start.json"
    found = score_model(start, {"eval": ROWS[:2]}, file)
    stamp = file.stat().st_mtime_ns
    assert score_model(start, {"eval": ROWS[:2]}, file) == found and file.stat().st_mtime_ns == stamp
    assert render_trials([found], ["start"]).splitlines()[2].startswith("| start | - | - | - | ")


def test_a_step_is_measured_in_every_way():
    found = measure_steps(str(find_model("standin")), ROWS[:4])
    assert {one["precision"] for one in found} == {"fp32", "bf16"} and all(one["rows"] == 4 for one in found)
    assert {one["at_once"] for one in found if one["precision"] == "fp32"} > {1}


def test_the_grid_has_every_cell_once():
    cells = [(one.learning_rate, one.epochs) for one in list_grid()]
    assert len(cells) == len(set(cells)) == 12 and len({one.name for one in list_grid()}) == 12


def test_the_recipes_have_the_same_rows_on_each_side():
    native, tutorial = build_sides("native"), build_sides("tutorial")
    for side in native:
        ids = {row["row_id"] for row in native[side] if row["gold"]}
        assert {row["row_id"] for row in tutorial[side]} <= ids and len(tutorial[side]) > 0.8 * len(ids)


def test_tables_say_k_of_n_and_leave_a_missing_cell_empty():
    replies = ["" for _ in ROWS[:3]]
    measures = pick(score(ROWS[:3], replies).to_dict())
    cell = {"sides": {"eval": measures}, "learning_rate": 5e-5, "epochs": 1, "losses": [[0, 2.0], [8, 0.5]]}
    other = {**copy.deepcopy(cell), "learning_rate": 1e-4, "epochs": 2}
    table = render_grid({"grid": [cell, other]})
    assert table.splitlines()[0] == "| passes | 5e-05 | 0.0001 |"
    k, n = measures["ast_match"]["k"], measures["ast_match"]["n"]
    assert table.splitlines()[2] == f"| 1 | {k}/{n}, loss 0.50 | - |"
    side = {"before": measures, "after": measures}
    shown = render_run({"run": {"sides": {"eval": side, "unseen": side}}})
    assert f"{k}/{n} = " in shown and shown.count("**AST match**") == 2


def test_the_pages_show_the_tables_of_the_results_file():
    root = Path(__file__).parents[1]
    result = json.loads((root / "results" / "real.json").read_text(encoding="utf-8"))
    readme, real, training = (
        (root / name).read_text(encoding="utf-8") for name in ("README.md", "docs/real.md", "docs/training.md")
    )
    assert render_run(result) in readme and render_run(result) in real and render_recipes(result) in real
    own = [result["own"]["0"], *result["own"]["trials"]]
    labels = ["before", *(f"{one['n_rows']} rows" for one in result["own"]["trials"])]
    assert render_grid(result) in training and render_trials(own, labels) in training
    few = result["own"]["few"]
    labels = [f"{one['n_rows']} rows, {one['epochs']:g} passes at {one['learning_rate']:g}" for one in few]
    assert render_trials(few, labels) in training and render_steps(result) in training
    for name in ("real.png", "own_rows.png"):
        assert (root / "results" / name).read_bytes().startswith(b"\x89PNG")
