"""The figures of the series, in one style.

Knows matplotlib and plain numbers; every function draws on the axes it is given and returns them, except that
`plot_training` opens a figure of several axes.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fgtools.files import write_parts
from fgtools.metrics import LADDER, Comparison, Ratio, Scores, Share
from fgtools.metrics.breakdowns import Parts, require_same_parts
from fgtools.metrics.coverage import ThresholdChoice
from fgtools.report.tables import LABELS, shorten_code

BEFORE, AFTER, MUTED = "#d08c3f", "#2f6f9f", "#9a9a9a"
"""The colours of a first model, of a second one, and of what is neither."""

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
"""The panels of a training's figure: place, title, and (key in the log, colour, label) of each line."""


def new_axes(width: float = 7.0, height: float = 4.0) -> Axes:
    """Open a figure with one pair of axes; sizes in inches."""
    return _tidy_axes(plt.subplots(figsize=(width, height), layout="constrained")[1])


def _tidy_axes(axes: Axes) -> Axes:
    """Remove the upper and right spine and draw a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _name_axes(axes: Axes, title: str, xlabel: str, ylabel: str = "") -> Axes:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left", fontsize=11)
    return axes


def save_figure(axes: Axes, path: Path, caveat: str = "") -> Path:
    """Save the figure of some axes as a PNG file.

    Args:
        axes: Any axes of the figure.
        path: The file; its folder is made where it is missing.
        caveat: Written below the figure, such as that it comes from the offline stand-in; "" for none.

    Returns:
        The path.
    """
    if caveat:
        axes.figure.supxlabel(caveat, fontsize=7, color=MUTED)
    buffer = io.BytesIO()
    axes.figure.savefig(buffer, format="png", dpi=130)
    return write_parts(Path(path), [buffer.getvalue()])


def plot_funnel(funnel: Mapping[str, int], axes: Axes, n_raw: int = 0) -> Axes:
    """Draw the rows by fate, the kept ones first.

    Args:
        funnel: Count by fate.
        axes: What to draw on.
        n_raw: Raw rows, where answers of their conversations were counted; 0: raw rows were.

    Returns:
        The axes.
    """
    total = sum(funnel.values())
    colours = [AFTER if name == "kept" else MUTED for name in funnel]
    bars = axes.barh(list(funnel), list(funnel.values()), color=colours)
    axes.bar_label(bars, [f"{count} ({count / max(1, total):.1%})" for count in funnel.values()], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    if n_raw and n_raw != total:
        return _name_axes(axes, "Where every answer went", f"answers, of {total} in {n_raw} raw rows")
    return _name_axes(axes, "Where every raw row went", f"rows, of {total}")


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
    return _name_axes(axes, "How long the rows are", "tokens of a training text", "rows")


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
    axes.set(xlim=(0, 112), xticks=range(0, 101, 20))
    axes.figure.legend(_handles(), ["before", "after"], frameon=False, loc="outside upper right", ncols=2)
    return _name_axes(axes, "Before and after", f"% of {comparison.n} held-out rows, with 95 % interval")


def plot_errors(before: Scores, after: Scores, axes: Axes) -> Axes:
    """Draw the rows by kind of error, before and after."""
    was, now = Counter(before.errors), Counter(after.errors)
    codes = sorted({*was, *now}, key=lambda code: (-was[code], -now[code], code))
    if not codes:
        axes.text(0.5, 0.5, "no errors", ha="center", transform=axes.transAxes)
        return axes
    for counts, colour, offset, label in ((was, BEFORE, -0.2, "before"), (now, AFTER, 0.2, "after")):
        places = [position + offset for position in range(len(codes))]
        bars = axes.barh(places, [counts[code] for code in codes], height=0.38, color=colour, label=label)
        axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_yticks(range(len(codes)), [shorten_code(code) for code in codes])
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return _name_axes(axes, "Errors by kind", f"rows, of {len(before.rows)}")


def plot_breakdown(before: Parts, after: Parts, label: str, axes: Axes) -> Axes:
    """Draw the AST match part by part, before and after, with 95 % intervals.

    Args:
        before: Parts of the first model's scores.
        after: Parts of the second one's, with the same labels.
        label: What the parts are.
        axes: What is drawn on.

    Returns:
        The axes.

    Raises:
        ValueError: The parts are not of the same rows.
    """
    require_same_parts(before, after)
    sides = [{name: scores.ast_match for name, scores in parts.items()} for parts in (before, after)]
    return plot_shares(*sides, label, f"{LABELS['ast_match']}, %", axes)


def plot_shares(
    before: Mapping[str, Share | Ratio],
    after: Mapping[str, Share | Ratio],
    label: str,
    measure: str,
    axes: Axes,
    unit: str = "rows",
) -> Axes:
    """Draw named shares before and after, with 95 % intervals; where there is nothing to count, nothing is drawn.

    Args:
        before: Name -> Share, or a Ratio of a part and its whole, in the order in which they are drawn.
        after: The same names afterwards.
        label: What the names are.
        measure: What the shares are of, with its unit, for the axis.
        axes: What is drawn on.
        unit: What is counted; each name shows how many there are.

    Returns:
        The axes.
    """
    for shares, colour, offset in ((before, BEFORE, -0.09), (after, AFTER, 0.09)):
        for position, name in enumerate(before):
            if math.isnan(shares[name].rate):
                continue
            low, high = shares[name].interval
            axes.plot([position + offset] * 2, [100 * low, 100 * high], color=colour, linewidth=1.8)
            axes.plot(position + offset, 100 * shares[name].rate, "o", color=colour, clip_on=False)
    sizes = [share.n if isinstance(share, Share) else share.denominator for share in before.values()]
    ticks = [f"{name}\n{size} {unit}" for name, size in zip(before, sizes, strict=True)]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.set(xlim=(-0.5, len(ticks) - 0.5), ylim=(0, 100))
    axes.legend(_handles(), ["before", "after"], frameon=False, fontsize=8)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    return _name_axes(axes, f"By {label}", label, measure)


def plot_coverage(choice: ThresholdChoice, axes: Axes) -> Axes:
    """Draw how many of the answered rows are right as ever more rows are answered, the surest first.

    Args:
        choice: A threshold with the curve of the rows that it is checked on.
        axes: What is drawn on.

    Returns:
        The axes; the band is the 95 % interval, the dot is the threshold, the dashed line the precision aimed at.
    """
    answered = [100 * point.answered.rate for point in choice.curve]
    axes.plot(answered, [100 * point.right.rate for point in choice.curve], color=AFTER, linewidth=1.8)
    low, high = zip(*(point.right.interval for point in choice.curve), strict=True) if choice.curve else ((), ())
    axes.fill_between(answered, [100 * end for end in low], [100 * end for end in high], color=AFTER, alpha=0.15)
    axes.axhline(100 * choice.precision, color=MUTED, linewidth=1, linestyle="--")
    checked = choice.checked
    if checked.answered.k:
        place = 100 * checked.answered.rate, 100 * checked.right.rate
        axes.plot(*place, "o", color=BEFORE)
        note = f"threshold {choice.threshold:g}: {checked.right.k}/{checked.right.n} right"
        axes.annotate(note, place, xytext=(-8, -16), textcoords="offset points", ha="right", fontsize=8)
    axes.set(xlim=(0, 102), ylim=(0, 104))
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    xlabel = f"answered, % of {checked.answered.n} rows that the threshold was not chosen on"
    return _name_axes(axes, "Unsure replies passed on", xlabel, "right, % of those answered")


def _handles() -> list[plt.Line2D]:
    return [plt.Line2D([], [], color=colour, marker="o") for colour in (BEFORE, AFTER)]


def plot_transitions(comparison: Comparison, axes: Axes) -> Axes:
    """Draw a heat map of all rows by error before (down) and after (across).

    Right rows stand first, then the eight most common codes, then all others together.
    """
    totals: Counter[str] = Counter()
    for before, after, count in comparison.transitions:
        totals.update({code: count for code in {before, after} - {""}})
    codes = ["", *sorted(totals, key=lambda code: (-totals[code], code))[:8]]
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
    return _name_axes(axes, "What became of every row", f"after; {comparison.n} rows", "before")


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
        _tidy_axes(axes)
        for key, colour, label in lines:
            points = [(entry["step"], entry[key]) for entry in history if key in entry and "step" in entry]
            style = {"marker": "."} if key.startswith("eval_") else {"linewidth": 1.2}
            axes.plot(*zip(*points, strict=True) if points else ([], []), color=colour, label=label or None, **style)
        axes.set_title(title, loc="left", fontsize=11 if name in "AB" else 9)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        if name in "AB":
            axes.legend(frameon=False, fontsize=9)
        else:
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
            axes.set_ylim(0, 1.15 * max([entry[key] for key, *_ in lines for entry in history if key in entry] or [1]))
    return figure.axes[0]
