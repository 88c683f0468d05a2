"""Passing unsure replies on: how many requests a model answers at a threshold of its confidence, and how many rightly.

Knows what became of every row: right or not (the AST match), and how sure the model was. Not what a larger model would
make of the requests that are passed on, nor whether later requests are like the evaluation's: a threshold promises
nothing for others.

A threshold that is chosen on rows looks better on these rows than on any others. So it is chosen on one half of the
rows, and what it is worth is counted on the other half; rows of one group (request and tools) are in the same half.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgtools.files import InputError
from fgtools.metrics.confidence import MEASURES, GeneratedReply
from fgtools.metrics.groups import Groups
from fgtools.metrics.intervals import Share, from_json, measure_share, parse_design, to_json
from fgtools.metrics.scores import Scores, require_same_ids

MIN_ANSWERED = 10
"""Rows that a threshold must let pass where it is chosen: of fewer, nearly any share is right by chance."""


@dataclass(frozen=True)
class Outcome:
    """What became of one row.

    Attributes:
        right: Whether its calls match the gold (AST match).
        confidence: How sure the model was, a log-probability; nan where it is not known.
        group: The group of the row (request and tools), which is never split.
        tool_group: Equal for rows of one tool, for intervals.
        request_group: Equal for rows that ask the same, for intervals.
    """

    right: bool
    confidence: float
    group: str
    tool_group: str = ""
    request_group: str = ""


@dataclass(frozen=True)
class Point:
    """What becomes of rows at a threshold: replies below it, and those of unknown confidence, are passed on.

    Attributes:
        answered: Rows that are answered, of all.
        right: Rows answered rightly, of those answered.
        threshold: The lowest confidence that is answered; nan: nothing is.
    """

    answered: Share
    right: Share
    threshold: float

    def to_dict(self) -> dict[str, Any]:
        """Return the point as a JSON object."""
        shares = {"answered": self.answered.to_dict(), "right": self.right.to_dict()}
        return {"threshold": to_json(self.threshold), **shares}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Point:
        """Return the Point that to_dict made a JSON object of."""
        sides = (saved["answered"], saved["right"])
        answered, right = (Share(one["k"], one["n"], parse_design(one)) for one in sides)
        return cls(answered, right, from_json(saved["threshold"]))


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold for a precision, and what it is worth on rows that had no part in the choice.

    Attributes:
        n_unknown: Rows without a confidence; they are passed on.
        precision: The share of answered rows that is to be right, in (0, 1].
        measure: What replies are ordered by, one of MEASURES.
        chosen: What becomes of the rows that it was chosen on; its threshold is nan where none reaches the precision.
        checked: What becomes of the other rows.
        curve: The other rows at every threshold, the strictest first.
    """

    n_unknown: int
    precision: float
    measure: str
    chosen: Point
    checked: Point
    curve: tuple[Point, ...]

    @property
    def threshold(self) -> float:
        """The lowest confidence that is answered; nan where no threshold reaches the precision."""
        return self.chosen.threshold

    def describe(self) -> str:
        """Return what the threshold does and how far that is shown, in two or three sentences."""
        wanted = f"{100 * self.precision:g} %"
        if math.isnan(self.threshold):
            n = self.chosen.answered.n
            unknown = f" ({self.n_unknown} rows have no confidence)" if self.n_unknown else ""
            if n < MIN_ANSWERED:
                few = f"A threshold is chosen on half of the rows, and {n} are too few for one{unknown}"
                return f"{few}: evaluate at least {2 * MIN_ANSWERED} rows; to show what one is worth takes hundreds."
            none = f"No threshold lets at least {MIN_ANSWERED} of {n} rows pass with {wanted} right{unknown}"
            return f"{none}: pass every request on, ask for less, or train on more rows."
        answered, right = self.checked.answered, self.checked.right
        low, high = right.interval
        rate = f" ({100 * right.rate:.0f} %)" if right.n else ""
        if low >= self.precision:
            reading = f"so at least {wanted} is shown for requests like these"
        elif high < self.precision:
            reading = f"so the {wanted} aimed at was missed"
        else:
            reading = f"so {wanted} may or may not be reached: more evaluation rows would tell"
        return (
            f"With threshold {self.threshold:g}, {answered.k} of {answered.n} requests are answered, {right.k} of them "
            f"right{rate}; the rest go to a larger model. The threshold was chosen on {self.chosen.answered.n} other "
            f"rows. The 95 % interval of the share that is right is {100 * low:.0f} to {100 * high:.0f} %, {reading}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as a JSON object."""
        points = {"chosen": self.chosen.to_dict(), "checked": self.checked.to_dict()}
        facts = {"n_unknown": self.n_unknown, "precision": self.precision, "measure": self.measure}
        return {**facts, **points, "curve": [point.to_dict() for point in self.curve]}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> ThresholdChoice:
        """Return the ThresholdChoice that to_dict made a JSON object of.

        Raises:
            ValueError: The object is not a choice.
        """
        try:
            chosen, checked = (Point.from_dict(saved[name]) for name in ("chosen", "checked"))
            curve = tuple(map(Point.from_dict, saved["curve"]))
            return cls(saved["n_unknown"], saved["precision"], saved["measure"], chosen, checked, curve)
        except (KeyError, TypeError) as error:
            raise InputError(f"a threshold must stand as this version writes it ({error}): evaluate again") from error


def build_outcomes(
    rows: Sequence[Mapping[str, Any]], scores: Scores, replies: Sequence[GeneratedReply], measure: str = MEASURES[0]
) -> list[Outcome]:
    """Return what became of every row.

    Args:
        rows: Row dicts.
        scores: Their scores.
        replies: Their replies, in the same order.
        measure: The figure of a confidence that counts, one of MEASURES.

    Returns:
        One Outcome a row.

    Raises:
        ValueError: The measure is unknown, or rows, scores and replies do not fit together.
    """
    if measure not in MEASURES:
        raise InputError(f"the measure of confidence must be one of {', '.join(MEASURES)}, got {measure!r}")
    require_same_ids((row["row_id"] for row in rows), (one.row_id for one in scores.rows))
    if len(replies) != len(rows):
        raise InputError(f"every row must have a reply, got {len(rows)} rows and {len(replies)} replies: score again")
    return [
        Outcome(
            one.ast_match,
            getattr(reply.confidence, measure),
            str(row.get("group") or row["row_id"]),
            one.tool_group,
            one.request_group,
        )
        for row, one, reply in zip(rows, scores.rows, replies, strict=True)
    ]


def apply_threshold(outcomes: Sequence[Outcome], threshold: float) -> Point:
    """Return what becomes of rows at a threshold; with nan for a threshold every row is passed on."""
    answered = [one for one in outcomes if one.confidence >= threshold]
    right = measure_share([one.right for one in answered], _group_outcomes(answered))
    passed = measure_share([one.confidence >= threshold for one in outcomes], _group_outcomes(outcomes))
    return Point(passed, right, threshold)


def _group_outcomes(outcomes: Sequence[Outcome]) -> Groups | None:
    """Return which rows belong together; None where it is not known of each."""
    if not all(one.request_group for one in outcomes):
        return None
    return Groups(tuple(one.tool_group for one in outcomes), tuple(one.request_group for one in outcomes))


def build_curve(outcomes: Sequence[Outcome]) -> tuple[Point, ...]:
    """Return what becomes of rows at every threshold that makes a difference, the strictest first.

    Thresholds are confidences rounded down to three significant digits, so that they can be copied from a page. Rows
    at the same threshold are answered together, or none of them is. Intervals of a curve take rows as independent.
    """
    at: Counter[float] = Counter()
    right_at: Counter[float] = Counter()
    for one in outcomes:
        if not math.isnan(one.confidence):
            threshold = _round_down(one.confidence)
            at[threshold] += 1
            right_at[threshold] += one.right
    points, answered, right = [], 0, 0
    for threshold in sorted(at, reverse=True):
        answered, right = answered + at[threshold], right + right_at[threshold]
        points.append(Point(Share(answered, len(outcomes)), Share(right, answered), threshold))
    return tuple(points)


def _round_down(number: float) -> float:
    """Return a number of at most 0 with three significant digits, never above it."""
    near = float(f"{number:.2e}")
    if near > number:
        near = float(f"{near - 10.0 ** (math.floor(math.log10(-number)) - 2):.2e}")
    return near


def split_halves(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Split rows into two halves, groups whole: by a hash of the group, so that neither order nor luck has a say.

    Returns:
        The half that thresholds are chosen on, and the half that they are checked on; of about equal size.
    """
    sizes = Counter(one.group for one in outcomes)
    first: set[str] = set()
    n_first = n_second = 0
    for group in sorted(sizes, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()):
        if n_first <= n_second:
            first.add(group)
            n_first += sizes[group]
        else:
            n_second += sizes[group]
    return [one for one in outcomes if one.group in first], [one for one in outcomes if one.group not in first]


def choose_threshold(outcomes: Sequence[Outcome], precision: float, measure: str = MEASURES[0]) -> ThresholdChoice:
    """Choose the threshold that answers most requests at a precision on one half of the rows; check it on the other.

    Args:
        outcomes: What became of the rows.
        precision: Share of the answered rows that is to be right, in (0, 1].
        measure: What their confidence is, one of MEASURES; for the record.

    Returns:
        The ThresholdChoice; without a threshold where none answers MIN_ANSWERED rows at this precision.

    Raises:
        ValueError: The precision is out of range.
    """
    if not 0 < precision <= 1:
        raise InputError(f"TARGET_PRECISION must be a share above 0 and at most 1, got {precision!r}: 0.9 is usual")
    choosing, checking = split_halves(outcomes)
    fitting = [
        point for point in build_curve(choosing) if point.right.n >= MIN_ANSWERED and point.right.rate >= precision
    ]
    chosen = fitting[-1] if fitting else apply_threshold(choosing, math.nan)
    n_unknown = sum(math.isnan(one.confidence) for one in outcomes)
    checked = apply_threshold(checking, chosen.threshold)
    return ThresholdChoice(n_unknown, precision, measure, chosen, checked, build_curve(checking))


def measure_separation(outcomes: Sequence[Outcome]) -> float:
    """Return the AUROC: how often a right row has a higher confidence than a wrong one, ties counted as half.

    Rows without a confidence are left out.

    Returns:
        A share in [0, 1], 0.5 where confidence says nothing; nan where all rows are right or all wrong.
    """
    known = [one for one in outcomes if not math.isnan(one.confidence)]
    n_right = sum(one.right for one in known)
    if n_right in (0, len(known)):
        return math.nan
    from scipy.stats import rankdata

    ranks = rankdata([one.confidence for one in known])
    above = sum(rank for rank, one in zip(ranks, known, strict=True) if one.right) - n_right * (n_right + 1) / 2
    return float(above / (n_right * (len(known) - n_right)))


def compare_measures(
    rows: Sequence[Mapping[str, Any]], scores: Scores, replies: Sequence[GeneratedReply]
) -> dict[str, float]:
    """Return how well each of MEASURES tells right rows from wrong ones.

    Args:
        rows: As for build_outcomes.
        scores: As for build_outcomes.
        replies: As for build_outcomes.

    Returns:
        Measure -> AUROC, as measure_separation returns it.
    """
    return {name: measure_separation(build_outcomes(rows, scores, replies, name)) for name in MEASURES}
