"""One request to a model: what it is shown, what is parsed from its reply, what cannot be asked, names put back."""

import json

import pytest

from fgtools.calls import Problem, ToolCall
from fgtools.files import InputError
from fgtools.generate.constrained import ConstraintError
from fgtools.metrics import Confidence, GeneratedReply
from fgtools.profiles import DEVELOPER_TEXT
from fgtools.schema import SchemaError
from fgtools.serve import Answer, answer_request, restore_calls
from tests.toys import MEAL_TOOLS as TOOLS

MODEL = object()
"""Stands for a model whose replies a test gives."""

REQUEST = "note that i ate spring rolls of 892 calories"


def test_an_answer_has_prompt_reply_call_and_validity_with_the_callers_own_names(model, tokenizer):
    answer = answer_request(model, tokenizer, REQUEST, json.dumps(TOOLS), constrained=True)
    assert "type_:" in answer.prompt and REQUEST in answer.prompt  # the template would hide a parameter named type
    assert answer.calls[0].name == "meal_log" and "type_" not in answer.calls[0].arguments
    assert not answer.problems and answer.validity.startswith("✓") and answer.kind == "call"


def test_what_cannot_be_asked_is_said(model, tokenizer):
    with pytest.raises(ValueError, match="a request must be there"):
        answer_request(model, tokenizer, " ", TOOLS)
    with pytest.raises(ValueError, match="JSON"):
        answer_request(model, tokenizer, REQUEST, "[{")
    with pytest.raises(ValueError, match="halves of surrogate pairs"):
        answer_request(model, tokenizer, REQUEST + "\ud800", TOOLS)
    with pytest.raises(ConstraintError, match="the recipe's are 'tutorial'"):
        answer_request(model, tokenizer, REQUEST, TOOLS, "tutorial", constrained=True)


CALL = "<start_function_call>call:meal_log{dish:<escape>rice<escape>%s}<end_function_call><start_function_response>"


@pytest.fixture
def replying(monkeypatch):
    """Let the model answer with a given text, and keep the rows it was shown."""
    shown = []

    def reply_with(text):
        reply = GeneratedReply(text, Confidence(12, -0.05, -0.01))
        answering = "fgtools.generate.generate_with_confidence"
        monkeypatch.setattr(answering, lambda model, tokenizer, rows, **_: shown.extend(rows) or [reply])
        return shown

    return reply_with


def test_a_call_is_checked_against_the_tools_of_the_caller(replying, tokenizer):
    shown = replying(CALL % ",type_:3")
    answer = answer_request(MODEL, tokenizer, REQUEST, TOOLS)
    assert answer.calls == (ToolCall("meal_log", {"dish": "rice", "type": 3}),)
    assert answer.validity == "✓ in the grammar, declared tools, arguments fit their schemas"
    assert "type_" in shown[0]["tools"][0]["function"]["parameters"]["properties"]
    replying(CALL % ",type_:<escape>x<escape>")
    faulty = answer_request(MODEL, tokenizer, REQUEST, TOOLS)
    assert [problem.kind for problem in faulty.problems] == ["invalid_arguments"] and "type" in faulty.validity
    assert (faulty.kind, faulty.calls, len(faulty.rejected)) == ("invalid", (), 1)
    assert faulty.validity.startswith("✗ invalid_arguments: meal_log")
    replying("I cannot.<end_of_turn>")
    assert answer_request(MODEL, tokenizer, REQUEST, TOOLS).validity == "no call"


def test_what_is_wrong_in_tools_and_reply_is_said_apart(replying, tokenizer):
    replying("<start_function_call>call:meal_log{dish")
    problems = answer_request(MODEL, tokenizer, REQUEST, [*TOOLS, "odd"]).problems
    assert problems[0] == Problem("not_a_tool", "tools: 'odd'")
    assert [problem.kind for problem in problems[1:]] == ["unclosed_call", "cut_off"]
    tutorial = answer_request(MODEL, tokenizer, REQUEST, TOOLS, "tutorial")
    assert [problem.kind for problem in tutorial.problems] == ["unclosed_call", "cut_off"]


