"""The gold of a conversation: golden cases (half of them rejections), the tutorial's vectors, any input."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.gold import Gold, Rejected, developer_text, extract_gold
from fgtools.profiles import DEVELOPER_TEXT
from tests.toys import GOLDEN, call_turn, conversation, load_cases, load_shared

CASES = load_cases(GOLDEN / "gold.jsonl")
FOUND = [case for case in CASES if "rejected" not in case]
REFUSED = [case for case in CASES if "rejected" in case]


def found(row: dict, recipe: str = "native") -> Gold:
    gold = extract_gold(row, recipe)
    assert isinstance(gold, Gold), gold
    return gold


@pytest.mark.parametrize("case", FOUND, ids=[case["label"] for case in FOUND])
def test_the_gold_is_found(case):
    row = {"conversations": case["conversations"]}
    before = copy.deepcopy(row)
    gold = found(row)
    assert [vars(call) for call in gold.calls] == case["calls"]
    assert gold.reply == case["reply"]
    assert [problem.kind for problem in gold.problems] == case["problems"]
    assert row == before


@pytest.mark.parametrize("case", FOUND, ids=[case["label"] for case in FOUND])
def test_the_prompt_starts_with_the_developer_and_ends_with_the_user_or_a_result(case):
    messages = found({"conversations": case["conversations"]}).prompt_messages
    assert messages[0]["role"] == "developer"
    assert messages[0]["content"].endswith(DEVELOPER_TEXT)
    assert messages[-1]["role"] in ("user", "tool")
    for role, content in case["prompt"] or []:
        text = f"{content}\n{DEVELOPER_TEXT}" if role == "developer" else content
        assert {"role": role, "content": text} in messages
    if case["prompt"] and case["prompt"][0][0] == "user":
        assert messages[0]["content"] == DEVELOPER_TEXT
        assert [[message["role"], message["content"]] for message in messages[1:]] == case["prompt"]


@pytest.mark.parametrize("case", REFUSED, ids=[case["label"] for case in REFUSED])
def test_the_rejection_has_its_reason(case):
    rejected = extract_gold({"conversations": case["conversations"]})
    assert isinstance(rejected, Rejected), rejected
    assert rejected.reason == case["rejected"]
    assert rejected.detail


def test_a_good_part_of_the_golden_cases_is_rejected():
    assert len(REFUSED) >= 0.4 * len(CASES)


def test_what_is_no_row_is_rejected():
    for recipe in ("native", "tutorial"):
        rejected = extract_gold([1], recipe)
        assert (rejected.reason, "got [1]" in rejected.detail) == ("not_a_row", True)


def test_the_turn_is_the_prompts_user_turn():
    gold = found({"conversations": conversation("Book a table.", "Where?", "Rome", call_turn('{"name": "f"}'))})
    assert (gold.turn, gold.answer_turn) == (2, 3)


def test_conversations_may_be_json_text():
    turns = conversation("q", call_turn('{"name": "f"}'))
    assert found({"conversations": json.dumps(turns)}) == found({"conversations": turns})


def test_reasoning_is_removed_from_the_context_too():
    gold = found({"conversations": conversation("a", "<think>hm</think>b?", "c", call_turn('{"name": "f"}'))})
    assert gold.prompt_messages[2] == {"role": "assistant", "content": "b?"}


def test_a_turn_of_nothing_but_reasoning_is_no_context():
    gold = found({"conversations": conversation("a", "<think>hm</think>", "c", call_turn('{"name": "f"}'))})
    assert [message["role"] for message in gold.prompt_messages] == ["developer", "user", "user"]


def test_text_parts_of_a_turn_are_joined():
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "Wait."}]
    assert found({"conversations": turns}).prompt_messages[-1]["content"] == "What now?"


@pytest.mark.parametrize(
    "system",
    [
        "You are a function calling AI model. You are provided with function signatures.",
        "You are a helpful assistant with access to the following functions. Use them if required -\n{}",
        "Here is a list of functions in JSON format that you can invoke.",
        "Your goal is to solve requests by leveraging a set of available tools.",
        "You have tools: [{'name': 'add', 'parameters': {'type': 'object'}}]",
        "Enclose your thoughts inside <think></think> tags.",
        "  ",
    ],
)
def test_tool_boilerplate_is_dropped(system):
    assert developer_text(system) == DEVELOPER_TEXT


@pytest.mark.parametrize(
    "system",
    [
        "Please act like the current date is 2024/02/21",
        "You are a helpful assistant",
        "Use the function `show` to give the user a form; ask for the date first.",
        "Eres un asistente virtual llamado dolf.",
    ],
)
def test_real_context_stays_before_the_sentence(system):
    assert developer_text(system) == f"{system}\n{DEVELOPER_TEXT}"


def test_the_sentence_is_not_said_twice():
    assert developer_text(f"Today is Monday. {DEVELOPER_TEXT}") == f"Today is Monday. {DEVELOPER_TEXT}"


def test_the_tutorial_recipe_equals_the_tutorial():
    for case in load_shared("vectors/tutorial_rows_small.jsonl"):
        before = copy.deepcopy(case["row"])
        gold = extract_gold(case["row"], "tutorial")
        calls = [vars(call) for call in gold.calls] if isinstance(gold, Gold) else [None]
        assert calls == [case["gold"]], case
        assert case["row"] == before


def test_the_tutorial_recipe_leaves_arguments_as_found():
    row = {"task": "q", "conversations": conversation("q", call_turn('{"name": "f", "arguments": "{}"}'))}
    gold = found(row, "tutorial")
    assert gold.calls[0].arguments == "{}"
    assert [message["content"] for message in gold.prompt_messages] == [DEVELOPER_TEXT, "q"]


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({"conversations": None}, "bad_row", "conversations must be a list"),
        ({"conversations": conversation("q"), "task": 5}, "bad_row", "task must be text, got int"),
        ({"conversations": [{"from": 5}]}, "bad_row", "from must be text, got int"),
        ({"conversations": [{"from": "gpt", "value": ""}]}, "no_user_turn", "none of a user"),
        ({"conversations": conversation("q", "no")}, "no_call", "no readable call"),
    ],
)
def test_the_tutorial_recipe_rejects_where_the_tutorial_gives_up(row, reason, detail):
    rejected = extract_gold(row, "tutorial")
    assert isinstance(rejected, Rejected)
    assert rejected.reason == reason
    assert detail in rejected.detail


PIECES = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
        '{"name": "f", "arguments": {"a": 1}}',
        "{",
        "}",
        "'",
        '"',
        "hm",
    ]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=8)
TURNS = st.builds(lambda role, value: {"from": role, "value": value}, st.sampled_from(["human", "gpt", "tool"]), TEXTS)


@given(st.lists(TURNS, max_size=5))
def test_any_conversation_has_a_gold_or_a_reason(turns):
    before = copy.deepcopy(turns)
    for recipe in ("native", "tutorial"):
        gold = extract_gold({"conversations": turns, "task": "hm"}, recipe)
        assert isinstance(gold, Gold) or (gold.reason and gold.detail)
        if isinstance(gold, Gold) and recipe == "native":
            assert bool(gold.calls) != bool(gold.reply)
            assert not any(
                "<think>" in message["content"] for message in gold.prompt_messages if message["role"] == "assistant"
            )
    assert turns == before


def test_turns_between_the_request_and_the_call_are_noticed_unless_they_are_the_systems():
    turns = [("tool", "r"), ("human", "q"), ("system", "s"), ("tool", "r"), ("gpt", call_turn('{"name": "f"}'))]
    gold = extract_gold({"conversations": [{"from": role, "value": value} for role, value in turns]})
    details = ["tool turn 0 before any call", "tool turn 3 before any call"]
    assert [problem.detail for problem in gold.problems] == details
