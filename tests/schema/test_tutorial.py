"""The tutorial's reading, weaknesses included: what the vectors say, in cases of our own."""

import pytest

from fgtools.schema.tutorial import TutorialError, tutorial_gold, tutorial_row, tutorial_tools, tutorial_type


def turns(*values: str) -> list[dict]:
    return [{"from": "human" if index % 2 == 0 else "gpt", "value": value} for index, value in enumerate(values)]


def call(name: str, arguments: str = "{}") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


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
    assert tutorial_type(raw) == schema


@pytest.mark.parametrize("raw", [None, "", "nope", "{}", {"name": "f"}, ("a",), 5, '"[]"', "[" * 5000])
def test_a_field_that_is_no_list_gives_no_tools(raw):
    assert tutorial_tools(raw) == []


def test_a_wrapped_tool_has_no_name():
    assert tutorial_tools([{"type": "function", "function": {"name": "f"}}])[0]["function"]["name"] is None


def test_the_callers_schema_is_left_alone():
    raw = [{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "x", "enum": []}}}}]
    made = tutorial_tools(raw)
    made[0]["function"]["parameters"]["properties"]["a"]["enum"].append(1)
    assert raw == [{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "x", "enum": []}}}}]
    assert made[0]["function"]["parameters"]["required"] == []


def test_an_empty_user_turn_matches_any_task():
    assert tutorial_gold({"task": "q", "conversations": turns("", "hi", "q", call("f"))}) is None


def test_without_a_match_the_last_user_turn_is_taken():
    gold = tutorial_gold({"task": "z", "conversations": turns("a", call("f"), "b", call("g"))})
    assert (gold.name, gold.turn) == ("g", 2)


def test_an_unreadable_turn_is_passed_over_until_the_next_user_turn():
    later = [{"from": "gpt", "value": call("g")}]
    assert tutorial_gold({"task": "", "conversations": turns("q", "<tool_call>{'a'}</tool_call>") + later}).name == "g"
    assert tutorial_gold({"task": "q", "conversations": turns("q", "?", "r", call("g"))}) is None


def test_only_the_first_block_of_a_turn_is_looked_at():
    assert tutorial_gold({"conversations": turns("q", '<tool_call>{"x": 1}</tool_call>' + call("g"))}) is None


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
    row = {"task": "q", "conversations": turns("q", call("f", arguments)), "tools": tools}
    assert tutorial_row(row, tutorial_gold(row))["tool_arguments"] == kept


def test_rows_are_left_out_by_reason():
    row = {"task": "q", "conversations": turns("q", call("f"))}
    gold = tutorial_gold(row)
    assert tutorial_row({**row, "tools": []}, gold) == "no_tools"
    assert tutorial_row({**row, "tools": [{"name": "g"}]}, gold) == "unknown_tool"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "conversations must be a list"),
        ({"conversations": ["q"]}, "conversations must be a list of mappings"),
        ({"conversations": turns("q"), "task": ["q"]}, "task must be text, got list"),
        ({"conversations": [{"from": "human", "value": 5}], "task": "q"}, "value must be text, got int"),
    ],
)
def test_where_the_tutorial_raises_an_error_says_why(row, message):
    with pytest.raises(TutorialError, match=message):
        tutorial_gold(row)
