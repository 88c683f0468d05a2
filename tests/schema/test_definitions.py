"""Where definitions have their fields: every notation of the parameters, wrappers, envelopes, limits."""

import functools
import json

import pytest

from fgtools.schema import SchemaError, parse_tools
from tests.clock import measure_time
from tests.toys import GOLDEN, load_cases, load_shared

CASES = load_cases(GOLDEN / "tool_fields.jsonl")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def kinds(raw: object) -> set[str]:
    return {change.kind for change in parse_tools(raw).changes}


@pytest.mark.parametrize("case", CASES, ids=[case["label"] for case in CASES])
def test_no_parameter_is_lost(case):
    parsed = parse_tools(case["tools"])
    parameters = parsed.tools[0]["function"]["parameters"]
    assert [*parameters["properties"]] == case["properties"]
    assert parameters["required"] == case["required"]
    assert parse_tools(list(parsed.tools)).tools == parsed.tools
    if isinstance(case["tools"], (list, dict)):
        assert parse_tools(json.dumps(case["tools"])).tools == parsed.tools


def test_cases_from_public_reports():
    for case in load_shared("cases/tools.jsonl"):
        parsed = parse_tools([case["tool"]])
        properties = parsed.tools[0]["function"]["parameters"]["properties"]
        if "properties" in case["expect"]:
            assert [*properties] == case["expect"]["properties"], case["id"]


def test_the_field_that_held_the_parameters_is_named():
    assert ("parameters_from", "inputSchema") in {
        (change.kind, change.detail) for change in parse_tools([{"name": "f", "inputSchema": SCHEMA}]).changes
    }
    assert "parameters_ignored" in kinds([{"name": "f", "parameters": SCHEMA, "params": {"a": {"type": "int"}}}])
    assert "parameters_ignored" not in kinds([{"name": "f", "parameters": SCHEMA, "input_schema": SCHEMA}])


def test_outputs_and_examples_are_no_parameters():
    raw = {"name": "f", "outputSchema": SCHEMA, "returns": SCHEMA, "response_format": SCHEMA, "metadata": SCHEMA}
    assert parse_tools([raw]).tools[0]["function"]["parameters"]["properties"] == {}


def test_the_definition_that_has_the_parameters_is_taken():
    raw = {"toolSpec": {"name": "inner"}, "name": "outer", "inputSchema": {"json": SCHEMA}}
    function = parse_tools([raw]).tools[0]["function"]
    assert function["name"] == "outer" and [*function["parameters"]["properties"]] == ["city"]


@pytest.mark.parametrize(
    "raw",
    [
        [{"name": "f", "parameters": {"properties": {"a": {"enum": [str(i) for i in range(200_000)]}}}}],
        [{"name": "f", "parameters": {"properties": {"a": {"enum": [*range(6_000)]}}}}],
        [{"name": f"f{i}"} for i in range(300_000)],
        {f"f{i}": {"parameters": SCHEMA} for i in range(300_000)},
        [[{"name": f"f{i}"} for i in range(900)] for _ in range(900)],
        [{"name": "f", "description": "x" * 10_000_000}],
        [{"name": "f", "parameters": {"a": {"type": "str", "description": "x" * 60_000}}}],
        json.dumps([{"name": f"f{i}"} for i in range(300_000)]),
        repr([{"name": f"f{i}", "x": None} for i in range(20_000)]),
        [{"name": "f", "parameters": {"anyOf": [{"properties": {"a": {"const": i}}} for i in range(19_000)]}}],
        [{"name": "f", "parameters": {"a": {"anyOf": [{"const": i} for i in range(19_999)]}}}],
        [{"name": "f", "parameters": functools.reduce(lambda a, _: {"allOf": [a, a]}, range(16), SCHEMA)}],
        "[" * 200_000,
        "f()" + " " * 400_000 + "x",
        "f(" + ")->" * 100_000 + "x(",
    ],
    ids=lambda raw: f"{type(raw).__name__} of {len(raw)}",
)
def test_tools_beyond_a_limit_are_refused_within_a_second(raw):
    with measure_time() as took, pytest.raises(SchemaError, match=r"at most [\d,]+|nest|JSON"):
        parse_tools(raw)
    assert took.seconds < 1
