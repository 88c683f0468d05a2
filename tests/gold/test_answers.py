"""Every answer of a conversation: which turns they are, what stands before them, and that none goes uncounted."""

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.gold import Gold, Rejected, extract_gold, extract_golds
from fgtools.gold.context import _drop_marks
from fgtools.profiles import DEVELOPER_TEXT, RECIPES, adapt_recipe
from tests.clock import measure_time
from tests.toys import call_turn, load_shared

ALL = adapt_recipe(RECIPES["native"], turns="all")
DEVELOPER = {"role": "developer", "content": DEVELOPER_TEXT}


def calls(*names: str) -> str:
    return "\n".join(call_turn(json.dumps({"name": name, "arguments": {"a": 1}})) for name in names)


def turns(*pairs: tuple[str, str]) -> dict:
    return {"conversations": [{"from": role, "value": value} for role, value in pairs]}


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def said(text: str) -> dict:
    return {"role": "assistant", "content": text}


def called(*names: str, text: str = "") -> dict:
    functions = [{"type": "function", "function": {"name": name, "arguments": {"a": 1}}} for name in names]
    return {"role": "assistant", "content": text, "tool_calls": functions}


def result(name: str, content: object) -> dict:
    return {"role": "tool", "name": name, "content": content}


def short(found: tuple[Gold | Rejected, ...]) -> list[tuple[int, object]]:
    """Each answer as its turn, and the names it calls, its reply or the reason why it is none."""
    return [
        (one.answer_turn, one.reason if isinstance(one, Rejected) else [c.name for c in one.calls] or one.reply)
        for one in found
    ]


def without_later(gold: Gold | Rejected) -> Gold | Rejected:
    """The gold without the problem that only the search for one gold notes."""
    if isinstance(gold, Rejected):
        return gold
    return replace(gold, problems=tuple(item for item in gold.problems if item.kind != "later_calls"))


TRIP = turns(
    ("human", "weather?"),
    ("gpt", "Let me look."),
    ("gpt", calls("weather")),
    ("tool", '{"sky": "clear"}'),
    ("gpt", calls("alarm", "note")),
    (
        "tool",
        '<tool_response>\n{"name": "note", "content": "ok"}\n</tool_response>\n<tool_response>\nset\n</tool_response>',
    ),
    ("gpt", "Clear; the alarm is set."),
    ("human", "thanks"),
    ("gpt", "Welcome."),
)


def test_every_call_and_every_answer_without_a_call_is_one():
    before = copy.deepcopy(TRIP)
    found = extract_golds(TRIP, ALL)
    assert short(found) == [(2, ["weather"]), (4, ["alarm", "note"]), (8, "Welcome.")]
    assert before == TRIP
    first, second, last = found
    assert first.prompt_messages == [DEVELOPER, user("weather?")]
    assert [problem.kind for problem in first.problems] == ["stray_turn"]
    steps = [called("weather", text="Let me look."), result("weather", {"sky": "clear"})]
    assert second.prompt_messages == [DEVELOPER, user("weather?"), *steps]
    more = [called("alarm", "note"), result("note", "ok"), result("alarm", "set"), said("Clear; the alarm is set.")]
    assert last.prompt_messages == [DEVELOPER, user("weather?"), *steps, *more, user("thanks")]
    assert (first.turn, second.turn, last.turn) == (0, 0, 7)
    assert second.problems == last.problems == ()


