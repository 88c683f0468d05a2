"""Sheets of examples: every parameter and choice is in a valid call, and what is not filled in is counted."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtools.calls import ToolCall
from fgtools.files import InputError
from fgtools.metrics import has_valid_arguments
from fgtools.rows import build_rows
from fgtools.rows.drafts import COLUMNS, Line, build_draft, write_sheet
from fgtools.rows.proposals import MAX_CHOICES, find_placeholders, propose_calls, propose_values, render_call
from fgtools.rows.tables import render_cell
from fgtools.schema import normalize_tools

DAYS = ["mon", "tue", "wed", "thu", "fri"]
ALARM = {
    "name": "set_alarm",
    "parameters": {
        "type": "object",
        "properties": {
            "time": {"type": "string"},
            "days": {"type": "array", "items": {"type": "string", "enum": DAYS}, "minItems": 1},
            "snooze": {"type": "integer", "minimum": 5, "maximum": 30, "multipleOf": 5},
            "loud": {"type": "boolean", "default": False},
            "tone": {"type": "string", "example": "birds"},
            "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{3}$"},
            "date": {"type": "string", "format": "date"},
            "volume": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "label": {"type": "object", "properties": {"text": {"type": "string"}, "color": {"enum": ["red", "blue"]}}},
        },
        "required": ["time"],
    },
}
TOOLS = normalize_tools([ALARM, {"name": "stop_alarm", "parameters": {}}])


def values_of(calls, name):
    return [call.arguments[name] for call in calls if name in call.arguments]


def test_every_parameter_and_every_choice_is_in_some_call():
    calls = propose_calls(TOOLS[0], 3)
    assert {name for call in calls for name in call.arguments} == set(ALARM["parameters"]["properties"])
    assert {day for days in values_of(calls, "days") for day in days} == set(DAYS)
    assert set(values_of(calls, "loud")) == {True, False} and "birds" in values_of(calls, "tone")
    assert {label["color"] for label in values_of(calls, "label")} == {"red", "blue"}
    assert {5, 30} <= set(values_of(calls, "snooze")) and values_of(calls, "code") == ["ABC-123"]
    assert calls[0].arguments == {"time": "<time>"}
    assert all(len(call.arguments) <= 3 for call in calls)


def test_as_many_calls_as_asked_for_where_the_tool_has_them():
    many = normalize_tools([{"name": "f", "parameters": {"a": {"enum": [*range(9)]}, "b": {"enum": [*range(7)]}}}])
    assert len(propose_calls(many[0], 20)) >= 9
    assert len(propose_calls(TOOLS[1], 20)) == 1  # it takes no arguments
    long = normalize_tools([{"name": "f", "parameters": {"a": {"enum": [*range(1000)]}}}])
    assert len(propose_calls(long[0], 2)) == MAX_CHOICES


NAMES = st.sampled_from(["a", "b", "type", "X-Trace", "größe", "two words"])
SCALARS = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 30},
        {"type": "string", "maxLength": 2},
        {"type": "string", "pattern": "^x{90}$"},
        {"type": "string", "format": "uuid"},
        {"type": "integer", "minimum": 7},
        {"type": "number", "maximum": -3.5},
        {"type": "integer", "minimum": 10, "maximum": 11, "multipleOf": 4},
        {"type": "boolean"},
        {"enum": ["x", 1, None]},
        {"const": "y"},
        {"type": ["string", "integer"]},
        {"type": "null"},
        {"type": "object"},
    ]
)
SPECS = st.recursive(
    SCALARS,
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("array"), "items": inner, "minItems": st.integers(0, 3)})
        | st.builds(
            lambda properties: {"type": "object", "properties": properties, "required": [*properties][:1]},
            st.dictionaries(NAMES, inner, max_size=3),
        )
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.dictionaries(NAMES, SPECS, max_size=4), st.integers(1, 5))
def test_proposed_calls_are_valid_different_and_read_back(properties, at_least):
    parameters = {"type": "object", "properties": properties, "required": [*properties][:2]}
    tool = normalize_tools([{"name": "f", "parameters": parameters}])[0]
    calls = propose_calls(tool, at_least)
    for call in calls:
        valid = has_valid_arguments([call], {"f": tool["function"]["parameters"]})
        assert valid or ("^x{90}$" in json.dumps(properties) and find_placeholders(call.arguments))
        assert call.arguments == {} or call.arguments in [
            json.loads(render_cell(render_call(call)).split("\n")[1])["arguments"]
        ]
    assert len({json.dumps(call.arguments, sort_keys=True) for call in calls}) == len(calls)
    named = {name for call in calls for name in call.arguments}
    known = {name for name, spec in tool["function"]["parameters"]["properties"].items() if propose_values(name, spec)}
    assert named == known or not calls
    assert calls or set(tool["function"]["parameters"]["required"]) - known


def test_lines_without_a_call_say_what_kind_of_request_they_are_for():
    notes = [line.note for line in build_draft(TOOLS, 2, 9) if line.call is None]
    assert len(notes) == 9 and notes[:4] == [
        "a request near set_alarm that no tool can serve",
        "a request near stop_alarm that no tool can serve",
        "a request for set_alarm that does not say time",
        "a question or remark that has nothing to do with the tools",
    ]
    assert sum(line.call is not None and line.call.name == "stop_alarm" for line in build_draft(TOOLS, 5)) == 5
    lines = build_draft(TOOLS)
    without = sum(line.call is None for line in lines)
    assert without == (len(lines) - without) // 4 and not any(line.request for line in lines)
    with pytest.raises(InputError, match="1 or more calls"):
        build_draft(TOOLS, 0)
    with pytest.raises(InputError, match="at least one tool"):
        build_draft([])


def test_a_sheet_is_written_once_and_read_as_rows(tmp_path):
    lines = build_draft(TOOLS, 2, 2)
    path = write_sheet(tmp_path / "examples.csv", lines)
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == COLUMNS and len(table) == len(lines)
    with pytest.raises(InputError, match="must be a new file"):
        write_sheet(path, lines)
    write_sheet(path, lines, force=True)
    empty = build_rows([{**row, "tools": TOOLS} for row in table])
    assert empty.funnel == {"kept": 0, "empty_request": len(table)}
    asked = build_rows([{**row, "tools": TOOLS, "request": f"Request {n}"} for n, row in enumerate(table)])
    left = sum(bool(line.call and find_placeholders(line.call.arguments)) for line in lines)
    assert asked.funnel == {"kept": len(table) - left, "placeholder": left}
    assert "<time>" in next(row.detail for row in asked.rejected)
    whole = build_rows(
        [
            {**row, "tools": TOOLS, "request": f"R{n}", "call": row["call"].replace("<", "").replace(">", "")}
            for n, row in enumerate(table)
        ]
    )
    assert whole.funnel == {"kept": len(table)} and whole.problems == {}
    assert [*whole.funnel_by("source")] == ["written"]


def test_a_text_in_such_marks_that_is_no_placeholder_stays():
    rows = [{"request": "Say it", "call": 'say(text="<city>")', "tools": [{"name": "say", "parameters": {"text": {}}}]}]
    assert build_rows(rows).rows[0]["gold"][0]["arguments"] == {"text": "<city>"}
    assert find_placeholders({"city": ["<city>"], "text": "<city>", "note": "<note...>"}) == ["<city>", "<note...>"]


@pytest.mark.parametrize("call", [ToolCall("f", {"two words": 1}), ToolCall("f<", {}), ToolCall("f", {"a": "x\n'\""})])
def test_a_call_that_the_short_notation_cannot_hold_is_written_as_json(call):
    text = Line(call, "").to_dict()["call"]
    assert json.loads(render_cell(text).split("\n")[1]) == {"name": call.name, "arguments": call.arguments}
