"""The tutorial's tools and types, weaknesses included: what the vectors say, in cases of our own."""

import pytest

from fgtools.schema.tutorial import normalize_tutorial_tools, normalize_tutorial_type


@pytest.mark.parametrize(
    ("raw", "schema"),
    [
        (" Float ", {"type": "number"}),
        ("double", {"type": "string"}),
        (
            "List[Dict[str, int]]",
            {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "integer"}}},
        ),
        ("Dict[str, Dict[str, int]]", {"type": "object", "additionalProperties": {"type": "string"}}),
        ("list[int]", {"type": "string"}),
        ({"type": "dict"}, {"type": "dict"}),
        ({"items": 1}, {"type": "object"}),
        (["int"], {"type": "array"}),
    ],
)
def test_types(raw, schema):
    assert normalize_tutorial_type(raw) == schema


@pytest.mark.parametrize("raw", [None, "", "nope", "{}", {"name": "f"}, ("a",), 5, '"[]"', "[" * 5000])
def test_a_field_that_is_no_list_gives_no_tools(raw):
    assert normalize_tutorial_tools(raw) == []


def test_a_wrapped_tool_has_no_name():
    assert normalize_tutorial_tools([{"type": "function", "function": {"name": "f"}}])[0]["function"]["name"] is None


def test_the_callers_schema_is_left_alone():
    raw = [{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "x", "enum": []}}}}]
    made = normalize_tutorial_tools(raw)
    made[0]["function"]["parameters"]["properties"]["a"]["enum"].append(1)
    assert raw == [{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "x", "enum": []}}}}]
    assert made[0]["function"]["parameters"]["required"] == []
