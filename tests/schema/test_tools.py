"""Tool definitions: every golden notation, the tutorial's vectors, validity, and that input is left alone."""

import copy
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from fgtools.calls import nests_too_deep
from fgtools.schema import SchemaError, normalize_tools, normalize_type, parse_tools
from fgtools.schema.types import JSON_TYPES
from tests.toys import GOLDEN, load_cases, load_shared

CASES = load_cases(GOLDEN / "tools.jsonl")
READABLE = [case for case in CASES if "functions" in case]
UNREADABLE = [case for case in CASES if "error" in case]


def check_function_schema(tool: dict) -> None:
    """What the chat template and a validator rely on."""
    assert set(tool) == {"type", "function"}
    assert set(tool["function"]) == {"name", "description", "parameters"}
    assert isinstance(tool["function"]["name"], str)
    assert isinstance(tool["function"]["description"], str)
    parameters = tool["function"]["parameters"]
    assert isinstance(parameters["required"], list)
    assert parameters["type"] == "object"
    Draft202012Validator.check_schema(parameters)
    check_schema_part(parameters)


def check_schema_part(schema: dict) -> None:
    assert schema["type"] in JSON_TYPES
    if schema["type"] == "object":
        assert set(schema.get("required", [])) <= set(schema["properties"])
        for part in schema["properties"].values():
            check_schema_part(part)
    if "items" in schema:
        check_schema_part(schema["items"])


@pytest.mark.parametrize("case", READABLE, ids=[case["label"] for case in READABLE])
def test_a_notation_gives_its_functions(case):
    before = copy.deepcopy(case["tools"])
    reading = parse_tools(case["tools"])
    assert [tool["function"] for tool in reading.tools] == case["functions"]
    assert [problem.kind for problem in reading.problems] == case["problems"]
    assert case["tools"] == before


@pytest.mark.parametrize("case", READABLE, ids=[case["label"] for case in READABLE])
def test_normalizing_twice_equals_once(case):
    once = normalize_tools(case["tools"])
    assert normalize_tools(once) == once
    assert normalize_tools(json.dumps(once)) == once
    for tool in once:
        check_function_schema(tool)


@pytest.mark.parametrize("case", UNREADABLE, ids=[case["label"] for case in UNREADABLE])
def test_a_field_that_cannot_be_read_is_an_error(case):
    with pytest.raises(SchemaError, match=case["error"]):
        normalize_tools(case["tools"])


def test_a_tuple_is_a_list():
    tool = {"name": "f", "parameters": {"a": {"type": "int"}}}
    assert normalize_tools((tool,)) == normalize_tools([tool])


def test_every_reader_of_one_text_gets_objects_of_its_own():
    text = '[{"name": "f", "parameters": {"a": {"type": "int"}}}]'
    normalize_tools(text)[0]["function"]["parameters"]["properties"].clear()
    assert normalize_tools(text)[0]["function"]["parameters"]["properties"] == {"a": {"type": "integer"}}


def test_defaults_are_copied():
    default = [1]
    tools = normalize_tools([{"name": "f", "parameters": {"a": {"type": "list", "default": default}}}])
    tools[0]["function"]["parameters"]["properties"]["a"]["default"].append(2)
    assert default == [1]


def test_an_endless_reference_shows_its_first_level():
    node = {"type": "object", "properties": {"value": {"type": "int"}, "next": {"$ref": "#/$defs/Node"}}}
    parameters = {"type": "object", "properties": {"head": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}}
    head = normalize_tools([{"name": "f", "parameters": parameters}])[0]["function"]["parameters"]["properties"]["head"]
    assert head["properties"] == {"value": {"type": "integer"}, "next": {"type": "object", "properties": {}}}


def test_references_that_multiply_without_end_are_refused():
    names = [f"L{level}" for level in range(12)]
    definitions: dict = {names[-1]: {"type": "string"}}
    for upper, lower in pairwise(names):
        definitions[upper] = {"type": "object", "properties": {str(i): {"$ref": f"#/$defs/{lower}"} for i in range(10)}}
    parameters = {"type": "object", "properties": {"a": {"$ref": "#/$defs/L0"}}, "$defs": definitions}
    with pytest.raises(SchemaError, match="more than 20000 parts"):
        parse_tools([{"name": "f", "parameters": parameters}])


