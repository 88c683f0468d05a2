"""Figures: every number drawn where it belongs, in the colour of its side."""

import dataclasses

import matplotlib
import pytest
from matplotlib.colors import to_rgba

matplotlib.use("Agg")

from fgtools.metrics import LADDER, Comparison, Scores, compare, score
from fgtools.metrics.breakdowns import count_argument_types, split_by_calls, split_by_tools
from fgtools.metrics.coverage import Outcome, choose_threshold
from fgtools.report import figures
from fgtools.report.figures import AFTER, BEFORE
from tests.report import samples
from tests.report.four_rows import RIGHT, ROWS, WRONG


@pytest.fixture(scope="module")
def sides() -> tuple[Scores, Scores]:
    return score(samples.ROWS, samples.HALF), score(samples.ROWS, samples.CALLS_ALWAYS)


@pytest.fixture(scope="module")
def comparison(sides) -> Comparison:
    return compare(*sides)


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


def test_figures_show_the_numbers_they_are_given(tmp_path):
    funnel = figures.plot_funnel({"kept": 3, "no_call": 1}, figures.new_axes())
    assert "3 (75.0%)" in texts(funnel) and "rows, of 4" in texts(funnel)
    answers = figures.plot_funnel({"kept": 3, "no_call": 1}, figures.new_axes(), 2)
    assert "answers, of 4 in 2 raw rows" in texts(answers)
    lengths = figures.plot_lengths([10, 2048, 3000], 2048, figures.new_axes())
    assert "budget 2048: 1 of 3 rows over it" in texts(lengths)
    history = [{"step": 0, "eval_loss": 2.0, "eval_mean_token_accuracy": 0.1}, {"step": 1, "loss": 1.0}]
    curves = figures.plot_training(history)
    assert [line.get_xydata().tolist() for line in curves.lines] == [[[1, 1.0]], [[0, 2.0]]]
    comparison = compare(score(ROWS, WRONG), score(ROWS, RIGHT))
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


def dots_of(axes, colour):
    return [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o" and line.get_color() == colour]


def test_the_figures_show_every_row_and_part(sides, comparison, tmp_path):
    before, after = sides
    axes = figures.plot_transitions(comparison, figures.new_axes())
    shown = sum(int(text.get_text()) for text in axes.texts if text.get_text())
    called = [sum(bool(row["gold"]) for row in samples.ROWS[start::2]) for start in (0, 1)]
    darkest = max(called) ** 0.5  # the commonest
    assert axes.images[0].get_array().max() == axes.images[0].get_clim()[1] == darkest
    assert shown == comparison.n and f"{comparison.n} rows" in axes.get_xlabel()
    names = [label.get_text() for label in axes.get_xticklabels()]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    right, missed, false = (names.index(name) for name in ("right", "missed_call", "false_call"))
    assert (cells[right, missed], cells[missed, right]) == (
        str(called[0]),
        "",
    )  # across what it became, down what it was
    assert (cells[false, right], cells[right, false]) == (str(len(samples.ROWS) - sum(called)), "")
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
    shares = ({name: scores.false_calls for name, scores in side.items()} for side in parts)
    axes = figures.plot_shares(*shares, "calls due", "false calls, %", figures.new_axes())
    assert [label.get_text().split("\n")[0] for label in axes.get_xticklabels()] == list(parts[0])
    assert len(axes.lines) == 4  # a dot and an interval of the one part that has rows without a call, twice
    with pytest.raises(ValueError, match="the same rows in the same parts"):
        figures.plot_breakdown(parts[0], split_by_tools(sides[1]), "calls due", figures.new_axes())


def test_the_curve_of_a_threshold_shows_the_checked_rows_and_the_choice():
    outcomes = [Outcome(place % 9 != 0, -0.01 * place, str(place)) for place in range(120)]
    choice = choose_threshold(outcomes, 0.85)
    axes = figures.plot_coverage(choice, figures.new_axes())
    x, y = axes.lines[0].get_data()
    assert list(x) == [100 * point.answered.rate for point in choice.curve] and x[-1] == 100
    assert list(y) == [100 * point.right.rate for point in choice.curve]
    (dot,) = (line for line in axes.lines if line.get_marker() == "o")
    assert dot.get_data() == ([100 * choice.checked.answered.rate], [100 * choice.checked.right.rate])
    assert f"threshold {choice.threshold:g}" in texts(axes) and "60 rows that the threshold was not chosen" in texts(
        axes
    )
    for none in (choose_threshold([], 0.9), choose_threshold(outcomes, 1.0)):
        assert "threshold nan" not in texts(figures.plot_coverage(none, figures.new_axes()))
