"""Two models on the same rows: what may be paired, what a change needs to be claimed, and scores read from a file."""

import dataclasses
import json
import math

import pytest

from fgtools.metrics import Change, Comparison, Ratio, Scores, Share, compare, score
from fgtools.metrics.comparison import (
    BETTER,
    BETTER_HERE,
    DECIDING,
    NO_EVIDENCE,
    NOT_COUNTED,
    SHARES,
    WORSE,
    WORSE_HERE,
)
from fgtools.metrics.groups import Design
from fgtools.metrics.intervals import mcnemar_exact, paired_interval
from fgtools.metrics.scores import RATIOS

TOOLS = [
    {"function": {"name": name, "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}}
    for name in ("one", "two")
]


def row(number, *names):
    messages = [{"role": "user", "content": f"ask {number}"}]
    gold = [{"name": name, "arguments": {"a": "x"}} for name in names]
    return {"row_id": f"r{number}", "tools": TOOLS, "messages": messages, "gold": gold}


def call(name, value="x"):
    return f"<start_function_call>call:{name}{{a:<escape>{value}<escape>}}<end_function_call>"


ROWS = [row(0, "one"), row(1, "two"), row(2, "one", "two"), row(3), row(4)]
SOME = score(ROWS, [call("one"), "no", call("one"), "no", call("one")])
MORE = score(ROWS, [call("one"), call("two", "y"), call("one") + call("two"), "no", "no"])


def change_of(fixed, broken, n):
    interval = paired_interval(fixed, broken, n)
    p = mcnemar_exact(fixed, broken)
    return Change("ast_match", Share(broken, n), Share(fixed, n), *interval, fixed, broken, p, p, p)


def test_the_interval_alone_claims_nothing():
    change = change_of(5, 0, 5)
    assert change.low > 0 and change.p == 2 / 32 and change.reading == NO_EVIDENCE
    assert change_of(0, 5, 5).high < 0 and change_of(0, 5, 5).reading == NO_EVIDENCE
    assert (change_of(6, 0, 6).reading, change_of(0, 6, 6).reading) == (BETTER, WORSE)


def test_mcnemars_test_alone_claims_nothing():
    change = dataclasses.replace(change_of(9, 0, 20), low=-0.01)
    assert change.p < 0.05 and change.reading == NO_EVIDENCE
    assert dataclasses.replace(change_of(0, 9, 20), high=0.01).reading == NO_EVIDENCE


def test_at_the_bounds_themselves_nothing_is_claimed():
    rose, fell = change_of(9, 0, 20), change_of(0, 9, 20)
    assert (rose.reading, fell.reading) == (BETTER, WORSE)
    for change in (rose, fell):
        assert dataclasses.replace(change, p_corrected=0.05).reading == NO_EVIDENCE
    assert dataclasses.replace(rose, low=0.0).reading == dataclasses.replace(fell, high=0.0).reading == NO_EVIDENCE


def test_mcnemars_exact_test_is_the_stricter_of_the_two():
    """No counts of up to 60 rows, nor of many, are significant by it and not by the interval."""
    for fixed in range(61):
        for broken in range(fixed + 1):
            significant = mcnemar_exact(fixed, broken) < 0.05
            for n in (*range(max(1, fixed + broken), 61), 300, 5000):
                assert not significant or paired_interval(fixed, broken, n)[0] > 0


def test_a_ratio_changes_only_where_its_interval_and_its_test_say_so():
    sides = Ratio(1, 10, 0.0, 0.3), Ratio(2, 10, 0.0, 0.5)
    assert Change("argument_f1", *sides, -0.1, 0.3, p_corrected=0.01).reading == NO_EVIDENCE
    assert Change("argument_f1", *sides, 0.1, 0.3, p_corrected=0.01).reading == BETTER
    assert Change("argument_f1", *sides, 0.1, 0.3, p_corrected=0.06).reading == NO_EVIDENCE
    assert Change("cer", *sides, 0.1, 0.3, p_corrected=0.01, lower_is_better=True).reading == WORSE
    assert Change("cer", *sides, 0.1, 0.3, p_corrected=0.01, tools=5, lower_is_better=True).reading == WORSE_HERE


def test_a_side_without_a_denominator_claims_nothing_and_survives_json():
    silent = score(ROWS, ["no"] * 5)
    comparison = compare(silent, MORE)
    change = comparison.change("argument_precision")
    assert change.before.denominator == 0 < change.after.denominator
    assert change.reading == NOT_COUNTED and all(map(math.isnan, (change.difference, change.low, change.high)))
    saved = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert Comparison.from_dict(saved) == comparison
    assert Comparison.from_dict(saved).change("argument_precision").reading == NOT_COUNTED
    assert compare(MORE, silent).change("argument_precision").reading == NOT_COUNTED
    assert comparison.change("argument_recall").reading != NOT_COUNTED


def test_every_change_is_that_of_its_own_measure():
    comparison = compare(SOME, MORE)
    for change in comparison.changes:
        for scores, side in ((SOME, change.before), (MORE, change.after)):
            measure = getattr(scores, change.name)
            assert side == getattr(measure, "ratio", measure)
    ends = paired_interval(2, 0, 5)
    assert (comparison.change("right_tools").low, comparison.change("right_tools").high) != ends  # three were gained
    assert (comparison.change("ast_match").low, comparison.change("ast_match").high) == ends
    falls = comparison.change("false_calls")
    assert (falls.low, falls.high) == paired_interval(0, 1, 2) and falls.difference == -0.5


def spread(hits_before, hits_after, per_tool, name="ast_match"):
    """Two sides of as many rows as there are hits, so many rows for each tool, every request its own."""
    base = SOME.rows[0]
    sides = [
        tuple(
            dataclasses.replace(
                base, row_id=str(place), tool_group=str(place // per_tool), request_group=str(place), **{name: hit}
            )
            for place, hit in enumerate(hits)
        )
        for hits in (hits_before, hits_after)
    ]
    return compare(*map(Scores, sides))


def test_rows_that_share_a_tool_are_not_independent():
    """Of 14 tools with ten rows each, four got better in all their rows: 40 rows alone would be beyond doubt."""
    before, after = [False] * 140, [True] * 40 + [False] * 100
    alone, together = spread(before, after, 1).change("ast_match"), spread(before, after, 10).change("ast_match")
    assert (alone.reading, together.reading) == (BETTER, NO_EVIDENCE)
    assert alone.p == alone.p_rows == together.p_rows < 1e-11 and together.p == 2 / 2**4
    assert (together.tools, together.requests, alone.design.effect) == (14, 140, 1.0)
    assert together.design == Design(14, pytest.approx(139 / 13)) and 0 < together.low < alone.low / 10
    assert together.before == alone.before and together.after.interval[0] < alone.after.interval[0]
    verdict = spread(before, after, 10).verdict
    assert verdict.startswith("No evidence that AST match changed, from 0/140 to 40/140")
    assert "14 groups of tools and 140 groups of requests; design effect 10.7;" in verdict
    assert "fewer than 15 carry little" in verdict and "carry little" not in spread(before, after, 9).verdict


def test_too_few_tools_say_nothing_of_others():
    before, after = [False] * 50, [True] * 20 + [False] * 30
    five, six = spread(before, after, 10), spread([False] * 60, [True] * 60, 10)
    change = five.change("ast_match")
    assert (change.tools, change.reading, six.change("ast_match").reading) == (5, BETTER_HERE, BETTER)
    assert change.p == change.p_rows and change.design.effect == 1.0
    assert five.verdict.startswith("AST match rose for these tools from 0/50 to 20/50")
    assert "hold for requests for these tools alone" in five.verdict and six.change("ast_match").p == 2 / 2**6
    back = spread(after, before, 10)
    assert back.change("ast_match").reading == WORSE_HERE
    assert back.verdict.startswith("AST match FELL for these tools from 20/50 to 0/50")


def test_one_measure_decides_and_the_others_are_corrected_for_their_number():
    """Seven rows were fixed and none broken, of tools of their own: p is 2 / 2**7 for every measure."""
    before, after = [False] * 40, [True] * 7 + [False] * 33
    decides, other = spread(before, after, 1), spread(before, after, 1, "exact_match")
    assert decides.change(DECIDING).p_corrected == decides.change(DECIDING).p == 2 / 2**7
    assert decides.change(DECIDING).reading == BETTER
    change, tested = other.change("exact_match"), len(SHARES) + len(RATIOS) - 1
    assert change.p == 2 / 2**7 and change.reading == NO_EVIDENCE
    uncounted = sum(one.p is None for one in other.changes)
    assert change.p_corrected == pytest.approx((tested - uncounted) * change.p) and uncounted == 2
    assert all(one.p_corrected >= one.p for one in other.changes if one.p is not None)


def test_format_is_not_content_in_a_comparison_either():
    loose = [text.replace("{a:", "{ a : ") for text in map(call, ("one", "two"))]
    before, after = score(ROWS[:2], loose), score(ROWS[:2], [call("one"), call("two")])
    comparison = compare(before, after)
    assert comparison.change("cer").difference < 0 and comparison.change("cer").high < 0
    rendered = comparison.change("cer_rendered")
    assert (rendered.difference, rendered.low, rendered.high, rendered.p) == (0, 0, 0, 1)


def test_tool_accuracy_reads_the_first_name_and_not_the_calls():
    rows = ROWS[:1]
    change = compare(score(rows, ["no"]), score(rows, [call("one") + call("two")])).change("tool_accuracy")
    assert (change.before, change.after, change.fixed) == (Share(0, 1), Share(1, 1), 1)


def test_behaviour_is_compared_where_no_call_is_due_and_the_right_answer_known():
    known = ["cannot_answer", "request_for_info", ""]
    rows = [row(number) for number in range(3)]
    base = score([*rows, row(3, "one")], ["I cannot."] * 3 + [call("one")]).rows
    sides = [
        Scores(
            tuple(
                dataclasses.replace(one, behaviour=does, behaviour_gold=right) if right is not None else one
                for one, does, right in zip(base, [*does, None], [*known, None], strict=True)
            )
        )
        for does in (["direct", "request_for_info", "direct"], ["cannot_answer", "request_for_info", ""])
    ]
    assert [scores.right_behaviour for scores in sides] == [Share(1, 2), Share(2, 2)]
    change = compare(*sides).change("right_behaviour")
    assert (change.before, change.after, change.fixed, change.broken) == (Share(1, 2), Share(2, 2), 1, 0)
    assert sum(sum(counts.values()) for counts in sides[0].behaviours.values()) == 3


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("n_tools", "tools"),
        ("n_gold", "golds"),
        ("arguments_gold", "golds"),
        ("characters", "golds"),
        ("prompt_characters", "prompts"),
        ("behaviour_gold", "right answers"),
        ("tool_group", "tools"),
        ("request_group", "requests"),
    ],
)
def test_rows_that_only_share_their_ids_are_refused(field, what):
    odd = dataclasses.replace(MORE.rows[1], **{field: type(getattr(MORE.rows[1], field))(99)})
    after = dataclasses.replace(MORE, rows=(MORE.rows[0], odd, *MORE.rows[2:]))
    with pytest.raises(ValueError, match=rf"their {what} differ, first in row 'r1' .*evaluate both on one rows file"):
        compare(SOME, after)


def test_replies_in_two_notations_are_refused():
    wrapped = score(ROWS, ["no"] * 5, "tutorial")
    assert (SOME.style, wrapped.style) == ("native", "tutorial")
    with pytest.raises(ValueError, match="one notation, got 'native' and 'tutorial': score both with one recipe"):
        compare(SOME, wrapped)
    with pytest.raises(ValueError, match="free replies or both of constrained ones"):
        compare(SOME, dataclasses.replace(MORE, constrained=True))


def test_no_rows_are_no_comparison():
    with pytest.raises(ValueError, match="at least one row must be compared, got none"):
        compare(Scores(()), Scores(()))


def test_a_p_value_is_never_said_to_be_nothing():
    base = SOME.rows[0]
    sides = [
        Scores(
            tuple(
                dataclasses.replace(base, row_id=str(i), tool_group=str(i), request_group=str(i), ast_match=hit)
                for i in range(1100)
            )
        )
        for hit in (False, True)
    ]
    verdict = compare(*sides).verdict
    assert "p < 1e-300. Rows" in verdict and verdict.endswith("McNemar's exact p < 1e-300).")


def test_scores_keep_their_notation_and_constraint_in_a_file():
    scores = dataclasses.replace(score(ROWS, ["no"] * 5, "tutorial"), constrained=True)
    saved = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert Scores.from_dict(saved) == scores and (saved["style"], saved["constrained"]) == ("tutorial", True)
    assert saved["argument_precision"]["rate"] is None


SAVED = SOME.to_dict()["rows"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": []}, "at least one row, got none"),
        ({"rows": None}, "must hold rows"),
        (
            {"rows": [{**SAVED, "ast_match": "yes"}]},
            "ast_match of row 'r0' must be bool, got 'yes'",
        ),
        ({"rows": [{**SAVED, "edits": 1.5}]}, "edits of row 'r0' must be int, got 1.5"),
        ({"rows": [3]}, "must hold rows"),
    ],
)
def test_a_file_that_holds_no_scores_is_named(change, message):
    with pytest.raises(ValueError, match=rf"{message}.*score again"):
        Scores.from_dict({**SOME.to_dict(), **change})
