"""The ladder's rungs and BFCL's error codes, on golden replies of which about half are wrong."""

from collections import Counter

import pytest

from fgtools.calls import ToolCall
from fgtools.metrics import LADDER, score_row
from fgtools.metrics.ast_match import can_pair, find_error, find_value_error, pair_calls
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
        "gold": [vars(call) for call in gold],
    }
    reply = "<start_function_call>call:f{a:1,b:2}<end_function_call><start_function_call>call:f{a:1}<end_function_call>"
    assert score_row(row, reply).right_names


@pytest.mark.parametrize(
    ("value", "gold", "spec", "error"),
    [
        ("New-York", "new york", {}, ""),
        ("it's", 'it"s', {}, ""),
        ("-", "", {}, ""),
        ("x", "", {}, "value_error:string"),
        (1, 1.0, {"type": "number"}, ""),
        (1.0, 1, {"type": "integer"}, "type_error:simple"),
        (True, 1, {"type": "number"}, "type_error:simple"),
        ([[1], [2]], [[1], [3]], {}, "value_error:list/tuple"),
        ({"a": {"b": 1}}, {"a": {"b": "1"}}, {}, "type_error:nested"),
        ({"a": [1]}, {"a": [2]}, {}, "value_error:dict_value"),
        (1, 1.0, {}, ""),
        (1, 1.0, {"type": "integer"}, "type_error:simple"),
        (1.0, 1, {}, "type_error:simple"),
        (1.0, 1, {"type": "float"}, ""),
        (1.0, 1, {"type": ["null", "number"]}, ""),
        ([1.0], [1], {"items": {"type": "number"}}, ""),
        ([1.0], [1], {"items": {"type": "integer"}}, "type_error:nested"),
        ({"a": 1.0}, {"a": 1}, {"properties": {"a": {"type": "number"}}}, ""),
        ({"a": 1.0}, {"a": 1}, {"properties": {"b": {"type": "number"}}}, "type_error:nested"),
        ({"a": 1}, {"a": 1, "b": 0}, {"properties": {"b": {"default": 0}}}, ""),
        ({"a": 1, "b": 0}, {"a": 1}, {"properties": {"b": {"default": 0}}}, ""),
        ({"a": 1}, {"a": 1, "b": 1}, {"properties": {"b": {"default": 0}}}, "value_error:dict_key"),
        ({"a": 1}, {"a": 1, "b": 0}, {"properties": {"b": {"default": 0}}, "required": ["b"]}, "value_error:dict_key"),
        (None, None, {}, ""),
    ],
)
def test_values_mean_the_same_or_say_why_not(value, gold, spec, error):
    assert find_value_error(value, gold, spec) == error


def test_a_required_argument_at_its_default_may_not_be_left_out():
    schema = {"properties": {"a": {"default": 1}, "b": {"default": 1}}, "required": ["a"]}
    gold = [ToolCall("f", {"a": 1, "b": 1})]
    assert find_error([ToolCall("f", {"a": 1})], gold, {"f": schema}) == ""
    assert find_error([ToolCall("f", {"b": 1})], gold, {"f": schema}) == "simple_function_checker:missing_required"


def test_a_call_is_given_up_for_another_where_that_helps():
    def pairs(size, *allowed):
        fits = set(allowed)
        calls = [ToolCall("f", {"place": place}) for place in range(size)]
        return can_pair(calls, calls, lambda call, wanted: (wanted.arguments["place"], call.arguments["place"]) in fits)

    assert pairs(2, (0, 0), (0, 1), (1, 0)) and pairs(3, (0, 0), (0, 1), (1, 0), (2, 1), (2, 2))
    assert not pairs(2, (0, 0), (1, 0)) and not pairs(3, (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
    assert pairs(0) and pairs(1, (0, 0)) and not pairs(1)
    chain = [(place, call) for place in range(1200) for call in (place, place + 1)]
    assert pairs(1201, *chain, (1200, 0))  # fits the first call alone, so that all calls move on
    assert not pairs(1201, *chain, (1199, 0))


def test_of_very_many_calls_the_fewest_arguments_are_wrong_too():
    schema = {"f": {"properties": {"a": {}, "b": {}, "c": {}}}}
    gold = [ToolCall("f", {"a": place, "b": place, "c": 0}) for place in range(12)]
    found = [ToolCall("f", {"a": place, "b": place, "c": 1}) for place in reversed(range(9))]
    pairs = pair_calls(found, gold, schema)
    assert sum(len(agreement.right) for _, agreement in pairs) == 18
    assert sum(agreement.n_predicted for _, agreement in pairs) == 27
    assert all(agreement.right == () for call, agreement in pairs if call and call.arguments["a"] > 8)
    assert [agreement.n_wrong for _, agreement in pair_calls(gold[::-1], gold, schema)] == [0] * 12


SCHEMA = {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"x": 1}, "simple_function_checker:missing_required"),
        ({"x": 1, "a": "1"}, "simple_function_checker:unexpected_param"),
        ({"a": "1", "x": 1}, "type_error:simple"),
        ({"b": "q", "a": "1"}, "value_error:string"),
        ({"a": 1, "b": 2}, "type_error:simple"),
        ({"a": 1, "x": 2}, "simple_function_checker:unexpected_param"),
        ({"a": 2}, "value_error:others"),
        ({"a": 1}, "simple_function_checker:missing_optional"),
    ],
)
def test_of_several_errors_the_first_is_bfcls(arguments, error):
    assert find_error([ToolCall("f", arguments)], [ToolCall("f", {"a": 1, "b": "z"})], {"f": SCHEMA}) == error


def test_one_due_call_and_several_have_codes_of_their_own():
    one, other = ToolCall("f", {"a": 1}), ToolCall("g", {})
    assert find_error([one, one], [one], {"f": {}}) == "simple_function_checker:wrong_count"
    assert find_error([one, one], [one], {"f": {}, "g": {}}) == "multiple_function_checker:wrong_count"
    assert find_error([one], [one, one], {}) == "parallel_function_checker_no_order:wrong_count"
    assert find_error([one, other], [one, one], {}) == "parallel_function_checker_no_order:cannot_find_match"


def test_the_codes_are_bfcls_own():
    cases = [case for case in load_cases(GOLDEN / "bfcl.jsonl") if not case["valid"]]
    pairs = Counter((case["code"], score_row(case["row"], case["reply"]).error) for case in cases)
    both_wrong = {pair: count for pair, count in pairs.items() if pair[1]}
    assert [pair for pair in both_wrong if pair[0] != pair[1]] == []
    assert sum(both_wrong.values()) > 50 and len({theirs for theirs, _ in both_wrong}) > 5
