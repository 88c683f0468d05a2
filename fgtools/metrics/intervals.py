"""Shares and ratios with 95 % intervals, and for paired rows the interval of a difference and the exact test.

Knows counts only; not what was counted. Sources: Wilson (1927), score interval; Bonett and Price (2012), adjusted Wald
interval of a difference of paired shares; Efron (1979), percentile bootstrap; McNemar (1947) in its exact binomial
form. What has no denominator has no rate: nan, in JSON null.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fgtools.files import InputError

Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

RESAMPLES = 2000
BOOTSTRAP_SEED = 0
_CELLS = 4_000_000
"""Largest number of indices drawn at once."""


@dataclass(frozen=True)
class Share:
    """k of n, with the 95 % Wilson interval.

    Attributes:
        k: How many.
        n: Of how many; 0 where there was nothing to count.
    """

    k: int
    n: int

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
        return wilson_interval(self.k, self.n)

    def to_dict(self) -> dict[str, float | int | None]:
        """Give k, n, rate (None for n = 0), low and high."""
        low, high = self.interval
        return {"k": self.k, "n": self.n, "rate": self.rate if self.n else None, "low": low, "high": high}

    def __str__(self) -> str:
        if not self.n:
            return "0/0"
        low, high = self.interval
        return f"{self.k}/{self.n} = {self.rate:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass(frozen=True)
class Ratio:
    """A sum over rows divided by another, with the 95 % interval of the bootstrap over rows.

    Attributes:
        numerator: The upper sum.
        denominator: The lower sum.
        low: Lower end of the interval; nan where the denominator is 0.
        high: Upper end; can exceed 1; nan where the denominator is 0.
    """

    numerator: int
    denominator: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Numerator / denominator; can exceed 1; nan for a denominator of 0."""
        return self.numerator / self.denominator if self.denominator else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % bootstrap interval; nan both for a denominator of 0."""
        return self.low, self.high

    def to_dict(self) -> dict[str, float | int | None]:
        """Give numerator, denominator, rate, low and high; None for each of the last three that is nan."""
        numbers = {name: to_json(getattr(self, name)) for name in ("rate", "low", "high")}
        return {"numerator": self.numerator, "denominator": self.denominator, **numbers}

    def __str__(self) -> str:
        if not self.denominator:
            return f"{self.numerator}/0"
        return f"{self.numerator}/{self.denominator} = {self.rate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def to_json(number: float) -> float | None:
    """Give a number as JSON can hold it: None for nan."""
    return None if math.isnan(number) else number


def from_json(number: float | None) -> float:
    """Read what to_json gave."""
    return math.nan if number is None else number


def wilson_interval(k: int, n: int) -> tuple[float, float]:
    """Give the 95 % Wilson score interval of k of n.

    Args:
        k: How many, 0 to n.
        n: Of how many.

    Returns:
        Lower and upper end, in [0, 1]; (0, 1) for n = 0.
    """
    if not n:
        return 0.0, 1.0
    share, square = k / n, Z * Z
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return (0.0 if k == 0 else max(0.0, centre - half)), (1.0 if k == n else min(1.0, centre + half))


def bootstrap_ratio(numerators: Sequence[int], denominators: Sequence[int]) -> Ratio:
    """Give the ratio of two sums over rows, with the bootstrap's interval.

    Args:
        numerators: One count a row.
        denominators: One count a row, in the same order.

    Returns:
        The Ratio; the interval is that of RESAMPLES seeded resamples of the rows, those without a denominator left out.
        It has no width where every row has the same rate.
    """
    top, bottom = sum(numerators), sum(denominators)
    if not bottom:
        return Ratio(top, bottom, math.nan, math.nan)
    import numpy

    upper, lower = (numpy.asarray(values, dtype=float) for values in (numerators, denominators))
    rates = []
    for draw in _resamples(len(upper)):
        above, below = upper[draw].sum(axis=1), lower[draw].sum(axis=1)
        rates.append(above[below > 0] / below[below > 0])
    low, high = numpy.quantile(numpy.concatenate(rates), [0.025, 0.975])
    return Ratio(top, bottom, float(low), float(high))


def paired_interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Give the 95 % interval of a difference of two shares of the same rows, after minus before.

    Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data", Journal of Educational and Behavioral Statistics 37: one pair of each kind is added to the discordant pairs,
    so that few rows, or rows that all stayed as they were, do not give an interval without width.

    Args:
        gained: Rows that count after and not before.
        lost: Rows that count before and not after.
        n: All rows.

    Returns:
        Lower and upper end, in [-1, 1]; (-1, 1) for n = 0.
    """
    rose, fell = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    difference = rose - fell
    half = Z * math.sqrt((rose + fell - difference * difference) / (n + 2))
    return max(-1.0, difference - half), min(1.0, difference + half)


def bootstrap_difference(
    before: tuple[Sequence[int], Sequence[int]], after: tuple[Sequence[int], Sequence[int]]
) -> tuple[float, float]:
    """Give the 95 % interval of a difference of two ratios on the same rows, after minus before.

    Args:
        before: Numerators and denominators, one of each a row.
        after: The same for the same rows in the same order.

    Returns:
        Lower and upper end; (nan, nan) where a side has no denominator. Rows are drawn in pairs; resamples in which a
        side has no denominator are left out.
    """
    if not sum(before[1]) or not sum(after[1]):
        return math.nan, math.nan
    import numpy

    counts = [numpy.asarray(values, dtype=float) for values in (*before, *after)]
    differences = []
    for draw in _resamples(len(counts[0])):
        top, bottom, new_top, new_bottom = (values[draw].sum(axis=1) for values in counts)
        both = (bottom > 0) & (new_bottom > 0)
        differences.append(new_top[both] / new_bottom[both] - top[both] / bottom[both])
    low, high = numpy.quantile(numpy.concatenate(differences), [0.025, 0.975])
    return float(low), float(high)


def _resamples(n: int):
    """Draw row indices with replacement, RESAMPLES x n in all, in pieces that fit into memory."""
    import numpy

    generator = numpy.random.default_rng(BOOTSTRAP_SEED)
    rows = max(1, min(RESAMPLES, _CELLS // n))
    for start in range(0, RESAMPLES, rows):
        yield generator.integers(0, n, (min(rows, RESAMPLES - start), n))


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Give the p value of McNemar's exact test: two-sided binomial test of the discordant pairs against one half.

    Args:
        fixed: Pairs wrong before and right after.
        broken: Pairs right before and wrong after.

    Returns:
        p in (0, 1]; 1 without discordant pairs. What is too small for a float is the smallest float.
    """
    discordant, fewer = fixed + broken, min(fixed, broken)
    tail = term = 1.0  # of the binomial tail's terms, in units of the largest one
    for count in range(fewer, 0, -1):
        term *= count / (discordant - count + 1)
        tail += term
    largest = math.lgamma(discordant + 1) - math.lgamma(fewer + 1) - math.lgamma(discordant - fewer + 1)
    log_p = math.log(2 * tail) + largest - discordant * math.log(2)
    return max(math.ulp(0.0), math.exp(min(0.0, log_p)))


def format_p(p: float) -> str:
    """Write a p value as it follows the letter p: "= 0.012", or "< 1e-300" where floats end."""
    return "< 1e-300" if p < 1e-300 else f"= {p:.2g}"
