"""The offline run with several seeds: `python -m benchmarks.seeds --seeds 40 41 42`.

A seed decides which training rows choose the checkpoint, and the order of training. The rows, the split and the weights
it starts from are the same for all, and no row that is scored chose a checkpoint.
Writes results/offline.json and results/offline.png, which the README shows. The figures are those of the stand-in.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("FGTOOLS_BATCH", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from fgtools.files import write_text
from fgtools.metrics import Comparison, Scores, compare
from fgtools.models import load_model, load_tokenizer
from fgtools.profiles import RECIPES, compose_banner
from fgtools.report.figures import new_axes, plot_comparison, save_figure
from fgtools.report.layout import render_table
from fgtools.report.tables import build_comparison_table
from fgtools.rows import Prepared, Row, load_raw_rows, prepare
from fgtools.run.evaluation import Evaluation, evaluate
from fgtools.run.folder import open_run
from fgtools.run.training import hold_out_rows
from fgtools.train import train, training_arguments

RESULTS = Path(__file__).parents[1] / "results"
SHOWN = {
    "right_tool_calls": "right tool or tools, rows with a call",
    "ast_match": "AST match, all rows",
    "several_calls": "AST match, rows with several calls",
    "false_calls": "false calls, rows without a call",
}
"""What the README's table shows of each side."""

ROWS_SEED = 40
"""The seed of the rows and of their split."""


def score_sides(sides: Mapping[str, Sequence[Row]], model: str) -> dict[str, Evaluation]:
    """Return the evaluations of a model on each side."""
    loaded, tokenizer = load_model(model), load_tokenizer("standin")
    return {side: evaluate(loaded, tokenizer, rows, RECIPES["native"]) for side, rows in sides.items()}


def run_seed(seed: int, prepared: Prepared, sides: Mapping[str, Sequence[Row]], base: Mapping[str, Evaluation]) -> dict:
    """Train the stand-in once, score it on the held-out rows, and give what the tables need."""
    recipe, started = RECIPES["native"], time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = open_run(scratch).root / "model"
        kept, choosing = hold_out_rows(prepared.train, sides["eval"], recipe, seed)
        arguments = training_arguments(recipe, model="standin", seed=seed, n_rows=len(kept))
        result = train(load_model("standin"), load_tokenizer("standin"), kept, choosing, arguments, folder, recipe)
        seconds = time.perf_counter() - started
        tuned = score_sides(sides, str(folder))
    compared = {side: compare(base[side].scores, tuned[side].scores) for side in sides}
    print(f"seed {seed}: {result.n_train} training rows, {seconds:.0f} s, saved after step {result.saved_step}")
    for side, comparison in compared.items():
        print(f"{side}: {comparison.verdict}\n{render_table(build_comparison_table(comparison))}", flush=True)
    pairs = {side: (base[side].scores, tuned[side].scores) for side in sides}
    return {
        "seed": seed,
        "chance": base["eval"].scores.chance,
        "training_rows": result.n_train,
        "choosing_rows": result.n_eval,
        "steps": result.steps,
        "saved_step": result.saved_step,
        "training_seconds": round(seconds),
        "comparison": compared["eval"].to_dict(),
        "unseen": compared["unseen"].to_dict(),
        "shares": {
            side: {name: [count_share(scores, name) for scores in pair] for name in SHOWN}
            for side, pair in pairs.items()
        },
    }


def count_share(scores: Scores, name: str) -> tuple[int, int]:
    """Return k and n of one of SHOWN."""
    if name != "several_calls":
        return getattr(scores, name).k, getattr(scores, name).n
    several = [row for row in scores.rows if row.n_gold > 1]
    return sum(row.ast_match for row in several), len(several)


def render_results(results: dict[str, Any]) -> str:
    """Write the Markdown table of the README from results/offline.json."""
    runs = results["runs"]
    lines = [
        "| | before | " + " | ".join(f"after, seed {run['seed']}" for run in runs) + " |",
        "|---|---|" + "---|" * len(runs),
    ]
    for side, what in (("eval", ""), ("unseen", "unseen tools: ")):
        for name, label in SHOWN.items():
            pairs = [run["shares"][side][name] for run in runs]
            (k, n), *_ = pairs[0]
            cells = [f"{k}/{n} = {k / n:.0%}", *(f"{k}/{n} = {k / n:.0%}" for _, (k, n) in pairs)]
            chance = f" (chance {runs[0]['chance']:.0%})" if (side, name) == ("eval", "right_tool_calls") else ""
            lines.append(f"| {what}{label}{chance} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[40, 41, 42])
    parser.add_argument("--n-total", type=int, default=3000)
    parser.add_argument("--n-eval", type=int, default=300)
    options = parser.parse_args()
    raw = load_raw_rows("sample", options.n_total, ROWS_SEED)
    prepared = prepare(raw, RECIPES["native"], options.n_eval, ROWS_SEED)
    sides = {"eval": prepared.splits.eval, "unseen": prepared.splits.unseen}
    base = score_sides(sides, "standin")
    runs = [run_seed(seed, prepared, sides, base) for seed in options.seeds]
    results = {"model": "offline stand-in", "python": platform.python_version(), "rows_seed": ROWS_SEED, "runs": runs}
    write_text(RESULTS / "offline.json", json.dumps(results, indent=1) + "\n")
    axes = plot_comparison(Comparison.from_dict(runs[0]["comparison"]), new_axes())
    save_figure(axes, RESULTS / "offline.png", compose_banner("standin", "sample"))
    print(render_results(results))


if __name__ == "__main__":
    main()
