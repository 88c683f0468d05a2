"""Tables of scores: every measure with its counts, every row counted once, gains and losses told apart."""

import dataclasses

import pytest

from fgtools.calls import render_calls, row_calls
from fgtools.metrics import LADDER, Comparison, Scores, ast_match, compare, score
from fgtools.metrics.breakdowns import (
    count_argument_types,
    split_by_calls,
    split_by_length,
    split_by_seen,
    split_by_tools,
)
from fgtools.metrics.comparison import BETTER, NO_EVIDENCE, NOT_COUNTED, WORSE
from fgtools.metrics.coverage import Outcome, choose_threshold
from fgtools.metrics.protocol import score_protocol, select_protocol_rows
from fgtools.report.layout import render_table
from fgtools.report.tables import (
    LABELS,
    build_behaviours_table,
    build_breakdown_table,
    build_comparison_table,
    build_evaluations_table,
    build_forgetting_table,
    build_ladder_table,
    build_outcomes_table,
    build_protocol_table,
    build_seeds_table,
    build_summary_table,
    build_threshold_table,
    build_transitions_table,
    shorten_code,
)
from tests.report import four_rows
from tests.report.samples import CALLS_ALWAYS, HALF, RIGHT, ROWS


@pytest.fixture(scope="module")
def sides() -> tuple[Scores, Scores]:
    return score(ROWS, HALF), score(ROWS, CALLS_ALWAYS)


@pytest.fixture(scope="module")
def comparison(sides) -> Comparison:
    return compare(*sides)


def test_the_ladder_has_every_rung_with_counts_and_interval():
    table = build_ladder_table(score(four_rows.ROWS, four_rows.WRONG)).set_index("measure")
    assert all(LABELS[name] in table.index for name in LADDER)
    assert table.loc["AST match"].tolist() == ["1/4 = 25.0% [4.6, 69.9]", 1.0, 0.25]
    assert table.columns[0] == "k/n = value [95 % interval]"
    constrained = dataclasses.replace(score(ROWS, HALF), constrained=True)
    assert build_ladder_table(constrained).columns[1].endswith(", constrained replies")


def test_the_ladder_says_how_many_golds_have_no_valid_arguments():
    broken = {**four_rows.ROWS[0], "row_id": "odd", "gold": [{"name": "one", "arguments": {"a": 7}}]}
    table = build_ladder_table(score([*four_rows.ROWS, broken], [*four_rows.RIGHT, "no"])).set_index("measure")
    assert table.loc[LABELS["gold_invalid"], "rate"] == 0.25  # of the rows with a call


def test_no_label_names_an_error_rate_that_is_not_the_tutorials():
    assert "gold in the model's notation" in LABELS["cer"] and "(tutorial)" not in LABELS["cer"]


def test_an_error_rate_of_nothing_has_no_difference():
    rows = [four_rows.ROWS[3]]
    table = build_comparison_table(compare(score(rows, ["no"]), score(rows, ["no"]))).set_index("measure")
    for name in ("cer", "argument_recall", "missed_calls"):
        cells = table.loc[LABELS[name]]
        assert cells[["before", "after", "95 % interval"]].tolist() == ["0/0", "0/0", ""]
        assert cells[["difference", "design effect", "fixed", "broken", "p (Holm)"]].isna().all()


def test_the_comparison_says_what_was_fixed_and_broken():
    four = compare(score(four_rows.ROWS, four_rows.WRONG), score(four_rows.ROWS, four_rows.RIGHT))
    table = build_comparison_table(four)
    change, cells = four.change("ast_match"), table.set_index("measure").loc["AST match"]
    assert cells["before"].startswith("1/4 = 25.0%") and cells["after"].startswith("4/4 = 100.0%")
    assert change.low < change.high
    assert cells["95 % interval"] == f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    assert cells[["difference", "fixed", "broken", "p (Holm)"]].tolist() == pytest.approx([75.0, 3, 0, 0.25])
    assert cells["design effect"] == change.design.effect
    rates, ratio = four.change("cer"), table.set_index("measure").loc[LABELS["cer"]]
    assert ratio["difference"] == rates.difference and ratio[["fixed", "broken"]].isna().all()
    assert ratio["p (Holm)"] == rates.p_corrected
    assert ratio["95 % interval"] == f"[{rates.low:+.3f}, {rates.high:+.3f}]"
    best = table.sort_values("difference", ascending=False)["measure"].iloc[0]
    assert four.change(next(name for name in LABELS if LABELS[name] == best)).difference == 0.75


