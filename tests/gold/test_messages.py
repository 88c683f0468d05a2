"""Messages of providers as turns: their order, what is dropped as reasoning, and what makes a turn unreadable."""

import copy

import pytest

from fgtools.gold import normalize_message, render_block

CALL = {"name": "f", "arguments": {"a": 1}}
BLOCK = render_block(CALL)


def turns(message):
    before = copy.deepcopy(message)
    made = [(turn["from"], turn["value"]) for turn in normalize_message(message)]
    assert message == before
    return made


def test_a_users_results_come_before_the_words():
    content = [{"type": "text", "text": "And now?"}, {"type": "tool_result", "tool_use_id": "1", "content": "3"}]
    assert turns({"role": "user", "content": content}) == [("tool", "3"), ("user", "And now?")]
    assert turns({"role": "user", "content": content[1:]}) == [("tool", "3")]


def test_an_assistants_calls_come_before_their_results_and_the_words_about_them():
    parts = [
        {"type": "tool-f", "state": "output-available", "input": {"a": 1}, "output": 3},
        {"type": "text", "text": "It is 3."},
    ]
    expected = [("assistant", BLOCK), ("tool", "3"), ("assistant", "It is 3.")]
    assert turns({"role": "assistant", "parts": parts}) == expected


def test_a_call_after_a_result_is_a_later_step_and_calls_side_by_side_are_one():
    call = {"type": "tool-call", "toolName": "f", "args": {"a": 1}}
    result = {"type": "tool-result", "toolName": "f", "result": {"x": 1}}
    steps = [("assistant", BLOCK), ("tool", '{"x": 1}'), ("assistant", BLOCK)]
    assert turns({"role": "assistant", "content": [call, result, call]}) == steps
    assert turns({"role": "assistant", "content": [call, call, result]})[0] == ("assistant", f"{BLOCK}\n{BLOCK}")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "reasoning", "text": "hm"},
        {"text": "hm", "thought": True},
        {"reasoningContent": {"reasoningText": {"text": "hm"}}},
        {"type": "step-start"},
    ],
)
def test_reasoning_and_marks_of_steps_are_no_text(part):
    assert turns({"role": "assistant", "content": [part, {"type": "text", "text": "No."}]}) == [("assistant", "No.")]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "input_audio", "input_audio": {}},
        {"type": "document", "source": {}},
        {"inlineData": {"mimeType": "image/png", "data": "x"}},
        {"image": {"format": "png"}},
    ],
)
def test_a_part_that_is_not_text_is_never_left_out(part):
    (turn,) = normalize_message({"role": "user", "content": [{"text": "See?"}, part]})
    assert turn["unreadable"][0] == "not_text"


def test_parts_filled_up_with_nulls_are_what_their_type_says():
    parts = [
        {"type": "text", "text": "Ok.", "input": None, "name": None},
        {"type": "tool_use", "text": None, "input": {"a": 1}, "name": "f"},
    ]
    assert turns({"role": "assistant", "content": parts}) == [("assistant", f"Ok.\n{BLOCK}")]


def test_a_call_in_two_places_is_one_and_different_calls_are_a_conflict():
    other = {"name": "g", "arguments": {}}
    (turn,) = normalize_message({"role": "assistant", "tool_calls": [{"function": CALL}], "function_call": CALL})
    assert (turn["value"], turn["repeated"]) == (BLOCK, True)
    (turn,) = normalize_message({"role": "assistant", "tool_calls": [{"function": CALL}], "function_call": other})
    assert turn["unreadable"][0] == "conflicting_calls"
    (turn,) = normalize_message({"role": "assistant", "content": f"Ok. {BLOCK}", "tool_calls": [{"function": CALL}]})
    assert (turn["value"], turn["repeated"]) == (f"Ok.\n{BLOCK}", True)


def test_lists_of_a_tool_are_results_and_those_of_an_assistant_may_be_calls():
    assert turns({"role": "tool", "content": [{"temperature": 3}]}) == [("tool", '[{"temperature": 3}]')]
    assert turns({"role": "tool", "content": [{"type": "text", "text": "3"}]}) == [("tool", "3")]
    assert turns({"role": "assistant", "content": [CALL]}) == [("assistant", f"[{BLOCK.split(chr(10))[1]}]")]


def test_what_is_not_learnt_stays_so_in_every_turn():
    content = [{"type": "tool_result", "content": "3"}, {"type": "text", "text": "q"}]
    made = normalize_message({"role": "user", "content": content, "learn": False})
    assert [turn["learn"] for turn in made] == [False, False]


def test_what_is_no_message_is_the_value_of_a_turn_without_a_role():
    assert normalize_message(5) == [{"from": None, "value": 5}]


def test_vercels_invocations_beside_the_text_give_their_results():
    invocation = {"state": "result", "toolCallId": "1", "toolName": "f", "args": {"a": 1}, "result": 3}
    message = {"role": "assistant", "content": "Look.", "toolInvocations": [invocation]}
    assert turns(message) == [("assistant", f"Look.\n{BLOCK}"), ("tool", "3")]
