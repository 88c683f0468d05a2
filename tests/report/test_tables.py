"""What people look at: tables in three forms, single rows, the rows worth looking at, the card, the figures."""

import dataclasses
import json

import matplotlib
import pytest
from matplotlib.colors import to_rgba

matplotlib.use("Agg")

from fgtools.metrics import LADDER, Scores, compare, score
from fgtools.prompts import Audit
from fgtools.prompts.audit import Lengths
from fgtools.prompts.checks import Check
from fgtools.report import figures
from fgtools.report import tables as report
from fgtools.report.card import NEEDED, render_card
from fgtools.report.style import AFTER, BEFORE
from fgtools.report.table import Table
from fgtools.report.tables import (
    LABELS,
    render_comparison_table,
    render_funnel_table,
    render_inspection,
    render_ladder_table,
    select_examples,
    select_worse,
)
from fgtools.rows.remedies import Coverage

TOOLS = [{"function": {"name": "one", "description": "", "parameters": {"properties": {"a": {"type": "string"}}}}}]
ROWS = [
    {
        "row_id": f"r{i}",
        "tools": TOOLS,
        "messages": [{"role": "developer", "content": "d"}, {"role": "user", "content": f"ask <b>{i}</b>"}],
        "gold": [{"name": "one", "arguments": {"a": str(i)}}] if i < 3 else [],
    }
    for i in range(4)
]
RIGHT = [f"<start_function_call>call:one{{a:<escape>{i}<escape>}}<end_function_call>" for i in range(3)] + ["no"]
WRONG = ["no", RIGHT[0], RIGHT[2], RIGHT[0]]


@pytest.fixture(scope="module")
def comparison():
    return compare(score(ROWS, WRONG), score(ROWS, RIGHT))


def test_a_table_prints_in_columns_and_renders_in_a_notebook():
    table = Table(("name", "value"), (("a|b", "1"), ("<x>", "two\nlines")))
    assert str(table) == repr(table)
    assert str(table).splitlines()[:3] == ["name  value", "----  -----", "a|b   1"]
    assert "&lt;x&gt;" in table._repr_html_() and "two<br>lines" in table._repr_html_()
    assert table.to_markdown().splitlines()[2] == "| a\\|b | 1 |"


def test_long_cells_are_wrapped():
    lines = str(Table(("a",), (("word " * 40,),), width=30)).splitlines()
    assert max(map(len, lines)) <= 30 and len(lines) > 5


def test_the_ladder_has_every_rung_with_counts_and_interval():
    text = str(render_ladder_table(score(ROWS, WRONG)))
    assert all(LABELS[name] in text for name in LADDER)
    assert "1/4 = 25.0% [4.6, 69.9]" in text


def test_the_ladder_says_how_many_golds_have_no_valid_arguments():
    broken = {**ROWS[0], "row_id": "odd", "gold": [{"name": "one", "arguments": {"a": 7}}]}
    table = render_ladder_table(score([*ROWS, broken], [*RIGHT, "no"]))
    assert dict(table.rows)[LABELS["gold_invalid"]].startswith("1/4 = 25.0%")  # of the rows with a call


def test_no_label_names_an_error_rate_that_is_not_the_tutorials(comparison):
    assert "gold in the model's notation" in LABELS["cer"] and "(tutorial)" not in LABELS["cer"]
    assert "TC-CER is its error rate, but with the gold in the notation that the model was taught" in render_card(
        facts(comparison)
    )


def test_an_error_rate_of_nothing_has_no_difference():
    rows = [ROWS[3]]
    table = render_comparison_table(compare(score(rows, ["no"]), score(rows, ["no"])))
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells[LABELS["cer"]] == cells[LABELS["argument_recall"]] == ("0/0", "0/0", "", "", "")
    assert cells[LABELS["missed_calls"]] == ("0/0", "0/0", "", "", "")


def test_the_comparison_says_what_was_fixed_and_broken(comparison):
    line = next(line for line in str(render_comparison_table(comparison)).splitlines() if line.startswith("AST match"))
    assert "1/4 = 25.0%" in line and "4/4 = 100.0%" in line and "+75.0" in line and "3/0" in line
    cells = next(row for row in render_comparison_table(comparison).rows if row[0] == "AST match")
    change = comparison.change("ast_match")
    assert cells[1].startswith("1/4") and cells[2].startswith("4/4") and change.low < change.high
    assert cells[3:] == (f"+75.0 [{100 * change.low:+.1f}, {100 * change.high:+.1f}]", "3/0", "0.25")


