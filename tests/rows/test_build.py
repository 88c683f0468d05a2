"""Rows: the tutorial's vectors on real rows, the funnel's sum, reasons, and names that had to be replaced."""

import copy
import json

import pytest

from fgtools.calls import ToolCall, row_calls
from fgtools.profiles import DEVELOPER_TEXT
from fgtools.rows import build_rows, split_rows
from fgtools.rows.funnel import EmptySetError, require_rows
from fgtools.rows.remedies import Coverage
from fgtools.schema import normalize_tools
from fgtools.serve import restore_calls
from tests.toys import load_shared

TOOLS = [{"name": "f", "parameters": {"a": {"type": "int, optional"}}}, {"name": "g"}]


def call_text(name: str = "f", arguments: object = None) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments or {}})}\n</tool_call>"


def raw_row(answer: str, request: str = "q", tools: object = TOOLS, **fields: object) -> dict:
    turns = [{"from": "human", "value": request}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "tools": tools, "task": request, **fields}


def reason_of(raw: object, recipe: str = "native") -> tuple[str, str]:
    row_set = build_rows([raw], recipe)
    assert row_set.funnel["kept"] == 0
    return row_set.rejected[0].reason, row_set.rejected[0].detail


def tutorial_kept(row: dict) -> dict:
    """A row in the tutorial's own shape."""
    developer, user = row["messages"]
    assert developer == {"role": "developer", "content": DEVELOPER_TEXT}
    (call,) = row["gold"]
    return {
        "user_content": user["content"],
        "tool_name": call["name"],
        "tool_arguments": json.dumps(call["arguments"], ensure_ascii=False),
        "hf_tools": row["tools"],
    }


def test_the_tutorial_recipe_equals_the_tutorial_on_edge_cases():
    for case in load_shared("vectors/tutorial_rows_small.jsonl"):
        before = copy.deepcopy(case["row"])
        rows = build_rows([case["row"]], "tutorial").rows
        assert [tutorial_kept(row) for row in rows] == ([case["kept"]] if case["kept"] else [])
        assert case["row"] == before


def test_the_tutorial_recipe_equals_the_tutorial_on_real_rows():
    raw_rows = load_shared("data/dev.jsonl")
    cases = load_shared("vectors/tutorial_rows_dev.jsonl")
    row_set = build_rows(raw_rows, "tutorial")
    made = {row["row_id"]: tutorial_kept(row) for row in row_set.rows}
    assert made == {case["row_id"]: case["kept"] for case in cases if case.get("kept")}
    assert sum(row_set.funnel.values()) == len(raw_rows)


def test_the_native_recipe_keeps_nearly_all_real_rows():
    raw_rows = load_shared("data/dev.jsonl")
    row_set = build_rows(raw_rows)
    assert sum(row_set.funnel.values()) == len(raw_rows)
    with_tools = len(raw_rows) - row_set.funnel["no_tools"]
    assert len(row_set.rows) >= 0.97 * with_tools
    for row in row_set.rows:
        declared = {tool["function"]["name"] for tool in row["tools"]}
        assert {call["name"] for call in row["gold"]} <= declared
        assert bool(row["gold"]) != bool(row["reply"])
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")


def test_a_row_has_every_field():
    raw = raw_row(call_text("f", {"a": 1}), row_id="x/1", source="s", scenario_category="single_turn", split="eval")
    (row,) = build_rows([raw]).rows
    assert len(row.pop("group")) == 16
    assert row == {
        "row_id": "x/1",
        "source": "s",
        "scenario": "single_turn",
        "messages": [{"role": "developer", "content": DEVELOPER_TEXT}, {"role": "user", "content": "q"}],
        "tools": normalize_tools(TOOLS),
        "gold": [{"name": "f", "arguments": {"a": 1}}],
        "reply": "",
        "split": "eval",
    }


def test_a_row_without_a_call_is_a_negative():
    (row,) = build_rows([raw_row("<think>no</think>I cannot.")]).rows
    assert (row["gold"], row["reply"]) == ([], "I cannot.")
    assert reason_of(raw_row("I cannot."), "tutorial")[0] == "no_call"


