"""What a comparison is read for: every row counted once, gains and losses told apart, figures of it."""

import dataclasses

import matplotlib
import pytest

matplotlib.use("Agg")

from fgtools.calls import render_calls, row_calls
from fgtools.metrics import Comparison, Scores, ast_match, compare, score
from fgtools.metrics.breakdowns import (
    count_argument_types,
    split_by_calls,
    split_by_length,
    split_by_seen,
    split_by_tools,
)
from fgtools.metrics.comparison import BETTER, NO_EVIDENCE, NOT_COUNTED, WORSE
from fgtools.metrics.protocol import score_protocol, select_protocol_rows
from fgtools.offline.samples import build_samples
from fgtools.report import figures
from fgtools.report.readings import (
    count_outcomes,
    render_behaviours_table,
    render_breakdown_table,
    render_forgetting_table,
    render_outcomes_table,
    render_protocol_table,
    render_transitions_table,
    render_types_table,
    shorten_code,
)
from fgtools.report.style import AFTER, BEFORE
from fgtools.rows import build_rows

ROWS = build_rows(build_samples(240, 5)).rows
RIGHT = [render_calls(row_calls(row)) if row["gold"] else row.get("reply") or "I cannot." for row in ROWS]
HALF = [text if number % 2 else "I cannot." for number, text in enumerate(RIGHT)]
CALLS_ALWAYS = [text if row["gold"] else RIGHT[0] for row, text in zip(ROWS, RIGHT, strict=True)]


@pytest.fixture(scope="module")
def sides() -> tuple[Scores, Scores]:
    return score(ROWS, HALF), score(ROWS, CALLS_ALWAYS)


@pytest.fixture(scope="module")
def comparison(sides) -> Comparison:
    return compare(*sides)


def test_every_row_is_in_one_transition(comparison):
    assert sum(count for _, _, count in comparison.transitions) == comparison.n == len(ROWS)
    counts = count_outcomes(comparison)
    assert sum(counts.values()) == comparison.n
    assert (counts["fixed"], counts["broken"]) == (len(comparison.fixed), len(comparison.broken))
    assert counts["fixed"] > 50 and counts["broken"] > 5
    table = render_transitions_table(comparison)
    assert table.rows[0][0] == "right" and table.rows[0][1] != "right"  # what was broken stands first
    assert sum(int(row[2]) for row in table.rows) == comparison.n
    assert f"{counts['broken']}/{comparison.n}" in str(render_outcomes_table(comparison))


def test_a_reading_knows_which_way_is_better(comparison):
    assert comparison.change("ast_match").reading == BETTER
    assert comparison.change("false_calls").reading == WORSE
    assert comparison.change("missed_calls").reading == BETTER
    assert comparison.change("cer").reading == BETTER
    back = compare(score(ROWS, CALLS_ALWAYS), score(ROWS, HALF))
    assert back.change("ast_match").reading == WORSE and back.change("false_calls").reading == BETTER
    same = compare(score(ROWS, HALF), score(ROWS, HALF))
    assert {change.reading for change in same.changes} == {NO_EVIDENCE}
    calls = [row for row in ROWS if row["gold"]][:5]
    replies = ["no"] * 5
    assert compare(score(calls, replies), score(calls, replies)).change("false_calls").reading == NOT_COUNTED


def test_a_few_rows_are_no_evidence():
    rows, wrong, right = ROWS[1:4], ["no"] * 3, RIGHT[1:4]
    change = compare(score(rows, wrong), score(rows, right)).change("ast_match")
    assert change.difference > 0.5 and change.reading == NO_EVIDENCE  # McNemar's p of 3 rows is 0.25 at best


def test_what_was_forgotten_is_said(comparison):
    table = str(render_forgetting_table(comparison, comparison))
    assert "WORSE" in table and "unseen tools" in table and "false calls" in table
    assert "unseen tools" not in str(render_forgetting_table(comparison))
    change, row = comparison.change("false_calls"), render_forgetting_table(comparison).rows[0]
    ends = f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    assert row[2:5] == (str(change.before), str(change.after), f"+100.0 {ends}") and change.low < change.high


