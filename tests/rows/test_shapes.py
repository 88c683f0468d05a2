"""Rows in the layouts of public data sets, made anew: each is told by its content, and its gold is what it must be."""

import pytest

from fgtools.rows import build_rows
from fgtools.rows.formats import guess_shape
from tests.toys import GOLDEN, load_cases

VECTORS = load_cases(GOLDEN / "shapes.jsonl")


@pytest.mark.parametrize("case", VECTORS, ids=[case["id"] for case in VECTORS])
def test_a_row_gives_its_gold_or_its_reason(case):
    assert case["source"] and guess_shape(case["row"]) == case["shape"]
    made = build_rows([case["row"]])
    if "reason" in case:
        assert [item.reason for item in made.rejected] == [case["reason"]], made.rejected
        return
    assert made.funnel == {"kept": 1}, made.rejected
    row = made.rows[0]
    calls = [{**call, "name": case["gold"][0]["name"]} for call in row["gold"]] if "any_name" in case else row["gold"]
    assert calls == case["gold"]
    if "reply" in case:
        assert row["reply"] == case["reply"]
    if "developer" in case:
        assert row["messages"][0]["content"].startswith(case["developer"])
    if "request" in case:
        assert row["messages"][-1] == {"role": "user", "content": case["request"]}
    if "n_tools" in case:
        assert len(row["tools"]) == case["n_tools"]
    if "problems" in case:
        assert made.problems == case["problems"]
