"""Tables of scores and of trainings as data frames: the ladder, before and after, and what a comparison says in parts.

Knows scores, comparisons and what train.json holds; computes no score, and does not know how a table looks (`layout`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas

from fgtools.metrics import Change, Comparison, Ratio, Scores, Share
from fgtools.metrics.behaviours import BEHAVIOURS
from fgtools.metrics.breakdowns import Parts, require_same_parts
from fgtools.metrics.coverage import ThresholdChoice
from fgtools.metrics.protocol import TOKENS_AFTER, TOKENS_BEFORE, Protocol
from fgtools.metrics.scores import require_same_ids
from fgtools.report.layout import DECIDES

LABELS = {
    "in_grammar": "replied in the grammar",
    "known_tool": "known tool",
    "right_tools": "right tool(s)",
    "valid_arguments": "valid arguments",
    "right_names": "right argument names",
    "ast_match": DECIDES,
    "exact_match": "exact match",
    "strict_match": "exact match in the grammar (strict)",
    "right_tool_calls": "right tool(s), rows with a call",
    "missed_calls": "missed calls, rows with a call",
    "false_calls": "false calls, rows without one",
    "right_behaviour": "right behaviour, rows without one",
    "tool_accuracy": "tool accuracy (tutorial)",
    "gold_invalid": "gold breaks its own schema, rows with a call",
    "gold_numeric": "gold holds numbers or dates as text (AST match forgives signs), rows with a call",
    "cer": "TC-CER, gold in the model's notation (lower is better)",
    "cer_rendered": "TC-CER of re-rendered calls, same gold (lower is better)",
    "argument_precision": "arguments: precision",
    "argument_recall": "arguments: recall",
    "argument_f1": "arguments: F1",
}
"""What a measure is called in tables and figures, in the order of the ladder's table."""

SUMMARY = ("in_grammar", "right_tool_calls", "right_names", "ast_match", "missed_calls", "false_calls")
"""The measures of a summary; notebook 5 has them all."""

DECIDES_NOTE = (
    f"{DECIDES} decides, named beforehand, by its own p; the p of the others are corrected for their number (Holm)."
)
"""What a table of a comparison is read with, where no text stands beside it."""

RIGHT = "right"
"""What a row without an error is called."""

_FIGURES = {
    "eval_loss": "eval loss",
    "eval_mean_token_accuracy": "tokens right",
    "eval_exact_match": "rows right",
}
"""Keys of an evaluation in the trainer's log -> the columns that show them."""


def build_ladder_table(scores: Scores) -> pandas.DataFrame:
    """Return every measure of one model with its counts, its 95 % interval and design effect, and its rate as a number.

    The rows on golds belong to it: a reply that copies a gold which breaks its own schema has no valid arguments, and
    AST match forgives the sign of a number that stands as text.
    """
    how = ", constrained replies" if scores.constrained else ""
    measures = [(label, getattr(scores, name)) for name, label in LABELS.items()]
    rows = [(label, str(measure), measure.design.effect, measure.rate) for label, measure in measures]
    return pandas.DataFrame(rows, columns=["measure", f"k/n = value [95 % interval]{how}", "design effect", "rate"])


def build_threshold_table(choice: ThresholdChoice) -> pandas.DataFrame:
    """Return what becomes of the rows that a threshold was not chosen on: at the threshold, and at every tenth of them.

    Rows of one confidence go together, so a tenth may hold more than its share.
    """
    points = {}
    for tenth in range(1, 11):
        reached = [point for point in choice.curve if point.answered.rate >= tenth / 10]
        points |= {point.threshold: point for point in reached[:1]}
    if not math.isnan(choice.threshold):
        points[choice.threshold] = choice.checked
    rows = [
        (point.threshold, str(point.answered), str(point.right), "chosen" if point is choice.checked else "")
        for _, point in sorted(points.items(), reverse=True)
    ]
    return pandas.DataFrame(rows, columns=["threshold", "answered", "right, of those answered", ""])


