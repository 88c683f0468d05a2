"""The offline run with several seeds: `python -m benchmarks.seeds --seeds 40 41 42`.

A seed decides the rows, the split and the order of training; the checkpoint it starts from is one and the same.
Writes results/offline.json and results/offline.png, which the README shows. The figures are those of the stand-in.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("FGTOOLS_BATCH", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from fgtools.files import write_text
from fgtools.metrics import Comparison, compare
from fgtools.models import load_model, load_tokenizer
from fgtools.profiles import RECIPES, compose_banner
from fgtools.report.figures import new_axes, plot_comparison, save_figure
from fgtools.report.layout import render_table
from fgtools.report.tables import build_comparison_table
from fgtools.rows import load_raw_rows, prepare
from fgtools.run.evaluation import evaluate
from fgtools.run.folder import open_run
from fgtools.run.training import hold_out_rows
from fgtools.train import train, training_arguments

RESULTS = Path(__file__).parents[1] / "results"
SHOWN = ("right_tool_calls", "ast_match")


def run_seed(seed: int, n_total: int, n_eval: int) -> dict[str, Any]:
    """Run the offline series once, without its notebooks, and give what the tables need."""
    recipe = RECIPES["native"]
    prepared = prepare(load_raw_rows("sample", n_total, seed), recipe, n_eval, seed)
    rows, unseen = prepared.splits.eval, prepared.splits.unseen
    tokenizer, model = load_tokenizer("standin"), load_model("standin")
    base = evaluate(model, tokenizer, rows, recipe)
    base_unseen = evaluate(model, tokenizer, unseen, recipe)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = open_run(scratch).root / "model"
        kept, choosing = hold_out_rows(prepared.train, rows, recipe, seed)
        arguments = training_arguments(recipe, model="standin", seed=seed, n_rows=len(kept))
        result = train(model, tokenizer, kept, choosing, arguments, folder, recipe)
        model = load_model(str(folder))
    seconds = time.perf_counter() - started
    tuned = evaluate(model, tokenizer, rows, recipe, max_new_tokens=base.max_new_tokens)
    tuned_unseen = evaluate(model, tokenizer, unseen, recipe, max_new_tokens=base_unseen.max_new_tokens)
    comparison = compare(base.scores, tuned.scores)
    print(f"seed {seed}: {result.n_train} training rows, {seconds:.0f} s, saved after step {result.saved_step}")
    print(render_table(build_comparison_table(comparison)))
    unseen_comparison = compare(base_unseen.scores, tuned_unseen.scores)
    print("unseen tools:")
    print(render_table(build_comparison_table(unseen_comparison)), flush=True)
    return {
        "seed": seed,
        "chance": base.scores.chance,
        "training_rows": result.n_train,
        "choosing_rows": result.n_eval,
        "steps": result.steps,
        "saved_step": result.saved_step,
        "training_seconds": round(seconds),
        "comparison": comparison.to_dict(),
        "unseen": unseen_comparison.to_dict(),
        "shares": {
            side: {name: [[getattr(scores, name).k, getattr(scores, name).n] for scores in pair] for name in SHOWN}
            for side, pair in (
                ("eval", (base.scores, tuned.scores)),
                ("unseen", (base_unseen.scores, tuned_unseen.scores)),
            )
        },
    }


def render_results(results: dict[str, Any]) -> str:
    """Write the Markdown table of the README from results/offline.json."""
    lines = [
        "| seed | chance | right tool before | after | AST match before | after | unseen tools: AST before | after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in results["runs"]:
        shown = [*run["shares"]["eval"]["right_tool_calls"], *run["shares"]["eval"]["ast_match"]]
        cells = [f"{k}/{n} = {k / n:.1%}" for k, n in [*shown, *run["shares"]["unseen"]["ast_match"]]]
        lines.append(f"| {run['seed']} | {run['chance']:.1%} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[40, 41, 42])
    parser.add_argument("--n-total", type=int, default=3000)
    parser.add_argument("--n-eval", type=int, default=300)
    options = parser.parse_args()
    runs = [run_seed(seed, options.n_total, options.n_eval) for seed in options.seeds]
    results = {"model": "offline stand-in", "python": platform.python_version(), "runs": runs}
    write_text(RESULTS / "offline.json", json.dumps(results, indent=1) + "\n")
    axes = plot_comparison(Comparison.from_dict(runs[0]["comparison"]), new_axes())
    save_figure(axes, RESULTS / "offline.png", compose_banner("standin", "sample"))
    print(render_results(results))


if __name__ == "__main__":
    main()
