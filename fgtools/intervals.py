"""Shares and ratios with 95 % intervals, and the exact paired test.

Knows counts only; not what was counted. Sources: Wilson (1927), score interval; Efron (1979), percentile bootstrap;
McNemar (1947) in its exact binomial form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
            raise ValueError(f"a share must have 0 <= k <= n, got k={self.k}, n={self.n}")

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
        low: Lower end of the interval; equals the rate where there was nothing to resample.
        high: Upper end; can exceed 1.
    """

    numerator: int
    denominator: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Numerator / denominator; can exceed 1; with a denominator of 0, the numerator."""
        return self.numerator / max(1, self.denominator)

    def to_dict(self) -> dict[str, float | int]:
        """Give numerator, denominator, rate, low and high."""
        return {
            "numerator": self.numerator,
            "denominator": self.denominator,
            "rate": self.rate,
            "low": self.low,
            "high": self.high,
        }

    def __str__(self) -> str:
        return f"{self.numerator}/{self.denominator} = {self.rate:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
        The Ratio; the interval is that of RESAMPLES seeded resamples of the rows.
    """
    top, bottom = sum(numerators), sum(denominators)
    if not numerators:
        return Ratio(top, bottom, 0.0, 0.0)
    import numpy

    upper, lower = (numpy.asarray(values, dtype=float) for values in (numerators, denominators))
    sums = [(upper[draw].sum(axis=1), lower[draw].sum(axis=1)) for draw in _resamples(len(upper))]
    rates = numpy.concatenate([above / numpy.maximum(1.0, below) for above, below in sums])
    low, high = numpy.quantile(rates, [0.025, 0.975])
    return Ratio(top, bottom, float(low), float(high))


def bootstrap_difference(
    before: tuple[Sequence[int], Sequence[int]], after: tuple[Sequence[int], Sequence[int]]
) -> tuple[float, float]:
    """Give the 95 % interval of a difference of two ratios on the same rows, after minus before.

    Args:
        before: Numerators and denominators, one of each a row.
        after: The same for the same rows in the same order.

    Returns:
        Lower and upper end; (0, 0) without rows. Rows are drawn in pairs.
    """
    if not before[0]:
        return 0.0, 0.0
    import numpy

    counts = [numpy.asarray(values, dtype=float) for values in (*before, *after)]
    differences = []
    for draw in _resamples(len(counts[0])):
        top, bottom, new_top, new_bottom = (values[draw].sum(axis=1) for values in counts)
        differences.append(new_top / numpy.maximum(1.0, new_bottom) - top / numpy.maximum(1.0, bottom))
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
        p in (0, 1]; 1 without discordant pairs.
    """
    discordant = fixed + broken
    tail = sum(math.comb(discordant, count) for count in range(min(fixed, broken) + 1))
    return min(1.0, 2 * tail / 2**discordant)
