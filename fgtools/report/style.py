"""How every figure of the series looks: colours, axes, and how a figure is saved.

Knows matplotlib; not what is drawn.
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from fgtools.files import write_bytes

BEFORE, AFTER, MUTED = "#d08c3f", "#2f6f9f", "#9a9a9a"


def new_axes(width: float = 7.0, height: float = 4.0) -> Axes:
    """Open a figure with one pair of axes; sizes in inches."""
    _, axes = plt.subplots(figsize=(width, height), layout="constrained")
    tidy_axes(axes)
    return axes


def tidy_axes(axes: Axes) -> None:
    """Take off what distracts: the outer spines; a faint grid across."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def save_figure(axes: Axes, path: Path, caveat: str = "") -> Path:
    """Save the figure of some axes as PNG, whole.

    Args:
        axes: Any axes of the figure.
        path: Where it goes.
        caveat: What the figure must be read with, such as that it comes from the offline stand-in; written below it.

    Returns:
        The path.
    """
    if caveat:
        axes.figure.supxlabel(caveat, fontsize=7, color=MUTED)
    buffer = io.BytesIO()
    axes.figure.savefig(buffer, format="png", dpi=130)
    return write_bytes(Path(path), buffer.getvalue())
