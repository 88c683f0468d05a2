"""Parsing replies: golden cases, round trips, truncations, what is reported beside a call, and the tutorial's side."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtools.calls import MAX_DEPTH, Problem, ToolCall, parse_reply, parse_tutorial_prediction, render_calls
from fgtools.calls.tokens import END_CALL, ESCAPE, START_CALL
from tests.toys import GOLDEN, load_cases, load_shared

REPLIES = load_cases(GOLDEN / "replies.jsonl")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().filter(lambda text: ESCAPE not in text)
)
KEYS = st.text(max_size=8).filter(lambda key: ESCAPE not in key)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
NAMES = (
    st.text(min_size=1, max_size=12).map(str.strip).filter(lambda name: name and "{" not in name and "<" not in name)
)
NATIVE_CALL = f"{START_CALL}call:f{{a:1}}{END_CALL}"
CALLS = st.lists(st.builds(ToolCall, NAMES, st.dictionaries(KEYS, VALUES, max_size=4)), max_size=3)


@pytest.mark.parametrize("case", REPLIES, ids=lambda case: case["label"])
def test_reply_is_read_as_the_golden_case_says(case):
    reply = parse_reply(case["reply"])
    assert [vars(call) for call in reply.calls] == case["calls"]
    assert reply.text == case["text"]
    assert [problem.kind for problem in reply.problems] == case["problems"]


def test_the_models_own_template_renders_and_reads_the_same_calls():
    for case in load_shared("vectors/calls_render.jsonl"):
        calls = tuple(ToolCall(**call) for call in case["calls"])
        assert render_calls(calls) == case["text"]
        reply = parse_reply(case["text"])
        assert reply.calls == calls and not reply.problems
        assert repr(reply.calls) == repr(
            tuple(ToolCall(c.name, _sorted(c.arguments)) for c in calls)
        )  # types too: 1 is not 1.0 or True


def _sorted(value):
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in sorted(value.items(), key=lambda pair: pair[0].lower())}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@given(CALLS)
def test_native_round_trip_keeps_values_and_types(calls):
    reply = parse_reply(render_calls(calls))
    assert json.dumps([vars(c) for c in reply.calls], sort_keys=True) == json.dumps(
        [vars(c) for c in calls], sort_keys=True
    )
    assert not reply.problems and not reply.text


@given(CALLS)
def test_tutorial_round_trip_keeps_values(calls):
    reply = parse_reply(render_calls(calls, style="tutorial"), style="tutorial")
    assert list(reply.calls) == calls and not reply.problems


@settings(max_examples=15)
@given(CALLS, st.text(max_size=10))
def test_every_truncation_of_a_reply_parses(calls, prose):
    text = prose + render_calls(calls) + "<start_function_response>"
    for end in range(len(text) + 1):
        parse_reply(text[:end])
        parse_reply(text[:end], style="tutorial")


@given(
    st.lists(
        st.sampled_from([START_CALL, END_CALL, ESCAPE, "call:", "f", "{", "}", "[", "]", ",", ":", "1", " ", "<eos>"]),
        max_size=40,
    )
)
def test_any_order_of_marks_parses(pieces):
    parse_reply("".join(pieces))


@pytest.mark.parametrize(
    "text",
    [
        f"{START_CALL}call:f{{a:" + "[" * 200_000,
        f"{START_CALL}call:f{{a:{ESCAPE}" * 30_000,
        START_CALL * 100_000,
        "x" * 1_000_000,
        f"{START_CALL}call:f{{a:{'9' * 10_000}}}{END_CALL}",
        f"{START_CALL}call:f{{a:\ud800}}{END_CALL}",
    ],
    ids=["deep", "unclosed strings", "marks only", "long prose", "huge number", "lone surrogate"],
)
def test_hostile_replies_are_read_quickly(text):
    parse_reply(text)


CALL = f"{START_CALL}call:f{{a:1}}{END_CALL}"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (CALL + END_CALL, [END_CALL]),
        (f"<bos>x{CALL}{ESCAPE}y{ESCAPE}", ["<bos>", ESCAPE]),
        (f"{CALL}<end_of_turn>\n<start_of_turn>user\nx<end_of_turn>", ["<end_of_turn>", "<start_of_turn>"]),
        (f"<end_of_turn>{CALL}", ["<end_of_turn>"]),
        (f"{CALL}<end_of_turn>{CALL}<start_function_response>", ["<end_of_turn>"]),
        (f"call:f{{a:1}}{END_CALL}", [END_CALL]),
        (f"No.{CALL}Done.<start_function_response><end_of_turn>\n<eos><pad><pad>\n", []),
        ("No.<end_of_turn><pad>", []),
        ("No.<end_of_turn>Or yes.<end_of_turn>", ["<end_of_turn>"]),
        ("a < b <i>and</i> <tool>", []),
    ],
)
def test_a_control_token_outside_of_calls_and_tail_is_a_problem(text, tokens):
    assert parse_reply(text).problems == tuple(Problem("stray_token", token) for token in tokens)


@pytest.mark.parametrize(
    "text",
    [
        *("\t call:f{a:1}", "call: f{a:1}", "call:f\n{a:1}", "call:f{ a:1}", "call:f{a :1}", "call:f{a: 1}"),
        *("call:f{a:1 }", "call:f{a:[1, 2]}", "call:f{a:{b: 2}}", "call:f{a:1} ", "call:f{a:1, b:2}"),
        f"call:f{{{ESCAPE}a{ESCAPE} :1}}",
    ],
)
def test_white_space_in_a_call_is_read_over_and_named_once(text):
    reply = parse_reply(f"{START_CALL}{text}{END_CALL}")
    assert len(reply.calls) == 1 and [problem.kind for problem in reply.problems] == ["white_space"]


def test_a_stop_token_before_a_call_that_is_none_is_stray():
    kinds = [problem.kind for problem in parse_reply(f"No.<end_of_turn>{START_CALL}call:f{{a:").problems]
    assert kinds == ["unclosed_call", "stray_token"]


def test_white_space_in_strings_and_names_is_their_own():
    text = f"{START_CALL}call:coffee shop{{a key:{ESCAPE} x {ESCAPE}}}{END_CALL}\n"
    assert parse_reply(text).calls == (ToolCall("coffee shop", {"a key": " x "}),) and not parse_reply(text).problems


def test_tutorial_reads_predictions_as_the_vectors_say():
    for case in load_shared("vectors/tutorial_predictions.jsonl"):
        prediction = parse_tutorial_prediction(case["text"])
        assert (prediction.name, prediction.block) == (case["name"], case["block"])


def nested(depth):
    return '{"a":' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (f"args:{ESCAPE}{{}}{ESCAPE}", []),
        (f"args:{ESCAPE}{{}}{ESCAPE},b:1", ["args_not_json"]),
        (f"args:{ESCAPE}[]{ESCAPE}", ["args_not_json"]),
        ("args:{}", ["args_not_json"]),
        *(
            (f'args:{ESCAPE}{{"a":{one}}}{ESCAPE}', ["args_not_json"])
            for one in ("NaN", "-Infinity", "1e999", "9" * 5000)
        ),
        (f'args:{ESCAPE}{{"a":1,"a":2,"b":{{"c":1,"c":2}}}}{ESCAPE}', ["duplicate_key", "duplicate_key"]),
        (f"args:{ESCAPE}{nested(MAX_DEPTH)}{ESCAPE}", []),
        (f"args:{ESCAPE}{nested(MAX_DEPTH + 1)}{ESCAPE}", ["too_deep"]),
        (f"args:{ESCAPE}{nested(50_000)}{ESCAPE}", ["too_deep"]),
    ],
)
def test_the_tutorials_arguments_have_the_limits_of_the_native_ones(arguments, kinds):
    reply = parse_reply(f"{START_CALL}call:f{{{arguments}}}{END_CALL}{NATIVE_CALL}", "tutorial")
    assert [problem.kind for problem in reply.problems] == [*kinds, "args_not_json"]  # the second call is native
    assert len(reply.calls) == (1 if kinds == ["too_deep"] else 2)


def test_the_last_of_equal_keys_is_read_in_both_notations():
    assert parse_reply(f"{START_CALL}call:f{{a:1,a:2}}{END_CALL}").calls == (ToolCall("f", {"a": 2}),)
    text = f'{START_CALL}call:f{{args:{ESCAPE}{{"a":1,"a":2}}{ESCAPE}}}{END_CALL}'
    assert parse_reply(text, "tutorial").calls == (ToolCall("f", {"a": 2}),)
