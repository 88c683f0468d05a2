"""Which engine reads which calls: held against what the engines' own parsers returned."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.calls import ToolCall, parse_reply, render_calls
from fgtools.calls.engines import ENGINES, KINDS, NO_PARSER, count_unread, find_unread
from tests.clock import measure_time
from tests.toys import GOLDEN, load_cases

CASES = load_cases(GOLDEN / "engines.jsonl")
BY_NAME = {engine.name: engine for engine in ENGINES}


def same(got, wanted):
    """Compare values as an application would see them: 5.0 is 5, true is not 1."""
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(got, (int, float)) and isinstance(wanted, (int, float)):
        return got == wanted
    if type(got) is not type(wanted):
        return False
    if isinstance(got, dict):
        return got.keys() == wanted.keys() and all(same(got[key], wanted[key]) for key in got)
    if isinstance(got, list):
        return len(got) == len(wanted) and all(map(same, got, wanted))
    return got == wanted


@pytest.mark.parametrize("case", CASES, ids=[f"{place}-{case['engine']}" for place, case in enumerate(CASES)])
def test_a_rule_says_what_the_parser_does(case):
    call = ToolCall(**case["call"])
    assert case["source"]
    assert list(find_unread([call], BY_NAME[case["engine"]])) == case["unread"]
    assert same(case["got"], [[call.name, call.arguments]]) == (not case["unread"])


def test_every_rule_has_a_vector_words_and_a_remedy():
    for engine in ENGINES:
        seen = {kind for case in CASES if case["engine"] == engine.name for kind in case["unread"]}
        assert seen == set(engine.rules), engine.name
        assert set(engine.rules) <= set(KINDS)
    ruled = {kind for engine in ENGINES for kind in engine.rules}
    assert set(KINDS) == {*ruled, "tutorial_notation"}
    assert all(what and remedy for what, remedy in KINDS.values())
    assert [engine.name for engine in ENGINES if engine.checked == NO_PARSER] == ["llama.cpp, SGLang"]


def test_what_engines_read_is_counted_over_replies_with_a_call():
    golds = [[ToolCall("f", {"a": 1, "b": None})], [], [ToolCall("f", {"a": "x"}), ToolCall("a.b", {})]]
    counts = {one["engine"]: one for one in count_unread(golds)}
    assert all(one["n"] == 2 for one in counts.values())
    assert counts["vLLM"]["read"] == 0
    assert counts["vLLM"]["unread"] == {"null": 1, "number": 1, "tool_not_word": 1}
    assert (counts["BFCL"]["read"], counts["BFCL"]["unread"]) == (1, {"null": 1})
    assert counts["llama.cpp, SGLang"]["read"] == 2
    json.dumps(count_unread(golds))


def test_no_engine_reads_the_arguments_of_the_tutorials_notation():
    for one in count_unread([[ToolCall("f", {"a": "x"})]], "tutorial"):
        assert (one["read"], one["n"], one["unread"]) == (0, 1, {"tutorial_notation": 1})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=5), st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_any_call_has_its_kinds_and_our_own_parser_reads_what_can_be_written(name, arguments):
    call = ToolCall(name, arguments)
    for engine in ENGINES:
        assert set(find_unread([call], engine)) <= set(engine.rules)
    try:
        text = render_calls([call])
    except ValueError:
        return
    assert parse_reply(text).calls == (call,)


@pytest.mark.parametrize("text", [", a" * 100_000, "," * 300_000, " " * 300_000, "[" * 300_000, "9" * 300_000])
def test_hostile_text_takes_linear_time(text):
    with measure_time() as took:
        for engine in ENGINES:
            find_unread([ToolCall("f", {"t": text, "a": "x", text: 1})], engine)
    assert took.seconds < 3
