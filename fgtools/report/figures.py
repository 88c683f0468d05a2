"""The figures of the series, in one style.

Knows matplotlib and plain numbers; every function draws on the axes it is given and gives them back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fgtools.metrics import LADDER, Comparison, Ratio, Scores, Share
from fgtools.metrics.breakdowns import Parts, require_same_parts
from fgtools.report.curves import plot_training
from fgtools.report.style import AFTER, BEFORE, MUTED, new_axes, save_figure
from fgtools.report.tables import LABELS, list_codes, shorten_code

__all__ = [
    "new_axes",
    "plot_breakdown",
    "plot_comparison",
    "plot_errors",
    "plot_funnel",
    "plot_lengths",
    "plot_shares",
    "plot_training",
    "plot_transitions",
    "save_figure",
]


def plot_funnel(funnel: Mapping[str, int], axes: Axes) -> Axes:
    """Draw the rows by fate, the kept ones first."""
    names, total = list(funnel), sum(funnel.values())
    colours = [AFTER if name == "kept" else MUTED for name in names]
    bars = axes.barh(names, list(funnel.values()), color=colours)
    axes.bar_label(bars, [f"{count} ({count / max(1, total):.1%})" for count in funnel.values()], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xlabel(f"rows, of {total}")
    axes.set_title("Where every raw row went", loc="left", fontsize=11)
    return axes


def plot_lengths(lengths: Sequence[int], budget: int, axes: Axes) -> Axes:
    """Draw the rows by their length in tokens, with the budget as a line."""
    over = sum(length > budget for length in lengths)
    axes.hist(lengths, bins=40, color=AFTER)
    axes.axvline(budget, color=BEFORE, linewidth=1.5)
    axes.annotate(
        f"budget {budget}: {over} of {len(lengths)} rows over it",
        (budget, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-6, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=9,
        color=BEFORE,
    )
    axes.set_xlabel("tokens of a training text")
    axes.set_ylabel("rows")
    axes.set_title("How long the rows are", loc="left", fontsize=11)
    return axes


def plot_comparison(comparison: Comparison, axes: Axes) -> Axes:
    """Draw the ladder before and after as dots with their 95 % intervals."""
    for position, name in enumerate(LADDER):
        change = comparison.change(name)
        for share, colour, offset in ((change.before, BEFORE, -0.13), (change.after, AFTER, 0.13)):
            low, high = share.interval
            axes.plot([100 * low, 100 * high], [position + offset] * 2, color=colour, linewidth=1.8)
            axes.plot(100 * share.rate, position + offset, "o", color=colour, markersize=6)
            axes.annotate(
                f"{share.k}/{share.n}",
                (100 * high, position + offset),
                xytext=(5, -3),
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )
    axes.set_yticks(range(len(LADDER)), [LABELS[name] for name in LADDER])
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(f"% of {comparison.n} held-out rows, with 95 % interval")
    axes.figure.legend(_handles(), ["before", "after"], frameon=False, loc="outside upper right", ncols=2)
    axes.set_title("Before and after", loc="left", fontsize=11)
    return axes


def plot_errors(before: Scores, after: Scores, axes: Axes) -> Axes:
    """Draw the rows by kind of error, before and after."""
    was, now = before.errors, after.errors
    codes = sorted({*was, *now}, key=lambda code: (-was.get(code, 0), -now.get(code, 0), code))
    if not codes:
        axes.text(0.5, 0.5, "no errors", ha="center", transform=axes.transAxes)
        return axes
    for scores, colour, offset, label in ((before, BEFORE, -0.2, "before"), (after, AFTER, 0.2, "after")):
        counts = [scores.errors.get(code, 0) for code in codes]
        places = [position + offset for position in range(len(codes))]
        axes.bar_label(axes.barh(places, counts, height=0.38, color=colour, label=label), padding=3, fontsize=8)
    axes.set_yticks(range(len(codes)), [shorten_code(code) for code in codes])
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"rows, of {len(before.rows)}")
    axes.legend(frameon=False)
    axes.set_title("Errors by kind", loc="left", fontsize=11)
    return axes


def plot_breakdown(before: Parts, after: Parts, label: str, axes: Axes, measure: str = "ast_match") -> Axes:
    """Draw a share part by part, before and after, with 95 % intervals.

    Args:
        before: Parts of the first model's scores.
        after: Parts of the second one's, with the same labels.
        label: What the parts are.
        axes: Where it goes.
        measure: A Share of Scores.

    Returns:
        The axes.

    Raises:
        ValueError: The parts are not of the same rows.
    """
    require_same_parts(before, after)
    sides = [{name: getattr(scores, measure) for name, scores in parts.items()} for parts in (before, after)]
    return plot_shares(*sides, label, f"{LABELS[measure]}, %", axes)


def plot_shares(
    before: Mapping[str, Share | Ratio],
    after: Mapping[str, Share | Ratio],
    label: str,
    measure: str,
    axes: Axes,
    unit: str = "rows",
) -> Axes:
    """Draw named shares before and after, with 95 % intervals; nothing where there was nothing to count.

    Args:
        before: Name -> Share, or a Ratio of a part and its whole, in the order in which they are drawn.
        after: The same names afterwards.
        label: What the names are.
        measure: What is shared out, with its unit, for the axis.
        axes: Where it goes.
        unit: What is counted; each name shows how many there are.

    Returns:
        The axes.
    """
    names = list(before)
    for shares, colour, offset in ((before, BEFORE, -0.09), (after, AFTER, 0.09)):
        for position, name in enumerate(names):
            if math.isnan(shares[name].rate):
                continue
            low, high = shares[name].interval
            axes.plot([position + offset] * 2, [100 * low, 100 * high], color=colour, linewidth=1.8)
            axes.plot(position + offset, 100 * shares[name].rate, "o", color=colour, clip_on=False)
    axes.set_xticks(range(len(names)), [f"{name}\n{_count(before[name])} {unit}" for name in names], fontsize=8)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(0, 100)
    axes.set_ylabel(measure)
    axes.set_xlabel(label)
    axes.legend(_handles(), ["before", "after"], frameon=False, fontsize=8)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_title(f"By {label}", loc="left", fontsize=11)
    return axes


def _count(measure: Share | Ratio) -> int:
    return measure.n if isinstance(measure, Share) else measure.denominator


def _handles() -> list[plt.Line2D]:
    return [plt.Line2D([], [], color=colour, marker="o") for colour in (BEFORE, AFTER)]


def plot_transitions(comparison: Comparison, axes: Axes) -> Axes:
    """Draw a heat map of all rows by error before (down) and after (across): what is right first, rare codes as one."""
    codes = list_codes(comparison)
    places = {code: place for place, code in enumerate(codes)}
    names = [shorten_code(code) for code in codes]
    if any({before, after} - set(places) for before, after, _ in comparison.transitions):
        names.append("other")
    counts = [[0] * len(names) for _ in names]
    for before, after, count in comparison.transitions:
        down, across = (places.get(code, len(codes)) for code in (before, after))
        counts[down][across] += count
    highest = max(1, *(max(row) for row in counts))
    axes.imshow([[count**0.5 for count in row] for row in counts], cmap="Blues", vmin=0, vmax=highest**0.5)
    for down, row in enumerate(counts):
        for across, count in enumerate(row):
            colour = "white" if count > 0.4 * highest else "black"
            axes.text(across, down, str(count) if count else "", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.grid(visible=False)
    axes.set_xlabel(f"after; {comparison.n} rows")
    axes.set_ylabel("before")
    axes.set_title("What became of every row", loc="left", fontsize=11)
    return axes
