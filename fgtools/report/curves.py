"""The curves of a training, drawn from the trainer's log; while it runs and after.

Knows log entries and matplotlib; not trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from fgtools.report.style import AFTER, BEFORE, MUTED, tidy_axes

_PANELS = (
    ("A", "Loss", (("loss", BEFORE, "training rows"), ("eval_loss", AFTER, "held-out rows"))),
    (
        "B",
        "Labels right at first choice",
        (
            ("mean_token_accuracy", BEFORE, "tokens, training rows"),
            ("eval_mean_token_accuracy", AFTER, "tokens, held-out rows"),
            ("eval_exact_match", MUTED, "whole rows, held-out"),
        ),
    ),
    ("C", "Learning rate", (("learning_rate", BEFORE, ""),)),
    ("D", "Tokens per second", (("tokens_per_second", BEFORE, ""),)),
    ("E", "Peak memory, GiB", (("memory_gib", BEFORE, ""),)),
)


def plot_training(history: Sequence[Mapping[str, float]]) -> Axes:
    """Draw losses and token accuracy over the steps, and beneath them learning rate, speed and memory.

    Args:
        history: The trainer's log entries; what they do not hold stays empty.

    Returns:
        The first of the figure's axes.
    """
    figure, panels = plt.subplot_mosaic(
        "AAABBB;AAABBB;CCDDEE", figsize=(9.5, 5.2), layout="constrained", gridspec_kw={"hspace": 0.08}
    )
    for name, title, lines in _PANELS:
        axes = panels[name]
        tidy_axes(axes)
        for key, colour, label in lines:
            points = [(entry["step"], entry[key]) for entry in history if key in entry and "step" in entry]
            style = {"marker": "."} if key.startswith("eval_") else {"linewidth": 1.2}
            axes.plot(*zip(*points, strict=True) if points else ([], []), color=colour, label=label or None, **style)
        axes.set_title(title, loc="left", fontsize=11 if name in "AB" else 9)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        if name in "CDE":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
            axes.set_ylim(0, 1.15 * max([entry[key] for key, *_ in lines for entry in history if key in entry] or [1]))
    panels["A"].legend(frameon=False, fontsize=9)
    panels["B"].legend(frameon=False, fontsize=9)
    return figure.axes[0]
