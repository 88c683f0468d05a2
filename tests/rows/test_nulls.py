"""Null arguments: those for parameters that the tool does not declare are Arrow's, others their author's."""

from dataclasses import replace

import pytest

from fgtools.calls import ToolCall
from fgtools.profiles import RECIPES
from fgtools.rows import build_rows
from fgtools.rows.nulls import drop_undeclared_nulls
from fgtools.schema import normalize_tools

TOOLS = normalize_tools(
    [
        {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "string"},
                    "inner": {"type": "object", "properties": {"b": {"type": "string"}}},
                    "listed": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "string"}}}},
                },
            },
        }
    ]
)


@pytest.mark.parametrize(
    ("arguments", "left", "dropped"),
    [
        ({"a": "x"}, {"a": "x"}, 0),
        ({"a": "x", "z": None}, {"a": "x"}, 1),
        ({"a": None, "z": None}, {"a": None}, 1),
        ({"a": "x", "z": 1}, {"a": "x", "z": 1}, 0),
        ({"inner": {"b": "x", "z": None}}, {"inner": {"b": "x"}}, 1),
        ({"listed": [{"c": None, "z": None}, {"c": "x", "y": None}]}, {"listed": [{"c": None}, {"c": "x"}]}, 2),
        ({"a": "x", "z": {"y": None, "w": {"v": None}}}, {"a": "x"}, 1),
        ({"a": "x", "z": {}}, {"a": "x", "z": {}}, 0),
        ({"listed": [None]}, {"listed": [None]}, 0),
    ],
)
def test_a_null_is_dropped_where_no_parameter_is_declared(arguments, left, dropped):
    given = ToolCall("f", arguments)
    assert drop_undeclared_nulls([given], TOOLS) == ((ToolCall("f", left),), dropped)
    assert given.arguments == arguments


def test_a_tool_that_is_not_declared_keeps_its_nulls():
    given = (ToolCall("g", {"z": None}),)
    assert drop_undeclared_nulls(given, TOOLS) == (given, 0)


def test_dropped_nulls_are_counted():
    calls = '<tool_call>{"name": "f", "arguments": {"a": "x", "y": null, "z": null}}</tool_call>'
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": calls}], "tools": TOOLS}
    made = build_rows([row])
    assert made.rows[0]["gold"] == [{"name": "f", "arguments": {"a": "x"}}]
    assert made.problems == {"null_argument_dropped": 2}


def test_a_null_that_says_nothing_is_left_out_of_the_gold_and_counted():
    calls = '<tool_call>{"name": "f", "arguments": {"a": null, "inner": {"b": null}, "y": null}}</tool_call>'
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": calls}], "tools": TOOLS}
    made = build_rows([row])
    assert made.rows[0]["gold"] == [{"name": "f", "arguments": {"inner": {}}}]
    assert made.problems == {"null_argument_left_out": 2, "null_argument_dropped": 1}
    kept = build_rows([row], replace(RECIPES["native"], keep_null_arguments=True))
    assert kept.rows[0]["gold"] == [{"name": "f", "arguments": {"a": None, "inner": {"b": None}}}]
    assert kept.problems == {"null_argument_dropped": 1}


def test_a_null_that_says_something_stays_and_is_counted_by_its_reason():
    spec = {"type": "string", "nullable": True}
    tool = {"type": "object", "properties": {"a": spec, "unit": {**spec, "default": "C"}}, "required": ["a"]}
    calls = '<tool_call>{"name": "f", "arguments": {"a": null, "unit": null}}</tool_call>'
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": calls}]
    made = build_rows([{"conversations": turns, "tools": normalize_tools([{"name": "f", "parameters": tool}])}])
    assert made.rows[0]["gold"][0]["arguments"] == {"a": None, "unit": None}
    assert made.problems == {"null_argument_kept_default": 1, "null_argument_kept_required": 1}


def test_nulls_of_earlier_calls_are_left_out_and_counted():
    calls = '<tool_call>{"name": "f", "arguments": {"a": null}}</tool_call>'
    turns = ["q", calls, "done", "again", calls]
    roles = ["human", "gpt", "tool", "human", "gpt"]
    row = {"conversations": [{"from": role, "value": text} for role, text in zip(roles, turns, strict=True)]}
    made = build_rows([{**row, "tools": TOOLS}], replace(RECIPES["native"], turns="all"))
    (earlier,) = [message for message in made.rows[-1]["messages"] if message.get("tool_calls")]
    assert earlier["tool_calls"][0]["function"]["arguments"] == {}
    assert made.problems["null_argument_left_out"] == 3