def test_the_funnel_adds_up():
    table = render_funnel_table({"kept": 3, "no_call": 1})
    assert table.rows == (("kept", "3", "75.0%"), ("no_call", "1", "25.0%"), ("all", "4", "100.0%"))


def test_single_rows_show_request_prediction_gold_and_verdict():
    table = render_inspection(ROWS, WRONG, [0, 1, 3, 99, -1])
    assert [row[0] for row in table.rows] == ["0\nr0", "1\nr1", "3\nr3"]
    assert table.rows[0][1:] == ("ask <b>0</b>", "(no call) no", 'one(a="0")', "missed_call")
    assert table.rows[1][2:] == ('one(a="0")', 'one(a="1")', "value_error:string")
    assert table.rows[2][3:] == ("(no call)", "false_call")
    assert render_inspection(ROWS, RIGHT, [2]).rows[0][4] == "right"


def test_examples_are_chosen_by_rule():
    wrong, right = score(ROWS, WRONG), score(ROWS, RIGHT)
    assert sorted(select_examples(wrong)) == [0, 1, 3] and select_examples(right) == []
    assert select_worse(right, wrong)[:3] == [0, 1, 3] and select_worse(wrong, right) == []
    assert select_worse(right, wrong, limit=1) == [0]
    before, after = score(ROWS, ["no", *RIGHT[1:]]), score(ROWS, ["no", RIGHT[1], "no", RIGHT[0]])
    assert select_worse(before, after) == [2, 3, 0]  # what got worse first, then an example of what was wrong before
    with pytest.raises(ValueError, match="at place 0 'r0' stands beside 'r3'"):
        select_worse(right, score(ROWS[::-1], RIGHT[::-1]))
    with pytest.raises(ValueError, match="at place 3 'r3' stands beside None"):
        select_worse(right, score(ROWS[:3], RIGHT[:3]))


def facts(comparison):
    run = {"model": "a/b", "data": "sample", "recipe": "native", "dtype": "torch.float32"}
    training = {name: 1 for name in ("n_train", "n_too_long", "steps", "tokens", "label_tokens", "learning_rate")}
    training |= {"precision": "fp32", "choose_best": True, "saved_step": 77, "n_eval": 12}
    training |= {name: 1 for name in ("epochs", "batch_size", "accumulation_steps", "seed")}
    return {
        "run": {**run, "environment": {"torch": "2.13.0"}},
        "funnel": {"rows_in": 4, "origin": "offline sample", "funnel": {"kept": 4}, "split": {"train": 2, "eval": 2}},
        "train": training,
        "compare": json.loads(json.dumps(comparison.to_dict())),
    }


def test_the_card_holds_counts_caveat_and_metadata(comparison):
    card = render_card(facts(comparison), "you/model", "offline stand-in")
    assert card.startswith("---\nlicense: gemma\n") and "base_model: a/b" in card
    assert "# you/model" in card and "> **offline stand-in**" in card
    assert "4/4 = 100.0%" in card and comparison.verdict in card and "torch 2.13.0" in card


def test_the_card_lists_the_names_a_server_has_to_put_back(comparison):
    given = facts(comparison)
    assert "restore_calls" not in render_card(given)
    given["funnel"]["renamed"] = {"tools": {"a_b": "a{b"}, "parameters": {"find": {"type_": "type"}}}
    card = render_card(given)
    assert "restore_calls" in card and "| a_b |  | a{b |" in card and "| find | type_ | type |" in card


def test_tables_of_data_show_counts_and_examples():
    by = report.render_funnel_by_table({"a": {"kept": 2, "no_call": 1}, "": {"kept": 1}}, "source")
    assert by.rows == (("a", "3", "2", "1"), ("(none)", "1", "1", "0"))
    examples = report.render_examples_table({"no_call": [{"row_id": "r", "detail": "d"}]})
    assert examples.rows == (("no_call", "r", "d"),)
    changes = report.render_changes_table([{"name": "f", "parameters": {"a": {"type": "str"}}}])
    assert ("f", "type_word", "str -> string") in changes.rows and report.render_changes_table(3).rows == ()
    coverage = Coverage(frozenset({"type"}), frozenset({("string", "default"), ("string", "format")}))
    hidden = report.render_coverage_table(coverage, {"default_described": 4, "parameter_renamed": 2})
    assert hidden.rows == (
        ("parameters named", "type", "2 renamed"),
        ("default", "string", "4 said in the description"),
        ("also", "format", "nothing to say in these rows"),
    )


