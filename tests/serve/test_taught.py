"""tools.json: every tool as training rows declared it, counted; the same file for the same rows; malformed files."""

import json
import random

import pytest

from fgtools.files import DataFileError
from fgtools.offline.samples import build_samples
from fgtools.profiles import DEVELOPER_TEXT
from fgtools.rows import build_rows
from fgtools.serve.taught import build_taught_tools, load_taught_tools, write_taught_tools

TOOL = {"name": "find", "parameters": {"type": {"type": "string"}, "n": {"type": "integer", "default": 3}}}


def raw(request, tools, call=None, system=""):
    said = json.dumps({"name": call, "arguments": {}}) if call else ""
    turns = [{"from": "human", "value": request}]
    turns += [{"from": "gpt", "value": f"<tool_call>{said}</tool_call>" if call else "No tool fits."}]
    first = [{"from": "system", "value": system}] if system else []
    return {"conversations": [*first, *turns], "tools": tools}


@pytest.fixture(scope="module")
def rows(coverage):
    other = {**TOOL, "description": "Another."}
    raws = [
        raw("a", [TOOL], "find"),
        raw("b", [TOOL, {"name": "a{b"}], "a{b"),
        raw("c", [TOOL]),
        raw("d", [other], "find"),
    ]
    return build_rows(raws, coverage=coverage).rows


def test_every_form_of_a_tool_is_kept_with_its_names_and_counts(rows, tokenizer):
    taught = build_taught_tools(rows, tokenizer)
    assert [(one.taught_name, one.name, one.shown, one.called) for one in taught.tools] == [
        ("a_b", "a{b", 1, 1),
        ("find", "find", 3, 1),
        ("find", "find", 1, 1),
    ]
    assert taught.tools[1].parameters == {"type_": "type"}
    assert "type_" in taught.tools[1].tool["function"]["parameters"]["properties"]
    assert (taught.rows, taught.most_tools, taught.recipe, taught.call_style) == (4, 2, "native", "native")
    assert "type" in taught.coverage.hidden_names and taught.reply_tokens % 16 == 0


def test_the_file_is_the_same_for_the_same_rows_in_any_order_and_is_read_back(rows, coverage, tokenizer, tmp_path):
    turned = {**TOOL, "parameters": dict(reversed(TOOL["parameters"].items()))}  # the template sorts them
    rows = [*rows, *build_rows([raw("e", [turned])], coverage=coverage).rows, *build_rows(build_samples(60, 3)).rows]
    mixed = random.Random(1).sample(rows, len(rows))
    texts = []
    for name, order in (("one", rows), ("two", mixed)):
        texts.append(write_taught_tools(tmp_path / name, order, tokenizer).read_text())
    assert texts[0] == texts[1]
    assert load_taught_tools(tmp_path / "one") == build_taught_tools(rows, tokenizer)
    content = json.loads(texts[0])
    assert texts[0].count("\n") == len(content["tools"]) + len(content) + 3  # one tool a line


def test_rows_that_were_left_out_taught_nothing(rows, tokenizer, tmp_path):
    write_taught_tools(tmp_path, rows, tokenizer, left_out=[rows[1]["row_id"]])
    taught = load_taught_tools(tmp_path)
    assert taught.rows == 3 and {one.name for one in taught.tools} == {"find"}


def test_the_developer_turn_is_that_of_most_rows_or_the_plain_sentence(coverage, tokenizer):
    def developer(*systems):
        raws = [raw(str(number), [TOOL], "find", system) for number, system in enumerate(systems)]
        return build_taught_tools(build_rows(raws, coverage=coverage).rows, tokenizer).developer

    assert developer("Be short.", "Be short.", "x") == f"Be short.\n{DEVELOPER_TEXT}"
    assert developer("It is Monday.", "It is Friday.", "It is May.") == DEVELOPER_TEXT


def test_under_the_tutorial_nothing_was_shown_in_another_way(tokenizer):
    rows = build_rows(build_samples(40, 3), "tutorial").rows
    taught = build_taught_tools(rows, tokenizer, "tutorial")
    assert taught.call_style == "tutorial" and not taught.coverage.hidden_names and not taught.coverage.hidden_facts


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "must have format 1, got 2"),
        ({"rows": "4"}, "rows must be of type int"),
        ({"call_style": "xml"}, "call_style must be"),
        ({"hidden_facts": [1]}, "hidden_facts must be pairs"),
        ({"tools": [{"tool": {}}]}, "tool 1 lacks a part"),
        (
            {"tools": [{"tool": {"function": {"name": 3, "parameters": {}}}, "shown": 1, "called": 0, "place": 0}]},
            "must be text",
        ),
    ],
)
def test_a_malformed_file_names_the_field(change, told, rows, tokenizer, tmp_path):
    path = write_taught_tools(tmp_path, rows, tokenizer)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataFileError, match=told):
        load_taught_tools(tmp_path)


def test_a_folder_without_the_file_knows_nothing(tmp_path):
    assert load_taught_tools(tmp_path) is None
