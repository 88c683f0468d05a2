"""Trials on Gemma 3 270M and real rows: `python -m benchmarks.real recipes rows few lora grid steps`.

What is tried: the tutorial's recipe on the rows and steps of the native one (recipes), how many rows of own tools buy
how much (rows), more passes and other rates on these (few), adapters in place of all weights (lora), learning rates
and passes (grid), and how long one step takes (steps). `rows` and `few` start from the model that `make real` tuned;
the table of `recipes` shows its replies; `few` and `steps` take the rows that `rows` wrote. Trials that were run before
are read from their files, so a series that was killed goes on; --minutes says after how many minutes no other trial of
grid and few begins. Writes results/real.json, results/real.png and results/own_rows.png; hours on CPU cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

os.environ.setdefault("FGTOOLS_BATCH", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.own_rows import build_own_rows
from benchmarks.real_tables import compare_recipes, plot_own_rows, read_trial, render_run, summarize_run
from benchmarks.trials import Trial, measure_steps, run_trial, score_model
from fgtools.files import read_json, write_json, write_jsonl, write_text
from fgtools.metrics import Comparison
from fgtools.profiles import REAL_NUMBERS, RECIPES
from fgtools.report.figures import new_axes, plot_comparison, save_figure
from fgtools.rows import Row, load_raw_rows, prepare
from fgtools.run.folder import RunFolder
from fgtools.run.real import REAL_ROWS, SCRATCH
from fgtools.run.weights import fetch_real_model

RESULTS = Path(__file__).parents[1] / "results"
REAL_BANNER = "Gemma 3 270M, a base model from 4-bit weights, not FunctionGemma: it knew no calls before"
SEED = 40
RATES = (2e-5, 5e-5, 1e-4, 2e-4)
PASSES = (2, 4, 1)
OWN_ROWS = (30, 100, 300)
OWN_RATES = (2e-5, 1e-4, 2e-4)  # tried on the smallest of these sets, beside the recipe's own
MORE_PASSES = 8  # tried on the middle one, with as many rows a step as it has by default
GRID_ROWS, GRID_STEP = 128, 8  # of the training rows, and of a step: about as many steps a pass as all rows have at 16


def build_sides(recipe: str) -> dict[str, Sequence[Row]]:
    """Return the package's real rows by side, as a recipe builds them, on the sides of the native recipe."""
    raw = load_raw_rows(str(REAL_ROWS), 0, SEED)
    sides = prepare(raw, RECIPES["native"], REAL_NUMBERS["N_EVAL"], SEED).sides()
    if recipe == "native":
        return sides
    built = prepare(raw, RECIPES[recipe], REAL_NUMBERS["N_EVAL"], SEED).sides()
    found = {row["row_id"]: row for rows in built.values() for row in rows}
    return {side: [found[row["row_id"]] for row in rows if row["row_id"] in found] for side, rows in sides.items()}


def list_grid() -> list[Trial]:
    """Return the trials of learning rates and passes: first the cross through the recipe's numbers, then the rest."""
    rate, passes = RECIPES["native"].learning_rate, int(RECIPES["native"].epochs)
    cells = [(rate, passes), *((one, passes) for one in RATES), *((rate, one) for one in PASSES)]
    cells += [(one, number) for number in PASSES for one in RATES]
    return [
        Trial(f"grid-{rate:g}-{passes}", learning_rate=rate, epochs=passes, rows_a_step=GRID_STEP)
        for rate, passes in dict.fromkeys(cells)
    ]