def test_arguments_stay_when_nothing_is_required():
    raw = raw_row(call_text("f", {"a": 1}), tools=[{"name": "f", "parameters": {"type": "object", "properties": {}}}])
    assert build_rows([raw]).rows[0]["gold"][0]["arguments"] == {"a": 1}
    assert build_rows([raw], "tutorial").rows[0]["gold"][0]["arguments"] == {}


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        (None, "not_a_row", "must be a mapping, got None"),
        ("text", "not_a_row", "must be a mapping, got 'text'"),
        ({}, "unknown_shape", "the nearest, openai, lacks messages; columns found: none"),
        (raw_row(call_text(), tools="not json"), "bad_tools", "neither|must be JSON or a Python literal"),
        (raw_row(call_text(), tools=7), "bad_tools", "got int 7"),
        (raw_row(call_text(), tools=None), "no_tools", ""),
        (raw_row("no", tools="[]"), "no_tools", ""),
        (raw_row(call_text(), tools=[{"description": "d"}]), "no_tools", "no_name"),
        (raw_row(call_text("zzz")), "unknown_tool", "['zzz'] not among ['f', 'g']"),
        (raw_row(call_text() + call_text("zzz")), "unknown_tool", "['zzz']"),
        (raw_row(call_text("f", {"a": "<escape>"})), "unrenderable", "cannot hold the mark <escape>"),
        (raw_row(call_text(), request="\ud800"), "bad_text", "surrogates not allowed"),
        (raw_row("<tool_call>{"), "broken_call", "turn 1"),
    ],
)
def test_a_row_that_cannot_be_used_has_its_reason(raw, reason, detail):
    found, said = reason_of(raw)
    assert found == reason
    assert any(part in said for part in detail.split("|"))


def test_the_tutorial_recipe_rejects_where_the_tutorial_raises():
    tools = [{"name": ["f"], "parameters": {}}]
    reason, detail = reason_of(
        raw_row('<tool_call>{"name": ["f"], "arguments": {}}</tool_call>', tools=tools), "tutorial"
    )
    assert (reason, "hashable" in detail) == ("bad_row", True)


def test_the_tutorial_recipe_rejects_tools_that_json_cannot_hold():
    parameters = {"type": "object", "properties": {"a": {}}, "required": ["a"], 5: "five"}
    raw = raw_row(call_text("f", {"a": 1}), tools=[{"name": "f", "parameters": parameters}])
    assert reason_of(raw, "tutorial")[0] == "bad_text"
    assert build_rows([raw]).funnel == {"kept": 1}


def test_the_funnel_counts_by_source():
    raws = [raw_row(call_text(), source="a"), raw_row("no", source="a"), raw_row(call_text("zzz"), source="b"), None]
    row_set = build_rows(raws)
    assert row_set.funnel == {"kept": 2, "unknown_tool": 1, "not_a_row": 1}
    assert row_set.funnel_by("source") == {"": {"not_a_row": 1}, "a": {"kept": 2}, "b": {"unknown_tool": 1}}


def test_problems_of_kept_rows_are_counted_apart():
    unclosed = call_text().removesuffix("</tool_call>")
    row_set = build_rows([raw_row(unclosed), raw_row(call_text(), tools=[*TOOLS, TOOLS[0]])])
    assert row_set.funnel == {"kept": 2}
    assert row_set.problems == {"duplicate_tool": 1, "unclosed_call": 1}


def test_ids_are_made_of_positions_and_never_repeat():
    raws = [raw_row("a"), raw_row("b", row_id="x"), raw_row("c", row_id="x"), raw_row("d", id=7)]
    assert [row["row_id"] for row in build_rows(raws).rows] == ["row/0", "x", "x#2", "7"]


def test_a_label_has_at_most_200_characters():
    (row,) = build_rows([raw_row("a", row_id="x" * 300)]).rows
    assert row["row_id"] == "x" * 200


def test_groups_are_the_request_and_the_tools():
    same = [raw_row(call_text()), raw_row("no"), raw_row(call_text(), request=" q\n"), raw_row("no", tools=TOOLS[::-1])]
    other = [raw_row(call_text(), request="r"), raw_row(call_text(), tools=TOOLS[:1])]
    groups = [row["group"] for row in build_rows(same + other).rows]
    assert len(set(groups[:4])) == 1
    assert len(set(groups)) == 3


