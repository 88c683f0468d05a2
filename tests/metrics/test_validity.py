"""Arguments against schemas of any kind: what is valid, what is said of the rest, and that no check takes long."""

import socket

import pytest
from jsonschema import Draft202012Validator

from fgtools.calls import ToolCall
from fgtools.metrics import find_undeclared, find_violations, has_valid_arguments
from tests.clock import measure_time


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def valid(spec, value):
    return has_valid_arguments([ToolCall("f", {"a": value})], {"f": {"type": "object", "properties": {"a": spec}}})


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"type": "number", "multipleOf": 0.01}, int("9" * 400)),
        ({"type": "number", "multipleOf": 0.01}, float("nan")),
        ({"type": "number", "multipleOf": 0.01}, float("inf")),
        ({"uniqueItems": True}, [nested(5000), nested(5000)]),
        ({"$ref": "#/properties/a"}, 1),
        ({"pattern": "^(a|aa)+$"}, "a" * 60 + "!"),
    ],
)
def test_arguments_that_cannot_be_checked_are_not_valid_and_one_sentence_says_so(spec, value):
    parameters = {"type": "object", "properties": {"a": spec}}
    with measure_time() as took:
        assert not valid(spec, value)
        (sentence,) = find_violations([ToolCall("f", {"a": value})], {"f": parameters})
        assert sentence.startswith("f: the arguments cannot be held against the schema")
    assert took.seconds < 2


def test_a_slow_pattern_is_slow_once():
    parameters = {"properties": {"a": {"type": "array", "items": {"pattern": "^(a|aa)+$"}}}}
    with measure_time() as took:
        assert len(find_violations([ToolCall("f", {"a": ["a" * 60 + "!"] * 1000})], {"f": parameters})) == 1
    assert took.seconds < 2


@pytest.mark.parametrize("beside", [{}, {"additionalProperties": False}])
def test_a_slow_pattern_of_names_is_given_up(beside):
    parameters = {"patternProperties": {"^(a|aa)+$": {"type": "integer"}}, **beside}
    with measure_time() as took:
        (sentence,) = find_violations([ToolCall("f", {"a" * 40 + "!": 1})], {"f": parameters})
    assert "TimeoutError" in sentence and took.seconds < 2


def test_names_left_over_by_patterns_take_no_time():
    names = {"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False}  # slow in re, quick in regex
    with measure_time() as took:
        assert has_valid_arguments([ToolCall("f", {"a" * 40 + "!": 1})], {"f": names})
    assert took.seconds < 2
    assert not has_valid_arguments([ToolCall("f", {"b": 1})], {"f": {"unevaluatedProperties": False}})


def test_no_reference_is_looked_up_outside_of_the_schema(monkeypatch):
    tried = []

    def refuse(*address, **_):
        tried.append(address)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for reference in ("http://localhost:1/x", "#/nowhere", "#/$defs/x", "other.json"):
        assert valid({"$ref": reference}, 1) and valid({"$dynamicRef": reference}, 1)
        assert valid({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": reference}, 1)
    assert tried == []


def test_a_reference_within_the_schema_is_followed():
    parameters = {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "string"}}}
    assert has_valid_arguments([ToolCall("f", {"a": "x"})], {"f": parameters})
    assert not has_valid_arguments([ToolCall("f", {"a": 1})], {"f": parameters})


@pytest.mark.parametrize(
    "items", [[1, 1.0], [True, 1], [{"a": 1}, {"a": 1.0}], [[1], [1]], ["1", 1], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]]
)
def test_unique_items_are_those_of_json_schema(items):
    assert valid({"uniqueItems": True}, items) == Draft202012Validator({"uniqueItems": True}).is_valid(items)
    assert valid({"uniqueItems": False}, items)


def test_unique_items_take_time_in_proportion():
    with measure_time() as took:
        assert valid({"uniqueItems": True}, [{"x": number} for number in range(20_000)])
    assert took.seconds < 2