def build_comparison_table(comparison: Comparison) -> pandas.DataFrame:
    """Return every measure before and after, with the difference, its design effect and its p.

    Differences are in percentage points for a share and in the ratio's own unit for a ratio; they are missing where a
    side has no denominator, and so are the p. The p of the measure that decides is its own, those of the others are
    Holm's. A ratio has no `fixed` and `broken`.
    """
    rows = [
        {
            **_describe_change(change),
            "design effect": change.design.effect,
            "fixed": change.fixed,
            "broken": change.broken,
            "p (Holm)": change.p_corrected,
        }
        for change in comparison.changes
    ]
    table = pandas.DataFrame(rows).astype({"fixed": "Int64", "broken": "Int64", "p (Holm)": float})
    is_ratio = pandas.Series([isinstance(change.before, Ratio) for change in comparison.changes])
    table.loc[table["difference"].isna() | is_ratio, ["fixed", "broken"]] = None
    table.loc[table["difference"].isna(), ["design effect", "p (Holm)"]] = None
    return table


def build_summary_table(comparison: Comparison) -> pandas.DataFrame:
    """Return the measures that one looks at first, before and after, with their p: narrow enough for a terminal."""
    table = build_comparison_table(comparison).set_index("measure")
    return table.loc[[LABELS[name] for name in SUMMARY], ["before", "after", "p (Holm)"]].reset_index()


def _describe_change(change: Change) -> dict[str, Any]:
    """Return a change's cells: measure, before, after, difference and its 95 % interval."""
    factor, digits = (100, 1) if isinstance(change.before, Share) else (1, 3)
    interval = f"[{factor * change.low:+.{digits}f}, {factor * change.high:+.{digits}f}]"
    return {
        "measure": LABELS[change.name],
        "before": str(change.before),
        "after": str(change.after),
        "difference": factor * change.difference,
        "95 % interval": "" if math.isnan(change.difference) else interval,
    }


def build_forgetting_table(comparison: Comparison, unseen: Comparison | None = None) -> pandas.DataFrame:
    """Return what the training may have cost: calls where none is due, lost behaviours, tools it never saw.

    Args:
        comparison: Of the evaluation rows.
        unseen: Of the rows whose tools training did not see; None where there are none.

    Returns:
        One row a measure; `reading` is what the evidence says of it: of the AST match by its own p, of the others by
        Holm's over all measures of the same rows.
    """
    may_be_lost = ("false_calls", "right_behaviour", "missed_calls")
    changes = [("evaluation rows", comparison.change(name)) for name in may_be_lost]
    if unseen is not None:
        changes += [("unseen tools", unseen.change(name)) for name in ("right_tools", "ast_match")]
    return pandas.DataFrame(
        [{"rows": where, **_describe_change(change), "reading": change.reading} for where, change in changes]
    )


def shorten_code(code: str) -> str:
    """Return an error code as tables and figures show it: without the checker's name; RIGHT for none.

    A wrong count keeps the checker's first word, since BFCL counts apart for one tool, several tools and several calls.
    """
    checker, _, rest = code.rpartition(":")
    if not checker.endswith(("_checker", "_no_order")):
        return code or RIGHT
    return f"{checker.partition('_')[0]}:{rest}" if rest == "wrong_count" else rest


def build_outcomes_table(comparison: Comparison) -> pandas.DataFrame:
    """Return the rows by what became of their AST match, with counts and shares; every row is in one outcome."""
    counts = dict.fromkeys(("both right", "fixed", "broken", "both wrong"), 0)
    for before, after, count in comparison.transitions:
        name = ("both wrong" if after else "fixed") if before else ("broken" if after else "both right")
        counts[name] += count
    shares = [(name, Share(count, comparison.n)) for name, count in counts.items()]
    rows = [(name, str(share), share.rate) for name, share in shares]
    return pandas.DataFrame(rows, columns=["outcome", "rows", "share"])


