"""The self-check at first contact: what holds of the stand-in, and that each check can fail and says what to do."""

import copy
import json
from types import SimpleNamespace

import pytest

from fgtools.__main__ import main
from fgtools.calls import render_calls, row_calls
from fgtools.calls.tokens import CONTROL_IDS
from fgtools.offline.standin import FIXED_IDS
from fgtools.prompts.golden import GOLDEN_PROMPTS
from fgtools.run import self_check
from fgtools.run.folder import RunFolder
from fgtools.run.notebooks import render_summary
from fgtools.run.self_check import (
    GUIDES_CALL,
    STANDINS_CALL,
    Finding,
    SelfCheckError,
    build_self_check_table,
    check_control_tokens,
    check_known_call,
    check_model,
    check_replies,
    check_stop_tokens,
    check_template,
    require_known_model,
    to_records,
)
from tests.toys import small_rows

ROWS = tuple(row for row in small_rows(60, 20) if row["gold"])[:8]
REPLIES = [render_calls(row_calls(row), "native") + "<start_function_response>" for row in ROWS]


def with_template(tokenizer, old, new):
    changed = copy.deepcopy(tokenizer)
    assert old in changed.chat_template
    changed.chat_template = changed.chat_template.replace(old, new)
    return changed


def test_everything_holds_of_the_standin(model, tokenizer):
    findings = check_model(model, tokenizer, ROWS, REPLIES)
    names = ["chat template", "control tokens", "stop tokens", "replies in the grammar", "known call"]
    assert [one.name for one in findings] == names
    assert all(one.holds and one.detail and not one.remedy for one in findings)
    require_known_model(findings)
    assert "may have ids of its own" in findings[1].detail
    assert [one.name for one in check_model(model, tokenizer)] == [*names[:3], names[4]]


def test_a_call_in_a_golden_prompt_is_what_training_writes():
    (calls,) = [one for one in GOLDEN_PROMPTS if not one.add_generation_prompt]
    written = row_calls({"gold": [call["function"] for call in calls.messages[-1]["tool_calls"]]})
    assert calls.text == GOLDEN_PROMPTS[0].text + render_calls(written, "native") + "<start_function_response>"


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("declaration:", "tool:", "has 'tool:book_table"),
        ("{%", "{% if %}{%", "fails with TemplateSyntaxError"),
        ("<end_of_turn>", "<end_of_turn> ", "must stand"),
        (" | upper", "", "must stand"),
    ],
)
def test_a_template_that_renders_otherwise_is_told_with_the_place(old, new, found, tokenizer):
    one = check_template(with_template(tokenizer, old, new))
    assert not one.holds and found in one.detail and "chat_template.jinja" in one.remedy


def test_a_template_that_stops_early_is_told_with_the_place(tokenizer):
    short = copy.deepcopy(tokenizer)
    short.chat_template = "{{ bos_token }}"
    assert "has '' at character 5, where '<start_of_turn>developer" in check_template(short).detail


class Spelling:
    """A tokenizer of characters that knows some control tokens; the others are split into characters."""

    def __init__(self, ids, length):
        self.ids, self.length = ids, length

    def __len__(self):
        return self.length

    def __call__(self, text, add_special_tokens):
        ids = []
        while text:
            known = next((word for word in self.ids if text.startswith(word)), text[0])
            ids.append(self.ids[known] if known in self.ids else 1000 + ord(known))
            text = text[len(known) :]
        return {"input_ids": ids}


FULL = {**CONTROL_IDS, **self_check.HEADS, "\n": 107}


def test_functiongemmas_own_ids_hold():
    one = check_control_tokens(Spelling(FULL, 262_146), 262_144)
    assert one.holds and one.detail == "13 of 13 are one id each and in their places; the ids are FunctionGemma's"


@pytest.mark.parametrize(
    ("changes", "length", "embeddings", "found"),
    [
        ({"<start_function_call>": 6}, 262_144, 262_144, "<start_function_call> has id 6, not 48"),
        ({"model": 4369}, 262_144, 262_144, "the head of a model turn is [105, 4369, 107], not [105, 4368, 107]"),
        ({"<escape>": 7000}, 5000, 6000, "<escape> has id 7000, beyond the embedding"),
        ({"<escape>": 49}, 5000, 6000, "ids of <end_function_call>, not 0"),
        ({"<escape>": None}, 5000, 6000, "<escape> is 8 ids"),
    ],
)
def test_ids_out_of_place_are_named(changes, length, embeddings, found):
    ids = {token: number for token, number in {**FULL, **changes}.items() if number is not None}
    one = check_control_tokens(Spelling(ids, length), embeddings)
    assert not one.holds and found in one.detail and "tokenizer files" in one.remedy


