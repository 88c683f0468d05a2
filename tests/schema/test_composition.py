"""Composed schemas, references, filled-in nulls and facts beside a parameter: merged, resolved and counted."""

import pytest

from fgtools.schema import normalize_type, parse_tools
from fgtools.schema.parameters import parse_parameters

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def parse(parameters: object, **beside: object) -> tuple[dict, set[tuple[str, str]]]:
    """Return a tool's parameters and its changes as (kind, detail)."""
    parsed = parse_tools([{"name": "f", "parameters": parameters, **beside}])
    assert parse_tools(list(parsed.tools)).tools == parsed.tools
    return parsed.tools[0]["function"]["parameters"], {(change.kind, change.detail) for change in parsed.changes}


@pytest.mark.parametrize(
    ("parameters", "properties", "required"),
    [
        ({"anyOf": [{"properties": {"a": STRING}, "required": ["a"]}, {"properties": {"b": STRING}}]}, ["a", "b"], []),
        ({"oneOf": [{"properties": {"a": {}}, "required": ["a"]}] * 2}, ["a"], ["a"]),
        ({"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}}]}, ["a", "b"], ["a"]),
        (
            {"properties": {"a": {}}, "required": ["a"], "anyOf": [{"required": ["b"], "properties": {"b": {}}}]},
            ["a", "b"],
            ["a", "b"],
        ),
        (
            {"properties": {"a": {}}, "if": {"required": ["a"]}, "then": {"properties": {"b": {}}, "required": ["b"]}},
            ["a", "b"],
            [],
        ),
        ({"oneOf": [{"properties": {"a": {}}}, {"type": "null"}]}, ["a"], []),
        ({"oneOf": [{"anyOf": [{"properties": {"a": {}}}]}, {"allOf": [{"properties": {"b": {}}}]}]}, ["a", "b"], []),
    ],
)
def test_objects_that_are_composed_become_one(parameters, properties, required):
    made, changes = parse(parameters)
    assert ([*made["properties"]], made["required"]) == (properties, required)
    assert any(kind == "composition_merged" for kind, _ in changes)


def test_what_cannot_be_merged_is_counted():
    assert any(kind == "branch_dropped" for kind, _ in parse({"anyOf": [{"properties": {"a": {}}}, STRING]})[1])
    assert any(kind == "branch_dropped" for kind, _ in parse({"oneOf": [STRING, INTEGER]})[1])
    assert ("keyword_dropped", "not") in parse({"type": "object", "properties": {"a": {"not": {"const": 1}}}})[1]


def test_a_property_of_several_branches_allows_what_each_allows():
    branches = [{"properties": {"kind": {"const": kind}, kind: STRING}, "required": ["kind"]} for kind in ("a", "b")]
    made, _ = parse({"properties": {"kind": {"type": "string", "description": "Which."}}, "oneOf": branches})
    assert made["properties"]["kind"] == {"type": "string", "description": "Which.", "enum": ["a", "b"]}
    assert [*made["properties"]] == ["kind", "a", "b"] and made["required"] == ["kind"]


@pytest.mark.parametrize(
    ("union", "schema"),
    [
        ([{"const": "fast"}, {"const": "slow"}], {"type": "string", "enum": ["fast", "slow"]}),
        ([{"const": 1}, {"const": 2}, {"type": "null"}], {"type": "integer", "enum": [1, 2], "nullable": True}),
        ([{"const": 1}, {"const": None}], {"type": "integer", "const": 1, "nullable": True}),
        ([{"enum": ["a"]}, {"const": "b"}], {"type": "string", "enum": ["a", "b"]}),
        ([{"enum": ["a"]}, {"type": "string"}], {"type": "string"}),
        (
            [{"const": 1}, {"const": True}],
            {
                "type": "integer",
                "anyOf": [{"type": "integer", "const": 1}, {"type": "boolean", "const": True}],
                "const": 1,
            },
        ),
        (
            [{"const": "a", "description": "First."}, {"const": "b"}],
            {"type": "string", "description": "a: First.", "enum": ["a", "b"]},
        ),
        ([{"type": "string", "format": "date"}, {"type": "string", "format": "time"}], {"type": "string"}),
        (
            [{"type": "array", "items": INTEGER}, {"type": "array", "items": {"type": "number"}}],
            {"type": "array", "items": {"type": "number"}},
        ),
        (
            [
                {"type": "object", "properties": {"id": STRING}, "required": ["id"]},
                {"type": "object", "properties": {"slug": STRING}, "required": ["slug"]},
            ],
            {"type": "object", "properties": {"id": STRING, "slug": STRING}},
        ),
        (
            [{"type": "object", "properties": {"id": STRING}}, {"type": "object", "properties": {"id": INTEGER}}],
            {"type": "object", "properties": {"id": {"type": "string", "anyOf": [STRING, INTEGER]}}},
        ),
    ],
)
def test_a_union_of_one_type_becomes_one_schema(union, schema):
    for word in ("anyOf", "oneOf"):
        assert normalize_type({word: union}) == schema
    assert normalize_type(schema) == schema


@pytest.mark.parametrize(
    ("reference", "outside"),
    [
        ("#/$defs/Pet", {"$defs": {"Pet": {"type": "integer"}}}),
        ("#/definitions/Pet", {"definitions": {"Pet": {"type": "integer"}}}),
        ("#/components/schemas/Pet", {"components": {"schemas": {"Pet": {"type": "integer"}}}}),
        ("#/$defs/a~1b~0%20c", {"$defs": {"a/b~ c": {"type": "integer"}}}),
        ("#/$defs/list/0", {"$defs": {"list": {"0": {"type": "integer"}}}}),
        ("#Pet", {"$defs": {"x": {"$anchor": "Pet", "type": "integer"}}}),
        ("Pet", {"$defs": {"Pet": {"type": "integer"}}}),
    ],
)
def test_a_reference_is_found_in_the_parameters_and_in_the_tool(reference, outside):
    inside, changes = parse({"type": "object", "properties": {"a": {"$ref": reference}}, **outside})
    beside, _ = parse({"type": "object", "properties": {"a": {"$ref": reference}}}, **outside)
    assert inside["properties"]["a"] == beside["properties"]["a"] == INTEGER
    assert ("reference_inlined", reference) in changes


def test_a_definition_deeper_inside_is_found():
    inner = {"type": "object", "$defs": {"Pet": {"type": "integer"}}, "properties": {"p": {"$ref": "#/$defs/Pet"}}}
    assert parse({"type": "object", "properties": {"a": inner}})[0]["properties"]["a"]["properties"] == {"p": INTEGER}


@pytest.mark.parametrize(
    "reference", ["#/$defs/Gone", "https://x.org/y.json#/$defs/Pet", "other.json", "#/properties/9"]
)
def test_a_reference_to_nothing_is_counted_with_its_text(reference):
    made, changes = parse({"type": "object", "properties": {"a": {"$ref": reference, "description": "d"}}, "$defs": {}})
    assert made["properties"]["a"] == {"type": "string", "description": "d"}
    assert ("reference_unresolved", reference) in changes


def test_recursion_ends_after_one_level_and_is_counted():
    made, changes = parse({"type": "object", "properties": {"v": STRING, "next": {"$ref": "#"}}})
    inner = {"type": "object", "properties": {"v": STRING, "next": {"type": "object", "properties": {}}}}
    assert made["properties"]["next"] == inner and ("recursion_cut", "#") in changes
    pair = {"A": {"properties": {"b": {"$ref": "#/$defs/B"}}}, "B": {"properties": {"a": {"$ref": "#/$defs/A"}}}}
    made, changes = parse({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": pair})
    assert made["properties"]["a"]["properties"]["b"]["properties"]["a"] == {"type": "object", "properties": {}}
    assert ("recursion_cut", "#/$defs/A") in changes


@pytest.mark.parametrize("word", ["$dynamicRef", "$recursiveRef"])
def test_other_words_for_a_reference(word):
    made, changes = parse({"type": "object", "properties": {"v": STRING, "next": {word: "#"}}})
    assert made["properties"]["next"]["properties"]["v"] == STRING and ("recursion_cut", "#") in changes


def test_one_definition_in_two_branches_is_no_recursion():
    branches = [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}]
    made, changes = parse({"anyOf": branches, "$defs": {"A": {"type": "object", "properties": {"a": STRING}}}})
    assert made["properties"] == {"a": STRING} and not any(kind == "recursion_cut" for kind, _ in changes)


def test_keys_that_a_table_filled_in_are_no_parameters():
    properties = {"city": STRING, "zone": None, "to": {"type": None, "description": None}, "own": None}
    made, changes = parse({"type": "object", "properties": properties, "required": ["city", "own"]})
    assert [*made["properties"]] == ["city", "own"]
    assert {detail for kind, detail in changes if kind == "null_parameter"} == {"zone", "to"}
    made, changes = parse({"a": {"type": "string", "enum": None, "default": None, "const": None}})
    assert made["properties"]["a"] == STRING and ("null_keyword", "default") in changes
    assert normalize_type({"type": "string", "default": None})["default"] is None  # its author may have written this
    assert [*parse_parameters({"a": None, "b": None})[0]["properties"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("spec", "description"),
    [
        ({"description": "Speed.", "unit": "m/s", "example": 5}, "Speed. (unit: m/s; example: 5)"),
        ({"description": "Speed in m/s, such as 5.", "unit": "m/s", "example": 5}, "Speed in m/s, such as 5."),
        ({"examples": ["a", "b", None, ""]}, "(examples: a, b)"),
        ({"description": "A box.", "example": "x"}, "A box. (example: x)"),
        ({"examples": {"one": {"value": [1, 2]}}}, "(example: [1, 2])"),
        ({"examples": "a or b"}, "(example: a or b)"),
    ],
)
def test_units_and_examples_go_into_the_description(spec, description):
    once = normalize_type({"type": "string", **spec})
    assert once["description"] == description
    assert normalize_type({**spec, **once}) == once


def test_an_example_stays_among_the_examples_where_the_template_does_not_print_them():
    made, _ = parse({"a": {"type": "string", "example": "x"}, "b": {"type": "array", "items": {"example": "x"}}})
    assert made["properties"]["a"] == {"type": "string", "description": "(example: x)", "examples": ["x"]}
    assert made["properties"]["b"]["items"] == {"type": "string", "description": "(example: x)"}


def test_a_union_of_objects_in_a_list_keeps_every_property_and_what_is_closed_stays_closed():
    value = {"oneOf": [STRING, {"type": "array", "items": STRING}, {"type": "null"}]}
    first = {"properties": {"name": STRING, "value": value}, "required": ["name", "value"]}
    named = {"name": STRING, "required": {"type": "boolean"}, "description": STRING}
    second = {"properties": named, "required": ["name"]}
    closed = [{"type": "object", "additionalProperties": False, **one} for one in (first, second)]
    listed = {"type": "array", "items": {"oneOf": closed}}
    made, changes = parse({"type": "object", "properties": {"properties": listed}})
    items = made["properties"]["properties"]["items"]
    assert [*items["properties"]] == ["name", "value", "required", "description"]
    assert items["required"] == ["name"] and items["additionalProperties"] is False
    assert items["properties"]["value"]["nullable"] and len(items["properties"]["value"]["anyOf"]) == 2
    assert ("composition_merged", "oneOf") in changes


def test_a_long_example_is_left_out_and_counted():
    made, changes = parse({"a": {"type": "string", "example": "x" * 500}})
    assert "description" not in made["properties"]["a"] and ("example_dropped", "") in changes


def test_parameters_with_the_names_of_keywords_stay():
    names = ["type", "properties", "required", "items", "default", "anyOf", "$ref", "$defs", "unit", "example", "not"]
    made, changes = parse({"type": "object", "properties": {name: {"type": "string"} for name in names}})
    assert [*made["properties"]] == names and changes == set()
