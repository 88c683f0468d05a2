"""The text of an assistant turn: reasoning, blocks and the rest, whatever a model wrote."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.gold.turns import parse_turn

CALL = '{"name": "f", "arguments": {"a": 1}}'


def block(text: str) -> str:
    return f"<tool_call>{text}</tool_call>"


@pytest.mark.parametrize("tag", ["think", "thinking", "THINK", "scratch_pad", "reasoning", "reflection"])
def test_reasoning_of_every_tag_is_removed(tag):
    reading = parse_turn(f"<{tag}>because {block(CALL)}</{tag}>\nDone.")
    assert (reading.calls, reading.text, reading.blocks) == ((), "Done.", 0)


def test_a_further_closing_tag_takes_nothing_away():
    reading = parse_turn(f"<think>a</think>{block(CALL)} one </think> two")
    assert (len(reading.calls), reading.text) == (1, "one  two")


def test_text_around_blocks_is_kept():
    reading = parse_turn(f"First {block(CALL)} then {block(CALL)} last")
    assert len(reading.calls) == 2
    assert reading.text == "First  then  last"


def test_a_fenced_block_is_read():
    assert len(parse_turn(block(f"\n```json\n{CALL}\n```\n")).calls) == 1


def test_an_unclosed_block_ends_where_the_next_begins():
    reading = parse_turn(f"<tool_call>{CALL}\n{block(CALL)}")
    assert (len(reading.calls), reading.blocks) == (2, 2)
    assert [problem.kind for problem in reading.problems] == ["unclosed_call"]


def test_a_broken_object_after_a_good_one_is_a_problem():
    reading = parse_turn(block(CALL + '\n{"name": "g", '))
    assert len(reading.calls) == 1
    assert [problem.kind for problem in reading.problems] == ["broken_call"]


def test_one_unreadable_item_of_a_list_is_a_problem():
    reading = parse_turn(block(f"[{CALL}, 5, {{}}]"))
    assert len(reading.calls) == 1
    assert [problem.kind for problem in reading.problems] == ["broken_call", "broken_call"]


def test_a_python_literal_may_hold_the_closing_mark():
    reading = parse_turn(block("{'name': 'f', 'arguments': {'a': '</tool_call>'}}"))
    assert reading.calls[0].arguments == {"a": "</tool_call>"}


def test_thousands_of_open_marks_are_read_in_time():
    assert len(parse_turn("<tool_call>" * 3000).problems) == 3000


NAMES = st.text(min_size=1).filter(str.strip)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(st.text(), VALUES, max_size=3)), min_size=1, max_size=3)


@given(CALLS, st.booleans())
def test_what_is_written_as_json_is_read_back(calls, ascii_only):
    texts = [json.dumps({"name": name, "arguments": values}, ensure_ascii=ascii_only) for name, values in calls]
    reading = parse_turn("<think>hm</think>\n" + "\n".join(block(f"\n{text}\n") for text in texts))
    assert [(call.name, call.arguments) for call in reading.calls] == calls
    assert (reading.problems, reading.text) == ((), "")


@given(CALLS, st.data())
def test_every_truncation_is_read(calls, data):
    text = "".join(block(json.dumps({"name": name, "arguments": values})) for name, values in calls)
    reading = parse_turn(text[: data.draw(st.integers(0, len(text)))])
    assert len(reading.calls) <= len(calls)
    assert [(call.name, call.arguments) for call in reading.calls] == calls[: len(reading.calls)]


@pytest.mark.parametrize("text", ['{"tool_calls":[' * 400 + CALL + "]}" * 400, '{"function":' * 600 + CALL + "}" * 600])
def test_calls_wrapped_without_end_are_parsed_or_broken(text):
    parsed = parse_turn(block(text))
    assert parsed.calls or [problem.kind for problem in parsed.problems] == ["broken_call"]
