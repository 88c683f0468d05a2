"""One row and one reply: rungs and counts of arguments, whatever the tools declare."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.calls import ToolCall, render_calls
from fgtools.metrics import LADDER, score_row
from fgtools.rows import build_rows
from tests.clock import measure_time

OPTIONAL = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 2}, "c": {"type": "string"}},
    "required": ["a"],
}


def row(gold, parameters=OPTIONAL, names=("f", "g"), **fields):
    tools = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in names]
    return {"row_id": "r", "messages": [{"role": "user", "content": "x"}], "tools": tools, "gold": gold, **fields}


def calls(*pairs):
    return [{"name": name, "arguments": arguments} for name, arguments in pairs]


def reply(*pairs):
    return render_calls([ToolCall(name, arguments) for name, arguments in pairs])


def counts(outcome):
    return outcome.arguments_right, outcome.arguments_predicted, outcome.arguments_gold


def value_of(spec, value):
    """Score a call whose only argument has this specification and is right, read back as typed."""
    parameters = {"type": "object", "properties": {"a": spec}}
    return score_row(row(calls(("f", {"a": value})), parameters), reply(("f", {"a": value})))


# rungs


def test_the_first_name_is_that_of_the_first_gold_call():
    gold = calls(("f", {"a": 1}), ("g", {"a": 1}))
    assert score_row(row(gold), reply(("f", {"a": 1}), ("g", {"a": 1}))).first_name_right
    assert not score_row(row(gold), reply(("g", {"a": 1}), ("f", {"a": 1}))).first_name_right


def test_a_strict_match_is_exact_and_in_the_grammar():
    gold = calls(("f", {"a": 1, "c": "x"}))
    lenient = score_row(row(gold), reply(("f", {"a": 1, "c": "X"})))
    assert lenient.in_grammar and lenient.ast_match and not lenient.strict_match
    assert score_row(row(gold), "Let me look." + reply(("f", {"a": 1, "c": "x"})) + "<end_of_turn>\n").strict_match


@pytest.mark.parametrize(
    "text",
    [
        "<start_function_call> call:f{a:1}<end_function_call>",
        "<start_function_call>call: f{a:1}<end_function_call>",
        "<start_function_call>call:f {a:1}<end_function_call>",
        "<start_function_call>call:f{ a:1}<end_function_call>",
        "<start_function_call>call:f{a : 1}<end_function_call>",
        "<start_function_call>call:f{a:1}\n<end_function_call>",
        "<start_function_call>call:f{a:1}<end_function_call><end_function_call>",
        "<start_function_call>call:f{a:1}<end_function_call> <escape>",
        "<bos><start_function_call>call:f{a:1}<end_function_call>",
        "<start_function_call>call:f{a:1}<end_function_call><end_of_turn>\n<start_of_turn>user\nx<end_of_turn>",
    ],
)
def test_a_call_that_servers_do_not_read_is_read_but_not_strictly(text):
    outcome = score_row(row(calls(("f", {"a": 1}))), text)
    assert outcome.exact_match and not outcome.in_grammar and not outcome.strict_match


def test_names_are_right_whatever_the_order_of_the_gold():
    gold = calls(("f", {"a": 1}), ("f", {"a": 2, "b": 5}))
    text = reply(("f", {"a": 1, "b": 2}), ("f", {"a": 9}))
    for wanted in (gold, gold[::-1]):
        outcome = score_row(row(wanted), text)
        assert outcome.right_names and not outcome.ast_match and counts(outcome) == (1, 2, 3)


# arguments


def test_arguments_are_counted_in_the_pairing_with_the_fewest_wrong():
    gold = calls(("f", {"a": 1}), ("f", {"a": 1, "c": "x"}))
    swapped = score_row(row(gold), reply(("f", {"a": 1, "c": "x"}), ("f", {"a": 1})))
    assert swapped.ast_match and counts(swapped) == (3, 3, 3)
    near = score_row(row(gold), reply(("f", {"a": 1, "c": "x"}), ("f", {"a": 7})))
    assert counts(near) == (2, 3, 3)


def test_no_order_of_the_calls_decides_which_of_two_equally_near_ones_counts():
    gold = row(calls(("f", {"a": 0, "b": 1, "c": "x"})))
    found = [("f", {"a": 0, "b": 1}), ("f", {"a": 0, "c": "x"})]
    one, other = score_row(gold, reply(*found)), score_row(gold, reply(*found[::-1]))
    assert one.arguments_by_type == other.arguments_by_type and counts(one) == counts(other) == (2, 4, 3)


def test_a_predicted_call_counts_for_one_gold_call_alone():
    gold = calls(("f", {"a": 1}), ("f", {"a": 1}))
    assert counts(score_row(row(gold), reply(("f", {"a": 1})))) == (1, 1, 2)
    assert counts(score_row(row(gold), reply(*[("f", {"a": 1})] * 3))) == (2, 3, 2)
    assert counts(score_row(row(gold), reply(("g", {"a": 1})))) == (0, 1, 2)


def test_an_optional_argument_at_its_default_counts_only_where_both_have_it():
    full, short = ("f", {"a": 1, "b": 2}), ("f", {"a": 1})
    for gold, text, expected in (
        (full, short, (1, 1, 1)),
        (short, full, (1, 1, 1)),
        (full, full, (2, 2, 2)),
        (("f", {"a": 1, "b": 3}), short, (1, 1, 2)),
        (short, ("f", {"a": 1, "b": 3}), (1, 2, 1)),
    ):
        assert counts(score_row(row(calls(gold)), reply(text))) == expected


ARGUMENTS = st.fixed_dictionaries(
    {"a": st.integers(0, 2)}, optional={"b": st.integers(1, 3), "c": st.sampled_from(["x", "X", "y"])}
)
CALLS = st.lists(st.tuples(st.sampled_from("fg"), ARGUMENTS), min_size=1, max_size=4)


@given(CALLS, CALLS, st.randoms(), st.booleans())
def test_a_match_has_every_argument_right_and_no_order_changes_a_count(gold, other, draw, same):
    found = [(name, dict(arguments)) for name, arguments in (gold if same else other)]
    for _, arguments in found:
        if same and arguments.get("b", 2) == 2 and draw.random() < 0.5:
            arguments.pop("b", None) or arguments.update(b=2)
    outcome = score_row(row(calls(*gold)), reply(*found))
    right, predicted, wanted = counts(outcome)
    assert right <= min(predicted, wanted) and (outcome.ast_match or not same)
    assert not outcome.ast_match or right == predicted == wanted
    draw.shuffle(found)
    again = score_row(row(calls(*draw.sample(gold, len(gold)))), reply(*found))
    assert (counts(again), again.right_names, again.ast_match, again.arguments_by_type) == (
        (right, predicted, wanted),
        outcome.right_names,
        outcome.ast_match,
        outcome.arguments_by_type,
    )


def test_many_calls_that_match_have_every_argument_right():
    """More than all ways to pair can be tried for."""
    pairs = [("f", {"a": number % 12, "c": "x"} if number % 2 else {"a": number % 12}) for number in range(24)]
    found = random.Random(1).sample(pairs, len(pairs))
    outcome = score_row(row(calls(*pairs)), reply(*found))
    assert outcome.ast_match and counts(outcome) == (36, 36, 36)


def test_of_many_calls_that_do_not_match_each_takes_the_nearest_left():
    pairs = [("f", {"a": number, "c": "x"}) for number in range(24)]
    swapped = [*pairs[:22], ("f", {"a": 23, "c": "q"}), ("f", {"a": 22, "c": "r"})]
    assert counts(score_row(row(calls(*pairs)), reply(*swapped))) == (46, 48, 48)
    twice = [*pairs[:23], pairs[22]]
    once = [*pairs[:22], ("f", {"a": 22, "c": "q"}), ("f", {"a": 99, "c": "r"})]
    assert counts(score_row(row(calls(*twice)), reply(*once))) == (45, 48, 48)


def test_a_thousand_calls_of_one_tool_are_scored_at_once():
    pairs = [("f", {"a": 1})] * 1000
    with measure_time() as took:
        assert score_row(row(calls(*pairs)), reply(*pairs)).ast_match
    assert took.seconds < 3  # 0.4 s on two slow cores


@pytest.mark.parametrize(
    ("spec", "value", "kind"),
    [
        ({"type": "number"}, 1, "number"),
        ({"type": "float"}, 1, "number"),
        ({"type": "String"}, "x", "string"),
        ({"type": "dict"}, {}, "object"),
        ({"type": ["null", "integer"]}, 1, "integer"),
        ({"type": "Spoon"}, 1, "integer"),
        ({}, True, "boolean"),
        ({}, 1, "integer"),
        ({}, 1.5, "number"),
        ({"default": 1}, None, "null"),
        ("int", [], "array"),
    ],
)
def test_a_type_is_the_declared_one_in_json_schemas_words_else_that_of_the_value(spec, value, kind):
    assert value_of(spec, value).arguments_by_type == ((kind, 1, 1),)


# what the row says


def test_the_right_behaviour_is_unknown_without_the_right_answers_text():
    assert score_row(row([], reply="Which city?"), "x").behaviour_gold == "request_for_info"
    assert score_row(row([], reply=""), "").behaviour_gold == "silent"
    for fields in ({}, {"reply": None}, {"reply": ["No."]}):
        outcome = score_row(row([], **fields), "")
        assert outcome.behaviour_gold == "" and not outcome.right_behaviour
    assert score_row(row(calls(("f", {"a": 1}))), "").behaviour_gold == "tool_call"


def test_tools_are_counted_as_declared_and_drawn_by_name():
    outcome = score_row(row(calls(("f", {"a": 1})), names=("f", "f", "g")), "")
    assert (outcome.n_tools, outcome.chance) == (3, 1 / 2)


def test_chance_is_a_probability_for_any_gold():
    assert score_row(row(calls(("h", {}), ("i", {})), names=("f",)), "").chance == 0
    assert score_row(row(calls(*[(f"t{i}", {}) for i in range(200)]), names=("f",)), "").chance == 0
    many = [f"t{i}" for i in range(400)]
    assert 0 <= score_row(row(calls(*[(name, {}) for name in many]), names=many), "").chance < 1e-100


@pytest.mark.parametrize(
    "parameters",
    [
        *(None, [], [1], "x", 5, True, {"properties": [{"name": "a"}]}, {"properties": "x"}, {"properties": None}),
        *({"properties": {"a": {"type": "integer"}}, "required": one} for one in (None, True, 5, "abc", [["a"]], {})),
        *({"properties": {"a": one}} for one in ("int", None, {"$ref": "#/definitions/x"}, {"items": 5}, [1])),
        {"properties": {"a": {"type": "object", "properties": [], "required": True}}},
    ],
)
def test_parameters_that_are_no_schema_are_read_as_far_as_they_go(parameters):
    for gold in (1, {"x": 1}):
        wanted = row(calls(("f", {"a": gold})), parameters)
        for style in ("native", "tutorial"):
            text = render_calls([ToolCall("f", {"a": gold})], style)
            assert score_row(wanted, text, style).exact_match
            assert score_row(wanted, render_calls([ToolCall("f", {"b": 1})], style), style).error


def test_what_the_tutorials_recipe_keeps_is_scored():
    turn = {"from": "gpt", "value": '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'}
    raw = {"id": "q", "task": "hi", "conversations": [{"from": "human", "value": "hi"}, turn]}
    kept = 0
    for required in (None, True, 5, "abc", [["a"]], {"a": True}):
        for properties in ({"a": {"type": "int"}}, [{"name": "a"}], "x", {"a": {"$ref": "#/definitions/x"}}):
            parameters = {"type": "dict", "properties": properties, "required": required}
            tools = json.dumps([{"name": "f", "description": "d", "parameters": parameters}])
            for one in build_rows([{**raw, "tools": tools}], "tutorial").rows:
                kept += 1
                gold = render_calls([ToolCall(call["name"], call["arguments"]) for call in one["gold"]], "tutorial")
                assert score_row(one, gold, "tutorial").exact_match
                assert not score_row(one, "No.", "tutorial").ast_match
    assert kept > 10


def test_a_perfect_reply_reaches_every_rung():
    outcome = score_row(row(calls(("f", {"a": 1}))), reply(("f", {"a": 1})))
    assert all(getattr(outcome, name) for name in LADDER) and outcome.strict_match


# a null argument and its absence


NULLABLE = {
    "type": "object",
    "properties": {
        "a": {"type": "string"},
        "b": {"type": "integer"},
        "unit": {"type": "string", "default": "C"},
        "inner": {"type": "object", "properties": {"c": {"type": "string"}}},
    },
    "required": ["a"],
}


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ({"a": "x", "b": None}, {"a": "x"}),
        ({"a": "x", "inner": {"c": None}}, {"a": "x", "inner": {}}),
        ({"a": "x", "b": None}, {"a": "x", "b": None}),
    ],
)
def test_a_null_that_says_nothing_equals_its_absence_on_every_rung(gold, said):
    for one, other in ((gold, said), (said, gold)):
        scored = score_row(row(calls(("f", one)), NULLABLE), reply(("f", other)))
        assert all(getattr(scored, rung) for rung in LADDER), (one, other)
        assert counts(scored) == (scored.arguments_gold,) * 3
        assert scored.gold_valid


@pytest.mark.parametrize(
    ("gold", "said", "error"),
    [
        ({"a": None}, {}, "simple_function_checker:missing_required"),
        ({"a": "x", "unit": None}, {"a": "x"}, "simple_function_checker:missing_optional"),
        ({"a": "x"}, {"a": "x", "unit": None}, "simple_function_checker:unexpected_param"),
        ({"a": "x"}, {"a": "x", "other": None}, "simple_function_checker:unexpected_param"),
        ({"a": "x", "b": None}, {"a": "x", "b": 1}, "simple_function_checker:unexpected_param"),
        ({"a": "x", "b": 1}, {"a": "x", "b": None}, "simple_function_checker:missing_optional"),
    ],
)
def test_a_null_that_says_something_does_not_equal_its_absence(gold, said, error):
    scored = score_row(row(calls(("f", gold)), NULLABLE), reply(("f", said)))
    assert (scored.error, scored.exact_match) == (error, False)


def test_character_errors_count_a_null_that_is_written():
    scored = score_row(row(calls(("f", {"a": "x"})), NULLABLE), reply(("f", {"a": "x", "b": None})))
    assert scored.exact_match and scored.edits == scored.edits_rendered == len(",b:None")
