"""Passing unsure replies on: the curve counts every row once, a threshold is judged by rows it was not chosen on."""

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.files import InputError
from fgtools.metrics import Confidence, GeneratedReply, Scores, score
from fgtools.metrics.coverage import (
    MIN_ANSWERED,
    Outcome,
    Point,
    ThresholdChoice,
    apply_threshold,
    build_curve,
    build_outcomes,
    choose_threshold,
    compare_measures,
    measure_separation,
    split_halves,
)
from tests.report.four_rows import RIGHT, ROWS, WRONG

OUTCOMES = st.lists(
    st.builds(
        Outcome,
        st.booleans(),
        st.just(math.nan) | st.floats(-30, 0) | st.sampled_from([-0.5, -0.25, 0.0]),
        st.sampled_from("abcdefgh") | st.text(max_size=3),
    ),
    max_size=60,
)


def draw_outcomes(n, seed=1, share=0.7):
    """Rows whose confidence says something: the surer, the more often right."""
    draw = random.Random(seed)
    confidences = [-draw.expovariate(1) for _ in range(n)]
    return [Outcome(draw.random() < share ** (-one), one, str(place)) for place, one in enumerate(confidences)]


@given(OUTCOMES)
def test_every_point_of_the_curve_counts_what_its_threshold_lets_pass(outcomes):
    curve = build_curve(outcomes)
    for point in curve:
        assert point == apply_threshold(outcomes, point.threshold)
        assert float(f"{point.threshold:.3g}") == point.threshold  # as it is printed, so it can be used
    assert [point.answered.k for point in curve] == sorted({point.answered.k for point in curve})
    known = [one for one in outcomes if not math.isnan(one.confidence)]
    if known:
        assert curve[-1].answered.k == len(known) and curve[-1].right.k == sum(one.right for one in known)
        assert curve[0].threshold <= max(one.confidence for one in known)
    else:
        assert curve == ()


@given(OUTCOMES)
def test_halves_hold_every_row_once_and_groups_whole(outcomes):
    one, other = split_halves(outcomes)
    assert sorted(map(str, [*one, *other])) == sorted(map(str, outcomes))
    assert not {row.group for row in one} & {row.group for row in other}
    again = split_halves(outcomes[::-1])
    assert {row.group for row in again[0]} == {row.group for row in one}


def test_halves_of_single_rows_are_of_one_size():
    assert [len(half) for half in split_halves(draw_outcomes(301))] == [151, 150]


def test_the_threshold_is_the_lowest_that_reaches_the_precision_where_it_is_chosen():
    outcomes = draw_outcomes(400)
    choosing, checking = split_halves(outcomes)
    choice = choose_threshold(outcomes, 0.9)
    assert choice.chosen == apply_threshold(choosing, choice.threshold) and choice.chosen.right.rate >= 0.9
    assert choice.checked == apply_threshold(checking, choice.threshold)
    lower = [point for point in build_curve(choosing) if point.threshold < choice.threshold]
    assert lower and all(point.right.rate < 0.9 for point in lower)
    strict, lax = choose_threshold(outcomes, 0.97), choose_threshold(outcomes, 0.7)
    assert strict.threshold > choice.threshold > lax.threshold
    assert f"{choice.checked.answered.k} of 200 requests are answered" in choice.describe()


def test_rows_that_only_the_checked_half_gets_wrong_do_not_move_the_threshold():
    outcomes = draw_outcomes(400)
    checked = {one.group for one in split_halves(outcomes)[1]}
    spoilt = [Outcome(one.right and one.group not in checked, one.confidence, one.group) for one in outcomes]
    before, after = choose_threshold(outcomes, 0.9), choose_threshold(spoilt, 0.9)
    assert before.threshold == after.threshold and after.checked.right.k == 0
    assert "so the 90 % aimed at was missed" in after.describe()


def test_the_interval_says_what_is_shown():
    sure = [Outcome(True, -0.1, str(place)) for place in range(200)]
    assert "so at least 90 % is shown for requests like these" in choose_threshold(sure, 0.9).describe()
    assert "may or may not be reached: more evaluation rows" in choose_threshold(sure[:40], 0.9).describe()


@pytest.mark.parametrize(
    "outcomes",
    [
        [],
        [Outcome(True, -0.1, "a")],
        [Outcome(True, -0.1, str(place)) for place in range(2 * MIN_ANSWERED - 2)],
        [Outcome(False, -0.1, str(place)) for place in range(200)],
        [Outcome(True, math.nan, str(place)) for place in range(200)],
        [Outcome(place % 2 == 0, -0.1, str(place)) for place in range(200)],  # all tied
    ],
)
def test_where_no_threshold_will_do_nothing_is_answered_and_it_is_said(outcomes):
    choice = choose_threshold(outcomes, 0.9)
    assert math.isnan(choice.threshold) and choice.checked.answered.k == 0
    said = "No threshold lets at least 10 of" if len(outcomes) >= 2 * MIN_ANSWERED else "are too few for one"
    assert said in choice.describe() and "nan" not in choice.describe()
    assert ("200 rows have no confidence" in choice.describe()) == (choice.n_unknown == 200)
    assert json.loads(json.dumps(choice.to_dict(), allow_nan=False))["chosen"]["threshold"] is None