def test_other_ids_are_right_in_another_vocabulary():
    assert check_control_tokens(Spelling({**FULL, "<escape>": 6}, 5000), 6000).holds


@pytest.mark.parametrize(("own", "holds"), [([106, 1, 50], True), ([1, 106], False), (1, False), (None, False)])
def test_stop_tokens_are_those_of_the_generation_settings(own, holds, tokenizer):
    one = check_stop_tokens(tokenizer, own)
    assert one.holds is holds and "1, 50, 106" in one.detail + one.remedy
    assert holds or "eos_token_id=[1, 50, 106]" in one.remedy


def test_replies_are_counted_and_those_cut_at_the_budget_too():
    assert check_replies(ROWS, REPLIES).holds
    prose = ["You are a model that can"] * 5 + REPLIES[5:]
    one = check_replies(ROWS, prose)
    assert not one.holds and one.detail.startswith("3/8 = 37.5%") and "5 of 8 replies end at the budget" in one.detail
    assert "base model" in one.remedy


RIGHT = "<start_function_call>call:get_current_weather{location:<escape>Tokyo, Japan<escape>}<end_function_call>"


@pytest.mark.parametrize(
    ("reply", "holds"),
    [
        (RIGHT + "<start_function_response>", True),
        (RIGHT.replace("}", ",unit:<escape>celsius<escape>}"), True),
        (RIGHT.replace("}", ",unit:<escape>kelvin<escape>}"), False),
        (RIGHT.replace("Tokyo", "Osaka"), False),
        (RIGHT.replace("get_current_", ""), False),
        (RIGHT.replace("location:", "city:"), False),
        (RIGHT + RIGHT, False),
        (RIGHT.replace("<escape>}", "}"), False),
        ("I am sorry.<end_of_turn>", False),
        ("", False),
    ],
)
def test_the_known_call_is_one_call_with_the_place(reply, holds):
    one = check_known_call(GUIDES_CALL, reply)
    assert one.holds is holds and bool(one.remedy) is not holds


def test_the_guides_call_is_asked_of_functiongemmas_vocabulary_alone(model, tokenizer, monkeypatch):
    asked = []

    def answer(model, tokenizer, rows, **_):
        asked.extend(row["tools"][0] for row in rows)
        return [RIGHT]

    monkeypatch.setattr("fgtools.generate.generate_replies", answer)
    stub = SimpleNamespace(get_input_embeddings=model.get_input_embeddings, generation_config=None)
    assert not check_model(stub, tokenizer)[-1].holds and asked == [STANDINS_CALL.tool]
    monkeypatch.setattr(self_check, "VOCABULARY", len(tokenizer))
    assert check_model(stub, tokenizer)[-1].holds and asked[1:] == [GUIDES_CALL.tool]


FAILED = Finding("known call", False, "it got ''", "load it anew")


def test_findings_are_a_table_a_file_and_an_error(tmp_path):
    found = (Finding("chat template", True, "fine"), FAILED)
    table = build_self_check_table(found)
    assert list(table["holds"]) == ["yes", "NO"] and list(table.iloc[1])[2:] == ["it got ''", "load it anew"]
    run = RunFolder(tmp_path)
    run.write_json("self_check.json", json.loads(json.dumps(to_records(found))))
    assert render_summary(run).splitlines() == [
        "self-check  1 of 2 hold",
        "self-check  known call: it got '': load it anew",
    ]
    with pytest.raises(SelfCheckError, match=r"1 of 2 do not: known call \(load it anew\)"):
        require_known_model(found)


def test_the_command_prints_the_table_and_fails_where_a_check_does(monkeypatch, capsys):
    assert main(["check", "--model", "standin"]) == 0
    assert "known call      yes" in capsys.readouterr().out
    monkeypatch.setattr(self_check, "check_model", lambda *_: (FAILED,))
    assert main(["check", "--model", "standin"]) == 1
    told = capsys.readouterr()
    assert "known call  NO" in told.out and "error: every check of the model must hold" in told.err


def test_the_standin_keeps_functiongemmas_ids(tokenizer):
    assert all(tokenizer.convert_tokens_to_ids(token) == number for token, number in CONTROL_IDS.items())
    assert {**CONTROL_IDS, "\n": 107} == FIXED_IDS
