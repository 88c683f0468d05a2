"""Names that are replaced: writable, distinct, and put back exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.calls import ToolCall, is_writable, parse_reply, render_calls
from fgtools.calls.tokens import CONTROL_TOKENS
from fgtools.schema.names import (
    parameter_names,
    rename_arguments,
    rename_parameters,
    replace_parameter_names,
    replace_tool_names,
)
from fgtools.serve import restore_calls

SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "type_": {"type": "string"},
        "rows": {
            "type": "array",
            "items": {"type": "object", "properties": {"type": {"type": "string"}, "size": {"type": "integer"}}},
        },
    },
    "required": ["type", "rows"],
}
ODD = st.text(st.sampled_from("ab {}.-ñ<>\n_"), max_size=8) | st.sampled_from(CONTROL_TOKENS)


@given(st.lists(ODD, min_size=1, max_size=6, unique=True))
def test_every_tool_gets_a_name_the_grammar_carries_and_none_is_taken_twice(names):
    replaced = replace_tool_names(names)
    back = {old: new for new, old in replaced.items()}
    new_names = [back.get(name, name) for name in names]
    assert len(set(new_names)) == len(names) and all(map(is_writable, new_names))
    assert all(name in back or is_writable(name) for name in names)
    calls = [ToolCall(name, {"a": 1}) for name in new_names]
    read = parse_reply(render_calls(calls)).calls
    assert list(read) == calls
    restored = restore_calls(read, {"tools": replaced, "parameters": {}}, {})
    assert [call.name for call in restored] == names


def test_parameters_are_renamed_at_every_level_and_put_back():
    new_names = replace_parameter_names(SCHEMA, {"type", "properties"})
    assert new_names == {"type__": "type"}  # type_ is taken
    renamed = rename_parameters(SCHEMA, {"type": "type__"})
    assert parameter_names(renamed) == {"type__", "type_", "rows", "size"}
    assert renamed["required"] == ["type__", "rows"] and renamed["type"] == "object"
    arguments = {
        "type": "x",
        "type_": "y",
        "rows": [{"type": "z", "size": 1, "free": {"type": 0}}],
        "extra": {"type": 1},
    }
    shown = rename_arguments(arguments, SCHEMA, {"type": "type__"})
    assert shown == {
        "type__": "x",
        "type_": "y",
        "rows": [{"type__": "z", "size": 1, "free": {"type": 0}}],
        "extra": {"type": 1},  # not declared: not renamed
    }
    restored = restore_calls([ToolCall("f", shown)], {"parameters": {"f": new_names}}, {"f": renamed})
    assert restored == [ToolCall("f", arguments)]


def test_nothing_is_renamed_where_nothing_is_hidden():
    assert replace_parameter_names(SCHEMA, {"nullable"}) == {}


@pytest.mark.parametrize("schema", [None, {}, {"properties": None}, {"items": []}, []])
def test_a_schema_without_parameters_has_no_names(schema):
    assert parameter_names(schema) == set()