def test_the_audit_table_begins_with_what_was_found():
    checks = (
        Check("fine", "error", 0, 3, "a"),
        Check("odd", "warning", 1, 3, "b", "c", ("r1",)),
        Check("bad", "error", 2, 3, "d", "e", ("r1", "r2")),
    )
    table = report.render_audit_table(Audit("native", checks, Lengths(1, (), 0), Coverage()))
    assert [(row[0], row[1], row[2]) for row in table.rows] == [
        ("error", "bad", "2/3"),
        ("warning", "odd", "1/3"),
        ("ok", "fine", "0/3"),
    ]
    assert table.rows[0][3] == "d (e.g. r1, r2)"


def test_the_card_names_no_folder_of_the_machine(comparison):
    given = facts(comparison)
    given["run"] |= {"model": "/home/me/models/mine", "data": "/home/me/rows.jsonl"}
    card = render_card(given)
    assert "/home/me" not in card and "`mine`" in card and "base_model" not in card


def test_a_card_without_its_facts_is_an_error(comparison):
    given = facts(comparison)
    del given["train"]
    with pytest.raises(ValueError, match=r"needs run, funnel, train, compare, but lacks train"):
        render_card(given)
    assert set(NEEDED) == {"run", "funnel", "train", "compare"}


def texts(axes):
    return " ".join(text.get_text() for text in axes.figure.findobj(matplotlib.text.Text))


def test_errors_stand_by_number_before_then_after_then_name():
    base = score(ROWS[:1], WRONG[:1]).rows[0]
    before, after = (
        Scores(tuple(dataclasses.replace(base, row_id=str(i), error=code) for i, code in enumerate(codes)))
        for codes in (["b", "f", "d", "a", "c", "c", "e"], ["a", "f", "f", "d", "b", "d", "e"])
    )
    axes = figures.plot_errors(before, after, figures.new_axes())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "d", "f", "a", "b", "e"]


def test_figures_show_the_numbers_they_are_given(comparison, tmp_path):
    funnel = figures.plot_funnel({"kept": 3, "no_call": 1}, figures.new_axes())
    assert "3 (75.0%)" in texts(funnel) and "of 4" in texts(funnel)
    lengths = figures.plot_lengths([10, 20, 3000], 2048, figures.new_axes())
    assert "budget 2048: 1 of 3 rows over it" in texts(lengths)
    history = [{"step": 0, "eval_loss": 2.0, "eval_mean_token_accuracy": 0.1}, {"step": 1, "loss": 1.0}]
    curves = figures.plot_training(history)
    assert [line.get_xydata().tolist() for line in curves.lines] == [[[1, 1.0]], [[0, 2.0]]]
    dots = figures.plot_comparison(comparison, figures.new_axes())
    assert "1/4" in texts(dots) and "4/4" in texts(dots) and "AST match" in texts(dots)
    for colour, side in ((BEFORE, "before"), (AFTER, "after")):
        places = [line.get_xdata()[0] for line in dots.lines if line.get_marker() == "o" and line.get_color() == colour]
        assert places == [100 * getattr(comparison.change(name), side).rate for name in LADDER]
    errors = figures.plot_errors(score(ROWS, WRONG), score(ROWS, RIGHT), figures.new_axes())
    assert "missed_call" in texts(errors)
    assert [bars.get_label() for bars in errors.containers] == ["before", "after"]
    assert [[bar.get_width() for bar in bars] for bars in errors.containers] == [[1, 1, 1], [0, 0, 0]]
    assert [bars[0].get_facecolor() for bars in errors.containers] == [to_rgba(colour) for colour in (BEFORE, AFTER)]
    figures.plot_errors(score(ROWS, RIGHT), score(ROWS, RIGHT), figures.new_axes())
    path = figures.save_figure(dots, tmp_path / "figures" / "dots.png", "offline stand-in")
    assert "offline stand-in" in texts(dots)
    assert path.read_bytes().startswith(b"\x89PNG")
    matplotlib.pyplot.close("all")
