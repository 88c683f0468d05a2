"""Parameters: which notation a container is in, what is required, and what nesting leaves."""

import pytest

from fgtools.schema import normalize_type
from fgtools.schema.parameters import parse_parameters
from fgtools.schema.specs import is_schema

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def names(parameters: object, beside: object = None) -> tuple[list[str], list[str]]:
    made, _ = parse_parameters(parameters, beside)
    return list(made["properties"]), made["required"]


@pytest.mark.parametrize(
    ("parameters", "properties"),
    [
        ({"type": "object", "properties": {"a": {}}}, ["a"]),
        ({"properties": {"a": {}}, "required": []}, ["a"]),
        ({"type": ["object", "null"], "properties": {"a": {}}}, ["a"]),
        ({"type": "object", "properties": None}, []),
        ({"type": "object", "properties": [{"name": "a"}, "b"]}, ["a", "b"]),
        ({"type": "object", "a": {"type": "int"}, "format": {"type": "str"}, "description": "d"}, ["a", "format"]),
        ({"type": None}, []),
        ({"type": "Foo", "properties": {"a": {}}}, ["a"]),
        ({"a": {"type": "int"}, "description": "about them", "required": ["a"]}, ["a"]),
        ({"type": "str", "properties": "str"}, ["type", "properties"]),
        ({"type": {"type": "str"}, "required": {"type": "bool"}}, ["type", "required"]),
        ({"description": "Optional. String.", "type": "String. Its kind."}, ["description", "type"]),
        ({"properties": {"type": "str", "description": "Which."}}, ["properties"]),
        ({"properties": {"type": "str"}, "a": {"type": "int"}}, ["properties", "a"]),
        ([{"name": "a", "in": "query", "schema": {"type": "integer"}}, {"b": {"type": "int"}}, 5], ["a", "b"]),
        (5, []),
    ],
)
def test_a_container_gives_its_parameters(parameters, properties):
    assert names(parameters)[0] == properties


@pytest.mark.parametrize(
    ("parameters", "beside", "required"),
    [
        ({"type": "object", "properties": {"a": {}, "b": {}}}, None, []),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "required": []}, ["b", "a", "gone"], ["b", "a"]),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]}, ["b"], ["b", "a"]),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "required": None}, None, []),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "required": "a, b"}, None, ["a", "b"]),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "required": {"a": True, "b": False}}, None, ["a"]),
        ({"type": "object", "properties": {"a": {"required": True}, "b": {}}}, None, ["a"]),
        ({"type": "object", "properties": {"a": {"default": 1}}, "required": ["a"]}, None, ["a"]),
        ({"type": "object", "properties": {"a": {"type": "int, optional"}}, "required": ["a"]}, None, []),
        ({"type": "object", "properties": {"a": {"required": "false"}}, "required": ["a"]}, None, []),
        ({"a": {}, "b": {}}, None, ["a", "b"]),
        ({"a": {}, "b": {}}, [], []),
        ({"a": {}, "b": {}, "required": ["b"]}, None, ["b"]),
        ({"a": {"default": None}, "b": {"optional": True}, "c": {"type": "Optional[int]"}}, None, []),
        ({"a": {"description": "Optional. x"}, "b": {"description": "x (optional)"}, "c": {}}, None, ["c"]),
        ({"a": {"description": "An optional extra"}}, None, ["a"]),
        ({"a": {"required": True}, "b": {}}, None, ["a"]),
        ([{"name": "a", "required": True}, {"name": "b"}], None, ["a"]),
        ([{"name": "a"}, "b"], None, ["a", "b"]),
    ],
)
def test_what_is_required(parameters, beside, required):
    assert names(parameters, beside)[1] == required


def test_objects_inside_need_properties_for_the_template():
    made, _ = parse_parameters({"a": {"type": "dict"}, "b": {"type": "list", "items": {"type": "Object"}}})
    assert made["properties"]["a"] == {"type": "object", "properties": {}}
    assert made["properties"]["b"]["items"] == {"type": "object", "properties": {}}


def test_keywords_of_the_whole_are_kept_when_valid():
    parameters = {
        "type": "dict",
        "properties": {},
        "additionalProperties": False,
        "description": "d",
        "minProperties": -1,
    }
    assert parse_parameters(parameters)[0] == {
        "type": "object",
        "description": "d",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("spec", "schema"),
    [
        ({"type": {"type": "int"}}, INTEGER),
        ({"type": "thing", "properties": {"a": {"type": "int"}}}, {"type": "object", "properties": {"a": INTEGER}}),
        ({"oneOf": [{"type": "int"}, {"type": "float"}]}, {"type": "number"}),
        ({"anyOf": [{"enum": ["a"]}, {"enum": ["b"]}]}, {"type": "string", "enum": ["a", "b"]}),
        ({"const": 5}, {"type": "integer", "const": 5}),
        (
            {"type": "object", "additionalProperties": "int"},
            {"type": "object", "properties": {}, "additionalProperties": INTEGER},
        ),
        ({"type": "array", "items": {}}, {"type": "array"}),
        ({"type": "str", "default": float("nan"), "enum": [b"x"]}, STRING),
        ({"type": "str", "enum": []}, STRING),
        ({"type": "int", "enum": ("1", 2)}, {"type": "integer", "enum": ["1", 2]}),
        ({"type": "str", "description": ["a", "b"]}, {"type": "string", "description": "a\nb"}),
        ({"$ref": "#/$defs/Gone", "description": "d"}, {"type": "string", "description": "d"}),
    ],
)
def test_a_specification_gives_its_schema(spec, schema):
    assert normalize_type(spec) == schema
    assert normalize_type(schema) == schema


def test_too_many_parts_are_refused():
    with pytest.raises(ValueError, match="more than 20000 parts"):
        parse_parameters({"type": "object", "properties": {str(number): {} for number in range(20_001)}})


@pytest.mark.parametrize(
    ("raw", "schema"),
    [
        ({"properties": {"type": "string"}}, False),  # one parameter of that name, with its type
        ({"properties": {"description": "what to set"}}, False),
        ({"properties": {"description": {"type": "string"}}}, True),  # a parameter named description
        ({"properties": {"type": {"type": "string"}}}, True),
    ],
)
def test_an_entry_named_properties_is_told_from_the_keyword(raw, schema):
    assert is_schema(raw) is schema
