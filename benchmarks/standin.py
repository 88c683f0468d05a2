"""What fine-tuning the stand-in needs: `python -m benchmarks.standin --out FOLDER`, and its pretraining's curve.

Every trial starts from the stand-in that comes with the package and trains on one offline sample. No number is chosen
by the sample that is reported: the rows have another seed, and those of known tools are asked in the wordings that are
kept for development. Tools that training never sees have no such wordings, so theirs are those of the report.
Writes results/standin.json and docs/standin.png; the tables stand in docs/standin.md. A trial is run only once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("FGTOOLS_BATCH", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import matplotlib.pyplot as plt

from benchmarks.trials import Trial, run_trial, score_model
from fgtools.files import read_json, write_json
from fgtools.metrics import Scores
from fgtools.models.load import find_model
from fgtools.offline.curriculum import build_rows
from fgtools.offline.samples import build_samples
from fgtools.report.figures import AFTER, BEFORE, new_axes, save_figure
from fgtools.rows import RawRows, Row, prepare

ROOT = Path(__file__).parents[1]
RESULTS, FIGURE = ROOT / "results" / "standin.json", ROOT / "docs" / "standin.png"
ROWS_SEED = 77
CAVEAT = "offline stand-in: a toy model on generated rows"

TRIALS = (
    *(Trial(f"{rate:g} x {epochs}", learning_rate=rate, epochs=epochs) for rate in (3e-3, 1e-3) for epochs in (2, 4)),
    Trial("0.0005 x 2", learning_rate=5e-4, epochs=2),
    Trial("0.001 x 2, mixed 0.5", learning_rate=1e-3, epochs=2),
    Trial("0.003 x 2, LoRA 16", learning_rate=3e-3, epochs=2, lora_rank=16),
)
"""Learning rate x passes; `mixed`: so many pretraining rows for each training row are added."""


def mix_rows(rows: Sequence[Row], share: float) -> list[Row]:
    """Return the rows with pretraining rows among them, `share` for each of them, in an order drawn anew."""
    draw, added = random.Random(ROWS_SEED), []
    while len(added) < share * len(rows):
        added += build_rows(draw, count=2)
    named = [{**row, "row_id": f"made-up/{index}"} for index, row in enumerate(added[: round(share * len(rows))])]
    mixed = [*rows, *named]
    draw.shuffle(mixed)
    return mixed


def describe(result: dict[str, Any]) -> list[str]:
    """Return a table's cells: of each side right tools, AST matches, those of several calls, and false calls."""
    cells = []
    for side in ("eval", "unseen"):
        rows = Scores.from_dict(result["sides"][side]).rows
        called, silent = [row for row in rows if row.n_gold], [row for row in rows if not row.n_gold]
        several = [row for row in called if row.n_gold > 1]
        for part, fact in ((called, "right_tools"), (rows, "ast_match"), (several, "ast_match")):
            cells.append(f"{sum(getattr(row, fact) for row in part)}/{len(part)}")
        cells.append(f"{sum(row.n_calls > 0 for row in silent)}/{len(silent)}")
    return cells


def render_trials(results: dict[str, Any]) -> str:
    """Return the table of docs/standin.md from results/standin.json."""
    names = [f"{side}: {what}" for side in ("known", "unseen") for what in ("right tool", "AST", "several", "false")]
    lines = ["| | s | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 2)]
    lines += [f"| {name} | {row['seconds']} | {' | '.join(row['cells'])} |" for name, row in results["trials"].items()]
    return "\n".join(lines)


def plot_pretraining(log: Sequence[Sequence[float]]) -> plt.Axes:
    """Plot loss and token accuracy of the pretraining: rows of step, loss, accuracy, seconds."""
    axes, steps = new_axes(7, 3), [entry[0] for entry in log]
    axes.plot(steps, [entry[1] for entry in log], color=BEFORE)
    axes.set(xlabel="step", ylabel="loss", ylim=(0, 2.5))
    accuracy = axes.twinx()
    accuracy.plot(steps, [entry[2] for entry in log], color=AFTER)
    accuracy.set(ylabel="tokens of answers right", ylim=(0, 1))
    axes.yaxis.label.set_color(BEFORE)
    accuracy.yaxis.label.set_color(AFTER)
    return axes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trials")
    parser.add_argument("--only", nargs="*", default=None, help="names of trials")
    options = parser.parse_args()
    start = str(find_model("standin"))
    raw = RawRows(build_samples(3000, ROWS_SEED, wordings="development"), 3000, "offline sample")
    prepared = prepare(raw, "native", 300, ROWS_SEED)
    sides = {"eval": prepared.splits.eval, "unseen": prepared.splits.unseen}
    found = {"before": score_model(start, sides, options.out / "before.json")}
    for trial in TRIALS:
        if options.only is None or trial.name in options.only:
            share = float(trial.name.partition("mixed ")[2] or 0)
            found[trial.name] = run_trial(trial, start, mix_rows(prepared.train, share), sides, options.out)
        print(render_trials(_gather(found)), flush=True)
    if options.only is None:
        log = read_json(Path(start) / "standin.json")["log"]
        write_json(RESULTS, {"rows_seed": ROWS_SEED, **_gather(found)})
        save_figure(plot_pretraining(log), FIGURE, CAVEAT)


def _gather(found: dict[str, Any]) -> dict[str, Any]:
    rows = {name: {"seconds": one.get("training_seconds", "-"), "cells": describe(one)} for name, one in found.items()}
    return {"trials": json.loads(json.dumps(rows))}


if __name__ == "__main__":
    main()
