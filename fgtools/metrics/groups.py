"""Rows that belong together: design effects, and tests that keep whole groups together.

Knows labels and numbers of rows; not what the numbers measure. Rows that share a tool or a request are right or wrong
together, so that 150 rows of 14 tools say less than 150 rows of 150 tools. Two groupings are known of every row: the
tool, and the request (paraphrases, one conversation). Both are tried, and the less favourable one counts: the wider
interval, the larger p. Their connected components would be one group of most rows, since calls of several tools and
conversations link all tools. To take the more cautious of several groupings is the advice of Cameron and Miller
(2015), "A practitioner's guide to cluster-robust inference", Journal of Human Resources 50.

Fewer than FEWEST_GROUPS tools cannot be tested at all. Rows are then grouped by request alone, and every figure holds
for new requests for these very tools, not for other tools.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from numpy import ndarray

from fgtools.files import InputError

FEWEST_GROUPS = 6
"""Groups that a test needs: the signs of five come out all alike in 1 of 16 trials without any change."""

FEW_GROUPS = 15
"""Groups below which the spread between groups is itself hardly known."""

FLIPS = 2000
FLIP_SEED = 0
_DRAWN_AT_ONCE = 250_000


class Design(NamedTuple):
    """How rows are grouped, and what that costs.

    Attributes:
        groups: Number of groups; 0 where rows are taken as independent.
        effect: The design effect (Kish, 1965): the variance of a mean when whole groups are drawn, over that when
            single rows are; at least 1.
    """

    groups: int = 0
    effect: float = 1.0

    def widen(self, n: int) -> float:
        """Return the factor by which an interval of n independent rows gets wider; inf for one group of several rows.

        It is the root of the design effect, and for few groups the quotient of Student's quantiles, as Korn and
        Graubard (1998) correct intervals of surveys (Survey Methodology 24).
        """
        if self.groups in (0, n):
            return math.sqrt(self.effect)
        if self.groups < 2:
            return math.inf
        return math.sqrt(self.effect) * _quantile(self.groups - 1) / _quantile(n - 1)


INDEPENDENT = Design()
"""Rows that are taken as independent."""


def _quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


@dataclass(frozen=True)
class Groups:
    """Which rows belong together.

    Attributes:
        tools: A label of every row, equal for rows of one tool.
        requests: A label of every row, equal for rows that ask the same.
    """

    tools: tuple[str, ...]
    requests: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.tools) != len(self.requests):
            raise InputError(
                f"every row must have both labels, got {len(self.tools)} tools and {len(self.requests)} requests"
            )

    @property
    def n_tools(self) -> int:
        """Number of groups by tool."""
        return len(set(self.tools))

    @property
    def n_requests(self) -> int:
        """Number of groups by request."""
        return len(set(self.requests))

    @cached_property
    def groupings(self) -> tuple[tuple[int, ...], ...]:
        """The groupings that count, as a group number a row: by request, and by tool where there are enough tools."""
        kinds = (self.requests, self.tools) if self.n_tools >= FEWEST_GROUPS else (self.requests,)
        return tuple(map(_number, kinds))


def _number(labels: Sequence[str]) -> tuple[int, ...]:
    numbers: dict[str, int] = {}
    return tuple(numbers.setdefault(label, len(numbers)) for label in labels)


def measure_design(residuals: Sequence[float], groups: Groups | None) -> Design:
    """Return the design of the grouping that widens an interval the most; see choose_grouping."""
    return choose_grouping(residuals, groups)[0]


def choose_grouping(residuals: Sequence[float], groups: Groups | None) -> tuple[Design, tuple[int, ...]]:
    """Choose the grouping that widens an interval the most.

    Args:
        residuals: What every row adds to the deviation of the mean or the ratio; their sum is 0.
        groups: The groups of these rows; None: rows are taken as independent.

    Returns:
        Its design, and the group number of every row; every row its own where they are taken as independent.
    """
    n = len(residuals)
    if groups is None or not n:
        return INDEPENDENT, tuple(range(n))
    designs = [(_measure_one(residuals, numbers), numbers) for numbers in groups.groupings]
    return max(designs, key=lambda one: one[0].widen(n))


def _measure_one(residuals: Sequence[float], numbers: Sequence[int]) -> Design:
    n, sums = len(residuals), sum_groups(residuals, numbers)
    squares = math.fsum(one * one for one in residuals)
    if squares <= 1e-18 or len(sums) in (1, n):
        return Design(len(sums))
    between = math.fsum(one * one for one in sums) * len(sums) / (len(sums) - 1)
    return Design(len(sums), max(1.0, between / (squares * n / (n - 1))))


def sum_groups(values: Sequence[float], numbers: Sequence[int]) -> list[float]:
    """Return the sum of the values of every group, by its number."""
    sums = [0.0] * (max(numbers) + 1)
    for value, number in zip(values, numbers, strict=True):
        sums[number] += value
    return sums


def flip_shares(differences: Sequence[int], groups: Groups) -> float:
    """Return the p of no change of a share: the exact sign-flip test over whole groups.

    Without a change, before and after of a group could as well be exchanged. So the sum of all differences is compared
    with that of every choice of signs, one sign a group. With every row a group of its own it is McNemar's exact test.

    Args:
        differences: After minus before of every row: 1, 0 or -1.
        groups: The groups of these rows.

    Returns:
        The larger p of the groupings, in (0, 1]; never 0, even where it is too small for a float.
    """
    return max(_flip_exactly(sum_groups(differences, numbers)) for numbers in groups.groupings)


def _flip_exactly(sums: Sequence[float]) -> float:
    """Return the share of the choices of signs with a sum at least as far from 0, from its exact distribution."""
    import numpy
    from scipy.stats import binom

    sizes = Counter(abs(round(one)) for one in sums if one)
    spread = numpy.ones(1)  # the probability of every sum of those groups whose sign is plus
    for size, count in sizes.items():
        chances = numpy.zeros(size * count + 1)
        chances[::size] = binom.pmf(range(count + 1), count, 0.5)
        spread = numpy.convolve(spread, chances)
    reached, most = abs(round(math.fsum(sums))), len(spread) - 1
    beyond = spread[(most + reached) // 2 :].sum()  # plus sums of x make 2 x - most in all
    return max(math.ulp(0.0), min(1.0, float(2 * beyond if reached else 1.0)))


def flip_ratios(
    before: tuple[Sequence[int], Sequence[int]], after: tuple[Sequence[int], Sequence[int]], groups: Groups
) -> float:
    """Return the p of no change of a ratio of sums: the sign-flip test over whole groups, before and after exchanged.

    Up to FLIPS choices of groups are all tried; of more, FLIPS seeded draws, which with the data themselves make the p.

    Args:
        before: Numerators and denominators, one of each per row.
        after: The same for the same rows in the same order.
        groups: The groups of these rows.

    Returns:
        The larger p of the groupings, in (0, 1].
    """
    import numpy

    found = []
    for numbers in groups.groupings:
        old, new = (numpy.array([sum_groups(column, numbers) for column in side]) for side in (before, after))
        found.append(_flip_ratio(old, new))
    return max(found)


def _flip_ratio(old: ndarray, new: ndarray) -> float:
    """Return the share of the choices of groups that move the ratio as far as the data; arrays are (2, groups)."""
    import numpy

    def measure(exchanged: ndarray) -> ndarray:
        shift = exchanged @ moved.T
        first, second = old.sum(axis=1) + shift, new.sum(axis=1) - shift
        return abs(second[:, 0] / second[:, 1] - first[:, 0] / first[:, 1])

    moved = (new - old)[:, (new != old).any(axis=0)]
    n_moved = moved.shape[1]
    with numpy.errstate(divide="ignore", invalid="ignore"):
        least = measure(numpy.zeros((1, n_moved)))[0] - 1e-12
        if 2**n_moved <= FLIPS:
            every = (numpy.arange(2**n_moved)[:, None] >> numpy.arange(n_moved)) & 1
            return float((~(measure(every) < least)).mean())  # a choice without a denominator counts as far as any
        draw, beyond, left = numpy.random.default_rng(FLIP_SEED), 0, FLIPS
        while left:
            batch = min(left, max(1, _DRAWN_AT_ONCE // n_moved))
            beyond += int((~(measure(draw.integers(0, 2, (batch, n_moved))) < least)).sum())
            left -= batch
    return (1 + beyond) / (1 + FLIPS)


def adjust_holm(values: Sequence[float]) -> list[float]:
    """Return the p values of several measures as Holm (1979) corrects them, so that together they err in 5 of 100.

    Args:
        values: One p a measure.

    Returns:
        The corrected ones, in the same order; at most 1.
    """
    adjusted, highest = list(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


def describe_few_tools(n: int) -> str:
    """Return a sentence on what rows of so few groups of tools can show; "" for FEW_GROUPS or more, or none known.

    Args:
        n: The groups.
    """
    if not 0 < n < FEW_GROUPS:
        return ""
    if n < FEWEST_GROUPS:
        tools = "one group of tools" if n == 1 else f"{n} groups of tools"
        return f"The rows are of {tools}: all figures hold for requests for these tools alone, not for other tools."
    return (
        f"The rows are of {n} groups of tools, and fewer than {FEW_GROUPS} carry little: take intervals and p as "
        "rough. More tools would tell more, more rows for the same tools would not."
    )
