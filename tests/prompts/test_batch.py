"""Encoding by the thousand gives what encoding one by one gives, for any template; rows over the budget shrink last."""

import copy
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtools.calls import parse_reply, row_calls
from fgtools.calls.tokens import CONTROL_TOKENS
from fgtools.offline.samples import build_samples
from fgtools.profiles import RECIPES, adapt_recipe
from fgtools.prompts import Encoded, TooLong, batch, encode_row, encode_rows
from fgtools.prompts.batch import drop_context, drop_declarations
from fgtools.rows import build_rows

LIMIT = 10**6


@pytest.fixture(scope="module")
def rows():
    return build_rows(build_samples(700, 8)).rows


def one_by_one(rows, tokenizer, recipe="native", budget=LIMIT):
    return [encode_row(row, tokenizer, recipe, budget) for row in rows]


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_ids_and_labels_are_those_of_one_by_one(recipe, tokenizer):
    rows = build_rows(build_samples(700, 8), recipe).rows
    assert list(encode_rows(rows, tokenizer, recipe, LIMIT).encoded) == one_by_one(rows, tokenizer, recipe)


def test_odd_rows_are_no_exception(tokenizer, rows):
    draw = random.Random(4)
    odd = []
    for row in rows[:60]:
        row = copy.deepcopy(row)
        text = draw.choice([*CONTROL_TOKENS, "\u241e0\u241e", "\u241ddeclarations\u241d", "  ", "\n\n", "日本", ""])
        row["messages"][-1]["content"] = text + row["messages"][-1]["content"] + draw.choice(["", "  ", text])
        row["tools"][0]["function"]["description"] = draw.choice([text, "", None, 3])
        if draw.random() < 0.3:
            row["messages"].insert(1, {"role": "assistant", "content": f" {text}"})
        if draw.random() < 0.2:
            row["tools"] = []
        odd.append(row)
    assert list(encode_rows(odd, tokenizer, "native", LIMIT).encoded) == one_by_one(odd, tokenizer)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<start_function_declaration>declaration:", "<start_function_declaration>declare:"),  # another spelling
        ("{{ content | trim }}", "{{ content }}"),  # contents as they stand
        ("{{ content | trim }}", "{{ content | upper }}"),  # contents changed
        ("}<end_function_declaration>", "}<end_function_declaration>\n"),  # something between declarations
    ],
)
def test_another_template_is_followed_or_left_to_one_by_one(old, new, tokenizer, rows):
    other = copy.deepcopy(tokenizer)
    assert old in other.chat_template
    other.chat_template = other.chat_template.replace(old, new)
    chosen = [row for row in rows if len(row["tools"]) > 1][:80]
    assert list(encode_rows(chosen, other, "native", LIMIT).encoded) == one_by_one(chosen, other)


SPECS = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "boolean", "number"])},
        optional={"description": st.text(max_size=6), "enum": st.lists(st.text(max_size=3), max_size=3)},
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.text(max_size=5), inner, max_size=3)},
            optional={"required": st.lists(st.text(max_size=3), max_size=2), "additionalProperties": st.booleans()},
        ),
        st.fixed_dictionaries({"type": st.just("array")}, optional={"items": inner, "default": st.lists(st.text())}),
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "B", "type", "ñ", "b.c", "description"]), SPECS), max_size=4))
def test_any_tools_are_encoded_as_one_by_one(tokenizer, tools):
    tools = [declare(f"f{number % 3}", properties) for number, properties in enumerate(tools)]
    rows = [{**long_row(), "tools": some, "gold": []} for some in (tools, tools[::-1], tools[:1] * 2)]
    assert list(encode_rows(rows, tokenizer, "native", LIMIT).encoded) == one_by_one(rows, tokenizer)


@pytest.fixture(scope="module")
def expected(rows, tokenizer):
    return one_by_one(rows[:400], tokenizer)


@pytest.mark.parametrize("wrong", [0, 23, 32, 384])  # the first 24, and every 16th after them
def test_a_difference_in_any_row_that_is_compared_is_noticed(wrong, expected, tokenizer, rows, monkeypatch, capsys):
    plain, many, done = batch._Encoder.encode, rows[:400], []
    assert len(many) == 400 and len(many) // batch.COMPARED == 16

    def damaged(encoder, part):
        found = plain(encoder, part)
        done.extend(found)
        place = wrong - len(done) + len(found)
        if 0 <= place < len(found):
            found[place] = Encoded([], [], 0)
        return found

    monkeypatch.setattr(batch._Encoder, "encode", damaged)
    assert list(encode_rows(many, tokenizer, "native", LIMIT).encoded) == expected
    assert "encoding row by row" in capsys.readouterr().out


