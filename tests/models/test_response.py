"""How transformers reads replies by the response template of a saved tokenizer: never another call than was written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.calls import ToolCall, parse_reply, render_calls
from fgtools.calls.tokens import CONTROL_TOKEN, END_CALL, ESCAPE, START_CALL, START_RESPONSE
from fgtools.files import InputError
from fgtools.models import response_template
from tests.clock import measure_time
from tests.toys import GOLDEN, load_cases, load_shared

chat_parsing = pytest.importorskip(
    "transformers.utils.chat_parsing", reason="this transformers reads no response template"
)

CASES = load_cases(GOLDEN / "responses.jsonl")
TEMPLATES = {style: response_template(style) for style in ("native", "tutorial")}
LOADED = {style: chat_parsing.response_parser.load_response_template(one) for style, one in TEMPLATES.items()}


def parse(text, style="native", prefix=""):
    return chat_parsing.parse_response(text, LOADED[style], prefix=prefix)


def called(message):
    return [(one["function"]["name"], one["function"]["arguments"]) for one in message.get("tool_calls", [])]


def same(one, other):
    """Compare values and their types: 1, 1.0 and true are three values."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def stream(text, size, style="native"):
    parser = chat_parsing.ResponseParser(LOADED[style], prefix="")
    for start in range(0, len(text), size):
        parser.feed(text[start : start + size])
    return parser.finalize()[0]


@pytest.mark.parametrize("case", CASES, ids=[case["why"] for case in CASES])
def test_a_reply_gives_the_message_whole_and_in_pieces(case):
    assert same(parse(case["reply"], case["style"], case["prefix"]), case["message"])
    if not case["prefix"]:
        assert all(same(stream(case["reply"], size, case["style"]), case["message"]) for size in (1, 4, 9))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)
CALLS = st.lists(st.builds(ToolCall, st.sampled_from(["f", "a.b", "g-h"]), ARGUMENTS), max_size=3)


@given(CALLS)
def test_a_call_is_read_as_it_was_written_or_stays_text(calls):
    text = "".join(render_calls([call]) for call in calls) + START_RESPONSE
    written = [(call.name, {k: v for k, v in call.arguments.items() if v is not None}) for call in calls]
    message = parse(text)
    left = iter(written)
    for name, arguments in called(message):
        read = {key: value for key, value in arguments.items() if value is not None}
        assert any(name == other and same(read, values) for other, values in left), (text, message)
    parser = chat_parsing.ResponseParser(LOADED["native"], prefix="")
    events = [*parser.feed(text), *parser.finalize()[1]]
    shown = "".join(one["text"] for one in events if one["type"] == "region_chunk" and one["field"] == "content")
    assert shown.count(START_CALL) >= len(written) - len(called(message))  # as a stream shows it


@given(CALLS, st.text(max_size=6))
def test_every_cut_reply_is_read_without_an_error(calls, noise):
    text = noise + render_calls(calls) + START_RESPONSE
    for end in range(0, len(text), 7):
        assert len(called(parse(text[:end]))) <= len(parse_reply(text[:end]).calls)
        parse(text[:end], "tutorial")


UNITS = (" ", "[", "{a:", "a:1,", "<", ESCAPE, START_CALL, "\n" + START_CALL, "<eos>")
CALL_UNITS = (
    "call:f{",
    f"call:f{{a:{ESCAPE}",
    "call:f{a:[",
    f"call:f{{a:{ESCAPE},b:{ESCAPE}",
    f"call:f{{args:{ESCAPE}{{",
)


@pytest.mark.parametrize("head", ["", f"{START_CALL}call:f{{a:"])
@pytest.mark.parametrize("unit", [*UNITS, *(START_CALL + unit for unit in CALL_UNITS)])
def test_hostile_repetition_takes_linear_time(head, unit):
    def measure(size, style):
        with measure_time() as took:
            parse(head + unit * (size // len(unit)), style)
        return took.seconds

    for style in TEMPLATES:
        assert measure(16_000, style) < max(0.4, 10 * measure(4_000, style))  # a quadratic one takes 16 times as long


def test_deep_nesting_raises_nothing():
    for depth in (50, 400, 3000):
        text = f"{START_CALL}call:f{{a:{'[' * depth}{']' * depth}}}{END_CALL}"
        assert len(called(parse(text))) == (depth < 500)


def test_every_real_gold_row_but_those_with_odd_names_inside_of_a_value_is_read():
    from fgtools.rows import build_rows

    rows = [row for row in build_rows(load_shared("data/dev.jsonl")).rows if row["gold"]]
    read = 0
    for row in rows:
        calls = [ToolCall(c["name"], {k: v for k, v in c["arguments"].items() if v is not None}) for c in row["gold"]]
        got = called(parse(render_calls(calls) + START_RESPONSE))
        read += same(got, [(call.name, call.arguments) for call in calls])
    assert (read, len(rows)) == (3259, 3260)


def test_styles_have_a_template_of_their_own():
    assert TEMPLATES["native"] != TEMPLATES["tutorial"]
    assert all(CONTROL_TOKEN.search(json.dumps(template)) for template in TEMPLATES.values())
    TEMPLATES["native"]["defaults"], kept = {}, TEMPLATES["native"]["defaults"]
    assert response_template("native")["defaults"] == kept == {"role": "assistant"}
    TEMPLATES["native"]["defaults"] = kept
    with pytest.raises(InputError, match="call_style must be 'native' or 'tutorial', got 'x'"):
        response_template("x")