def test_the_first_answer_alone_is_what_extract_gold_finds_and_it_says_that_there_are_more():
    assert [problem.detail for problem in extract_gold(TRIP).problems if problem.kind == "later_calls"] == [
        "turns [4] call as well"
    ]
    assert extract_golds(TRIP) == (extract_gold(TRIP),)
    assert extract_golds(TRIP, "tutorial") == (extract_gold(TRIP, "tutorial"),)
    assert extract_golds(None, ALL) == (extract_gold(None),)
    assert extract_golds({"conversations": []}, ALL) == (extract_gold({"conversations": []}),)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("human", "a"), ("gpt", "no"), ("human", "b"), ("gpt", calls("f"))], [(1, "no"), (3, ["f"])]),
        ([("human", "a"), ("gpt", "no"), ("gpt", "and no")], [(1, "no")]),
        ([("gpt", "hello"), ("human", "a"), ("gpt", "no")], [(2, "no")]),
        ([("human", "a"), ("gpt", calls("f")), ("gpt", calls("g"))], [(1, ["f", "g"])]),
        ([("human", "a"), ("gpt", calls("f")), ("gpt", "done")], [(1, ["f"])]),
        ([("human", "a"), ("gpt", "<tool_call>{</tool_call>"), ("human", "b"), ("gpt", calls("f")), ("human", "c"),
          ("gpt", "no")], [(1, "broken_call"), (3, "broken_context"), (5, "broken_context")]),
        ([("human", "a"), ("gpt", calls("f")), ("human", "b"), ("gpt", "<tool_call>{</tool_call>")],
         [(1, ["f"]), (3, "broken_call")]),
        ([("human", "a"), ("gpt", "I call f"), ("tool", "r"), ("human", "b"), ("gpt", "no")],
         [(1, "unread_call"), (4, "broken_context")]),
        ([("human", "a"), ("tool", "r"), ("gpt", "done")], [(2, "after_result")]),
        ([("human", "a"), ("gpt", "<think>x</think>"), ("human", "b"), ("gpt", "no")], [(1, "no_reply"), (3, "no")]),
        ([("gpt", calls("f")), ("human", "a"), ("gpt", "no")], [(0, "no_user_turn"), (2, "no")]),
        ([("human", " "), ("gpt", "no"), ("human", "b"), ("gpt", "no")], [(1, "empty_request"), (3, "no")]),
        ([("human", "a"), ("gpt", "no"), ("alien", "?"), ("human", "b"), ("gpt", "no")],
         [(1, "no"), (4, "bad_conversation")]),
        ([("human", "a"), ("gpt", "no"), ("human", "b"), ("alien", "?")], [(1, "no"), (3, "bad_conversation")]),
    ],
)  # fmt: skip
def test_which_turns_are_answers_and_what_becomes_of_them(pairs, expected):
    assert short(extract_golds(turns(*pairs), ALL)) == expected


def test_turns_that_are_not_learnt_are_context():
    row = copy.deepcopy(TRIP)
    row["conversations"][2]["learn"] = False
    assert short(extract_golds(row, ALL)) == [(4, ["alarm", "note"]), (8, "Welcome.")]
    assert extract_gold(row).prompt_messages[2:] == [
        called("weather", text="Let me look."),
        result("weather", {"sky": "clear"}),
    ]
    for turn in row["conversations"]:
        turn["learn"] = False
    assert [one.reason for one in extract_golds(row, ALL)] == ["not_learnt"]


def test_a_call_that_nothing_answers_is_no_context_to_go_on_from():
    row = turns(("human", "a"), ("gpt", calls("f")), ("gpt", calls("g")))
    row["conversations"][0 + 1]["learn"] = False
    assert short(extract_golds(row, ALL)) == [(2, "unanswered_call")]
    later = turns(("human", "a"), ("gpt", calls("f")), ("human", "b"), ("gpt", calls("g")))
    found = extract_golds(later, ALL)
    assert [[problem.kind for problem in one.problems] for one in found] == [[], ["unanswered_call"]]


def test_words_before_a_call_are_its_text_and_words_before_the_answer_are_left_out():
    begun = [("human", "a"), ("gpt", "one"), ("gpt", "two"), ("gpt", calls("f"))]
    first, second = extract_golds(turns(*begun, ("tool", "r"), ("gpt", "three"), ("gpt", calls("g"))), ALL)
    assert first.prompt_messages == [DEVELOPER, user("a")]
    assert [problem.kind for problem in first.problems] == ["stray_turn", "stray_turn"]
    assert second.prompt_messages == [DEVELOPER, user("a"), called("f", text="one\ntwo"), result("f", "r")]
    _, after_words = extract_golds(turns(*begun[:1], ("gpt", calls("f")), ("gpt", "it is 3"), ("gpt", calls("g"))), ALL)
    assert after_words.prompt_messages == [DEVELOPER, user("a"), called("f"), said("it is 3")]
    assert [problem.kind for problem in after_words.problems] == ["unanswered_call"]


BODY = '{"name": "f", "arguments": {"a": 1}}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"Sure!\n```json\n{BODY}\n```\nLet me check.", "Sure!\nLet me check."),
        (f"[TOOL_REQUEST]\n{BODY}\n[END_TOOL_REQUEST]", ""),
        (f"<tool>{BODY}</tool>", ""),
        ('Thought: it is due.\nAction: f\nAction Input: {"a": 1}', "Thought: it is due."),
        (f"{BODY}<end_of_turn>", ""),
        (f"I look <b>there</b>.\n{call_turn(BODY)}", "I look <b>there</b>."),
    ],
)
def test_what_other_notations_put_around_a_call_is_not_said(text, words):
    row = {
        **turns(("human", "a"), ("gpt", text), ("tool", "r"), ("gpt", calls("g"))),
        "tools": [{"name": name, "parameters": {"a": {"type": "int"}}} for name in ("f", "g")],
    }
    _, second = extract_golds(row, ALL)
    assert second.prompt_messages[2] == called("f", text=words)


