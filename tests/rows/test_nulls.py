"""Null arguments: those for parameters that the tool does not declare are Arrow's, others their author's."""

import pytest

from fgtools.calls import ToolCall
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
