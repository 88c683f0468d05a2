"""How often a verdict fires where nothing changed: `python -m benchmarks.verdicts --out results/verdicts.json`.

Rows are drawn with tools that differ: in how often a model is right on their rows, and in what training did to them.
Over all tools training changed nothing, so every verdict is a false one. Beside each other: McNemar's exact test with
the interval of independent rows, and `fgtools.metrics.compare`, which keeps rows of one tool together. Eighteen
measures of the same rows stand for the tables: a verdict on any of them, each by itself or corrected as `compare` does.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy

from fgtools.files import write_text
from fgtools.metrics.groups import Groups, adjust_holm, flip_shares, measure_design
from fgtools.metrics.intervals import mcnemar_exact, paired_interval

TOOLS, ROWS = (6, 14, 50), 10
SPREADS = (0.0, 1.0, 2.0)
"""Standard deviation, over tools, of what training did to them, in logits; 1 moves a share of one half by 23 points."""

MEASURES = 18
SEED = 0


def draw_rows(tools: int, spread: float, draw: numpy.random.Generator) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return how good the replies before and after are, ROWS of each tool; a measure counts those above its bar."""
    level, moved = draw.normal(0, 1, (tools, 1)), draw.normal(0, spread, (tools, 1)) if spread else numpy.zeros(1)
    sides = (level + sign * moved / 2 + draw.logistic(0, 1, (tools, ROWS)) for sign in (-1, 1))
    before, after = (side.ravel() for side in sides)
    return before, after


def measure_by_rows(differences: list[int]) -> float:
    """Return McNemar's exact p, or 1 where the interval of independent rows holds 0."""
    gained, lost = differences.count(1), differences.count(-1)
    low, high = paired_interval(gained, lost, len(differences))
    return mcnemar_exact(gained, lost) if low > 0 or high < 0 else 1.0


def measure_by_groups(differences: list[int], groups: Groups) -> float:
    """Return the p of sign flips over whole groups, or 1 where the interval of groups holds 0: as `compare` does."""
    gained, lost = differences.count(1), differences.count(-1)
    mean = sum(differences) / len(differences)
    design = measure_design([one - mean for one in differences], groups)
    low, high = paired_interval(gained, lost, len(differences), design)
    return flip_shares(differences, groups) if low > 0 or high < 0 else 1.0


def count_verdicts(tools: int, spread: float, trials: int, draw: numpy.random.Generator) -> dict[str, int]:
    """Return in how many trials a verdict fires: of the one measure that decides, and of any of all measures."""
    labels = [str(place) for place in range(tools * ROWS)]
    groups = Groups(tuple(str(place // ROWS) for place in range(tools * ROWS)), tuple(labels))
    bars = numpy.linspace(-1.7, 1.7, MEASURES)
    decides = MEASURES // 2
    counts = dict.fromkeys(("rows", "groups", "any_rows", "any_groups"), 0)
    for _ in range(trials):
        before, after = draw_rows(tools, spread, draw)
        moved = [[int(one) for one in (after > bar).astype(int) - (before > bar)] for bar in bars]
        alone, together = [measure_by_rows(one) for one in moved], [measure_by_groups(one, groups) for one in moved]
        counts["rows"] += alone[decides] < 0.05
        counts["groups"] += together[decides] < 0.05
        counts["any_rows"] += min(alone) < 0.05
        others = adjust_holm(together[:decides] + together[decides + 1 :])
        counts["any_groups"] += min(together[decides], *others) < 0.05
    return counts


def render_results(results: dict[str, Any]) -> str:
    """Return the Markdown table of docs/evaluation.md."""
    heads = ("tools", "spread", "verdict by rows", "by groups", f"any of {MEASURES} by rows", "by groups, Holm")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for run in results["runs"]:
        shares = [f"{run[name] / results['trials']:.1%}" for name in ("rows", "groups", "any_rows", "any_groups")]
        lines.append(f"| {run['tools']} | {run['spread']:g} | {' | '.join(shares)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="also write the counts there")
    options = parser.parse_args()
    runs = []
    for tools in TOOLS:
        for spread in SPREADS:
            draw = numpy.random.default_rng([SEED, tools, math.floor(10 * spread)])
            runs.append({"tools": tools, "spread": spread, **count_verdicts(tools, spread, options.trials, draw)})
            print(runs[-1], flush=True)
    results = {"rows_a_tool": ROWS, "trials": options.trials, "runs": runs}
    print(render_results(results))
    if options.out:
        write_text(options.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