def draw_grid_rows(sides: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return the training rows of the grid: a sample of all."""
    return random.Random(SEED).sample(list(sides["train"]), GRID_ROWS)


def run_grid(start: str, out: Path, until: float) -> None:
    """Run the grid on a sample of the training rows, scored on the evaluation rows."""
    sides = build_sides("native")
    rows = draw_grid_rows(sides)
    for trial in list_grid():
        if time.monotonic() < until:
            run_trial(trial, start, rows, {"eval": sides["eval"]}, out)


def run_lora(start: str, out: Path) -> None:
    """Train adapters of rank 16 on the grid's rows, with as many passes as the recipe makes."""
    sides = build_sides("native")
    trial = Trial("lora-16", epochs=RECIPES["native"].epochs, rows_a_step=GRID_STEP, lora_rank=16)
    run_trial(trial, start, draw_grid_rows(sides), {"eval": sides["eval"]}, out)


def run_recipes(start: str, out: Path) -> None:
    """Train by the tutorial's recipe and by the native one: the grid's rows, as many steps of as many rows."""
    sides, first = build_sides("native"), list_grid()[0]
    drawn = draw_grid_rows(sides)
    native = run_trial(first, start, drawn, {"eval": sides["eval"]}, out)
    names, built = {row["row_id"] for row in drawn}, build_sides("tutorial")
    rows = [row for row in built["train"] if row["row_id"] in names]  # those with a call: it learns no others
    trial = Trial("tutorial", recipe="tutorial", rows_a_step=GRID_STEP, steps=native["steps"])
    run_trial(trial, start, rows, {"eval": built["eval"]}, out)


def run_rows(run: RunFolder, out: Path) -> None:
    """Train on 30, 100 and 300 rows of own tools, from the model that a run tuned, at the recipe's own numbers."""
    start, own = str(run.find("model")), build_own_rows(SEED)
    for n_rows in OWN_ROWS:
        folder = out / f"own-{n_rows}"
        file = write_jsonl(folder / "rows.jsonl", own.take(n_rows))
        sides = prepare(load_raw_rows(str(file), 0, SEED), RECIPES["native"], len(own.eval), SEED).sides()
        held = {"eval": sides["eval"]}
        score_model(start, held, out / "own-0.json")
        run_trial(Trial(f"own-{n_rows}"), start, sides["train"], held, out)


def list_few() -> list[tuple[int, Trial]]:
    """Return the trials of other numbers on own rows, with how many rows each has: more passes, other rates."""
    smallest, middle, _ = OWN_ROWS
    rates = [(smallest, Trial(f"own-{smallest}-{rate:g}", learning_rate=rate)) for rate in OWN_RATES]
    return [(middle, Trial(f"own-{middle}-{MORE_PASSES}-passes", epochs=MORE_PASSES, rows_a_step=8)), *rates]


def run_few(run: RunFolder, out: Path, until: float) -> None:
    """Train on own rows with other numbers than the recipe's."""
    for n_rows, trial in list_few():
        file = out / f"own-{n_rows}" / "rows.jsonl"
        sides = prepare(load_raw_rows(str(file), 0, SEED), RECIPES["native"], 60, SEED).sides()
        if time.monotonic() < until:
            run_trial(trial, str(run.find("model")), sides["train"], {"eval": sides["eval"]}, out)


def run_steps(start: str, out: Path) -> None:
    """Measure one optimizer step of 16 rows: in fp32 and bf16, row by row and not, with their beginning read once."""
    rows = list(build_sides("native")["train"])[:16]
    own = prepare(load_raw_rows(str(out / "own-100" / "rows.jsonl"), 0, SEED), RECIPES["native"], 60, SEED).train[:16]
    ways = {"real rows": rows, "own rows": own}
    write_json(out / "steps.json", {name: measure_steps(start, some) for name, some in ways.items()})


def write_results(run: RunFolder, out: Path) -> None:
    """Write what was measured so far into results/, and print the tables."""
    grid = [found for trial in list_grid() if (found := read_trial(out, trial.name))]
    own = [found for n_rows in OWN_ROWS if (found := read_trial(out, f"own-{n_rows}"))]
    few = [found for _, trial in list_few() if (found := read_trial(out, trial.name))]
    result: dict[str, Any] = {"model": REAL_BANNER, "threads": torch.get_num_threads(), "cpu": describe_cpu()}
    result |= {"grid": grid, "grid_rows": GRID_ROWS, "grid_step": GRID_STEP, "lora": read_trial(out, "lora-16")}
    result["own"] = {"0": read_trial(out, "own-0"), "trials": own, "few": few}
    if (out / "steps.json").exists():
        result["steps"] = read_json(out / "steps.json")
    if (run.root / "compare.json").exists():
        result["run"] = summarize_run(run)
        if (out / "tutorial.json").exists():
            result["recipes"] = compare_recipes(run, out, list_grid()[0].name, build_sides("tutorial")["eval"])
            result["tutorial"] = read_trial(out, "tutorial")
        comparison = Comparison.from_dict(result["run"]["sides"]["eval"]["comparison"])
        save_figure(plot_comparison(comparison, new_axes()), RESULTS / "real.png", REAL_BANNER)
        print(render_run(result))
    if own:
        save_figure(plot_own_rows(result, new_axes()), RESULTS / "own_rows.png", REAL_BANNER)
    write_text(RESULTS / "real.json", json.dumps(result, indent=1) + "\n")


def describe_cpu() -> str:
    """Return the processor's name and the instruction that it multiplies bf16 with, where torch tells."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    fast = [name for name in ("amx_bf16", "avx512_bf16") if known.get(name)]
    return " ".join([str(known.get("cpu_name", "unknown")), *fast])


def main() -> None:
    """Run the series that are named and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", nargs="*", choices=("recipes", "rows", "few", "lora", "grid", "steps"))
    parser.add_argument("--run", type=Path, default=Path("runs/real"), help="the run folder that make real made")
    parser.add_argument("--out", type=Path, default=SCRATCH / "trials", help="folder of the trials' files")
    parser.add_argument("--minutes", type=float, default=1e6, help="no trial of grid and few begins later")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    start, until = str(fetch_real_model(SCRATCH)), time.monotonic() + 60 * options.minutes
    run, out = RunFolder(options.run), options.out
    series = {
        "recipes": lambda: run_recipes(start, out),
        "rows": lambda: run_rows(run, out),
        "few": lambda: run_few(run, out, until),
        "lora": lambda: run_lora(start, out),
        "grid": lambda: run_grid(start, out, until),
        "steps": lambda: run_steps(start, out),
    }
    for name, measure in series.items():
        if name in options.series:
            measure()
            write_results(run, out)
    write_results(run, out)


if __name__ == "__main__":
    main()