def test_every_row_is_in_one_transition(comparison):
    assert sum(count for _, _, count in comparison.transitions) == comparison.n == len(ROWS)
    outcomes = build_outcomes_table(comparison).set_index("outcome")
    counts = {name: int(rows.partition("/")[0]) for name, rows in outcomes["rows"].items()}
    assert sum(counts.values()) == comparison.n
    assert (counts["fixed"], counts["broken"]) == (len(comparison.fixed), len(comparison.broken))
    assert counts["fixed"] > 50 and counts["broken"] > 5
    table = build_transitions_table(comparison)
    assert table["before"][0] == "right" and table["after"][0] != "right"  # what was broken stands first
    assert table["rows"].sum() == comparison.n
    transitions = (("", "", 9), ("a", "", 1), ("b", "", 3), ("", "a", 1), ("", "b", 2))
    ordered = build_transitions_table(Comparison(16, (), (), (), transitions))
    assert list(ordered["rows"]) == [2, 1, 9, 3, 1] and list(ordered["after"][:2]) == ["b", "a"]
    assert outcomes.loc["broken", "rows"].startswith(f"{counts['broken']}/{comparison.n} = ")
    assert outcomes.loc["broken", "share"] == counts["broken"] / comparison.n


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
    table = build_forgetting_table(comparison, comparison)
    assert list(table["rows"]) == ["evaluation rows"] * 3 + ["unseen tools"] * 2
    assert list(table["reading"]) == [WORSE, WORSE, BETTER, BETTER, BETTER]
    assert set(build_forgetting_table(comparison)["rows"]) == {"evaluation rows"}
    change, row = comparison.change("false_calls"), table.iloc[0]
    assert row["measure"] == LABELS["false_calls"] and change.low < change.high
    assert row[["before", "after", "difference"]].tolist() == [str(change.before), str(change.after), 100.0]
    assert row["95 % interval"] == f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}]"


def test_nothing_forgotten_in_few_rows_is_not_said_to_be_certain(sides):
    rows = tuple(row for row in sides[0].rows if not row.n_gold)[:30]
    row = build_forgetting_table(compare(Scores(rows), Scores(rows))).iloc[0]
    assert row[["difference", "95 % interval", "reading"]].tolist() == [0.0, "[-8.7, +8.7]", NO_EVIDENCE]
    calls = Scores(sides[0].call_rows)
    row = build_forgetting_table(compare(calls, calls)).iloc[0]
    assert row[["before", "after", "95 % interval", "reading"]].tolist() == ["0/0", "0/0", "", NOT_COUNTED]


def test_parts_hold_every_row_once(sides):
    before, after = sides
    trained = {call["name"] for row in ROWS[::2] for call in row["gold"]}
    for parts in (
        split_by_tools(before),
        split_by_calls(before),
        split_by_length(before),
        split_by_seen(before, ROWS, trained),
    ):
        ids = [row.row_id for scores in parts.values() for row in scores.rows]
        assert sorted(ids) == sorted(row["row_id"] for row in ROWS) and len(parts) > 1
    assert split_by_length(Scores(before.rows[:1])).keys() == {"0 or more"}
    seen = split_by_seen(before, ROWS, trained)
    assert all(row.n_gold == 0 for row in seen["no call due"].rows)
    types = count_argument_types(after)
    assert sum(ratio.denominator for ratio in types.values()) == sum(row.arguments_gold for row in after.rows)
    assert next(iter(types)) == "string" and str(types["string"]) != str(count_argument_types(before)["string"])
    behaviours = build_behaviours_table(before).set_index("right answer \\ reply")
    assert behaviours.index[0] == "tool_call" and behaviours.to_numpy().sum() == len(ROWS)
    assert behaviours.loc["tool_call", "tool_call"] == sum(row.behaviour == "tool_call" for row in before.call_rows)


def test_parts_of_other_rows_are_not_put_beside_each_other(sides):
    before, after = sides
    table = build_breakdown_table(split_by_calls(before), split_by_calls(after), "calls due")
    assert len(table) == len(split_by_calls(before))
    with pytest.raises(ValueError, match="the same rows in the same parts"):
        build_breakdown_table(split_by_calls(before), split_by_calls(Scores(after.rows[:9])), "calls due")


