"""Tables of scores and of trainings as data frames: the ladder, before and after, and what a comparison says in parts.

Knows scores, comparisons and what train.json holds; computes no score, and does not know how a table looks (`layout`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from fgtools.files import InputError
from fgtools.metrics import Change, Comparison, Ratio, Scores, Share
from fgtools.metrics.behaviours import BEHAVIOURS
from fgtools.metrics.breakdowns import Parts, require_same_parts
from fgtools.metrics.protocol import TOKENS_AFTER, TOKENS_BEFORE, Protocol
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
    "cer": "TC-CER, gold in the model's notation (lower is better)",
    "cer_rendered": "TC-CER of re-rendered calls, same gold (lower is better)",
    "argument_precision": "arguments: precision",
    "argument_recall": "arguments: recall",
    "argument_f1": "arguments: F1",
}
"""What a measure is called in tables and figures, in the order of the ladder's table."""

FORGETTING = ("false_calls", "right_behaviour", "missed_calls")
"""What a model that learns to call tools may lose."""

RIGHT = "right"
"""What a row without an error is called."""

_FIGURES = {
    "eval loss": "eval_loss",
    "tokens right": "eval_mean_token_accuracy",
    "rows right": "eval_exact_match",
}
"""Columns of an evaluation during training -> their keys in the trainer's log."""


def build_ladder_table(scores: Scores) -> pandas.DataFrame:
    """Return every measure of one model with its counts and its 95 % interval, and its rate as a number.

    The row on golds that break their own schema belongs to it: a reply that copies such a gold has no valid arguments.
    """
    measures = [getattr(scores, name) for name in LABELS]
    how = ", constrained replies" if scores.constrained else ""
    return pandas.DataFrame(
        {
            "measure": list(LABELS.values()),
            f"k/n = value [95 % interval]{how}": [str(measure) for measure in measures],
            "rate": [measure.rate for measure in measures],
        }
    )


def build_comparison_table(comparison: Comparison) -> pandas.DataFrame:
    """Return every measure before and after, with the difference and the p of McNemar's exact test.

    Differences are in percentage points for a share and in the ratio's own unit for a ratio; they are missing where a
    side has no denominator. What McNemar's test does not apply to has no `fixed`, `broken` and `p`.
    """
    tested = [change.p is not None and not math.isnan(change.difference) for change in comparison.changes]
    pairs = list(zip(comparison.changes, tested, strict=True))
    table = _build_changes(comparison.changes)
    table["fixed"] = pandas.array([change.fixed if known else None for change, known in pairs], dtype="Int64")
    table["broken"] = pandas.array([change.broken if known else None for change, known in pairs], dtype="Int64")
    table["p"] = pandas.Series([change.p if known else math.nan for change, known in pairs], dtype=float)
    return table


def _build_changes(changes: Sequence[Change]) -> pandas.DataFrame:
    """Return the columns measure, before, after, difference and its 95 % interval."""
    factors = [100 if isinstance(change.before, Share) else 1 for change in changes]
    pairs = list(zip(changes, factors, strict=True))
    return pandas.DataFrame(
        {
            "measure": [LABELS[change.name] for change in changes],
            "before": [str(change.before) for change in changes],
            "after": [str(change.after) for change in changes],
            "difference": [factor * change.difference for change, factor in pairs],
            "95 % interval": [_format_interval(change, factor) for change, factor in pairs],
        }
    )


def _format_interval(change: Change, factor: int) -> str:
    if math.isnan(change.difference):
        return ""
    digits = 1 if factor == 100 else 3
    return f"[{factor * change.low:+.{digits}f}, {factor * change.high:+.{digits}f}]"


def build_forgetting_table(comparison: Comparison, unseen: Comparison | None = None) -> pandas.DataFrame:
    """Return what the training may have cost: calls where none is due, lost behaviours, tools it never saw.

    Args:
        comparison: Of the evaluation rows.
        unseen: Of the rows whose tools training did not see; None where there are none.

    Returns:
        One row a measure; `reading` is what the evidence says of it.
    """
    changes = [("evaluation rows", comparison.change(name)) for name in FORGETTING]
    if unseen is not None:
        changes += [("unseen tools", unseen.change(name)) for name in ("right_tools", "ast_match")]
    table = _build_changes([change for _, change in changes])
    table.insert(0, "rows", [where for where, _ in changes])
    table["reading"] = [change.reading for _, change in changes]
    return table


def shorten_code(code: str) -> str:
    """Return an error code as tables and figures show it: without the checker's name; RIGHT for none.

    A wrong count keeps the checker's first word, since BFCL counts apart for one tool, several tools and several calls.
    """
    checker, _, rest = code.rpartition(":")
    if not checker.endswith(("_checker", "_no_order")):
        return code or RIGHT
    return f"{checker.partition('_')[0]}:{rest}" if rest == "wrong_count" else rest


