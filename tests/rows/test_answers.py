"""Every answer of a conversation as a row: ids, context, groups, counts that add up, and sides that share nothing."""

import json

import pytest

from fgtools.profiles import DEVELOPER_TEXT, RECIPES, adapt_recipe
from fgtools.rows import RawRows, build_rows, prepare, split_rows
from fgtools.rows.preparation import FunnelError, describe_sums
from fgtools.rows.remedies import Coverage
from fgtools.rows.store import find_row_problem
from tests.toys import call_turn

ALL = adapt_recipe(RECIPES["native"], turns="all")
TOOLS = [
    {
        "name": "f",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "type": {"type": "string"}}},
    },
    {"name": "g{x}", "parameters": {"type": "object", "properties": {}}},
]


def calling(name="f", **arguments):
    return call_turn(json.dumps({"name": name, "arguments": arguments}))


def raw(*pairs, tools=TOOLS, **fields):
    return {"conversations": [{"from": role, "value": text} for role, text in pairs], "tools": tools, **fields}


def trip(request, row_id, result='{"name": "f", "content": {"t": 1}}', **fields):
    """Three answers: two steps of calls, and thanks."""
    return raw(
        ("human", request),
        ("gpt", calling(type=request, zone=None)),
        ("tool", f"<tool_response>{result}</tool_response>"),
        ("gpt", calling("g{x}")),
        ("tool", "done"),
        ("gpt", "All done."),
        ("human", "thanks"),
        ("gpt", "Welcome."),
        row_id=row_id,
        **fields,
    )


def test_each_answer_is_a_row_with_its_context_under_the_names_the_model_sees():
    first, second, last = build_rows([trip("q", "x")], ALL, coverage=Coverage(frozenset({"type"}))).rows
    assert [row["row_id"] for row in (first, second, last)] == ["x", "x/turn3", "x/turn7"]
    assert [[call["name"] for call in row["gold"]] for row in (first, second, last)] == [["f"], ["g_x"], []]
    assert (first["gold"][0]["arguments"], last["reply"]) == ({"type_": "q"}, "Welcome.")
    assert second["messages"] == [
        {"role": "developer", "content": DEVELOPER_TEXT},
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"type_": "q"}}}],
        },
        {"role": "tool", "name": "f", "content": {"t": 1}},
    ]
    assert last["messages"][:4] == second["messages"]
    assert last["messages"][5:] == [
        {"role": "tool", "name": "g_x", "content": "done"},
        {"role": "assistant", "content": "All done."},
        {"role": "user", "content": "thanks"},
    ]
    assert first["conversation"] == second["conversation"] == last["conversation"]
    assert len({first["group"], second["group"], last["group"]}) == 3
    assert build_rows([trip("q", "x")]).rows[0]["group"] == first["group"]


def test_the_funnel_counts_answers_and_raw_rows():
    rows = [
        trip("q", "a"),
        trip("r", "b", tools=TOOLS[:1]),
        raw(("human", "q"), ("gpt", "no"), row_id="c"),
        raw(("human", "q"), row_id="d"),
        None,
    ]
    rowset = build_rows(rows, ALL)
    assert rowset.funnel == {"kept": 5, "unknown_tool": 1, "broken_context": 1, "no_assistant_turn": 1, "not_a_row": 1}
    assert (rowset.answers, rowset.n_raw, sum(rowset.shapes.values())) == ({1: 3, 3: 2}, 5, 5)
    assert rowset.positions == (0, 0, 0, 1, 2)
    assert [item.row_id for item in rowset.rejected][:2] == ["b/turn3", "b/turn7"]
    first = build_rows(rows)
    assert (first.answers, first.n_raw, sum(first.funnel.values())) == ({1: 5}, 5, 5)


def test_what_a_rows_file_cannot_hold_is_no_context():
    for levels, kept in ((90, 3), (99, 1)):
        deep = "[" * levels + "]" * levels
        rows = build_rows([trip("q", "x", f'{{"name": "f", "content": {{"t": {deep}}}}}')], ALL)
        assert (rows.funnel["kept"], rows.funnel.get("broken_context", 0)) == (kept, 3 - kept)
        assert not any(map(find_row_problem, rows.rows))