def test_each_reason_has_three_examples_and_tools_that_were_changed_are_counted():
    row_set = build_rows([raw_row(call_text()), *[None] * 5, raw_row(call_text("y"), row_id="why")])
    assert [item["row_id"] for item in row_set.examples()["not_a_row"]] == ["row/1", "row/2", "row/3"]
    assert row_set.examples()["unknown_tool"][0]["row_id"] == "why"
    flat = [{"name": "x", "parameters": {"a": {"type": "str"}, "b": {"type": "float"}}}]
    row_set = build_rows([raw_row(call_text("x"), tools=flat)] * 2)
    assert row_set.changes == {"flat_parameters": 2, "type_word": 2}
    assert row_set.type_words == {"float -> number": 2, "str -> string": 2}


def test_an_empty_set_is_an_error_with_the_funnel():
    with pytest.raises(EmptySetError, match=r"0 usable of 3(?s:.*)unknown_tool: 2(?s:.*)not_a_row: 1 \(e\.g\. row/0"):
        require_rows(build_rows([None, raw_row(call_text("y")), raw_row(call_text("z"))]))


def test_an_empty_side_is_an_error():
    row_set = build_rows([raw_row(call_text())])
    require_rows(row_set)
    with pytest.raises(EmptySetError, match="but eval got none of the 1 usable rows of 1: take more"):
        require_rows(row_set, sides={"train": row_set.rows, "eval": split_rows(row_set.rows, n_eval=5).eval})


def test_an_unknown_recipe_is_an_error():
    with pytest.raises(ValueError, match="native"):
        build_rows([], "hermes")


def test_a_name_the_grammar_cannot_carry_is_replaced_and_can_be_put_back():
    raw = raw_row(call_text(" a{b ", {"x": 1}), tools=[{"name": " a{b ", "parameters": {"x": {}}}, {"name": "a_b"}])
    row = build_rows([raw]).rows[0]
    assert [tool["function"]["name"] for tool in row["tools"]] == ["a_b_2", "a_b"]
    assert row["gold"] == [{"name": "a_b_2", "arguments": {"x": 1}}]
    assert row["renamed"] == {"tools": {"a_b_2": " a{b "}, "parameters": {}}
    assert restore_calls(row_calls(row), row["renamed"], {}) == [ToolCall(" a{b ", {"x": 1})]
    assert build_rows([raw]).problems == {"tool_renamed": 1}


def test_golds_with_an_argument_that_nobody_declared_are_counted():
    raws = [raw_row(call_text("f", {"a": 1, "b": 2, "c": 3})), raw_row(call_text("f", {"a": 1}))]
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}]
    assert build_rows([{**raw, "tools": tools} for raw in raws]).problems == {"undeclared_argument": 1}


def test_the_names_replaced_in_all_rows_are_collected_and_the_first_one_counts():
    raws = [raw_row(call_text(name), tools=[{"name": name}]) for name in ("a{b", " a{b ")]
    assert build_rows(raws).renamed == {"tools": {"a_b": "a{b"}, "parameters": {}}
    hidden = Coverage(hidden_names=frozenset({"type", "required"}))
    schemas = [{"type": "object", "properties": {name: {"type": "string"}}} for name in ("type", "required")]
    raws = [raw_row(call_text(), tools=[{"name": "f", "parameters": schema}]) for schema in schemas]
    renamed = {"tools": {}, "parameters": {"f": {"required_": "required", "type_": "type"}}}
    assert build_rows(raws, coverage=hidden).renamed == renamed
    assert build_rows(raws, coverage=hidden).remedies == {"parameter_renamed": 2}


@pytest.mark.parametrize("name", ["obtener_año", "math.add", "get-weather", "Coffee Shop", "天気", "a:b"])
def test_names_of_other_letters_survive(name):
    row = build_rows([raw_row(call_text(name), tools=[{"name": name}])]).rows[0]
    assert row["gold"][0]["name"] == row["tools"][0]["function"]["name"] == name and "renamed" not in row


def test_a_row_says_which_conversation_it_is_part_of():
    named = [raw_row("no", conversation_id=name) for name in ("c/1", 7, "", None, ["c"])]
    assert [row.get("conversation") for row in build_rows(named).rows] == ["c/1", "7", None, None, None]
