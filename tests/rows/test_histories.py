"""Rows that unfold one history: each teaches its own last answer, and a split keeps them together."""

import json

import pytest

from fgtools.profiles import adapt_recipe, get_recipe
from fgtools.rows import RawRows, build_rows, prepare, split_rows
from fgtools.rows.histories import Place, digest_row, find_histories

TOOLS = [{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}]


def call(number):
    return {"from": "gpt", "value": f'<tool_call>\n{{"name": "f", "arguments": {{"a": {number}}}}}\n</tool_call>'}


def steps(name, n_steps):
    turns = []
    for step in range(n_steps):
        turns += [{"from": "human", "value": f"{name}: request {step}"}, call(step)]
        turns += [{"from": "tool", "value": "{}"}, {"from": "gpt", "value": f"{step} is done."}]
    return turns


def unfolded(name, n_steps):
    return [
        {"id": f"{name}/{step}", "conversations": steps(name, step)[:-2], "tools": TOOLS}
        for step in range(1, n_steps + 1)
    ]


def places_of(*conversations):
    return find_histories([digest_row({"conversations": turns}) for turns in conversations])


def test_the_longer_row_has_the_shorter_one_as_context():
    one, two = steps("x", 2)[:2], steps("x", 2)[:6]
    assert places_of(one, two) == {0: Place("history/0"), 1: Place("history/0", frozenset({1}))}
    assert places_of(two, one) == {0: Place("history/0", frozenset({1})), 1: Place("history/0")}


def test_every_answer_up_to_the_longest_shorter_row_is_context():
    short, longer = steps("x", 1), steps("x", 2)
    assert places_of(short, longer)[1].taught == {1, 2, 3}


@pytest.mark.parametrize(
    "others",
    [
        [steps("x", 1)[:2]],  # a copy
        [steps("y", 2)],
        [steps("x", 1)],  # new are words about a result alone
        [[*steps("x", 1)[:1], {"from": "gpt", "value": "No."}]],
        [None],
        ["text"],
        [[1]],
        [[]],
    ],
)
def test_other_rows_make_no_history(others):
    assert places_of(steps("x", 1)[:2], *others) == {}


def test_system_turns_and_white_space_make_no_difference():
    dated = [{"role": "system", "content": "It is Monday."}, {"role": "user", "content": "x: request 0 "}]
    assert len(places_of([*dated, call(0)], steps("x", 2))) == 2


def test_a_conversation_that_is_cut_after_a_call_teaches_that_call():
    cut = unfolded("x", 3)[-1]
    assert build_rows([cut]).rows[0]["gold"][0]["arguments"]["a"] == 2
    assert "conversation" not in build_rows([cut]).rows[0]
    rows = [digest_row(cut)]
    assert find_histories(rows) == {0: Place("", frozenset({1, 2, 3, 5, 6, 7}))}
    assert find_histories(rows, cut_rows=False) == {}


@pytest.mark.parametrize(
    "turns",
    [
        steps("x", 2),  # it ends with words about a result
        steps("x", 1)[:2],  # there is no other call
        [*steps("x", 1)[:3], call(7)],  # a further call for the same request
        [*steps("x", 2), {"from": "human", "value": "Thanks."}],
        [*steps("x", 1), {"from": "human", "value": "Thanks."}, {"from": "gpt", "value": "Bye."}],
    ],
)
def test_other_conversations_teach_their_first_call(turns):
    assert find_histories([digest_row({"conversations": turns})]) == {}


def test_a_place_changes_a_copy():
    turns = steps("x", 1)[:2]
    row = {"conversations": json.dumps(turns), "conversation_id": "own"}
    made = Place("history/3", frozenset({1})).apply(row)
    assert [turn.get("learn") for turn in made["conversations"]] == [None, False]
    assert made["conversation_id"] == "history/3" and row["conversations"] == json.dumps(turns)
    assert Place("history/3").apply({"conversations": None}) == {"conversations": None}


def test_rows_of_a_history_stay_on_one_side():
    raws = [row for number in range(30) for row in unfolded(f"number {number * 7919}", 3)]
    made = build_rows(raws)
    assert made.funnel["kept"] == 90 and len({row["conversation"] for row in made.rows}) == 30
    splits = split_rows(made.rows, n_eval=20, seed=1)
    sides = [{row["conversation"] for row in rows} for rows in (splits.train, splits.eval)]
    assert splits.eval and not sides[0] & sides[1]


def test_several_processes_find_the_same_histories():
    raws = [row for number in range(200) for row in unfolded(f"number {number * 7919}", 3)]
    raws = raws[::3] + raws[1::3] + raws[2::3]  # a history's rows lie in different chunks
    rows = prepare(RawRows(raws, len(raws), "made up"), "native", 20, 40, processes=2).rowset.rows
    assert list(rows) == list(build_rows(raws).rows)


def test_the_tutorial_recipe_knows_no_histories():
    assert all("conversation" not in row for row in build_rows(unfolded("x", 3), "tutorial").rows)


def test_conversations_are_compared_in_one_pass():
    turns = [turn for step in range(4000) for turn in steps(f"{step}", 1)]
    rows = [digest_row({"conversations": turns[:end]}) for end in range(2, 400, 2)]
    assert len(find_histories(rows)) == len(rows)


def test_each_row_of_a_history_teaches_its_own_last_answer():
    made = build_rows(unfolded("x", 3))
    assert [row["gold"][0]["arguments"]["a"] for row in made.rows] == [0, 1, 2]
    assert len({row["conversation"] for row in made.rows}) == 1
    assert [row["messages"][-1]["content"] for row in made.rows] == [f"x: request {step}" for step in range(3)]


def test_where_all_answers_are_asked_for_a_cut_conversation_teaches_each_of_its_calls():
    cut = unfolded("x", 3)[-1]
    recipe = adapt_recipe(get_recipe("native"), turns="all")
    assert [row["gold"][0]["arguments"]["a"] for row in build_rows([cut], recipe).rows] == [0, 1, 2]
    raws = [unfolded(f"number {number * 7919}", 3)[-1] for number in range(4)] + unfolded("another", 3)
    prepared = prepare(RawRows(raws, len(raws), "made up"), recipe, 3, 40)
    assert len(prepared.rowset.rows) == 3 * 4 + 3  # of a history, each answer once