def test_an_id_leads_back_to_its_raw_row():
    rows = [{**trip("q", "a"), "row_id": "a"}, trip("r", "a"), trip("s", "a/turn3")]
    raws = RawRows(rows, 3, "three")
    ids = [row["row_id"] for row in build_rows(rows, ALL).rows]
    assert len(set(ids)) == 9
    assert ids[:2] + ids[3:5] == ["a", "a/turn3", "a#2", "a/turn3#2"]
    assert [raws.find(name) is rows[0] for name in ("a", "a/turn7", "a#2", "a/turn7#2")] == [True] * 4


def test_the_same_request_after_other_results_is_no_conflict_and_no_copy():
    rows = [trip("q", "a"), trip("q", "b", '{"name": "f", "content": {"t": 2}}'), trip("q", "c")]
    splits = split_rows(build_rows(rows, ALL).rows, n_eval=0)
    assert (splits.conflicts, len(splits.train), splits.duplicates) == (0, 5, 4)
    other = trip("q", "d")
    other["conversations"][3]["value"] = calling()
    assert split_rows(build_rows([trip("q", "a"), other], ALL).rows, n_eval=0).conflicts == 1


def test_the_rows_of_a_conversation_are_no_near_duplicates_and_stay_on_one_side(tmp_path):
    requests = [f"{word} {word} {word} {word} {word}" for word in ("oslo", "rome", "bern", "lima", "kyiv", "doha")]
    raws = RawRows([trip(request, request) for request in requests], 6, "six")
    prepared = prepare(raws, ALL, 6, 1)
    assert (prepared.splits.near_within, prepared.splits.near_across) == (0, 0)
    assert len(prepared.splits.eval) == 6
    held = {row["conversation"] for row in prepared.splits.eval}
    assert held.isdisjoint(row["conversation"] for row in prepared.splits.train)
    prepared.write(tmp_path)
    funnel = json.loads((tmp_path / "funnel.json").read_text())
    assert (funnel["turns"], funnel["rows_in"], funnel["answers"], funnel["funnel"]) == (
        "all",
        6,
        {"3": 6},
        {"kept": 18},
    )
    assert describe_sums(funnel).startswith("rows taken: 6, with 18 answers = 18 kept\n")
    prepared.rowset.answers[3] = 5
    with pytest.raises(FunnelError, match="the answers of the raw rows must add up to 18, got 15"):
        prepared.to_funnel()


def test_several_processes_build_the_same_rows():
    rows = [trip(f"request {number}", str(number)) for number in range(600)]
    one, two = (prepare(RawRows(rows, 600, "x"), ALL, 60, 1, processes=number) for number in (1, 2))
    assert [list(side) for side in one.sides().values()] == [list(side) for side in two.sides().values()]
    assert one.to_funnel() == two.to_funnel()
    assert len({row["conversation"] for row in one.rowset.rows}) == 600


def openai_call(call_id, name):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}


@pytest.mark.parametrize("key", ["tool_call_id", "name"])
def test_results_in_another_order_than_their_calls_stay_with_them(key):
    calls = [openai_call("c1", "f"), openai_call("c2", "g{x}"), openai_call("c3", "f")]
    results = [("c2", "g{x}", "two"), ("c3", "f", "three"), ("c1", "f", "one")]
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        *(
            {"role": "tool", key: {"tool_call_id": call_id, "name": name}[key], "content": text}
            for call_id, name, text in results
        ),
        {"role": "assistant", "content": "", "tool_calls": [openai_call("c4", "f")]},
    ]
    *_, last = build_rows([{"messages": messages, "tools": TOOLS}], ALL).rows
    shown = [(message["name"], message["content"]) for message in last["messages"] if message["role"] == "tool"]
    # a name does not tell two results of one tool apart, an id does
    in_order = [("f", "one"), ("g_x", "two"), ("f", "three")]
    assert shown == (in_order if key == "tool_call_id" else [("g_x", "two"), ("f", "three"), ("f", "one")])
