"""Row shapes: each published shape is told by its columns and gives the same row as its Hermes version."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.rows import build_rows
from fgtools.rows.formats import SHAPES, extract_tools, guess_shape, normalize_row
from tests.clock import measure_time

REQUEST = "What is the weather in Oslo and in Rome?"
TOOL = {
    "name": "get_weather",
    "description": "Current weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALLS = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Oslo", "Rome")]
OPENAI_CALLS = [
    {"id": f"c{index}", "type": "function", "function": {**call, "arguments": json.dumps(call["arguments"])}}
    for index, call in enumerate(CALLS)
]
BLOCKS = "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in CALLS)
WRAPPED = [{"type": "function", "function": TOOL}]
MESSAGES = [{"role": "user", "content": REQUEST}, {"role": "assistant", "content": None, "tool_calls": OPENAI_CALLS}]

ROWS = {
    "hermes": {
        "conversations": [{"from": "human", "value": REQUEST}, {"from": "gpt", "value": BLOCKS}],
        "tools": json.dumps([TOOL]),
        "task": REQUEST,
    },
    "openai": {"messages": MESSAGES, "tools": WRAPPED},
    "mobile_actions": {
        "text": json.dumps(
            {
                "metadata": "eval",
                "tools": [{"function": TOOL}],
                "messages": [
                    MESSAGES[0],
                    {"role": "assistant", "tool_calls": [{"function": call} for call in CALLS]},
                ],
            }
        )
    },
    "trl": {"prompt": MESSAGES[:1], "completion": MESSAGES[1:], "tools": json.dumps(WRAPPED)},
    "xlam": {"id": 7, "query": REQUEST, "answers": json.dumps(CALLS), "tools": json.dumps([TOOL])},
    "glaive": {
        "system": "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -"
        f"\n{json.dumps(TOOL, indent=4)}",
        "chat": f"USER: {REQUEST}\n\n\nASSISTANT: "
        + " ".join(
            f'<functioncall> {{"name": "get_weather", "arguments": \'{json.dumps(call["arguments"])}\'}} <|endoftext|>'
            for call in CALLS
        )
        + "\n\n\nFUNCTION RESPONSE: {}\n\n\nASSISTANT: Sunny. <|endoftext|>",
    },
    "bfcl": {
        "id": "parallel_3",
        "question": [[{"role": "user", "content": REQUEST}]],
        "function": [TOOL],
        "ground_truth": [{"get_weather": {"city": [call["arguments"]["city"], "x"]}} for call in CALLS],
    },
    "toolace": {
        "system": f"Here is a list of functions in JSON format that you can invoke:\n[{json.dumps(TOOL)}].",
        "conversations": [
            {"from": "user", "value": REQUEST},
            {"from": "assistant", "value": "[get_weather(city=\"Oslo\"), get_weather(city='Rome')]"},
        ],
    },
    "responses": {
        "input": [{"role": "user", "content": REQUEST}],
        "output": [
            {"type": "reasoning", "summary": []},
            *(
                {"type": "function_call", "name": "get_weather", "arguments": json.dumps(call["arguments"])}
                for call in CALLS
            ),
        ],
        "tools": [{"type": "function", **TOOL}],
    },
    "gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": REQUEST}]},
            {"role": "model", "parts": [{"text": BLOCKS}]},
        ],
        "tools": [{"functionDeclarations": [TOOL]}],
    },
    "preference": {
        "prompt": MESSAGES[:1],
        "chosen": MESSAGES[1:],
        "rejected": [{"role": "assistant", "content": "No."}],
        "tools": WRAPPED,
    },
    "request_call": {
        "request": REQUEST,
        "call": "get_weather(city=\"Oslo\")\nget_weather(city='Rome')",
        "tools": json.dumps([TOOL]),
    },
    "alpaca": {"instruction": REQUEST, "input": "", "output": BLOCKS, "tools": json.dumps([TOOL])},
    "nestful": {
        "input": REQUEST,
        "output": [{**call, "label": f"$var_{index}"} for index, call in enumerate(CALLS)],
        "tools": [TOOL],
    },
    "when2call": {
        "question": REQUEST,
        "correct_answer": "tool_call",
        "answers": {"direct": "Sunny.", "tool_call": BLOCKS},
        "tools": [json.dumps(TOOL)],
    },
}


TOOL_COLUMNS = {
    "user_content": "Weather in Oslo?",
    "tool_name": "get_weather",
    "tool_arguments": '{"city": "Oslo"}',
    "tools": json.dumps([TOOL]),
}
"""The one shape that holds one call alone."""


@pytest.mark.parametrize("shape", ROWS)
def test_a_shape_is_told_and_gives_the_same_row_in_both_recipes(shape):
    assert guess_shape(ROWS[shape]) == shape
    for recipe in ("native", "tutorial"):
        if recipe == "tutorial" and shape == "toolace":
            continue  # the tutorial reads Hermes conversations as they stand: no tools column, no row
        row_set = build_rows([ROWS[shape]], recipe)
        assert row_set.funnel == {"kept": 1} and row_set.shapes == {shape: 1}
        row, reference = row_set.rows[0], build_rows([ROWS["hermes"]], recipe).rows[0]
        for field in ("messages", "gold", "tools", "group"):
            if recipe == "native" or field in ("messages", "gold"):
                assert row[field] == reference[field], field


def test_every_shape_has_a_row():
    assert {*ROWS, "tool_columns"} == {*SHAPES} and guess_shape(TOOL_COLUMNS) == "tool_columns"
    assert build_rows([TOOL_COLUMNS]).rows[0]["gold"] == CALLS[:1]


@pytest.mark.parametrize("shape", ROWS)
def test_a_forced_shape_is_the_guessed_one(shape):
    assert build_rows([ROWS[shape]], shape=shape).rows == build_rows([ROWS[shape]]).rows


def test_a_forced_shape_that_does_not_fit_is_a_counted_rejection():
    for shape in set(SHAPES) - {"hermes", "toolace"}:
        assert build_rows([ROWS["hermes"]], shape=shape).funnel["kept"] in (0, 1)
    assert build_rows([ROWS["xlam"]], shape="hermes").funnel == {"kept": 0, "bad_conversation": 1}
    with pytest.raises(ValueError, match="SHAPE must be 'auto' or one of"):
        normalize_row({}, "nope")


def test_rows_of_one_file_may_have_several_shapes():
    row_set = build_rows([*ROWS.values(), {"nothing": 1}])
    assert row_set.shapes["unknown"] == 1 and row_set.funnel == {"kept": len(ROWS), "unknown_shape": 1}


def test_the_side_of_mobile_actions_is_kept():
    assert build_rows([ROWS["mobile_actions"]]).rows[0]["split"] == "eval"


def test_the_category_of_bfcl_is_the_scenario():
    assert build_rows([ROWS["bfcl"]]).rows[0]["scenario"] == "parallel"


@pytest.mark.parametrize(
    "row",
    [
        {"query": "Hi", "answers": "[]", "tools": json.dumps([TOOL])},
        {"id": "live_irrelevance_2-0-1", "question": [[{"role": "user", "content": "Hi"}]], "function": [TOOL]},
    ],
)
def test_an_answer_without_calls_is_a_row_without_a_call(row):
    made = build_rows([row]).rows[0]
    assert made["gold"] == [] and made["reply"] == "" and made["messages"][-1]["content"] == "Hi"


def test_a_question_whose_answer_is_missing_is_rejected():
    row = {key: value for key, value in ROWS["bfcl"].items() if key != "ground_truth"}
    assert build_rows([row]).funnel == {"kept": 0, "no_assistant_turn": 1}


def test_of_allowed_values_the_first_counts_and_an_empty_one_leaves_the_argument_out():
    truth = [{"f": {"a": ["", 1], "b": [{"x": [1, 2], "y": [""]}], "c": [[{"z": ["q"]}]], "d": [0]}}]
    row = {"id": "simple_1", "question": "Do it.", "function": [{"name": "f"}], "ground_truth": truth}
    assert build_rows([row]).rows[0]["gold"][0]["arguments"] == {"b": {"x": 1}, "c": [{"z": "q"}], "d": 0}


def test_expected_calls_may_be_python_text():
    row = {"id": "exec_1", "question": "Do it.", "function": [{"name": "f"}], "ground_truth": ["f(a=1, b='x')"]}
    assert build_rows([row]).rows[0]["gold"] == [{"name": "f", "arguments": {"a": 1, "b": "x"}}]


def test_tool_calls_inside_conversations_are_openais():
    row = {"conversations": MESSAGES, "tools": WRAPPED}
    assert guess_shape(row) == "openai"
    assert build_rows([row]).rows[0]["gold"] == CALLS


def test_old_openai_functions_and_text_beside_calls():
    row = {
        "messages": [
            {"role": "system", "content": "It is Monday."},
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": "Sure.", "function_call": {"name": "f", "arguments": '{"a": 1}'}},
        ],
        "functions": [{"name": "f"}],
    }
    made = build_rows([row]).rows[0]
    assert made["gold"] == [{"name": "f", "arguments": {"a": 1}}]
    assert made["messages"][0]["content"].startswith("It is Monday.")


def test_broken_calls_are_counted_and_not_taken_for_words():
    rows = [
        {
            **ROWS["openai"],
            "messages": [MESSAGES[0], {**MESSAGES[1], "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
        },
        {
            **ROWS["toolace"],
            "conversations": [ROWS["toolace"]["conversations"][0], {"from": "gpt", "value": "[f(1, 2)]"}],
        },
        {**ROWS["glaive"], "chat": "USER: Q\n\n\nASSISTANT: <functioncall> {broken <|endoftext|>"},
    ]
    assert build_rows(rows).funnel == {"kept": 0, "broken_call": 3}


def test_a_glaive_apostrophe_inside_single_quotes_is_read():
    call = '<functioncall> {"name": "f", "arguments": \'{"a": "it\'s"}\'} <|endoftext|>'
    row = {"system": 'SYSTEM: functions -\n{"name": "f"}', "chat": f"USER: Q\n\n\nASSISTANT: {call}"}
    assert build_rows([row]).rows[0]["gold"] == [{"name": "f", "arguments": {"a": "it's"}}]


def test_a_system_column_stands_before_the_conversation():
    row = {**ROWS["hermes"], "system": "It is Monday."}
    assert build_rows([row]).rows[0]["messages"][0]["content"].startswith("It is Monday.")


def test_tools_are_found_in_a_system_text():
    assert extract_tools(f'Use <tools>{json.dumps(TOOL)}\n{json.dumps(WRAPPED)}</tools> {{"name": "no"}}') == [
        TOOL,
        WRAPPED[0],
    ]
    assert extract_tools("Braces {like this} and [lists] declare nothing.") == []


def test_arguments_stay_as_they_are():
    for row in ROWS.values():
        before = json.dumps(row)
        build_rows([row])
        assert json.dumps(row) == before


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
COLUMNS = sorted({name for row in ROWS.values() for name in row} | {"functions", "metadata", "text", "split"})


@given(st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=6))
def test_any_columns_end_in_a_row_or_a_reason(row):
    for shape in ("auto", *SHAPES):
        assert sum(build_rows([row], shape=shape).funnel.values()) == 1


@given(st.sampled_from(sorted(ROWS)), st.sampled_from(COLUMNS), VALUES)
def test_a_spoiled_column_ends_in_a_row_or_a_reason(shape, column, value):
    for recipe in ("native", "tutorial"):
        assert sum(build_rows([{**ROWS[shape], column: value}], recipe).funnel.values()) == 1


def test_one_column_of_two_makes_no_shape():
    assert guess_shape({"query": "q", "chat": "c", "prompt": "p", "question": "q"}) == "unknown"


MARKS = (
    "<tools>",
    "<functioncall>",
    "\n",
    "[(",
    "{",
    '{"a":',
    "[{'",
    "Name: x\nDescription: y\nParameters: {",
    "USER:",
)
MARKS = (*MARKS, "\nsystem:", "f(a=1)\n", "f(a=1),", "$a.", "' ", " ", "</tools>")


@pytest.mark.parametrize("mark", MARKS)
def test_repeated_marks_are_read_in_linear_time(mark):
    text = mark * (100_000 // len(mark))
    rows = [
        {"system": text, "chat": f"USER: q\n\nASSISTANT: {text}"},
        {"system": text, "conversations": [{"from": "user", "value": "q"}, {"from": "gpt", "value": f"[{text})]"}]},
        {"request": "q", "call": text, "tools": [TOOL]},
        {"question": f"user: {text}", "function": [TOOL], "ground_truth": text},
        {"input": "q", "output": [{"name": "f", "arguments": {"a": text}}], "tools": [TOOL]},
    ]
    with measure_time() as took:
        build_rows(rows)
    assert took.seconds < 5.0  # what takes quadratic time takes minutes


def test_tools_are_found_in_bedrocks_configuration():
    schema = {"json": {"type": "object", "properties": {"city": {"type": "string"}}}}
    use = {"toolUse": {"toolUseId": "a", "name": "get_weather", "input": {"city": "Oslo"}}}
    messages = [{"role": "user", "content": [{"text": "Weather?"}]}, {"role": "assistant", "content": [use]}]
    tools = [{"toolSpec": {"name": "get_weather", "description": "", "inputSchema": schema}}]
    (row,) = build_rows([{"messages": messages, "toolConfig": {"tools": tools}}]).rows
    assert row["gold"] == [{"name": "get_weather", "arguments": {"city": "Oslo"}}]