@pytest.mark.parametrize(
    ("text", "is_result"),
    [
        ('<tool_response>\n{"t": 4}\n</tool_response>', True),
        ('Observation: {"t": 4}', True),
        ("<tool_response>4</tool_response> and in Rome?", False),
        ("An observation: cold.", False),
    ],
)
def test_a_result_in_a_users_turn_is_the_tools(text, is_result):
    row = turns(
        ("human", "a"), ("gpt", calls("f")), ("human", text), ("gpt", "It is 4."), ("human", "b"), ("gpt", "no")
    )
    *_, last = extract_golds(row, ALL)
    assert len(extract_golds(row, ALL)) == (2 if is_result else 3)
    assert last.prompt_messages[3] == (result("f", {"t": 4}) if is_result else user(text))
    alone = turns(("human", text), ("gpt", "no"))
    assert extract_gold(alone).prompt_messages == [DEVELOPER, user(text)]


def test_words_about_the_result_of_a_call_that_is_not_learnt_are_no_answer():
    row = turns(("human", "a"), ("gpt", calls("f")), ("tool", "r"), ("gpt", "done"), ("human", "b"), ("gpt", "no"))
    row["conversations"][1]["learn"] = False
    assert short(extract_golds(row, ALL)) == [(5, "no")]


def test_a_result_before_any_call_is_left_out_and_noticed():
    (_, found) = extract_golds(
        turns(("human", "a"), ("gpt", "no"), ("human", "b"), ("tool", "r"), ("gpt", calls("f"))), ALL
    )
    assert found.prompt_messages == [DEVELOPER, user("a"), said("no"), user("b")]
    assert [problem.detail for problem in found.problems] == ["tool turn 3 before any call"]
    late = [("human", "a"), ("gpt", calls("f")), ("tool", "r"), ("system", "s"), ("tool", "r"), ("human", "b")]
    _, found = extract_golds(turns(*late, ("gpt", "no")), ALL)
    assert [problem.detail for problem in found.problems] == ["tool turn 4 before any call"]
    assert [message["role"] for message in found.prompt_messages[1:]] == ["user", "assistant", "tool", "user"]


TEXTS = st.sampled_from(["", "x", calls("f"), calls("f", "g"), "<tool_call>{", '{"a": 1}', "<think>", "f(a=1)"])
ROLES = st.sampled_from(["human", "gpt", "tool", "system", "alien", "function_call"])


@given(st.lists(st.tuples(ROLES, TEXTS, st.booleans()), max_size=9))
def test_each_answer_is_found_once_and_its_context_is_what_stands_before_it(raw):
    row = {"conversations": [{"from": role, "value": text, "learn": learn} for role, text, learn in raw]}
    found = extract_golds(row, ALL)
    assert found
    positions = [one.answer_turn for one in found]
    assert positions == sorted(set(positions)) or len(found) == 1
    for one in found:
        if isinstance(one, Gold):
            assert raw[one.answer_turn][2]
            assert (one.prompt_messages[0]["role"], bool(one.calls)) == ("developer", not one.reply)
            assert one.prompt_messages[-1]["role"] in ("user", "tool", "assistant")
            assert "tool_calls" not in one.prompt_messages[-1]
    first = without_later(extract_gold(row))
    if isinstance(first, Gold) and first.calls:
        assert first in [one for one in found if isinstance(one, Gold)]


def test_the_answers_of_real_conversations_hold_the_first_ones():
    for row in load_shared("data/dev.jsonl")[::7]:
        first, every = without_later(extract_gold(row)), extract_golds(row, ALL)
        assert (first in every) if isinstance(first, Gold) else any(isinstance(one, Rejected) for one in every)


@pytest.mark.parametrize("text", ["```", "<", "<a ", "[AAAA", "action", " ", "\n \t", "<|"])
def test_marks_are_dropped_in_linear_time(text):
    with measure_time() as took:
        _drop_marks(text * (500_000 // len(text)))
    assert took.seconds < 2


@pytest.mark.parametrize("text", ["q", "q" * 2_000])
def test_a_long_conversation_is_read_in_time_as_far_as_the_limit(text):
    pairs = [("human", text), ("gpt", calls("f")), ("tool", '{"a": 1}'), ("gpt", "done")] * 3_000
    with measure_time() as took:
        found = extract_golds(turns(*pairs), ALL)
    assert took.seconds < 10
    kept = [isinstance(one, Gold) for one in found]
    assert (len(kept), kept) == (3_000, sorted(kept, reverse=True))
    assert sum(kept) == (100 if text == "q" else 97)
    assert {one.reason for one in found if isinstance(one, Rejected)} == {"too_long"}