def build_transitions_table(comparison: Comparison) -> pandas.DataFrame:
    """Return the rows by error before and after: first what was broken, then the commonest."""
    order = sorted(comparison.transitions, key=lambda one: (bool(one[0]) or not one[1], -one[2]))
    rows = [(shorten_code(before), shorten_code(after), count) for before, after, count in order]
    return pandas.DataFrame(rows, columns=["before", "after", "rows"])


def build_breakdown_table(before: Parts, after: Parts, label: str) -> pandas.DataFrame:
    """Return the AST match part by part, before and after.

    Args:
        before: Parts of the first model's scores, such as split_by_seen's.
        after: Parts of the second one's, of the same rows split in the same way.
        label: What the parts are.

    Returns:
        One row a part.

    Raises:
        ValueError: The parts are not of the same rows.
    """
    require_same_parts(before, after)
    rows = [(name, str(scores.ast_match), str(after[name].ast_match)) for name, scores in before.items()]
    return pandas.DataFrame(rows, columns=[label, f"{LABELS['ast_match']}, before", "after"])


def build_behaviours_table(scores: Scores) -> pandas.DataFrame:
    """Return the rows by what the right answer does and what the reply does, in When2Call's words."""
    rows = [(gold, *(counts.get(name, 0) for name in BEHAVIOURS)) for gold, counts in scores.behaviours.items()]
    return pandas.DataFrame(rows, columns=["right answer \\ reply", *BEHAVIOURS])


def build_protocol_table(before: Protocol, after: Protocol) -> pandas.DataFrame:
    """Return the tutorial's figures before and after training, and beneath them what they are made of."""
    labels = {
        "tool_accuracy": "tool accuracy, the tutorial's",
        "cer": "TC-CER, gold in the tutorial's notation",
        "cer_native": "CER against the gold in FunctionGemma's grammar",
        "cer_content": "CER of the call's content, notation alike",
        "ast_match": "AST match, ours, on the same replies",
    }
    rows = [(label, str(getattr(before, name)), str(getattr(after, name))) for name, label in labels.items()]
    budgets = f"before, {TOKENS_BEFORE} tokens", f"after, {TOKENS_AFTER} tokens"
    return pandas.DataFrame(rows, columns=["the tutorial's protocol", *budgets])


def build_evaluations_table(training: Mapping[str, Any]) -> pandas.DataFrame:
    """Return a training's evaluations, and which weights were saved.

    Args:
        training: What train.json holds.

    Returns:
        One row an evaluation; a figure that was not taken is missing.
    """
    evaluations = [entry for entry in training["history"] if "eval_loss" in entry]
    table = pandas.DataFrame(evaluations, columns=["step", *_FIGURES]).rename(columns=_FIGURES)
    generated = {one["step"]: f"{one['right']}/{one['rows']}" for one in training["candidates"]}
    table["generated calls right"] = [generated.get(step, "") for step in table["step"]]
    table["saved"] = ["saved" if step == training["saved_step"] else "" for step in table["step"]]
    return table


def build_seeds_table(trainings: Mapping[int, Mapping[str, Any]], scores: Mapping[int, Scores]) -> pandas.DataFrame:
    """Return how much of a result is luck: the same training with several seeds, scored on the same rows.

    Args:
        trainings: Seed -> what train.json holds; two or more.
        scores: Seed -> the scores of its model on rows that chose no checkpoint.

    Returns:
        One row a seed; then the mean and the standard deviation of `share`, the AST match.

    Raises:
        ValueError: The seeds were not scored on the same rows.
    """
    first, *others = ([row.row_id for row in one.rows] for one in scores.values())
    for ids in others:
        require_same_ids(first, ids)
    rates = pandas.Series([one.ast_match.rate for one in scores.values()])
    table = pandas.DataFrame({"seed": [*map(str, trainings), "mean", "sd"]})
    table["saved step"] = pandas.array([one["saved_step"] for one in trainings.values()] + [None] * 2, dtype="Int64")
    for name in ("right_tool_calls", "ast_match"):
        table[LABELS[name]] = [*(str(getattr(one, name)) for one in scores.values()), "", ""]
    table["share"] = [*rates, rates.mean(skipna=False), rates.std(skipna=False)]
    return table
