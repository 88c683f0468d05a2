"""Shares and ratios with 95 % intervals, and for paired rows the interval of a difference and the exact test.

Knows counts; not what was counted. McNemar's (1947) test in its exact binomial form and the percentile bootstrap
(Efron, 1979) are scipy's; Wilson's (1927) score interval for an effective number of rows and Bonett and Price's (2012)
interval of a difference of paired shares, which scipy does not have, are computed here. Where rows belong together
(`groups`), the bootstrap draws whole groups and the other two are widened by the design effect; few groups widen all.
A share or ratio without a denominator has no rate: nan, in JSON null.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import ndarray

from fgtools.files import InputError
from fgtools.metrics.groups import INDEPENDENT, Design, Groups, choose_grouping, measure_design, sum_groups

Z = 1.959963984540054
"""97.5 % quantile of the standard normal distribution: the factor of a two-sided 95 % interval."""

FEW_ROWS = 30
"""Evaluation rows below which a share of one half has a 95 % interval of more than 33 points."""

RESAMPLES = 2000
BOOTSTRAP_SEED = 0
_DRAWN_AT_ONCE = 250_000
"""Rows drawn at once, over all resamples of a batch: so many counts fit into a processor's cache."""


@dataclass(frozen=True)
class Share:
    """k of n, with the 95 % Wilson interval; shares with the same counts are equal.

    Attributes:
        k: How many.
        n: Of how many; 0 where there was nothing to count.
        design: How these n are grouped; the interval is that of n rows divided by the squared factor of the design.
    """

    k: int
    n: int
    design: Design = field(default=INDEPENDENT, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.k <= self.n:
            raise InputError(f"a share must have 0 <= k <= n, got k={self.k}, n={self.n}")

    @property
    def rate(self) -> float:
        """K / n in [0, 1]; nan for n = 0."""
        return self.k / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % Wilson interval, in [0, 1]; (0, 1) for n = 0."""
        widened = self.design.widen(self.n)
        if not self.n or math.isinf(widened):
            return 0.0, 1.0
        n, rate = self.n / widened**2, self.rate
        middle, half = rate + Z * Z / (2 * n), Z * math.sqrt(rate * (1 - rate) / n + Z * Z / (4 * n * n))
        low, high = ((middle + side * half) / (1 + Z * Z / n) for side in (-1, 1))
        return (low if self.k else 0.0), (high if self.k < self.n else 1.0)

    def to_dict(self) -> dict[str, float | int | None]:
        """Return k, n, rate (None for n = 0), low, high, and the design effect and groups that the ends stand on."""
        low, high = self.interval
        counts = {"k": self.k, "n": self.n, "rate": to_json(self.rate), "low": low, "high": high}
        return {**counts, **describe_design(self.design)}

    def __str__(self) -> str:
        if not self.n:
            return "0/0"
        low, high = self.interval
        return f"{self.k}/{self.n} = {self.rate:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass(frozen=True)
class Ratio:
    """One sum over rows divided by another, with the 95 % bootstrap interval over groups of rows.

    Attributes:
        numerator: The sum that is divided.
        denominator: The sum that it is divided by.
        low: Lower end of the interval; nan where the denominator is 0.
        high: Upper end; can exceed 1; nan where the denominator is 0.
        design: How the rows are grouped; says nothing about equality.
    """

    numerator: int
    denominator: int
    low: float
    high: float
    design: Design = field(default=INDEPENDENT, compare=False)

    @property
    def rate(self) -> float:
        """Numerator / denominator; can exceed 1; nan for a denominator of 0."""
        return self.numerator / self.denominator if self.denominator else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % bootstrap interval; nan both for a denominator of 0."""
        return self.low, self.high

    def to_dict(self) -> dict[str, float | int | None]:
        """Return numerator, denominator, rate, low, high (None for each that is nan), design effect and groups."""
        numbers = {name: to_json(getattr(self, name)) for name in ("rate", "low", "high")}
        return {"numerator": self.numerator, "denominator": self.denominator, **numbers, **describe_design(self.design)}

    def __str__(self) -> str:
        if not self.denominator:
            return f"{self.numerator}/0"
        return f"{self.numerator}/{self.denominator} = {self.rate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def to_json(number: float) -> float | None:
    """Return a number as JSON can hold it: None for nan."""
    return None if math.isnan(number) else number


def from_json(number: float | None) -> float:
    """Return the number that to_json made JSON: nan for None."""
    return math.nan if number is None else number


def describe_design(design: Design) -> dict[str, float | int]:
    """Return a design as JSON values."""
    return {"design_effect": design.effect, "groups": design.groups}


def parse_design(saved: Mapping[str, Any]) -> Design:
    """Return the Design that describe_design made JSON values of, among others."""
    return Design(saved["groups"], saved["design_effect"])


def measure_share(facts: Sequence[bool], groups: Groups | None = None) -> Share:
    """Return how many rows a fact holds for.

    Args:
        facts: Whether it holds, row by row.
        groups: The groups of these rows; None: rows are taken as independent.
    """
    k, n = sum(facts), len(facts)
    return Share(k, n, measure_design([fact - k / n for fact in facts], groups))


def bootstrap_ratio(numerators: Sequence[int], denominators: Sequence[int], groups: Groups | None = None) -> Ratio:
    """Return the ratio of two sums over rows, with its bootstrap interval.

    Args:
        numerators: One count per row.
        denominators: One count per row, in the same order.
        groups: The groups of these rows, drawn as a whole; None: rows are taken as independent.

    Returns:
        The Ratio; its interval has no width where every row has the same rate.
    """
    top, bottom = sum(numerators), sum(denominators)
    if not bottom:
        return Ratio(top, bottom, math.nan, math.nan)

    def ratio(above: ndarray, below: ndarray, axis: int) -> ndarray:
        return above.sum(axis) / below.sum(axis)

    design, numbers = choose_grouping(_list_residuals(numerators, denominators), groups)
    return Ratio(top, bottom, *_bootstrap_interval(ratio, numbers, numerators, denominators), design)


def bootstrap_difference(
    before: tuple[Sequence[int], Sequence[int]],
    after: tuple[Sequence[int], Sequence[int]],
    groups: Groups | None = None,
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a difference of two ratios on the same rows, after minus before.

    Args:
        before: Numerators and denominators, one of each per row.
        after: The same for the same rows in the same order.
        groups: The groups of these rows, drawn as a whole; None: rows are taken as independent.

    Returns:
        Lower and upper end; (nan, nan) where a side has no denominator.
    """
    if not sum(before[1]) or not sum(after[1]):
        return math.nan, math.nan

    def difference(top: ndarray, bottom: ndarray, new_top: ndarray, new_bottom: ndarray, axis: int) -> ndarray:
        return new_top.sum(axis) / new_bottom.sum(axis) - top.sum(axis) / bottom.sum(axis)

    _, numbers = choose_grouping(list_difference_residuals(before, after), groups)
    return _bootstrap_interval(difference, numbers, *before, *after)


def list_difference_residuals(
    before: tuple[Sequence[int], Sequence[int]], after: tuple[Sequence[int], Sequence[int]]
) -> list[float]:
    """Return what every row adds to the deviation of a difference of two ratios, of which both have a denominator."""
    return [new - old for old, new in zip(_list_residuals(*before), _list_residuals(*after), strict=True)]


def _list_residuals(numerators: Sequence[int], denominators: Sequence[int]) -> list[float]:
    """Return what every row adds to the deviation of a ratio of sums; they add up to 0."""
    top, bottom = sum(numerators), sum(denominators)
    return [(above - top / bottom * below) / bottom for above, below in zip(numerators, denominators, strict=True)]


def _bootstrap_interval(
    statistic: Callable[..., ndarray], numbers: Sequence[int], *counts: Sequence[int]
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a statistic of paired counts, over RESAMPLES seeded resamples of groups.

    Of few groups the resamples spread too little: the percentiles are taken further out, as Hesterberg (2015)
    recommends ("What teachers should know about the bootstrap", The American Statistician 69). Resamples in which the
    statistic is not finite, since a denominator is 0, are left out.
    """
    import numpy
    from scipy.special import ndtr
    from scipy.stats import bootstrap

    columns = [numpy.asarray(sum_groups(column, numbers)) for column in counts]
    n, drawn = len(numbers), len(columns[0])
    if drawn == 1:  # scipy needs two; of one row every resample is the row, one group of several rows tells nothing
        only = float(statistic(*columns, axis=0)) if n == 1 else math.nan
        return only, only
    with numpy.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings(action="ignore"):
        rates = bootstrap(
            columns,
            statistic,
            n_resamples=RESAMPLES,
            batch=max(1, _DRAWN_AT_ONCE // drawn),
            paired=True,
            vectorized=True,
            method="percentile",
            rng=BOOTSTRAP_SEED,
        ).bootstrap_distribution
    few = 1.0 if drawn == n else Design(drawn).widen(n) * math.sqrt(drawn / (drawn - 1))
    tail = float(ndtr(-Z * few))
    low, high = numpy.quantile(rates[numpy.isfinite(rates)], [tail, 1 - tail])
    return float(low), float(high)


def paired_interval(gained: int, lost: int, n: int, design: Design = INDEPENDENT) -> tuple[float, float]:
    """Return the 95 % interval of a difference of two shares of the same rows, after minus before.

    Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data", Journal of Educational and Behavioral Statistics 37: one pair of each kind is added to the discordant pairs,
    so that an interval has a width even where rows are few or no row changed.

    Args:
        gained: Rows that count after and not before.
        lost: Rows that count before and not after.
        n: All rows.
        design: How they are grouped, by their differences; the interval is wider by its factor.

    Returns:
        Lower and upper end, in [-1, 1]; (-1, 1) for n = 0.
    """
    rose, fell = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    difference = rose - fell
    half = Z * design.widen(n) * math.sqrt((rose + fell - difference * difference) / (n + 2))
    return max(-1.0, difference - half), min(1.0, difference + half)


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Return the p value of McNemar's exact test: the two-sided binomial test of the discordant pairs against one half.

    Args:
        fixed: Pairs wrong before and right after.
        broken: Pairs right before and wrong after.

    Returns:
        p in (0, 1], 1 without discordant pairs; never 0, even where it is too small for a float.
    """
    if not fixed + broken:
        return 1.0
    from scipy.stats import binomtest

    return max(math.ulp(0.0), float(binomtest(fixed, fixed + broken).pvalue))


def format_p(p: float) -> str:
    """Return a p value as it follows the letter p: "= 0.012", or "< 1e-300" where it is too small for a float."""
    return "< 1e-300" if p < 1e-300 else f"= {p:.2g}"


def describe_few_rows(n: int) -> str:
    """Return a sentence on what so few evaluation rows can show, or "" where they are FEW_ROWS or more.

    Args:
        n: The rows.
    """
    if n >= FEW_ROWS:
        return ""
    half = Share(n // 2, n)
    low, high = (100 * end for end in half.interval)
    needed = next(rows for rows in range(1, 10) if mcnemar_exact(rows, 0) < 0.05)
    told = (
        f"of two models one must be right on at least {needed} rows more than the other before an exact test tells the "
        "difference from luck"
        if n >= needed
        else f"no difference between two models can be told from luck: it takes {needed} rows that only one gets right"
    )
    rows = "1 evaluation row is" if n == 1 else f"{n} evaluation rows are"
    return f"{rows} few: {half.k} of {n} right may mean {low:.0f} to {high:.0f} %, and {told}"
