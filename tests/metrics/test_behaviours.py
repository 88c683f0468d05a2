"""What a reply does, in When2Call's words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.metrics import score
from fgtools.metrics.behaviours import BEHAVIOURS, classify_behaviour
from tests.clock import measure_time
from tests.metrics.test_scores import ROWS, call


@pytest.mark.parametrize(
    ("text", "behaviour"),
    [
        ("Could you please tell me which city you mean?", "request_for_info"),
        ("Apologies, but to check an address, I would need the address. Please provide it.", "request_for_info"),
        ("I cannot book a table without a date. For which day?", "request_for_info"),
        ("请问您在哪个城市？", "request_for_info"),
        ("Do you mean Paris, Texas?", "request_for_info"),
        ("I'm sorry, but I can't book flights. Is there anything else I can help you with?", "cannot_answer"),
        ("None of the tools can do that.", "cannot_answer"),
        ("I don’t have access to your calendar.", "cannot_answer"),
        ("很抱歉，我无法预订机票。您还有其他需要帮助的吗？", "cannot_answer"),
        ("The capital of France is Paris.", "direct"),
        ("You're welcome! Would you like me to do something else?", "direct"),
        ("法国的首都是巴黎。", "direct"),
        ("<end_of_turn>", "silent"),
        ("", "silent"),
    ],
)
def test_texts_are_read_by_their_wording(text, behaviour):
    assert classify_behaviour(text) == behaviour
    assert classify_behaviour(text, 1) == "tool_call"


def test_only_the_beginning_of_a_long_text_is_classified():
    assert classify_behaviour("x " * 1900 + "Sorry.") == "cannot_answer"
    assert classify_behaviour("x " * 2000 + "Sorry.") == "direct"


@given(st.text(max_size=200))
def test_every_text_has_one_behaviour(text):
    assert classify_behaviour(text) in BEHAVIOURS


@pytest.mark.parametrize("text", ["x" * 10**6, "can you " * 10**5, "? " * 10**5, "no such " * 10**5, "<a" * 10**5])
def test_long_texts_take_no_time(text):
    with measure_time() as took:
        classify_behaviour(text)
    assert took.seconds < 0.5


def test_behaviours_are_counted_against_the_right_answers():
    rows = [ROWS[0], {**ROWS[3], "reply": "I cannot do that."}, {**ROWS[4], "reply": "Which city?"}]
    scores = score(rows, [call("one", "x"), "Sorry, no.", call("one", "x")])
    assert scores.behaviours == {
        "tool_call": {"tool_call": 1},
        "request_for_info": {"tool_call": 1},
        "cannot_answer": {"cannot_answer": 1},
    }
    assert (scores.right_behaviour.k, scores.right_behaviour.n) == (1, 2)