def test_rows_of_unknown_confidence_are_passed_on_and_counted():
    outcomes = [*draw_outcomes(300), *(Outcome(True, math.nan, f"u{place}") for place in range(40))]
    choice = choose_threshold(outcomes, 0.9)
    assert choice.n_unknown == 40 and choice.chosen.answered.n + choice.checked.answered.n == 340
    assert choice.curve[-1].answered.k < choice.curve[-1].answered.n
    assert apply_threshold(outcomes, -99.0).answered.k == 300


@given(OUTCOMES, st.floats(0.01, 1))
def test_a_choice_survives_its_file(outcomes, precision):
    choice = choose_threshold(outcomes, precision)
    saved = json.loads(json.dumps(choice.to_dict(), allow_nan=False))
    assert ThresholdChoice.from_dict(saved).to_dict() == saved
    assert ThresholdChoice.from_dict(saved).describe() == choice.describe()


def test_what_cannot_be_read_is_refused():
    for precision in (0, 1.01, -1, math.nan):
        with pytest.raises(InputError, match="TARGET_PRECISION must be a share above 0 and at most 1, got"):
            choose_threshold([], precision)
    with pytest.raises(InputError, match="a threshold must stand as this version writes it"):
        ThresholdChoice.from_dict({"precision": 0.9})


def test_separation_is_the_share_of_pairs_in_order():
    pairs = [(True, -1.0), (True, -3.0), (False, -2.0), (False, -3.0), (False, math.nan)]
    outcomes = [Outcome(right, confidence, "g") for right, confidence in pairs]
    assert measure_separation(outcomes) == (1 + 1 + 0 + 0.5) / 4  # by hand: four pairs, one tied
    assert measure_separation(draw_outcomes(500)) > 0.6
    assert all(math.isnan(measure_separation(one)) for one in ([], outcomes[:2], outcomes[2:]))


def test_outcomes_are_those_of_the_scores_in_the_measure_asked_for():
    replies = [GeneratedReply(text, Confidence(4, -0.5, -place)) for place, text in enumerate([*RIGHT[:2], *WRONG[2:]])]
    scores = score(ROWS, [one.text for one in replies])
    outcomes = build_outcomes(ROWS, scores, replies)
    assert [one.right for one in outcomes] == [row.ast_match for row in scores.rows]
    assert {one.confidence for one in outcomes} == {-2.0}
    assert [one.confidence for one in build_outcomes(ROWS, scores, replies, "name")] == [0, -1, -2, -3]
    assert [one.confidence for one in build_outcomes(ROWS, scores, replies, "lower")] == [-0.5, -1, -2, -3]
    separations = compare_measures(ROWS, scores, replies)
    assert separations["name"] == 1.0 and separations["call"] == 0.5  # the right ones come first; all are tied
    with pytest.raises(InputError, match="must be one of total, call, name, lower, got 'max'"):
        build_outcomes(ROWS, scores, replies, "max")
    with pytest.raises(InputError, match="got 4 rows and 3 replies"):
        build_outcomes(ROWS, scores, replies[:3])
    with pytest.raises(InputError, match="the same rows in the same order"):
        build_outcomes(ROWS, Scores(scores.rows[::-1]), replies)


@given(st.integers(1, 10**6), st.floats(-1e6, 0), st.floats(-1e6, 0))
def test_a_confidence_survives_its_file(n_tokens, call, name):
    confidence = Confidence(n_tokens, call, name)
    assert Confidence.from_dict(json.loads(json.dumps(confidence.to_dict()))) == confidence


def test_an_unknown_confidence_has_no_figures():
    unknown = Confidence.from_dict(None)
    assert not unknown.is_known and math.isnan(unknown.total) and math.isnan(unknown.lower)
    assert not Confidence(3, -math.inf, -1.0).is_known


def test_a_thresholds_share_keeps_rows_of_one_tool_together():
    """Twenty tools with ten rows each, all rows of a tool right or wrong: as many observations as tools."""
    own = [Outcome(tool < 16, 0.0, f"{tool} {row}") for tool in range(20) for row in range(10)]
    tools = [replace(one, tool_group=one.group.split()[0], request_group=one.group) for one in own]
    alone, together = apply_threshold(own, -1.0), apply_threshold(tools, -1.0)
    assert together == alone and together.right.design.effect == pytest.approx(199 / 19)
    assert together.right.interval[0] < alone.right.interval[0] - 0.1
    saved = json.loads(json.dumps(together.to_dict()))
    assert Point.from_dict(saved).right.interval == together.right.interval
    outcomes = build_outcomes(ROWS, score(ROWS, RIGHT), [GeneratedReply(text) for text in RIGHT])
    assert all(one.tool_group and one.request_group for one in outcomes)