def test_a_declaration_is_rendered_once(tokenizer, rows, monkeypatch):
    shown, plain = [], batch.render_prompt
    monkeypatch.setattr(batch, "render_prompt", lambda *args: shown.append(args[1] or []) or plain(*args))
    encode_rows(rows, tokenizer, "native", LIMIT)
    names = [json.dumps(tool) for tools in shown for tool in tools if tool["function"] is not batch._PLACEHOLDER]
    assert len(names) == len(set(names)) < sum(len(row["tools"]) for row in rows)


def declare(name, properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


def long_row(n_turns=3, n_tools=4):
    messages = [{"role": "developer", "content": "d"}]
    for number in range(n_turns):
        messages += [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": "answer"}]
    tools = [declare(f"t{n}", {"word": {"type": "string", "description": "word " * 20}}) for n in range(n_tools)]
    gold = [{"name": "t2", "arguments": {}}]
    return {
        "row_id": "r",
        "messages": [*messages, {"role": "user", "content": "last"}],
        "tools": tools,
        "gold": gold,
        "reply": "",
    }


def test_old_context_goes_before_the_row_does(tokenizer):
    row = long_row()
    shortened = list(drop_context(row))
    assert [len(one["messages"]) for one in shortened] == [6, 4, 2]
    assert all(one["messages"][0]["role"] == "developer" and one["messages"][1]["role"] == "user" for one in shortened)
    lengths = [len(encode_row(one, tokenizer, "native", LIMIT).input_ids) for one in (row, *shortened)]
    result = encode_rows([row], tokenizer, "native", lengths[2])
    assert result.without_context == ("r",) and result.encoded == (
        encode_row(shortened[1], tokenizer, "native", LIMIT),
    )
    assert encode_rows([row], tokenizer, "native", lengths[-1] - 1).too_long == (
        TooLong("r", lengths[0], lengths[-1] - 1),
    )


def test_pruning_keeps_the_gold_tool_and_is_seeded(tokenizer):
    row = long_row()
    pruned = list(drop_declarations(row, seed=1))
    assert [len(one["tools"]) for one in pruned] == [3, 2, 1]
    assert all("t2" in [tool["function"]["name"] for tool in one["tools"]] for one in pruned)
    assert pruned == list(drop_declarations(row, seed=1)) and len(row["tools"]) == 4
    assert any(pruned != list(drop_declarations(row, seed=seed)) for seed in range(2, 12))
    recipe = adapt_recipe(RECIPES["native"], over_length="prune")
    budget = len(encode_row(pruned[-1], tokenizer, "native", LIMIT).input_ids)
    result = encode_rows([row], tokenizer, recipe, budget)
    assert result.pruned == ("r",) and not result.too_long
    assert result == encode_rows([row], tokenizer, recipe, budget)
    text = tokenizer.decode(result.encoded[0].input_ids)
    assert parse_reply(text.rpartition("model\n")[2]).calls == row_calls(row)


def with_steps(row):
    """The row, its request answered with a call of t1 and the call with a result."""
    call = {"type": "function", "function": {"name": "t1", "arguments": {}}}
    calling = {"role": "assistant", "content": "", "tool_calls": [call]}
    return {**row, "messages": [*row["messages"], calling, {"role": "tool", "name": "t1", "content": {"ok": True}}]}


def test_a_row_that_shrinks_keeps_what_followed_its_request(tokenizer):
    row = with_steps(long_row())
    last = row["messages"][-3:]
    assert [one["messages"][-3:] for one in drop_context(row)] == [last] * len(list(drop_context(long_row())))
    pruned = list(drop_declarations(row, seed=1))
    assert [one["messages"] for one in pruned] == [[row["messages"][0], *last]] * 2
    assert all({"t1", "t2"} <= {tool["function"]["name"] for tool in one["tools"]} for one in pruned)
    assert encode_rows([row], tokenizer, "native", LIMIT).encoded == (encode_row(row, tokenizer, "native", LIMIT),)


def test_the_tutorial_cuts(tokenizer):
    result = encode_rows([long_row()], tokenizer, "tutorial", 20)
    cut = result.encoded[0]
    assert isinstance(cut, Encoded) and len(cut.input_ids) == len(cut.labels) == cut.n_prompt == 20
