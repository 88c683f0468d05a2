"""Rows that belong together: tests against all choices written out, design effects by hand, Holm's own example."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.metrics import Share
from fgtools.metrics.groups import (
    FEW_GROUPS,
    FEWEST_GROUPS,
    FLIPS,
    INDEPENDENT,
    Design,
    Groups,
    adjust_holm,
    describe_few_tools,
    flip_ratios,
    flip_shares,
    measure_design,
)
from fgtools.metrics.intervals import (
    bootstrap_difference,
    bootstrap_ratio,
    mcnemar_exact,
    measure_share,
    paired_interval,
)


def by_tool(*sizes):
    """Groups of rows: so many rows for each tool, every request its own."""
    tools = [str(tool) for tool, size in enumerate(sizes) for _ in range(size)]
    return Groups(tuple(tools), tuple(map(str, range(len(tools)))))


def single_rows(n):
    return by_tool(*[1] * n)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 9))
def test_with_every_row_a_group_the_sign_flips_are_mcnemars_exact_test(fixed, broken, same):
    differences = [1] * fixed + [-1] * broken + [0] * same
    p = flip_shares(differences, single_rows(len(differences))) if differences else 1.0
    assert p == pytest.approx(mcnemar_exact(fixed, broken), rel=1e-9)


@given(st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=4), min_size=6, max_size=9))
def test_the_exact_p_is_that_of_all_signs_written_out(tools):
    sums, rows = [sum(one) for one in tools], [row for one in tools for row in one]
    reached = abs(sum(sums))
    signs = list(itertools.product((-1, 1), repeat=len(sums)))
    beyond = sum(abs(sum(map(math.prod, zip(sums, sign, strict=True)))) >= reached for sign in signs) / len(signs)
    alone = mcnemar_exact(rows.count(1), rows.count(-1))
    assert flip_shares(rows, by_tool(*map(len, tools))) == pytest.approx(max(beyond, alone), rel=1e-9)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(0, 9), st.integers(1, 9)), min_size=6, max_size=8
    )
)
def test_the_p_of_a_ratio_is_that_of_all_exchanges_written_out(rows):
    def subtract(chosen):
        sides = [(*row[2:], *row[:2]) if swap else row for row, swap in zip(rows, chosen, strict=True)]
        top, bottom, new_top, new_bottom = map(sum, zip(*sides, strict=True))
        return abs(new_top / new_bottom - top / bottom)

    reached = subtract([False] * len(rows)) - 1e-12
    choices = list(itertools.product((False, True), repeat=len(rows)))
    beyond = sum(subtract(choice) >= reached for choice in choices) / len(choices)
    columns = [list(column) for column in zip(*rows, strict=True)]
    p = flip_ratios((columns[0], columns[1]), (columns[2], columns[3]), single_rows(len(rows)))
    assert p == pytest.approx(beyond)


def test_of_many_groups_a_ratio_is_tested_by_seeded_draws():
    before, after = ([0] * 40, [2] * 40), ([1] * 40, [2] * 40)
    p = flip_ratios(before, after, single_rows(40))
    assert p == 1 / (1 + FLIPS) == flip_ratios(before, after, single_rows(40))
    assert flip_ratios(before, before, single_rows(40)) == 1
    mixed = ([1, 0] * 20, [2] * 40)
    assert 0.3 < flip_ratios(mixed, (mixed[0][::-1], mixed[1]), single_rows(40)) <= 1


def test_five_tools_cannot_be_tested_so_requests_are():
    rows = [1] * 25
    assert flip_shares(rows, by_tool(5, 5, 5, 5, 5)) == mcnemar_exact(25, 0)
    assert flip_shares([*rows, 1], by_tool(5, 5, 5, 5, 5, 1)) == 2 / 2**FEWEST_GROUPS
    assert len(by_tool(1, 1, 1, 1, 1).groupings) == 1 and len(by_tool(1, 1, 1, 1, 1, 1).groupings) == 2


def test_paraphrases_are_kept_together_whatever_their_tools():
    groups = Groups(tuple("abcdefgh"), tuple("11112222"))
    assert flip_shares([1] * 8, groups) == 0.5 and flip_shares([1] * 8, single_rows(8)) == 2 / 2**8
    assert measure_share([True] * 4 + [False] * 4, groups).design == Design(2, 7.0)  # two observations in eight rows


@pytest.mark.parametrize(
    ("facts", "effect"),
    [
        ([[1] * 10] * 3 + [[0] * 10] * 4, 69 / 6),  # all rows of a tool alike: as many observations as tools
        ([[1] * 5 + [0] * 5] * 7, 1.0),  # tools alike: less spread than single rows have, which is not credited
        ([[1] * 10] * 7, 1.0),
    ],
)
def test_the_design_effect_is_that_of_the_group_sums(facts, effect):
    rows = [bool(fact) for one in facts for fact in one]
    share = measure_share(rows, by_tool(*[10] * 7))
    assert share.design == Design(7, pytest.approx(effect))
    assert share == Share(sum(rows), 70) == measure_share(rows)


def test_the_interval_is_that_of_fewer_rows():
    """Korn and Graubard's effective size: n over the design effect, times the squared quotient of Student's t."""
    share = Share(30, 70, Design(7, 2.0))
    t6, t69 = 2.446912, 1.994945  # source: tables of Student's t, 97.5 %
    n = 70 / 2.0 * (t69 / t6) ** 2
    middle, z = (30 / 70 + 1.96**2 / (2 * n)) / (1 + 1.96**2 / n), 1.96
    half = z * math.sqrt(30 / 70 * 40 / 70 / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert share.interval == pytest.approx((middle - half, middle + half), abs=1e-4)
    assert Share(30, 70, Design(70, 1.0)).interval == Share(30, 70).interval
    assert Share(0, 70, Design(1)).interval == (0, 1) and paired_interval(9, 0, 70, Design(1)) == (-1, 1)
    low, high = paired_interval(9, 0, 70)
    wide = paired_interval(9, 0, 70, Design(70, 4.0))
    assert wide[1] - wide[0] == pytest.approx(2 * (high - low))


def test_the_bootstrap_draws_whole_groups():
    tops, bottoms, groups = [2] * 35 + [0] * 35, [2] * 70, by_tool(*[10] * 7)
    alone, together = bootstrap_ratio(tops, bottoms), bootstrap_ratio(tops, bottoms, groups)
    assert alone == bootstrap_ratio(tops, bottoms, single_rows(70)) and alone.design == INDEPENDENT
    assert together.high - together.low > 2 * (alone.high - alone.low) and together.design.groups == 7
    low, high = bootstrap_difference((tops, bottoms), (tops[::-1], bottoms), groups)
    assert low < -0.5 and high > 0.5
    one = Groups(("a",) * 4, ("same",) * 4)
    assert all(map(math.isnan, bootstrap_ratio([1, 2, 3, 4], [4] * 4, one).interval))


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=12))
def test_holms_p_are_not_below_their_own_and_keep_their_order(values):
    adjusted = adjust_holm(values)
    assert all(p <= new <= 1 for p, new in zip(values, adjusted, strict=True))
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[place] for place in order] == sorted(adjusted)
    assert adjusted[order[0]] == min(1.0, len(values) * values[order[0]])


def test_holm_by_hand():
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([]) == [] and adjust_holm([0.9, 0.8]) == [1.0, 1.0]


def test_few_tools_are_said_to_carry_little():
    assert describe_few_tools(FEW_GROUPS) == describe_few_tools(0) == ""
    assert "14 groups of tools, and fewer than 15 carry little" in describe_few_tools(14)
    assert "of one group of tools: all figures hold for requests for these tools alone" in describe_few_tools(1)
    assert "of 5 groups of tools" in describe_few_tools(5) and "as rough" in describe_few_tools(6)


def test_labels_must_be_of_the_same_rows():
    with pytest.raises(ValueError, match="got 2 tools and 1 requests"):
        Groups(("a", "b"), ("c",))
    assert measure_design([], by_tool(1)) == INDEPENDENT == measure_design([0.5, -0.5], None)