def test_an_unknown_recipe_is_an_error():
    with pytest.raises(ValueError, match="native"):
        normalize_tools([], "hermes")
    with pytest.raises(ValueError, match="native"):
        normalize_type("int", "hermes")


@pytest.mark.parametrize("name", ["types", "tools"])
def test_the_tutorial_recipe_equals_the_tutorial(name):
    for case in load_shared(f"vectors/tutorial_{name}.jsonl"):
        raw = case["type"] if name == "types" else case["tools"]
        before = copy.deepcopy(raw)
        made = normalize_type(raw, "tutorial") if name == "types" else normalize_tools(raw, "tutorial")
        assert made == case["schema" if name == "types" else "schemas"]
        assert raw == before


def test_real_tools_become_valid_schemas_and_twice_is_once():
    for row in load_shared("data/dev.jsonl")[::40]:
        tools = normalize_tools(row["tools"])
        assert len(tools) == len(json.loads(row["tools"]))
        assert normalize_tools(tools) == tools
        for tool in tools:
            check_function_schema(tool)


WORDS = st.sampled_from(
    [
        "name",
        "function",
        "type",
        "parameters",
        "properties",
        "required",
        "items",
        "enum",
        "default",
        "description",
        "optional",
        "anyOf",
        "$ref",
        "additionalProperties",
        "object",
        "string",
        "dict",
        "int",
        "List[int]",
        "array",
        "#/$defs/a",
        "$defs",
        "nullable",
        "a",
        "b",
        "api_call",
        "tools",
        "choices",
        "allOf",
        "const",
        "pattern",
        *("oneOf", "then", "not", "#", "$id", "definitions", "examples", "example", "unit", "inputSchema", "json"),
        *("required_parameters", "optional_parameters", "toolSpec", "result", "null", "prefixItems"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers(-3, 10**30) | st.floats() | WORDS | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=25
)


def snapshot(value: object) -> str:
    return repr(value)  # NaN differs from itself


@given(st.lists(VALUES, max_size=3) | VALUES)
def test_any_value_is_read_or_refused_and_left_alone(raw):
    before = snapshot(raw)
    try:
        tools = normalize_tools(raw)
    except SchemaError as error:
        assert "tools" in str(error)
    else:
        for tool in tools:
            check_function_schema(tool)
        assert normalize_tools(tools) == tools
    assert snapshot(raw) == before


@given(VALUES)
def test_any_parameters_are_read(parameters):
    before = snapshot(parameters)
    tools = normalize_tools([{"name": "f", "parameters": parameters}])
    check_function_schema(tools[0])
    assert normalize_tools(tools) == tools
    assert snapshot(parameters) == before


@given(VALUES)
def test_any_type_gives_a_valid_schema(raw):
    schema = normalize_type(raw)
    Draft202012Validator.check_schema(schema)
    check_schema_part(schema)
    assert normalize_type(schema) == schema


@pytest.mark.parametrize("levels", [40, 50, 70])
def test_tools_nest_no_deeper_than_a_rows_file_may(levels):
    spec: dict = {"type": "string"}
    for _ in range(levels):
        spec = {"type": "object", "properties": {"a": spec}}
    if levels == 40:
        assert not nests_too_deep(parse_tools([{"name": "f", "parameters": spec}]).tools)
    else:
        with pytest.raises(SchemaError, match="nest deeper than"):
            parse_tools([{"name": "f", "parameters": spec}])


def test_what_was_changed_in_a_list_of_texts_is_named():
    parsed = parse_tools([json.dumps({"function": {"name": "f", "parameters": {}}}), "[]", 5])
    assert [(change.tool, change.kind) for change in parsed.changes] == [
        ("f", "text_decoded"),
        ("f", "wrapper_removed"),
    ]
    assert [problem.kind for problem in parsed.problems] == ["not_a_tool"]
