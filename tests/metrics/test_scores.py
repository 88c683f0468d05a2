"""Scores of many rows, and two of them paired: hand-counted sets, properties, errors."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.metrics import LADDER, Comparison, Scores, Share, compare, score

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        },
    }
    for name in ("one", "two")
]


def row(number, *golds):
    return {"row_id": f"r{number}", "tools": TOOLS, "gold": [{"name": n, "arguments": {"a": a}} for n, a in golds]}


def call(name, value):
    return f"<start_function_call>call:{name}{{a:<escape>{value}<escape>}}<end_function_call>"


ROWS = [row(0, ("one", "x")), row(1, ("two", "y")), row(2, ("one", "z"), ("two", "z")), row(3), row(4)]
GOLD = [call("one", "x"), call("two", "y"), call("one", "z") + call("two", "z"), "No.<end_of_turn>", ""]
MIXED = [call("one", "x"), call("one", "y"), "Sorry.", call("one", "x"), "No."]


def test_gold_replies_score_full_marks():
    scores = score(ROWS, GOLD)
    assert all(getattr(scores, name) == Share(5, 5) for name in LADDER)
    assert scores.right_tool_calls == scores.tool_accuracy == Share(3, 3)
    assert (scores.cer.edits, scores.cer_rendered.edits, scores.argument_f1.rate, scores.errors) == (0, 0, 1.0, {})
    assert scores.false_calls == Share(0, 2) and scores.missed_calls == Share(0, 3)


def test_mixed_replies_are_counted_by_hand():
    scores = score(ROWS, MIXED)
    assert scores.in_grammar == Share(4, 5)
    assert scores.known_tool == Share(4, 5)
    assert scores.right_tools == scores.ast_match == scores.exact_match == Share(2, 5)
    assert scores.right_tool_calls == Share(1, 3)
    assert scores.false_calls == Share(1, 2) and scores.missed_calls == Share(1, 3)
    assert (scores.argument_precision.numerator, scores.argument_precision.denominator) == (1, 3)
    assert (scores.argument_recall.numerator, scores.argument_recall.denominator) == (1, 4)
    assert scores.errors == {
        "simple_function_checker:wrong_func_name": 1,
        "missed_call": 1,
        "false_call": 1,
    }
    blocks = [call("one", "x"), call("two", "y"), call("one", "z")]
    assert (scores.cer.n, scores.cer.characters) == (3, sum(map(len, blocks)))
    assert scores.cer.edits == 3 + len(blocks[2])  # "two" -> "one" is three substitutions


def test_rows_say_which_tool_and_which_request_they_are_of():
    asked = [{**one, "messages": [{"role": "user", "content": "Wake  me\u00a0UP"}]} for one in ROWS]
    asked[1]["messages"] = [{"role": "user", "content": "wake me up"}]
    asked[2] |= {"conversation": "c"}
    asked[3] |= {"conversation": "c", "request_group": "near duplicates 3"}
    rows = score(asked, GOLD).rows
    assert [one.tool_group for one in rows] == ["one", "two", "one", "one", "one"]  # called first, or declared first
    assert rows[0].request_group == rows[1].request_group == rows[4].request_group
    assert [one.request_group for one in rows[2:4]] == ["c", "near duplicates 3"]
    assert [one.request_group for one in score(ROWS, GOLD).rows] == [f"r{place}" for place in range(5)]
    assert score(asked, GOLD).groups.n_requests == 3


def test_golds_whose_sign_is_forgiven_are_counted():
    rows = [row(0, ("one", "-5")), row(1, ("one", "Oslo")), row(2)]
    scores = score(rows, [call("one", "5"), call("one", "oslo"), "no"])
    assert scores.gold_numeric == Share(1, 2) and scores.ast_match == Share(3, 3) and scores.exact_match == Share(1, 3)


def test_chance_is_that_of_drawing_declared_tools():
    assert score(ROWS, GOLD).chance == pytest.approx((1 / 2 + 1 / 2 + 2 / 4) / 3)
    assert score([row(0, ("one", "x"), ("one", "y"))], [""]).chance == pytest.approx(1 / 4)


def test_the_tutorials_metrics_read_the_first_name_and_block_anywhere():
    scores = score(ROWS[:1], ["<end_of_turn> call:one{ " + call("two", "x")])
    assert scores.tool_accuracy == Share(1, 1) and scores.right_tools == Share(0, 1)


def test_format_and_content_are_told_apart():
    loose = "<start_function_call> call:one { a : <escape>x<escape> }"
    scores = score(ROWS[:1], [loose + "<end_function_call>"])
    assert scores.cer.edits > 0 and scores.cer_rendered.edits == 0 and scores.exact_match == Share(1, 1)


@given(st.lists(st.text("<>start_of_callndespon:one{}a x,", max_size=60), min_size=5, max_size=5))
def test_any_reply_is_scored(replies):
    scores = score(ROWS, replies)
    assert len(scores.rows) == 5
    json.dumps(scores.to_dict(), allow_nan=False)


@pytest.mark.parametrize("reply", ["\ud800", "x" * 1_000_000, "<start_function_call>call:one{a:" + "[" * 5000, "\x00"])
def test_hostile_replies_are_failures_not_crashes(reply):
    assert score(ROWS[:1], [reply]).ast_match == Share(0, 1)


def test_scores_survive_json():
    scores = score(ROWS, MIXED)
    saved = json.loads(json.dumps(scores.to_dict()))
    assert Scores.from_dict(saved) == scores
    assert saved["ast_match"]["k"] == 2 and saved["ast_match"]["n"] == 5
    with pytest.raises(ValueError, match="score again"):
        Scores.from_dict({"rows": [{"row_id": "a"}]})


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="got 5 rows and 4 replies"):
        score(ROWS, GOLD[:4])
    with pytest.raises(ValueError, match="at least one row must be scored"):
        score([], [])
    with pytest.raises(ValueError, match="reply of row 'r0' must be text, got NoneType"):
        score(ROWS[:1], [None])
    for rows in (ROWS[:1], ROWS[3:]):  # rows without a call, too
        with pytest.raises(ValueError, match="style must be 'native' or 'tutorial', got 'xml'"):
            score(rows, [""] * len(rows), "xml")


def test_a_comparison_pairs_rows_by_id_in_any_order():
    before, after = score(ROWS, MIXED), score(ROWS[::-1], GOLD[::-1])
    comparison = compare(before, after)
    change = comparison.change("ast_match")
    assert (change.before, change.after, change.fixed, change.broken) == (Share(2, 5), Share(5, 5), 3, 0)
    assert comparison.fixed == ("r1", "r2", "r3") and comparison.broken == ()
    assert change.difference == pytest.approx(0.6) and change.low <= 0.6 <= change.high
    assert comparison.change("right_tool_calls").after == Share(3, 3)
    assert comparison.change("cer").difference < 0
    false_calls = comparison.change("false_calls")
    assert (false_calls.before, false_calls.after) == (Share(1, 2), Share(0, 2))
    assert (false_calls.fixed, false_calls.broken) == (1, 0)
    assert comparison.change("missed_calls").fixed == 1
    assert Comparison.from_dict(json.loads(json.dumps(comparison.to_dict()))) == comparison


def scores_of(hits):
    base = score(ROWS[:1], GOLD[:1]).rows[0]
    own = [{"row_id": str(place), "tool_group": str(place), "request_group": str(place)} for place in range(len(hits))]
    return Scores(tuple(dataclasses.replace(base, **one, ast_match=hit) for one, hit in zip(own, hits, strict=True)))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([False] * 10, [True] * 10, "AST match rose from 0/10 to 10/10"),
        ([True] * 10, [False] * 10, "AST match FELL from 10/10 to 0/10"),
        ([False] * 5 + [True] * 5, [True] * 3 + [False] * 2 + [True] * 5, "No evidence that AST match changed"),
        ([True] * 10, [True] * 10, "No evidence that AST match changed"),
    ],
)
def test_a_gain_is_claimed_only_with_evidence(before, after, verdict):
    assert compare(scores_of(before), scores_of(after)).verdict.startswith(verdict)


def test_scores_that_cannot_be_paired_are_refused():
    with pytest.raises(ValueError, match="1 rows have only one of them, such as 'r4'"):
        compare(score(ROWS, GOLD), score(ROWS[:4], GOLD[:4]))
    twice = score([ROWS[0], ROWS[0]], [GOLD[0], GOLD[0]])
    with pytest.raises(ValueError, match="some ids occur twice"):
        compare(twice, twice)
    other = score([{**ROWS[0], "gold": []}], [""])
    with pytest.raises(ValueError, match="their golds differ"):
        compare(score(ROWS[:1], GOLD[:1]), other)


def test_arguments_of_scoring_stay_as_they_were():
    rows = json.loads(json.dumps(ROWS))
    score(rows, GOLD)
    assert rows == ROWS
