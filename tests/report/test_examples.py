"""Single rows: which are chosen, and what is shown of them."""

import pytest

from fgtools.metrics import score
from fgtools.report.examples import build_inspection_table, select_examples, select_worse
from tests.report.four_rows import RIGHT, ROWS, WRONG


def test_single_rows_show_request_prediction_gold_and_verdict():
    table = build_inspection_table(ROWS, WRONG, [0, 1, 3, 99, -1])
    assert list(table["row"]) == [0, 1, 3] and list(table["row_id"]) == ["r0", "r1", "r3"]
    rows = table[["request", "predicted", "gold", "verdict"]].values.tolist()
    assert rows[0] == ["ask <b>0</b>", "(no call) no", 'one(a="0")', "missed_call"]
    assert rows[1][1:] == ['one(a="0")', 'one(a="1")', "value_error:string"]
    assert rows[2][2:] == ["(no call)", "false_call"]
    assert list(build_inspection_table(ROWS, RIGHT, [2])["verdict"]) == ["right"]
    long = build_inspection_table(ROWS, ["x" * 500] * 4, [0])["predicted"][0]
    assert len(long) == 400 and long.endswith("x…")
    assert build_inspection_table(ROWS, RIGHT, []).empty


def test_examples_are_chosen_by_rule():
    wrong, right = score(ROWS, WRONG), score(ROWS, RIGHT)
    assert sorted(select_examples(wrong)) == [0, 1, 3] and select_examples(right) == []
    assert select_worse(right, wrong)[:3] == [0, 1, 3] and select_worse(wrong, right) == []
    assert select_worse(right, wrong, limit=1) == [0]
    before, after = score(ROWS, ["no", *RIGHT[1:]]), score(ROWS, ["no", RIGHT[1], "no", RIGHT[0]])
    assert select_worse(before, after) == [2, 3, 0]  # what got worse first, then an example of what was wrong before
    with pytest.raises(ValueError, match="at place 0 'r0' stands beside 'r3'"):
        select_worse(right, score(ROWS[::-1], RIGHT[::-1]))
    with pytest.raises(ValueError, match="at place 3 'r3' stands beside None"):
        select_worse(right, score(ROWS[:3], RIGHT[:3]))


def test_the_calls_and_results_of_a_request_are_shown_with_it():
    call = {"function": {"name": "one", "arguments": {"a": "x"}}}
    steps = [
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call, call]},
        {"role": "tool", "name": "one", "content": {"é": 1}},
        {"role": "tool", "name": "one", "content": "fine"},
    ]
    row = {**ROWS[0], "messages": [*ROWS[0]["messages"], *steps]}
    (shown,) = build_inspection_table([row], RIGHT, [0])["request"]
    assert shown == 'ask <b>0</b>\nLet me look.\none(a="x")\none(a="x")\none → {"é": 1}\none → fine'
