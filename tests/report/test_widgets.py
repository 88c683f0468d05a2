"""The browser and the playground: what they choose and show, with a front end and without; what they never run."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.calls import ToolCall, render_calls, row_calls
from fgtools.metrics import Scores, find_violations, has_valid_arguments, score
from fgtools.metrics.cer import count_edits
from fgtools.report.alignment import GAP, align_characters, render_alignment
from fgtools.report.widgets import (
    BROKEN,
    FIXED,
    Playground,
    RowBrowser,
    build_answer_table,
    select_rows,
)
from fgtools.serve import Answer
from tests.toys import MEAL_TOOLS as TOOLS
from tests.toys import small_rows

LIVE = "application/vnd.jupyter.widget-view+json"
ROWS = small_rows(300, 24)
RIGHT = [render_calls(row_calls(row)) if row["gold"] else row.get("reply", "") for row in ROWS]
BEFORE = score(ROWS, [text if number % 3 else "I cannot." for number, text in enumerate(RIGHT)])
REPLIES = [text if number % 4 else f"<b>{text}" + "x" * (number % 8) for number, text in enumerate(RIGHT)]
REPLIES[1] = render_calls(row_calls(ROWS[1])[:1]).replace("call:", "call:un", 1)
AFTER = score(ROWS, REPLIES)
REQUEST = "note that i ate spring rolls of 892 calories"


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr("fgtools.report.widgets.is_watched", lambda: True)


@given(st.text(alphabet="abc<\n", max_size=40), st.text(alphabet="abc<\n", max_size=40))
def test_an_alignment_holds_both_texts_and_no_more_edits_than_needed(predicted, gold):
    columns = align_characters(predicted, gold)
    assert "".join(column[1] for column in columns).replace(GAP, "") == predicted
    assert "".join(column[2] for column in columns).replace(GAP, "") == gold
    assert [same for same, *_ in columns] == [one == other for _, one, other in columns]
    assert sum(not same for same, *_ in columns) == count_edits(predicted, gold)


def shown_lines(predicted, gold):
    """The lines of an alignment without their markup."""
    return re.sub("<[^>]*>", "", render_alignment(predicted, gold)).splitlines()


def test_an_alignment_stands_in_lines_and_marks_what_differs():
    lines = [f"predicted  call:f{{a:1{GAP * 3}}}", "gold       call:f{a:12,b}"]
    assert shown_lines("call:f{a:1}", "call:f{a:12,b}") == lines
    marked = re.findall("<span style='background:(#\\w+)[^>]*>(.*?)</span>", render_alignment("a1\nc", "a2\nc"))
    assert marked == [("#f8d7da", "1"), ("#d1e7dd", "2")] and "a1↵c" in shown_lines("a1\nc", "a2\nc")[0]
    assert "<span" not in render_alignment("same", "same") and shown_lines("", "") == ["both are empty"]
    assert max(map(len, shown_lines("x" * 500, "y" * 400))) == 84 + 11
    assert not any("more" in line for line in shown_lines("x" * 4000, "y"))
    predicted = "".join(line.removeprefix("predicted  ") for line in shown_lines("x" * 1_000_000, "y")[::3])
    assert "996000 more characters" in predicted


def test_an_alignment_runs_nothing_of_what_it_shows():
    shown = render_alignment("<script>alert(1)</script>", "<escape>\x1b[0m")
    assert "<script" not in shown and "<escape" not in shown and "\x1b" not in shown and "&lt;" in shown


def test_rows_are_chosen_by_verdict_and_error():
    chosen = {name: select_rows(AFTER, name, before=BEFORE) for name in ("all", "right", "wrong", FIXED, BROKEN)}
    assert sorted(chosen["right"] + chosen["wrong"]) == chosen["all"] == list(range(len(ROWS)))
    assert (
        chosen["wrong"] and set(chosen[FIXED]) <= set(chosen["right"]) and set(chosen[BROKEN]) <= set(chosen["wrong"])
    )
    assert all(BEFORE.rows[index].error and not AFTER.rows[index].error for index in chosen[FIXED]) and chosen[FIXED]
    for code, count in AFTER.errors.items():
        assert len(select_rows(AFTER, "wrong", code)) == count and not select_rows(AFTER, "right", code)
    with pytest.raises(ValueError, match="the verdict must be one of all, right, wrong, got 'fixed'"):
        select_rows(AFTER, FIXED)


def test_without_a_front_end_a_table_is_shown(model, tokenizer, monkeypatch):
    monkeypatch.setenv("FGTOOLS_BATCH", "1")
    browser = RowBrowser(ROWS, REPLIES, AFTER, first=[1, 3])
    bundle = browser._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"} and str(ROWS[3]["row_id"]) in bundle["text/plain"]
    bundle = Playground(model, tokenizer, REQUEST, TOOLS)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"} and "validity" in bundle["text/plain"]


def test_without_ipywidgets_a_table_is_shown(watched, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert LIVE not in RowBrowser(ROWS, REPLIES, AFTER)._repr_mimebundle_()


def test_with_a_front_end_the_table_still_goes_along(watched):
    bundle = RowBrowser(ROWS, REPLIES, AFTER)._repr_mimebundle_()
    assert set(bundle) == {LIVE, "text/plain", "text/html"} and "verdict" in bundle["text/plain"]


def test_the_browser_filters_and_steps(watched):
    browser = RowBrowser(ROWS, REPLIES, AFTER, before=BEFORE, first=[2])
    filters, steps, view = browser.build().children
    verdict, error = filters.children
    back, place, count, ahead = steps.children
    assert "row 2<" in view.value and count.value == f"of {len(ROWS)}"
    ahead.click()
    assert "row 3<" in view.value and place.value == 4
    verdict.value = "wrong"
    wrong = select_rows(AFTER, "wrong")
    assert f"row {wrong[0]}<" in view.value and count.value == f"of {len(wrong)}"
    back.click()
    assert place.value == 1
    code = next(iter(AFTER.errors))
    assert [value for _, value in error.options] == ["", *AFTER.errors]
    error.value = code
    assert count.value == f"of {AFTER.errors[code]}" and code in view.value
    verdict.value = "right"
    assert [value for _, value in error.options] == [""] and "→ right" in view.value


def test_a_row_is_shown_whole_and_escaped():
    row = next(row for row in ROWS if row["gold"])
    evil = {**row, "messages": [*row["messages"][:-1], {"role": "user", "content": "<img src=x onerror=alert(1)>"}]}
    reply = render_calls(row_calls(row)) + "<start_function_response>"
    browser = RowBrowser([evil], [reply], score([evil], [reply]))
    shown = browser.render_row(0)
    assert "<img" not in shown and "&lt;img src=x" in shown and "&lt;escape&gt;" in shown
    assert all(tool["function"]["name"] in shown for tool in row["tools"]) and "right" in shown
    assert "<span" not in shown  # the stop token is no difference


def test_earlier_calls_and_results_are_shown_and_escaped():
    row = next(row for row in ROWS if row["gold"])
    calling = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "<i>", "arguments": {}}}]}
    steps = [calling, {"role": "tool", "name": "<b>", "content": {"<u>": 1}}]
    longer = {**row, "messages": [*row["messages"], *steps]}
    reply = render_calls(row_calls(row))
    shown = RowBrowser([longer], [reply], score([longer], [reply])).render_row(0)
    assert "<b>assistant</b> &lt;i&gt;()" in shown and "<b>tool</b> &lt;b&gt; → {" in shown and "<u>" not in shown


def test_a_browser_takes_one_evaluation(watched):
    with pytest.raises(ValueError, match="got 24 rows, 23 replies and 24 scores"):
        RowBrowser(ROWS, REPLIES[:-1], AFTER)
    for options in ({"scores": Scores(AFTER.rows[::-1])}, {"scores": AFTER, "before": Scores(BEFORE.rows[::-1])}):
        with pytest.raises(ValueError, match="the same rows in the same order"):
            RowBrowser(ROWS, REPLIES, **options)


def water_plants(room: str, liters: float = 1.0):
    """Water the plants.

    Args:
        room: Which room.
        liters: How much.
    """


def test_the_playground_shows_what_python_functions_declare(watched, model, tokenizer):
    playground = Playground(model, tokenizer, "water the plants in the hall", [water_plants], max_new_tokens=8)
    _, tools, _, view = playground.build().children
    assert '"water_plants"' in tools.value and "water_plants" in view.value
    assert LIVE in playground._repr_mimebundle_()


def test_the_playground_answers_and_says_what_is_wrong(watched, model, tokenizer):
    playground = Playground(model, tokenizer, REQUEST, TOOLS, max_new_tokens=24)
    request, tools, line, view = playground.build().children
    button, constrained = line.children
    assert "meal_log" in view.value and "validity" in view.value
    assert view.value.count("&lt;start_of_turn&gt;developer") == 1  # the prompt stands above the table, not in it
    request.value, constrained.value = "<script>alert(1)</script>", True
    button.click()
    assert "&lt;script&gt;" in view.value and "<script" not in view.value and not button.disabled
    tools.value = "[{"
    button.click()
    assert "<table" not in view.value and "JSON" in view.value and not button.disabled


def test_violations_are_named():
    row = next(row for row in ROWS if row["gold"] and row["gold"][0]["arguments"])
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in row["tools"]}
    (call, *_) = row_calls(row)
    assert has_valid_arguments([call], tools) and find_violations([call], tools) == []
    wrong = [type(call)("nothing", {}), type(call)(call.name, {name: [[]] for name in call.arguments})]
    found = find_violations(wrong, tools)
    assert found[0] == "nothing: no such tool is declared" and any(call.name in one for one in found[1:])
    assert not has_valid_arguments(wrong, tools)


def test_an_answer_without_a_call_shows_what_was_said():
    said = build_answer_table(Answer("prompt", "reply", (), "I cannot.", (), ()))
    assert dict(zip(said["part"], said["answer"], strict=True)) == {
        "prompt": "prompt",
        "raw reply": "reply",
        "parsed": "(no call) I cannot.",
        "validity": "no call",
    }
    calls = ToolCall("f", {"a": "ü", "b": [1]}), ToolCall("g", {})
    assert build_answer_table(Answer("", "", calls, "", (), ()))["answer"][2] == 'f(a="ü", b=[1])\ng()'
