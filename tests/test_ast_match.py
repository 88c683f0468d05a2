"""The ladder's rungs and BFCL's error codes, on golden replies of which about half are wrong."""

import pytest

from fgtools.ast_match import find_error, find_value_error
from fgtools.calls import ToolCall
from fgtools.outcomes import LADDER, score_row
from tests.toys import GOLDEN, load_cases

CASES = load_cases(GOLDEN / "scoring.jsonl")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["label"])
def test_golden_replies_reach_their_rungs(case):
    row = {"row_id": "r", "tools": case["tools"], "gold": case["gold"]}
    result = score_row(row, case["reply"], case["style"])
    assert [name for name in LADDER if getattr(result, name)] == case["passed"]
    assert result.error == case["error"]


def test_the_golden_set_can_fail():
    assert all(case["source"] for case in CASES)
    assert sum(bool(case["error"]) for case in CASES) >= 0.4 * len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["label"])
def test_content_rungs_nest(case):
    result = score_row({"row_id": "r", "tools": case["tools"], "gold": case["gold"]}, case["reply"], case["style"])
    nested = [result.known_tool, result.right_tools, result.right_names, result.ast_match, result.exact_match]
    assert nested == sorted(nested, reverse=True)


def test_calls_of_one_tool_are_assigned_even_when_the_first_choice_blocks_another():
    gold = [ToolCall("f", {"a": 1}), ToolCall("f", {"a": 1, "b": 2})]
    tools = {"f": {"properties": {"a": {}, "b": {"default": 2}}, "required": ["a"]}}
    assert find_error([ToolCall("f", {"a": 1, "b": 2}), ToolCall("f", {"a": 1})], gold, tools) == ""
    row = {
        "row_id": "r",
        "tools": [{"function": {"name": "f", "parameters": tools["f"]}}],
        "gold": [call.to_dict() for call in gold],
    }
    reply = "<start_function_call>call:f{a:1,b:2}<end_function_call><start_function_call>call:f{a:1}<end_function_call>"
    assert score_row(row, reply).right_names


@pytest.mark.parametrize(
    ("value", "gold", "spec", "error"),
    [
        ("New-York", "new york", {}, ""),
        ("it's", 'it"s', {}, ""),
        (1, 1.0, {"type": "number"}, ""),
        (1.0, 1, {"type": "integer"}, "type_error:simple"),
        (True, 1, {"type": "number"}, "type_error:simple"),
        ([[1], [2]], [[1], [3]], {}, "value_error:list/tuple"),
        ({"a": {"b": 1}}, {"a": {"b": "1"}}, {}, "type_error:nested"),
        ({"a": [1]}, {"a": [2]}, {}, "value_error:dict_value"),
        (None, None, {}, ""),
    ],
)
def test_values_mean_the_same_or_say_why_not(value, gold, spec, error):
    assert find_value_error(value, gold, spec) == error