def test_tools_seen_in_training_and_others_stand_in_one_table(sides):
    trained = {call["name"] for row in ROWS[::2] for call in row["gold"]}
    seen = [split_by_seen(scores, ROWS, trained) for scores in sides]
    table = build_breakdown_table(*seen, "tools")
    assert list(table["tools"]) == ["seen in training", "not seen", "no call due"]
    first = table.values.tolist()[0]
    assert first[1:] == [str(parts["seen in training"].ast_match) for parts in seen] and first[1] != first[2]


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
    table = build_protocol_table(native, wrapped)
    assert list(table.columns[1:]) == ["before, 128 tokens", "after, 64 tokens"]  # source: the tutorial's evaluations
    assert table.values.tolist()[1] == ["TC-CER, gold in the tutorial's notation", str(native.cer), str(wrapped.cer)]
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


TRAINING = {
    "history": [
        {"step": 0, "eval_loss": 2.0, "eval_mean_token_accuracy": 0.1},
        {"step": 5, "loss": 1.5},
        {"step": 5, "eval_loss": 1.25, "eval_mean_token_accuracy": 0.5, "eval_exact_match": 0.25},
        {"step": 9, "eval_loss": 1.5, "eval_mean_token_accuracy": 0.75, "eval_exact_match": 0.5},
    ],
    "candidates": [{"step": 9, "right": 3, "rows": 8}, {"step": 5, "right": 4, "rows": 8}],
    "saved_step": 5,
}


def test_the_evaluations_of_a_training_say_which_weights_were_saved():
    table = build_evaluations_table(TRAINING)
    assert list(table["step"]) == [0, 5, 9] and list(table["eval loss"]) == [2.0, 1.25, 1.5]
    assert list(table["tokens right"]) == [0.1, 0.5, 0.75]
    assert list(table["rows right"].isna()) == [True, False, False] and list(table["rows right"][1:]) == [0.25, 0.5]
    assert list(table["generated calls right"]) == ["", "4/8", "3/8"] and list(table["saved"]) == ["", "saved", ""]


def test_several_seeds_are_scored_on_the_same_rows():
    trainings = {3: TRAINING, 4: {**TRAINING, "saved_step": 9}}
    wrong, right = (score(four_rows.ROWS, replies) for replies in (four_rows.WRONG, four_rows.RIGHT))
    table = build_seeds_table(trainings, {3: wrong, 4: right})
    assert list(table["seed"]) == ["3", "4", "mean", "sd"] and list(table["saved step"][:2]) == [5, 9]
    assert list(table["share"][:3]) == [0.25, 1.0, 0.625]
    assert table["share"][3] == pytest.approx(0.75 / 2**0.5)  # of two values a and b: |a - b| / sqrt(2)
    assert list(table["AST match"]) == [str(wrong.ast_match), str(right.ast_match), "", ""]
    assert list(table[LABELS["right_tool_calls"]])[:2] == [str(wrong.right_tool_calls), str(right.right_tool_calls)]
    with pytest.raises(ValueError, match="the same rows in the same order"):
        build_seeds_table(trainings, {3: wrong, 4: Scores(right.rows[:3])})


def test_the_table_of_a_threshold_holds_every_tenth_and_the_choice():
    outcomes = [Outcome(place % 9 != 0, -0.01 * place, str(place)) for place in range(120)]
    choice = choose_threshold(outcomes, 0.85)
    table = build_threshold_table(choice)
    assert list(table["threshold"]) == sorted(table["threshold"], reverse=True) and 10 <= len(table) <= 11
    (chosen,) = table[table[""] == "chosen"].to_dict("records")
    assert chosen["threshold"] == choice.threshold and chosen["answered"] == str(choice.checked.answered)
    assert table.iloc[-1]["answered"].startswith("60/60 = 100.0%")
    assert build_threshold_table(choose_threshold([], 0.9)).empty


def test_a_summary_holds_the_measures_one_looks_at_first_and_fits_a_terminal():
    comparison = compare(score(ROWS, HALF), score(ROWS, CALLS_ALWAYS))
    whole, summary = build_comparison_table(comparison), build_summary_table(comparison)
    assert list(summary["measure"]) == [
        "replied in the grammar",
        "right tool(s), rows with a call",
        "right argument names",
        "AST match",
        "missed calls, rows with a call",
        "false calls, rows without one",
    ]
    for _, row in summary.iterrows():
        assert row["after"] == whole.set_index("measure").loc[row["measure"], "after"]
    assert max(map(len, render_table(summary, total=80).splitlines())) <= 80