def test_nothing_forgotten_in_few_rows_is_not_said_to_be_certain(sides):
    rows = tuple(row for row in sides[0].rows if not row.n_gold)[:30]
    row = render_forgetting_table(compare(Scores(rows), Scores(rows))).rows[0]
    assert row[4:] == ("+0.0 [-8.7, +8.7]", NO_EVIDENCE)
    calls = Scores(sides[0].call_rows)
    assert render_forgetting_table(compare(calls, calls)).rows[0][2:] == ("0/0", "0/0", "", NOT_COUNTED)


def test_parts_hold_every_row_once(sides):
    before, after = sides
    trained = {call["name"] for row in ROWS[::2] for call in row["gold"]}
    for parts in (
        split_by_tools(before),
        split_by_calls(before),
        split_by_length(before),
        split_by_length(before, (900,)),
        split_by_seen(before, ROWS, trained),
    ):
        ids = [row.row_id for scores in parts.values() for row in scores.rows]
        assert sorted(ids) == sorted(row["row_id"] for row in ROWS) and len(parts) > 1
    assert split_by_length(Scores(before.rows[:1])).keys() == {"0 or more"}
    assert list(split_by_length(before, (900,))) == ["up to 900", "901 or more"]
    seen = split_by_seen(before, ROWS, trained)
    assert all(row.n_gold == 0 for row in seen["no call due"].rows)
    types = count_argument_types(after)
    assert sum(ratio.denominator for ratio in types.values()) == sum(row.arguments_gold for row in after.rows)
    strings = str(count_argument_types(before)["string"]), str(types["string"])
    assert render_types_table(count_argument_types(before), types).rows[0] == ("string", *strings)
    assert strings[0] != strings[1]
    assert render_behaviours_table(before).rows[0][0] == "tool_call"


def test_parts_of_other_rows_are_not_put_beside_each_other(sides):
    before, after = sides
    table = render_breakdown_table(split_by_calls(before), split_by_calls(after), "calls due")
    assert len(table.rows) == len(split_by_calls(before))
    with pytest.raises(ValueError, match="the same rows in the same parts"):
        render_breakdown_table(split_by_calls(before), split_by_calls(Scores(after.rows[:9])), "calls due")