def test_earlier_calls_are_shown_under_the_names_that_the_model_knows(replying, tokenizer):
    replying(CALL % ",type_:3")
    call = {"type": "function", "function": {"name": "meal_log", "arguments": {"dish": "soup", "type": 1}}}
    earlier = [
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "soup"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "meal_log", "content": {"type": 1}},
        {"role": "assistant", "content": "Noted."},
    ]
    answer = answer_request(MODEL, tokenizer, REQUEST, TOOLS, before=earlier)
    assert "call:meal_log{dish:<escape>soup<escape>,type_:1}" in answer.prompt
    assert "response:meal_log{type:1}<end_function_response>Noted.<end_of_turn>" in answer.prompt
    assert answer.calls[0].arguments == {"dish": "rice", "type": 3}


def test_earlier_messages_take_the_place_of_the_developer_turn(replying, tokenizer):
    shown = replying("no")
    earlier = [{"role": "developer", "content": "Answer in rhyme."}, {"role": "user", "content": "hello"}]
    answer = answer_request(MODEL, tokenizer, REQUEST, TOOLS, before=earlier)
    said = shown[0]["messages"]
    assert said[1:] == [*earlier[1:], {"role": "user", "content": REQUEST}]
    assert said[0]["content"] == f"Answer in rhyme.\n{DEVELOPER_TEXT}" in answer.prompt  # as training rows have it
    answer_request(MODEL, tokenizer, REQUEST, TOOLS)
    assert [message["role"] for message in shown[1]["messages"]] == ["developer", "user"]


def test_faults_are_listed_one_a_line(tokenizer):
    answer = Answer("", "", (), "", (Problem("a", "b"), Problem("c", "d")))
    assert answer.validity == "✗ a: b\n✗ c: d"
    with pytest.raises(SchemaError, match="JSON"):
        answer_request(MODEL, tokenizer, REQUEST, "[{")


PARAMETERS = {
    "find": {
        "properties": {
            "type_": {"type": "string"},
            "rows": {"items": {"properties": {"type_": {"type": "string"}, "size": {"type": "integer"}}}},
        }
    }
}
RENAMED = {"tools": {"find": "find {it}"}, "parameters": {"find": {"type_": "type"}}}


def test_tools_and_parameters_get_their_own_names_at_every_level():
    calls = [ToolCall("find", {"type_": "a", "rows": [{"type_": "b", "size": 1}], "free": {"type_": 2}})]
    wanted = ToolCall("find {it}", {"type": "a", "rows": [{"type": "b", "size": 1}], "free": {"type_": 2}})
    assert restore_calls(calls, RENAMED, PARAMETERS) == [wanted]
    assert calls[0].arguments["type_"] == "a"


def test_what_was_not_renamed_stays_in_its_order():
    calls = [ToolCall("other", {"type_": 1}), ToolCall("find", {}), ToolCall("unknown", {})]
    assert restore_calls(calls, {}, {}) == calls
    assert [call.name for call in restore_calls(calls, RENAMED, PARAMETERS)] == ["other", "find {it}", "unknown"]


def test_the_authors_own_schema_restores_names_too_and_a_strange_one_is_an_error():
    wanted = [ToolCall("find {it}", {"type": "a"})]
    own = {"properties": {"type": {"type": "string"}, "rows": {}}}
    for parameters in ({"find": own}, {"find {it}": own}, PARAMETERS):
        assert restore_calls([ToolCall("find", {"type_": "a"})], RENAMED, parameters) == wanted
    for parameters in ({}, {"find": {"properties": {"size": {}}}}):
        with pytest.raises(InputError, match="the schema of 'find' must declare type_, or by their authors'"):
            restore_calls([ToolCall("find", {"type_": "a"})], RENAMED, parameters)
