"""Scores taken apart: the edges of every part, counted by hand."""

import dataclasses

import pytest

from fgtools.metrics import Scores, Share, score
from fgtools.metrics.breakdowns import (
    count_argument_types,
    require_same_parts,
    split_by_calls,
    split_by_length,
    split_by_seen,
    split_by_tools,
)

TOOLS = [{"function": {"name": "one", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}}]
BASE = score([{"row_id": "r", "tools": TOOLS, "gold": []}], ["no"]).rows[0]


def rows_with(field, values):
    rows = (
        dataclasses.replace(BASE, row_id=f"r{i}", tool_group=f"t{i}", request_group=f"q{i}", **{field: value})
        for i, value in enumerate(values)
    )
    return Scores(tuple(rows), constrained=True, style="tutorial")


def sizes(parts):
    return {name: len(scores.rows) for name, scores in parts.items()}


def test_every_number_of_tools_is_in_its_part():
    parts = split_by_tools(rows_with("n_tools", [1, 2, 3, 4, 5, 6, 7, 8, 9]))
    assert sizes(parts) == {"1": 1, "2 to 3": 2, "4 to 7": 4, "8 or more": 2}
    assert sizes(split_by_calls(rows_with("n_gold", [0, 0, 1, 2, 3, 4]))) == {"0": 2, "1": 1, "2": 1, "3 or more": 2}


def test_prompts_fall_into_four_parts_of_like_size():
    parts = split_by_length(rows_with("prompt_characters", [80, 10, 20, 70, 30, 60, 40, 50]))
    assert sizes(parts) == {"up to 20": 2, "21 to 40": 2, "41 to 60": 2, "61 or more": 2}


def test_a_row_is_seen_when_all_its_tools_were():
    golds = [["one"], ["one", "two"], ["two"], []]
    rows = [{"row_id": f"r{i}", "gold": [{"name": name} for name in names]} for i, names in enumerate(golds)]
    scores = rows_with("n_gold", [1, 2, 1, 0])
    parts = split_by_seen(scores, rows, {"one"})
    assert {name: [row.row_id for row in part.rows] for name, part in parts.items()} == {
        "seen in training": ["r0"],
        "not seen": ["r1", "r2"],
        "no call due": ["r3"],
    }
    with pytest.raises(ValueError, match="at place 0 'r0' stands beside 'r3'"):
        split_by_seen(scores, rows[::-1], {"one"})
    with pytest.raises(ValueError, match="at place 3 'r3' stands beside None"):
        split_by_seen(scores, rows[:3], {"one"})


def test_a_part_keeps_how_its_replies_were_made_and_read():
    scores = rows_with("n_tools", [1, 9])
    rows = [{"row_id": row.row_id, "gold": []} for row in scores.rows]
    for parts in (split_by_tools(scores), split_by_length(scores), split_by_seen(scores, rows, ())):
        assert {(part.constrained, part.style) for part in parts.values()} == {(True, "tutorial")}


def test_parts_of_as_many_other_rows_are_refused():
    parts = split_by_tools(rows_with("n_tools", [1, 1, 2])), split_by_tools(rows_with("n_tools", [1, 2, 1]))
    with pytest.raises(ValueError, match="the same rows in the same parts"):
        require_same_parts(*parts)
    require_same_parts(parts[0], parts[0])


def test_arguments_are_counted_by_type_with_intervals_over_rows():
    by_type = [(("integer", 0, 1), ("string", 4, 4)), (("string", 0, 4),)] * 20
    types = count_argument_types(rows_with("arguments_by_type", by_type))
    assert list(types) == ["string", "integer"]
    assert [(ratio.numerator, ratio.denominator) for ratio in types.values()] == [(80, 160), (0, 20)]
    assert types["integer"].interval == Share(0, 20).interval
    right = count_argument_types(rows_with("arguments_by_type", [(("object", 2, 2),)] * 3))
    assert right["object"].interval == Share(3, 3).interval and right["object"].denominator == 6
    low, high = types["string"].interval
    # the four arguments of a row are right or wrong together, so these are 40 observations and not 160
    assert high - low == pytest.approx(0.31, abs=0.02)
    narrow = Share(80, 160).interval
    assert high - low > 1.8 * (narrow[1] - narrow[0])
