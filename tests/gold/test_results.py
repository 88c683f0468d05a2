"""Results: whose they are, and what they are; nothing of them is lost, whatever they look like."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.gold.results import Result, parse_results
from tests.clock import measure_time


def hermes(*bodies: str) -> str:
    return "\n".join(f"<tool_response>\n{body}\n</tool_response>" for body in bodies)


@pytest.mark.parametrize(
    ("texts", "called", "expected"),
    [
        (["sunny"], ["f"], [Result("f", "sunny")]),
        (['{"t": 15}'], ["f"], [Result("f", {"t": 15})]),
        (['"sunny"'], ["f"], [Result("f", "sunny")]),
        (["[1, 2]"], ["f"], [Result("f", "[1, 2]")]),
        (["null"], ["f"], [Result("f", "null")]),
        (["NaN"], ["f"], [Result("f", "NaN")]),
        ([""], ["f"], [Result("f", "")]),
        (['{"t": NaN}'], ["f"], [Result("f", '{"t": NaN}')]),
        (["{'t': 15}"], ["f"], [Result("f", "{'t': 15}")]),
        (["one", "two"], ["f", "g"], [Result("f", "one"), Result("g", "two")]),
        (["one", "two", "three"], ["f", "g"], [Result("f", "one"), Result("g", "two"), Result("g", "three")]),
        ([hermes('{"name": "f", "content": {"t": 1}}')], ["f"], [Result("f", {"t": 1})]),
        ([hermes('{"name": "f", "content": "{\\"t\\": 1}"}')], ["f"], [Result("f", {"t": 1})]),
        (
            [hermes('{"tool_call_id": "1", "name": "g", "content": 5}', '{"name": "f", "content": null}')],
            ["f", "g"],
            [Result("g", "5"), Result("f", "null")],
        ),
        ([hermes("one", "two")], ["f", "g"], [Result("f", "one"), Result("g", "two")]),
        ([hermes('{"name": "g", "content": "x"}', "one")], ["g", "f"], [Result("g", "x"), Result("f", "one")]),
        (['[{"name": "g", "results": {"a": 1}}]'], ["g"], [Result("g", {"a": 1})]),
        (['[{"a": 1}, {"a": 2}]'], ["f", "g"], [Result("f", {"a": 1}), Result("g", {"a": 2})]),
        (['[{"a": 1}, {"a": 2}]'], ["f"], [Result("f", '[{"a": 1}, {"a": 2}]')]),
        (['{"name": "Anna", "result": "passed"}'], ["f"], [Result("f", {"name": "Anna", "result": "passed"})]),
        (['{"name": "f", "content": 1, "more": 2}'], ["f"], [Result("f", {"name": "f", "content": 1, "more": 2})]),
        (["see <tool_response>x</tool_response>"], ["f"], [Result("f", "see <tool_response>x</tool_response>")]),
        (["<tool_response>x"], ["f"], [Result("f", "x")]),
    ],
)
def test_results_belong_to_their_calls(texts, called, expected):
    assert parse_results([("", text) for text in texts], called) == expected


def test_a_turn_may_name_the_tool():
    turns = [("g", "1"), ("f", '{"name": "f", "content": "x"}'), ("", "2"), ("zzz", "3")]
    expected = [Result("g", "1"), Result("f", "x"), Result("f", "2"), Result("h", "3")]
    assert parse_results(turns, ["f", "f", "g", "h"]) == expected
    assert parse_results([("f", '[{"a": 1}, {"a": 2}]')], ["f", "g"]) == [Result("f", '[{"a": 1}, {"a": 2}]')]


TEXTS = st.text(max_size=30) | st.sampled_from(["<tool_response>", "</tool_response>", "[" * 3000, '{"a":' * 3000])
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda one: st.lists(one, max_size=3), max_leaves=5
)


@given(st.lists(TEXTS | JSON.map(json.dumps), max_size=4), st.lists(st.sampled_from("fgh"), min_size=1, max_size=4))
def test_every_text_is_some_calls_result(texts, called):
    results = parse_results([("", text) for text in texts], called)
    assert len(results) >= len(texts)
    assert {result.name for result in results} <= set(called)
    json.dumps([result.content for result in results], allow_nan=False)


@pytest.mark.parametrize(
    "text", ["<tool_response>", "[{", '{"name":"f","content":1}', "<tool_response>{}</tool_response>"]
)
def test_hostile_repetition_takes_linear_time(text):
    with measure_time() as took:
        parse_results([("", text * (400_000 // len(text)))], ["f", "g"] * 10_000)
    assert took.seconds < 2