def list_codes(comparison: Comparison, limit: int = 8) -> list[str]:
    """Return the error codes of a comparison: right ("") first, then the commonest ones, `limit` of them at most."""
    counts: dict[str, int] = {}
    for before, after, count in comparison.transitions:
        for code in {before, after} - {""}:
            counts[code] = counts.get(code, 0) + count
    return ["", *sorted(counts, key=lambda code: (-counts[code], code))[:limit]]


def count_outcomes(comparison: Comparison) -> dict[str, int]:
    """Count the rows by what became of their AST match: both right, fixed, broken, both wrong; the sum is n."""
    counts = dict.fromkeys(("both right", "fixed", "broken", "both wrong"), 0)
    for before, after, count in comparison.transitions:
        name = ("both wrong" if after else "fixed") if before else ("broken" if after else "both right")
        counts[name] += count
    return counts


def build_outcomes_table(comparison: Comparison) -> pandas.DataFrame:
    """Return the four outcomes of a pair of replies with their counts and shares."""
    counts = count_outcomes(comparison)
    return pandas.DataFrame(
        {
            "outcome": list(counts),
            "rows": [str(Share(count, comparison.n)) for count in counts.values()],
            "share": [Share(count, comparison.n).rate for count in counts.values()],
        }
    )


def build_transitions_table(comparison: Comparison) -> pandas.DataFrame:
    """Return the rows by error before and after: first what was broken, then the commonest."""
    order = sorted(comparison.transitions, key=lambda one: (bool(one[0]) or not one[1], -one[2]))
    rows = [(shorten_code(before), shorten_code(after), count) for before, after, count in order]
    return pandas.DataFrame(rows, columns=["before", "after", "rows"])


def build_breakdown_table(before: Parts, after: Parts, label: str, measure: str = "ast_match") -> pandas.DataFrame:
    """Return a measure part by part, before and after; by tools seen in training or not, with split_by_seen's parts.

    Args:
        before: Parts of the first model's scores.
        after: Parts of the second one's, of the same rows split in the same way.
        label: What the parts are.
        measure: A Share of Scores.

    Returns:
        One row a part.

    Raises:
        ValueError: The parts are not of the same rows.
    """
    require_same_parts(before, after)
    rows = [(name, str(getattr(before[name], measure)), str(getattr(after[name], measure))) for name in before]
    return pandas.DataFrame(rows, columns=[label, f"{LABELS[measure]}, before", "after"])


def build_types_table(before: Mapping[str, Ratio], after: Mapping[str, Ratio]) -> pandas.DataFrame:
    """Return the right arguments by JSON type, before and after.

    Args:
        before: What count_argument_types returns of the first model's scores.
        after: The same of the second one's, of the same rows.

    Returns:
        One row a type.

    Raises:
        ValueError: The rows are not the same.
    """
    sizes = [{kind: ratio.denominator for kind, ratio in types.items()} for types in (before, after)]
    if sizes[0] != sizes[1]:
        raise InputError(f"both must count the same arguments, got {sizes[0]} and {sizes[1]}: count the same rows")
    rows = [(kind, str(ratio), str(after[kind])) for kind, ratio in before.items()]
    return pandas.DataFrame(rows, columns=["type of argument", "right, before", "after"])


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
    generated = {one["step"]: f"{one['right']}/{one['rows']}" for one in training["candidates"]}
    rows = [
        {
            "step": entry["step"],
            **{name: entry.get(key, math.nan) for name, key in _FIGURES.items()},
            "generated calls right": generated.get(entry["step"], ""),
            "saved": "saved" if entry["step"] == training["saved_step"] else "",
        }
        for entry in training["history"]
        if "eval_loss" in entry
    ]
    return pandas.DataFrame(rows, columns=["step", *_FIGURES, "generated calls right", "saved"])


def build_seeds_table(trainings: Mapping[int, Mapping[str, Any]]) -> pandas.DataFrame:
    """Return how much of a result is luck: the same training with several seeds.

    Args:
        trainings: Seed -> what train.json holds; two or more.

    Returns:
        One row a seed, with the evaluation figures of the saved step; then their mean and standard deviation.
    """
    rows = []
    for training in trainings.values():
        saved = [one for one in training["history"] if "eval_loss" in one and one["step"] == training["saved_step"]]
        rows.append({name: saved[-1].get(key, math.nan) for name, key in _FIGURES.items()})
    figures = pandas.DataFrame(rows, columns=list(_FIGURES), dtype=float)
    summary = pandas.DataFrame([figures.mean(skipna=False), figures.std(skipna=False)])
    table = pandas.concat([figures, summary], ignore_index=True)
    table.insert(0, "seed", [*map(str, trainings), "mean", "sd"])
    steps = [*(training["saved_step"] for training in trainings.values()), None, None]
    table.insert(1, "saved step", pandas.array(steps, dtype="Int64"))
    return table