@pytest.mark.parametrize(
    ("parameters", "arguments", "expected"),
    [
        ({"properties": {"a": {"pattern": "^x"}}}, {"a": "xy"}, True),
        ({"properties": {"a": {"pattern": "^x"}}}, {"a": "yx"}, False),
        ({"properties": {"a": {"pattern": "("}}}, {"a": "yx"}, True),
        ({"properties": {"a": {"pattern": "{e}"}}}, {"a": "yx"}, True),
        ({"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False}, {"xa": 1}, True),
        ({"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False}, {"xa": "1"}, False),
        ({"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False}, {"ya": 1}, False),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "string"}}, {"a": 1, "b": 1}, False),
        ({"properties": {"a": {"type": "string", "anyOf": [{"type": "string"}, {"type": "integer"}]}}}, {"a": 3}, True),
        ({"properties": {"a": {"type": "string", "anyOf": [{"type": "string"}, {"type": "null"}]}}}, {"a": 3}, False),
        ({"properties": {"a": {"type": "string", "nullable": True}}}, {"a": None}, True),
        ({"properties": {"a": {"type": "string"}}}, {"a": None}, False),
        ({"properties": {"a": {"type": "float"}}}, {"a": "x"}, False),
        ({"properties": {"a": {}}}, {"a": 1, "b": 1}, False),
        ({"properties": {}}, {"b": 1}, False),
        ({"type": "object"}, {"b": 1}, True),
        ({"properties": {"a": {}}, "additionalProperties": True}, {"b": 1}, True),
        ({"properties": {"a": {}}, "patternProperties": {"^b": {}}}, {"b": 1}, True),
        ({"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}]}, {"b": 1}, True),
        ({"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, {"b": 1}, True),
        ({"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, {"c": 1}, False),
        ({"properties": {"a": {"properties": {"b": {}}}}}, {"a": {"c": 1}}, False),
        ({"properties": {"a": {"type": "object"}}}, {"a": {"c": 1}}, True),
        ({"properties": {"a": {"type": "object", "properties": {}}}}, {"a": {"c": 1}}, True),
        ({"properties": {"a": {"items": {"properties": {"b": {}}}}}}, {"a": [{"b": 1}, {"c": 1}]}, False),
        (
            {"properties": {"a": {"$ref": "#/$defs/o"}}, "$defs": {"o": {"properties": {"b": {}}}}},
            {"a": {"c": 1}},
            False,
        ),
        ({"properties": {"properties": {"type": "object"}}}, {"properties": {"c": 1}}, True),
    ],
)
def test_arguments_are_held_against_the_schema(parameters, arguments, expected):
    call = ToolCall("f", arguments)
    assert has_valid_arguments([call], {"f": parameters}) == expected
    assert (find_violations([call], {"f": parameters}) == []) == expected


def test_every_violation_is_one_short_sentence_that_names_its_place():
    inner = {"type": "object", "properties": {"b": {"type": "string"}}}
    parameters = {"properties": {"a": {"type": "integer"}, "o": inner}, "required": ["c"]}
    calls = [ToolCall("f", {"a": "x" * 500, "o": {"b": 1}}), ToolCall("g", {})]
    found = dict(sentence.split(": ", 1) for sentence in find_violations(calls, {"f": parameters}))
    assert len(found.pop("f.a")) == 200 - len("f.a: ")
    assert found == {
        "f": "'c' is a required property",
        "f.o.b": "1 is not of type 'string'",
        "g": "no such tool is declared",
    }


def test_undeclared_arguments_are_named_at_every_level():
    trip = {"properties": {"city": {}, "stops": {"items": {"properties": {"day": {}}}}}}
    parameters = {"properties": {"trip": trip, "note": {"type": "object"}}}
    arguments = {"trip": {"town": 1, "stops": [{"day": 1, "hour": 2}]}, "note": {"x": 1}, "price": 5}
    assert find_undeclared(ToolCall("f", arguments), parameters) == ["trip.town", "trip.stops.hour", "price"]
    assert find_undeclared(ToolCall("f", arguments), {**parameters, "additionalProperties": True}) == [
        "trip.town",
        "trip.stops.hour",
    ]
    assert find_undeclared(ToolCall("f", arguments), None) == []
