"""The tutorial's rows, weaknesses included: what the vectors say, in cases of our own."""

import pytest

from fgtools.gold.tutorial import extract_tutorial_gold
from fgtools.rows.build import build_tutorial_row
from tests.toys import call_turn, conversation


@pytest.mark.parametrize(
    ("tools", "arguments", "kept"),
    [
        ([{"name": "f", "parameters": {"a": {"type": "int"}}}], '{"a": 1}', {"a": 1}),
        ([{"name": "f", "parameters": {}}], '{"a": 1}', {}),
        ([{"name": "f", "parameters": {"a": {}}}], '"text"', {}),
        ([{"name": "f", "parameters": {"a": {}}}, {"name": "f"}], '{"a": 1}', {}),
    ],
)
def test_arguments_go_when_the_last_declaration_requires_nothing(tools, arguments, kept):
    row = {
        "task": "q",
        "conversations": conversation("q", call_turn(f'{{"name": "f", "arguments": {arguments}}}')),
        "tools": tools,
    }
    assert build_tutorial_row(row, extract_tutorial_gold(row)[0]).fate["gold"][0]["arguments"] == kept


def test_rows_are_left_out_by_reason():
    row = {"task": "q", "conversations": conversation("q", call_turn('{"name": "f", "arguments": {}}'))}
    gold, _ = extract_tutorial_gold(row)
    assert build_tutorial_row({**row, "tools": []}, gold).reason == "no_tools"
    assert build_tutorial_row({**row, "tools": [{"name": "g"}]}, gold).reason == "unknown_tool"
