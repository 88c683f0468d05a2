"""Intervals against published values, a second implementation and their own promises."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.metrics import Share
from fgtools.metrics.intervals import (
    BOOTSTRAP_SEED,
    RESAMPLES,
    bootstrap_difference,
    bootstrap_ratio,
    describe_few_rows,
    format_p,
    mcnemar_exact,
    paired_interval,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    # source: Newcombe (1998), Statistics in Medicine 17, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_newcombes_table(k, n, low, high):
    assert Share(k, n).interval == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_is_symmetric(pair):
    k, n = pair
    low, high = Share(k, n).interval
    assert 0.0 <= low <= k / n <= high <= 1.0
    assert Share(n - k, n).interval == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_a_share_says_its_counts():
    assert str(Share(263, 300)) == "263/300 = 87.7% [83.5, 90.9]"
    assert str(Share(0, 0)) == "0/0" and math.isnan(Share(0, 0).rate)
    assert Share(0, 0).to_dict()["rate"] is None


@pytest.mark.parametrize(("k", "n"), [(2, 1), (-1, 3)])
def test_an_impossible_share_is_an_error(k, n):
    with pytest.raises(ValueError, match="0 <= k <= n"):
        Share(k, n)


@pytest.mark.parametrize(
    ("fixed", "broken", "p"),
    # source: exact two-sided binomial test against one half, computed by hand from Pascal's triangle
    [(0, 0, 1.0), (5, 0, 2 / 32), (1, 1, 1.0), (9, 1, 22 / 1024), (1, 9, 22 / 1024), (3, 2, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(fixed, broken, p):
    assert mcnemar_exact(fixed, broken) == pytest.approx(p, rel=1e-12)


def test_mcnemars_p_of_large_counts_is_never_zero():
    assert 0 < mcnemar_exact(5000, 0) < 1e-300
    assert mcnemar_exact(5000, 5000) == 1
    assert format_p(mcnemar_exact(5000, 0)) == "< 1e-300" and format_p(0.0123) == "= 0.012"
    assert (format_p(1e-300), format_p(9e-301)) == ("= 1e-300", "< 1e-300")


@pytest.mark.parametrize("n", [20, 39, 50, 300])
@pytest.mark.parametrize(("rise", "fall"), [(0.05, 0.02), (0.02, 0.02), (0.1, 0.0), (0.3, 0.1), (0.6, 0.1), (0.9, 0.0)])
def test_the_paired_interval_covers_the_difference_as_often_as_it_says(n, rise, fall):
    draws = np.random.default_rng(n).multinomial(n, [rise, fall, 1 - rise - fall], 4000)
    ends = [paired_interval(int(gained), int(lost), n) for gained, lost, _ in draws]
    assert sum(low <= rise - fall <= high for low, high in ends) / len(ends) >= 0.93


def test_the_paired_interval_of_few_rows_is_wide():
    # by hand: 1/41 of each kind, so half of it is Z * sqrt(2 / 41 / 41)
    low, high = paired_interval(0, 0, 39)
    assert (low, high) == pytest.approx((-0.0676, 0.0676), abs=5e-5)
    low, high = paired_interval(3, 0, 3)
    assert low < 0 < 0.9 < high <= 1
    assert paired_interval(0, 3, 3) == (-high, -low)
    assert paired_interval(0, 0, 0) == (-1, 1)


def test_the_bootstrap_is_seeded_and_holds_the_ratio():
    numerators, denominators = [0, 1, 2, 3] * 50, [4, 4, 5, 6] * 50
    ratio = bootstrap_ratio(numerators, denominators)
    assert ratio == bootstrap_ratio(numerators, denominators)
    assert ratio.low < ratio.rate == 300 / 950 < ratio.high
    assert ratio.high - ratio.low < 0.06


def test_the_bootstrap_resamples_rows_in_pairs():
    draw = np.random.default_rng(3)
    top, bottom, new_top = draw.integers(0, 9, 50), draw.integers(1, 9, 50), draw.integers(0, 9, 50)
    rows = np.random.default_rng(BOOTSTRAP_SEED).integers(0, 50, (RESAMPLES, 50))
    before, after = (counts[rows].sum(axis=1) / bottom[rows].sum(axis=1) for counts in (top, new_top))
    ends = [0.025, 0.975]
    assert bootstrap_ratio(top, bottom).interval == pytest.approx(np.quantile(before, ends), rel=1e-12)
    difference = bootstrap_difference((top, bottom), (new_top, bottom))
    assert difference == pytest.approx(np.quantile(after - before, ends), rel=1e-12)


def test_one_row_has_an_interval_without_width():
    assert bootstrap_ratio([3], [4]).interval == (0.75, 0.75)
    assert bootstrap_difference(([3], [4]), ([4], [4])) == (0.25, 0.25)


def test_the_bootstrap_agrees_with_wilson_on_shares():
    hits = [1] * 120 + [0] * 180
    ratio = bootstrap_ratio(hits, [1] * 300)
    assert (ratio.low, ratio.high) == pytest.approx(Share(120, 300).interval, abs=0.004)


def test_the_bootstrap_of_a_difference_agrees_with_the_paired_interval():
    before, after = [0] * 600 + [1] * 200 + [0] * 2200, [1] * 600 + [0] * 200 + [0] * 2200
    ends = bootstrap_difference((before, [1] * 3000), (after, [1] * 3000))
    assert ends == pytest.approx(paired_interval(600, 200, 3000), abs=0.0012)


def test_what_has_no_denominator_has_no_rate_and_no_interval():
    nothing, edits = bootstrap_ratio([], []), bootstrap_ratio([2], [0])
    assert (str(nothing), str(edits)) == ("0/0", "2/0")
    assert all(map(math.isnan, (edits.rate, *edits.interval)))
    assert (
        edits.to_dict().items() >= {"numerator": 2, "denominator": 0, "rate": None, "low": None, "high": None}.items()
    )
    assert all(map(math.isnan, bootstrap_difference(([], []), ([], []))))
    assert all(map(math.isnan, bootstrap_difference(([1], [1]), ([1], [0]))))


@pytest.mark.filterwarnings("error")
def test_resamples_without_a_denominator_are_left_out():
    ratio = bootstrap_ratio([1, 0], [1, 0])
    assert ratio.rate == 1 and ratio.interval == (1, 1)
    assert bootstrap_difference(([1, 0], [1, 0]), ([0, 0], [1, 0])) == (-1, -1)
    assert bootstrap_ratio([1, 3], [1, 0]).interval == (1, 4)  # 1 / 1 twice, or 1 / 1 and 3 / 0


def test_a_paired_difference_is_narrower_than_an_unpaired_one():
    before, ones = [1, 0] * 100, [1] * 200
    assert bootstrap_difference((before, ones), (before, ones)) == (0.0, 0.0)
    after = [1, 1, *before[2:]]
    low, high = bootstrap_difference((before, ones), (after, ones))
    assert 0.0 <= low <= 0.005 <= high < 0.02


def test_few_rows_say_what_they_can_show():
    assert describe_few_rows(30) == "" and describe_few_rows(300) == ""
    assert describe_few_rows(12).startswith("12 evaluation rows are few: 6 of 12 right may mean 25 to 75 %, and of two")
    assert "at least 6 rows more" in describe_few_rows(12) and mcnemar_exact(6, 0) < 0.05 < mcnemar_exact(5, 0)
    assert "no difference between two models" in describe_few_rows(5)
    assert describe_few_rows(1).startswith("1 evaluation row is few: 0 of 1")
