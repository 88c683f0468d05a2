"""Calls in every notation: read, or the row is rejected; words about tools and answers in JSON stay replies."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.gold import Gold, Rejected, extract_gold
from fgtools.gold.conversation import MAX_TURN_CHARS
from fgtools.gold.declared import DeclaredTools
from fgtools.gold.turns import parse_turn
from fgtools.rows import build_rows
from tests.clock import measure_time
from tests.toys import GOLDEN, conversation, load_cases, load_shared

WEATHER = {"city": {"type": "string"}, "days": {"type": "integer"}}
TOOLS = [
    {"name": "get_weather", "parameters": {"type": "object", "properties": WEATHER, "required": ["city"]}},
    {"name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}},
]
TEXTS = load_cases(GOLDEN / "notations.jsonl")
MESSAGE_TOOLS = [
    {"name": "math.add", "parameters": {"a": {"type": "number"}, "b": {"type": "number"}}},
    {"name": "search", "parameters": {"input": {"type": "string"}, "args": {"type": "array"}}},
    {
        "name": "getUserInfo",
        "parameters": {
            "type": "object",
            "properties": {
                "user": {"type": "object", "properties": {"id": {"type": "integer"}}},
                "tags": {"type": "array", "items": {"type": "string"}},
                "active": {"type": "boolean"},
                "code": {"type": "string"},
            },
        },
    },
    {"name": "Market Trends API", "parameters": {"country": {"type": "string"}}},
    {"name": "now", "parameters": {"type": "object", "properties": {}}},
]
MESSAGES = load_cases(GOLDEN / "messages.jsonl")
TOLD_APART = ("marks/", "blocks/", "arguments/", "twice/", "parallel/", "turn/weight0", "turn/train", "turn/trl")


def outcome(turns: list, tools: list = TOOLS):
    gold = extract_gold({"conversations": turns, "tools": tools})
    if isinstance(gold, Rejected):
        return "rejected"
    return [vars(call) for call in gold.calls] or "no_call"


def fate(row: dict):
    row_set = build_rows([row])
    return row_set.rows[0]["gold"] or "no_call" if row_set.rows else "rejected"


@pytest.mark.parametrize("case", TEXTS, ids=[case["label"] for case in TEXTS])
def test_a_call_in_any_notation_is_read_or_rejected(case):
    assert outcome(conversation("Weather in Oslo?", case["text"])) == case["expected"] or (
        case["expected"] == "rejected" and fate({"messages": turns_of(case["text"]), "tools": TOOLS}) == "rejected"
    )


def turns_of(text: str) -> list[dict]:
    return [{"role": "user", "content": "Weather in Oslo?"}, {"role": "assistant", "content": text}]


@pytest.mark.parametrize("case", MESSAGES, ids=[case["label"] for case in MESSAGES])
def test_messages_of_all_providers_are_read_or_rejected(case):
    turns = case["conversations"]
    assert outcome(turns, MESSAGE_TOOLS) == case["expected"]
    column = "conversations" if "from" in turns[0] else "messages"
    assert fate({column: turns, "tools": MESSAGE_TOOLS}) == case["expected"]


def test_cases_from_public_reports():
    for case in load_shared("cases/rows.jsonl"):
        if case["id"].startswith(TOLD_APART):
            expected = case["expect"]["gold"] or "rejected"
            assert fate(case["row"]) == expected, case["id"]


@pytest.mark.parametrize("case", TEXTS, ids=[case["label"] for case in TEXTS])
def test_every_truncation_is_a_beginning_of_the_calls_or_is_told_as_unread(case):
    tools = DeclaredTools(TOOLS)
    whole = parse_turn(case["text"], tools).calls
    for end in range(len(case["text"])):
        parsed = parse_turn(case["text"][:end], tools)
        told = any(problem.kind in ("broken_call", "unread_call") for problem in parsed.problems)
        assert told or parsed.calls == whole[: len(parsed.calls)], case["text"][:end]


CALL = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
PIECES = st.sampled_from(
    [
        *(
            "get_weather",
            "get_time",
            "city",
            "Oslo",
            CALL,
            "<tool_call>",
            "</tool_call>",
            "<function_call>",
            "<|message|>",
        ),
        *("[TOOL_CALLS]", "<|python_tag|>", "<function=get_weather>", "functools[", "<escape>", "<end_function_call>"),
        *("<start_function_call>call:get_weather{", "<think>", "</think>", " to=", '<invoke name="get_weather">'),
        *(
            '<parameter name="city">',
            "</parameter>",
            "<arg_key>",
            "</arg_key>",
            "✿FUNCTION✿:",
            "Action: ",
            "Observation:",
        ),
        *("Action Input: ", "```json\n", "```", "<｜tool▁sep｜>", "[ARGS]", "print(", "[]", " with ", "null", "1"),
        *"{}[]()<>\"'`:=,\n",
    ]
)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_any_mix_of_marks_is_a_gold_or_a_reason(text):
    gold = extract_gold({"conversations": conversation("q", text), "tools": TOOLS})
    assert isinstance(gold, Gold) or (gold.reason and gold.detail)
    if isinstance(gold, Gold) and gold.calls:
        assert all(isinstance(call.name, str) and json.dumps(call.arguments) for call in gold.calls)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You could write get_weather(", "rejected"),  # an open bracket is a call that was cut off
        ("<function_call>get_weather {} {}</function_call>", "rejected"),  # which of the two?
        ('I use get_weather: {"town": "Oslo"}', "rejected"),  # no parameter of the tool
        ('get_weather(town="Oslo")', "rejected"),
        ('{"tools": [{"name": "get_weather", "description": "Weather of a city"}]}', "no_call"),
        ('[{"name": "get_weather", "description": "Weather of a city"}]', "no_call"),
        ('{"tool": "get_weather", "reason": "no city is given"}', "rejected"),
    ],
)
def test_calls_cut_off_and_tools_that_are_described(text, expected):
    assert outcome(conversation("q", text)) == expected


def test_the_analysis_of_a_harmony_turn_is_reasoning():
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>No.<|return|>"
    gold = extract_gold({"conversations": conversation("q", text), "tools": TOOLS})
    assert (gold.calls, gold.reply) == ((), "No.")


def test_a_parameter_may_be_called_as_the_arguments_are():
    tools = [{"name": "run", "parameters": {"input": {"type": "string"}, "args": {"type": "object"}}}]
    for fields, expected in (
        ({"input": "ls"}, {"input": "ls"}),
        ({"input": {"input": "ls"}}, {"input": "ls"}),
        ({"args": {"x": 1}}, {"args": {"x": 1}}),
        ({"input": "ls", "args": {"x": 1}}, {"input": "ls", "args": {"x": 1}}),
        ({"arguments": {"input": "ls"}}, {"input": "ls"}),
    ):
        text = f"<tool_call>{json.dumps({'name': 'run', **fields})}</tool_call>"
        assert outcome(conversation("q", text), tools) == [{"name": "run", "arguments": expected}], fields


FIRST = '<tool_call>{"name": "get_time", "arguments": {"zone": "CET"}}</tool_call>'


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([FIRST + '<tool_call>{"name": "f", "arguments": {"id": ${id}}}</tool_call>'], 1),
        ([FIRST + '<tool_call>{"name": "f", "arguments": {"id": ${id}}}</tool_call>', FIRST], 1),
        ([FIRST + '<tool_call>{"name": "f", "arguments": {"id": ${id}, "a": "x'], "rejected"),  # cut off as well
        (['<tool_call>{"name": "f", "arguments": {"id": ${id}}}</tool_call>' + FIRST], "rejected"),
        ([FIRST + '<tool_call>{"name": "f", "arguments": {"id": "x}}</tool_call>'], "rejected"),
    ],
)
def test_a_readable_prefix_is_kept_where_the_rest_waits_for_its_results(turns, expected):
    answers = [{"from": "gpt", "value": text} for text in turns]
    gold = extract_gold({"conversations": [{"from": "human", "value": "q"}, *answers], "tools": TOOLS})
    if expected == "rejected":
        assert isinstance(gold, Rejected) and gold.reason == "broken_call"
    else:
        assert (len(gold.calls), gold.problems[0].kind) == (expected, "dependent_call")


def test_a_call_in_another_notation_is_counted():
    row = {"messages": turns_of('get_weather(city="Oslo")'), "tools": TOOLS}
    assert build_rows([row]).problems == {"other_notation": 1}


def test_a_rejected_call_shows_its_text():
    rejected = extract_gold({"conversations": conversation("q", "<function_call>get wea"), "tools": TOOLS})
    assert (rejected.reason, "<function_call>get wea" in rejected.detail) == ("unread_call", True)


def test_names_are_told_without_their_name_space():
    for text in (
        'default_api.get_weather(city="Oslo")',
        '{"name": "functions.get_weather", "arguments": {"city": "Oslo"}}',
    ):
        assert outcome(conversation("q", text)) == [{"name": "get_weather", "arguments": {"city": "Oslo"}}]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"name": "get_weather", "arguments": {}, "parameters": {"city": "Oslo"}}, {"city": "Oslo"}),
        ({"name": "get_weather", "arguments": {"city": "Oslo"}, "id": "call_1", "type": "function"}, {"city": "Oslo"}),
        ({"name": "get_weather", "arguments": {"city": "Oslo"}, "days": None}, {"city": "Oslo"}),
        ({"name": "get_weather", "arguments": {"city": "Oslo"}, "days": 3}, None),
        ({"name": "get_weather", "arguments": {"city": "Oslo"}, "input": {"city": "Rome"}}, None),
        ({"name": "get_weather", "town": "Oslo"}, None),
        ({"name": "get_weather", "city": "Oslo", "town": "Rome"}, None),
        ({"name": "get_weather", "arguments": {}, "town": "Oslo"}, None),
        ({"name": "get_weather", "arguments": "Oslo"}, None),
        ({"name": "get_weather", "arguments": [{"name": "city", "value": "Oslo"}]}, {"city": "Oslo"}),
        ({"name": "get_weather", "parameters": {"type": "object", "properties": {}}}, None),
        ({"tool_name": "get_weather", "tool_arguments": '{"city": "Oslo"}'}, {"city": "Oslo"}),
        ({"action": "get_weather", "action_input": {"city": "Oslo"}}, {"city": "Oslo"}),
    ],
)
def test_arguments_are_found_or_the_call_is_broken(call, expected):
    expected = "rejected" if expected is None else [{"name": "get_weather", "arguments": expected}]
    assert outcome(conversation("q", f"<tool_call>{json.dumps(call)}</tool_call>")) == expected


@pytest.mark.parametrize(
    ("piece", "n"),
    [
        *(
            (piece, 100_000)
            for piece in ("<tool_call>", "<tool_call>{", "</tool_call>", "<function_call>{", "[TOOL_CALLS]")
        ),
        *(
            (piece, 100_000)
            for piece in ("<think>", "{", "[", '{"a":', "```json\n{", "<function=f><parameter=a>", "'{")
        ),
        *((piece, 100_000) for piece in ("get_weather(", "get_weather {", "Action: get_weather\nAction Input: {")),
        *(
            (piece, 100_000)
            for piece in ("<|channel|>", "✿FUNCTION✿: f\n", "<｜tool▁call▁begin｜>", "<functioncall> {'a': '")
        ),
    ],
)
def test_repetition_is_read_in_linear_time(piece, n):
    tools = DeclaredTools(TOOLS)
    for text in (piece * (n // len(piece)), "x" + piece * (n // len(piece)) + "}"):
        with measure_time() as took:
            parse_turn(text, tools)
        assert took.seconds < 3


def test_a_turn_of_ten_megabytes_is_rejected_at_once():
    for turns in (conversation("q" * 10_000_000, "no"), conversation("q", "{" * 10_000_000)):
        with measure_time() as took:
            rejected = extract_gold({"conversations": turns, "tools": TOOLS})
        assert (rejected.reason, took.seconds < 1) == ("too_long", True)
    assert isinstance(extract_gold({"conversations": conversation("q", "x" * MAX_TURN_CHARS)}), Gold)
