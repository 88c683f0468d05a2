"""Null arguments: which are left out, which stay and why, and that every null is counted."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.calls import ToolCall
from fgtools.schema.nulls import holds_null, leave_out_nulls

PARAMETERS = {
    "type": "object",
    "properties": {
        "free": {"type": "string"},
        "nullable": {"type": "string", "nullable": True, "default": None},
        "needed": {"type": "string", "nullable": True},
        "unit": {"type": "string", "default": "C"},
        "inner": {"type": "object", "properties": {"b": {"type": "string"}, "c": {}}, "required": ["c"]},
        "open": {"type": "object"},
        "listed": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "string"}}}},
    },
    "required": ["needed"],
}


@pytest.mark.parametrize(
    ("arguments", "left", "counts"),
    [
        ({"free": "x"}, {"free": "x"}, {}),
        ({"free": None, "nullable": None}, {}, {"left_out": 2}),
        ({"needed": None}, {"needed": None}, {"required": 1}),
        ({"unit": None}, {"unit": None}, {"default": 1}),
        ({"inner": {"b": None, "c": None}}, {"inner": {"c": None}}, {"left_out": 1, "required": 1}),
        ({"inner": {"b": None}}, {"inner": {}}, {"left_out": 1}),
        ({"open": {"z": None}}, {"open": {"z": None}}, {"undeclared": 1}),
        ({"other": None}, {"other": None}, {"undeclared": 1}),
        ({"listed": [None, {"d": None}, None]}, {"listed": [None, {}, None]}, {"in_list": 2, "left_out": 1}),
    ],
)
def test_a_null_is_left_out_where_it_says_no_more_than_its_absence(arguments, left, counts):
    before = copy.deepcopy(arguments)
    assert leave_out_nulls([ToolCall("f", arguments)], {"f": PARAMETERS}) == ((ToolCall("f", left),), counts)
    assert arguments == before


@pytest.mark.parametrize("schema", [None, 5, [], {}, {"properties": 1}, {"properties": {"free": 5}, "required": True}])
def test_a_schema_that_is_none_is_read_as_far_as_it_goes(schema):
    calls, counts = leave_out_nulls([ToolCall("f", {"free": None, "x": 1})], {"f": schema})
    assert calls[0].arguments["x"] == 1
    assert sum(counts.values()) == 1


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*PARAMETERS["properties"], "b", "c", "d"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def count_nulls(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum((item is None) + count_nulls(item) for item in inner)


@given(st.dictionaries(st.sampled_from(list(PARAMETERS["properties"])), VALUES, max_size=6))
def test_every_null_is_counted_and_what_stays_stays_at_a_second_time(arguments):
    calls, counts = leave_out_nulls([ToolCall("f", arguments)], {"f": PARAMETERS})
    kept = sum(count for fate, count in counts.items() if fate != "left_out")
    assert count_nulls(arguments) == sum(counts.values())
    assert count_nulls(calls[0].arguments) == kept
    assert holds_null(calls[0].arguments) == bool(kept)
    again, more = leave_out_nulls(calls, {"f": PARAMETERS})
    assert again == calls and more.get("left_out", 0) == 0