def dots_of(axes, colour):
    return [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o" and line.get_color() == colour]


def test_the_figures_show_every_row_and_part(sides, comparison, tmp_path):
    before, after = sides
    axes = figures.plot_transitions(comparison, figures.new_axes())
    shown = sum(int(text.get_text()) for text in axes.texts if text.get_text())
    assert shown == comparison.n and f"{comparison.n} rows" in axes.get_xlabel()
    names = [label.get_text() for label in axes.get_xticklabels()]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    right, missed, false = (names.index(name) for name in ("right", "missed_call", "false_call"))
    assert (cells[right, missed], cells[missed, right]) == ("108", "")  # across what it became, down what it was
    assert (cells[false, right], cells[right, false]) == ("31", "")
    parts = split_by_tools(before), split_by_tools(after)
    axes = figures.plot_breakdown(*parts, "number of tools", figures.new_axes())
    assert [label.get_text().split("\n")[0] for label in axes.get_xticklabels()] == list(parts[0])
    assert dots_of(axes, BEFORE) == [100 * scores.ast_match.rate for scores in parts[0].values()]
    assert dots_of(axes, AFTER) == [100 * scores.ast_match.rate for scores in parts[1].values()]
    legend = axes.get_legend()
    assert [line.get_color() for line in legend.get_lines()] == [BEFORE, AFTER]
    assert [text.get_text() for text in legend.get_texts()] == ["before", "after"]
    types = count_argument_types(before), count_argument_types(after)
    axes = figures.plot_shares(*types, "type of argument", "right arguments, %", figures.new_axes(), "arguments")
    assert axes.get_xticklabels()[0].get_text() == f"string\n{types[0]['string'].denominator} arguments"
    assert dots_of(axes, BEFORE) == [100 * ratio.rate for ratio in types[0].values()]
    assert dots_of(axes, AFTER) == [100 * types[1][kind].rate for kind in types[0]]
    assert figures.save_figure(axes, tmp_path / "a.png").stat().st_size > 1000


def test_the_rows_of_rare_errors_are_shown_together():
    codes = [f"code {number:02}" for number in range(12)]
    transitions = (*((code, "", 20 - number) for number, code in enumerate(codes)), ("", codes[11], 3))
    n = sum(count for _, _, count in transitions)
    axes = figures.plot_transitions(Comparison(n, (), (), (), transitions), figures.new_axes())
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["right", *codes[:8], "other"]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert sum(int(text) for text in cells.values() if text) == n
    assert (cells[0, 9], cells[9, 0]) == (str(12 + 11 + 10 + 9), "3")


def test_a_part_without_such_rows_is_named_and_not_drawn(sides):
    parts = split_by_calls(sides[0]), split_by_calls(sides[1])
    axes = figures.plot_breakdown(*parts, "calls due", figures.new_axes(), "false_calls")
    assert [label.get_text().split("\n")[0] for label in axes.get_xticklabels()] == list(parts[0])
    assert len(axes.lines) == 4  # a dot and an interval of the one part that has rows without a call, twice
    with pytest.raises(ValueError, match="the same rows in the same parts"):
        figures.plot_breakdown(parts[0], split_by_tools(sides[1]), "calls due", figures.new_axes())


def test_tools_seen_in_training_and_others_stand_in_one_table(sides):
    trained = {call["name"] for row in ROWS[::2] for call in row["gold"]}
    seen = [split_by_seen(scores, ROWS, trained) for scores in sides]
    table = render_breakdown_table(*seen, "tools")
    assert [row[0] for row in table.rows] == ["seen in training", "not seen", "no call due"]
    assert table.rows[0][1:] == tuple(str(parts["seen in training"].ast_match) for parts in seen)
    assert table.rows[0][1] != table.rows[0][2]


def test_types_of_other_rows_are_not_put_beside_each_other(sides):
    types = count_argument_types(sides[0])
    with pytest.raises(ValueError, match="must count the same arguments"):
        render_types_table(types, count_argument_types(Scores(sides[1].rows[:20])))


def test_a_strict_match_needs_the_grammar(sides):
    before, _ = sides
    loose = [text.replace("<end_function_call>", "", 1) for text in RIGHT]
    strict, lenient = (getattr(score(ROWS, loose), name) for name in ("strict_match", "ast_match"))
    assert strict.k < lenient.k
    assert all(row.strict_match == (row.in_grammar and row.exact_match) for row in before.rows)


def test_the_tutorials_error_rate_is_notation_and_content():
    """A model whose every call is right, in FunctionGemma's own grammar, has errors by the tutorial's protocol."""
    rows = select_protocol_rows(ROWS)
    assert len(rows) == 50 and all(row["gold"] for row in rows)
    native = score_protocol(rows, [render_calls(row_calls(row)) for row in rows])
    assert native.ast_match.rate == native.tool_accuracy.rate == 1
    assert native.cer.rate > 0.1 and native.cer_native.edits == native.cer_content.edits == 0
    wrapped = score_protocol(rows, [render_calls(row_calls(row), "tutorial") for row in rows], "tutorial")
    assert wrapped.cer.edits == wrapped.cer_content.edits == 0 and wrapped.cer_native.rate > 0.1
    silent = score_protocol(rows, [""] * 50)
    assert silent.cer.rate == silent.cer_content.rate == 1 and silent.tool_accuracy.k == 0
    table = render_protocol_table(native, wrapped)
    assert table.columns[1:] == ("before, 128 tokens", "after, 64 tokens")  # source: the tutorial's two evaluations
    assert table.rows[1] == ("TC-CER, gold in the tutorial's notation", str(native.cer), str(wrapped.cer))
    with pytest.raises(ValueError, match="scores rows with a call alone"):
        score_protocol(ROWS, RIGHT)


def test_a_change_says_the_same_after_it_was_saved(comparison):
    saved = Comparison.from_dict(comparison.to_dict())
    assert [dataclasses.astuple(one) for one in saved.changes] == [dataclasses.astuple(o) for o in comparison.changes]
    assert [one.reading for one in saved.changes] == [one.reading for one in comparison.changes]


def test_codes_that_differ_are_shown_differently():
    named = [one for one in vars(ast_match).values() if isinstance(one, str) and ":" in one and " " not in one]
    codes = ["", "false_call", *named]
    assert len(codes) > 12 and len({shorten_code(code) for code in codes}) == len(set(codes))
    assert shorten_code("simple_function_checker:missing_required") == "missing_required"
    assert shorten_code("parallel_function_checker_no_order:wrong_count") == "parallel:wrong_count"
    assert shorten_code("") == "right" and shorten_code("type_error:simple") == "type_error:simple"
