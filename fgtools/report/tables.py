"""What people look at: the ladder, before and after, the funnel, single rows, and the rows worth looking at.

Knows scores, rows and tables; draws nothing (`figures`) and computes no score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fgtools.calls import ToolCall, parse_reply, row_calls
from fgtools.metrics import LADDER, Change, Comparison, Scores, score_row
from fgtools.metrics.intervals import format_p
from fgtools.metrics.scores import require_same_ids
from fgtools.report.table import Table
from fgtools.rows.remedies import Coverage
from fgtools.schema import SchemaError, parse_tools
from fgtools.schema.types import JSON_TYPES

if TYPE_CHECKING:
    from fgtools.prompts import Audit

LABELS = {
    "in_grammar": "replied in the grammar",
    "known_tool": "known tool",
    "right_tools": "right tool(s)",
    "valid_arguments": "valid arguments",
    "right_names": "right argument names",
    "ast_match": "AST match",
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
"""What a measure is called in tables and figures."""


def render_ladder_table(scores: Scores) -> Table:
    """Give every measure of one model with its counts and its 95 % interval, and how often a gold breaks its schema.

    A reply that copies such a gold has no valid arguments.
    """
    shares = (*LADDER, "strict_match", "right_tool_calls", "missed_calls", "false_calls", "right_behaviour")
    shares = (*shares, "tool_accuracy", "gold_invalid")
    rest = ("cer", "cer_rendered", "argument_precision", "argument_recall", "argument_f1")
    rows = [(LABELS[name], str(getattr(scores, name))) for name in (*shares, *rest)]
    how = ", constrained replies" if scores.constrained else ""
    return Table(("measure", f"k/n = value [95 % interval]{how}"), tuple(rows))


def render_comparison_table(comparison: Comparison) -> Table:
    """Give every measure before and after, with the difference and what McNemar's exact test says of it.

    Differences are in points of a share and as they are of a ratio; there is none where a side has no denominator.
    """
    columns = ("measure", "before", "after", "difference [95 %]", "fixed/broken", "p")
    return Table(columns, tuple(_comparison_row(change) for change in comparison.changes))


def _comparison_row(change: Change) -> tuple[str, ...]:
    sides = LABELS[change.name], str(change.before), str(change.after)
    if math.isnan(change.difference):
        return *sides, "", "", ""
    if change.p is None:
        return *sides, f"{change.difference:+.3f} [{change.low:+.3f}, {change.high:+.3f}]", "", ""
    difference = f"{100 * change.difference:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    return *sides, difference, f"{change.fixed}/{change.broken}", format_p(change.p).removeprefix("= ")


def render_funnel_table(funnel: Mapping[str, int]) -> Table:
    """Give the count and share of every fate, and their sum."""
    total = sum(funnel.values())
    rows = [(fate, str(count), f"{count / max(1, total):.1%}") for fate, count in funnel.items()]
    return Table(("fate", "rows", "share"), (*rows, ("all", str(total), "100.0%" if total else "")))


def render_funnel_by_table(table: Mapping[str, Mapping[str, int]], label: str) -> Table:
    """Give the fates per source or scenario: one row a value, kept first.

    Args:
        table: Value -> fate -> count, as RowSet.funnel_by gives it.
        label: What the values are.

    Returns:
        A Table.
    """
    fates = ["kept", *sorted({fate for counts in table.values() for fate in counts} - {"kept"})]
    rows = [
        (value or "(none)", str(sum(counts.values())), *(str(counts.get(fate, 0)) for fate in fates))
        for value, counts in table.items()
    ]
    return Table((label, "rows", *fates), tuple(rows))


def render_examples_table(examples: Mapping[str, Sequence[Mapping[str, str]]]) -> Table:
    """Give the rejected rows shown for each reason."""
    rows = [(reason, item["row_id"], item["detail"]) for reason, items in examples.items() for item in items]
    return Table(("reason", "row", "what was found"), tuple(rows), width=70)


def render_changes_table(raw_tools: Any) -> Table:
    """Give what the normal form changed in a tools field, tool by tool; a field that cannot be read gives no rows."""
    try:
        changes = parse_tools(raw_tools).changes
    except SchemaError:
        changes = ()
    return Table(("tool", "change", "detail"), tuple(changes))


def render_audit_table(audit: Audit) -> Table:
    """Give every check of an audit, those that found something first."""
    order = {"error": 0, "warning": 1, "note": 2}
    checks = sorted(audit.checks, key=lambda check: (not check.count, order[check.severity]))
    rows = [
        (
            check.severity if check.count else "ok",
            check.name,
            f"{check.count}/{check.n}",
            check.what + (f" (e.g. {', '.join(check.examples)})" if check.examples else ""),
            check.remedy if check.count else "",
        )
        for check in checks
    ]
    return Table(("", "check", "found", "what", "remedy"), tuple(rows), width=44)


def render_coverage_table(coverage: Coverage, remedies: Mapping[str, int]) -> Table:
    """Give what a chat template hides, and what was done about it.

    Args:
        coverage: What it hides.
        remedies: Count of the parameters changed, by kind.

    Returns:
        A Table.
    """
    kinds: dict[str, list[str]] = {}
    for kind, word in sorted(coverage.hidden_facts):
        kinds.setdefault(word, []).append(kind)
    names = ", ".join(sorted(coverage.hidden_names)) or "(none)"
    rows = [("parameters named", names, f"{remedies.get('parameter_renamed', 0)} renamed")]
    said = {word: remedies.get(f"{word}_described", 0) for word in sorted(kinds)}
    for word in sorted((word for word in said if said[word]), key=lambda word: -said[word]):
        of = "every type" if len(kinds[word]) == len(JSON_TYPES) else ", ".join(kinds[word])
        rows.append((word, of, f"{said[word]} said in the description"))
    rest = ", ".join(word for word in said if not said[word])
    rows.extend([("also", rest, "nothing to say in these rows")] if rest else [])
    return Table(("the template hides", "of", "remedy, in parameters"), tuple(rows))


def render_inspection(
    rows: Sequence[Mapping[str, Any]], replies: Sequence[str], indices: Sequence[int], style: str = "native"
) -> Table:
    """Show single rows: request, predicted, gold, verdict.

    Args:
        rows: Row dicts.
        replies: One reply a row.
        indices: Which rows, from 0; those beyond the last row are left out.
        style: Call grammar of the replies.

    Returns:
        A Table of one row an index.
    """
    chosen = [index for index in indices if 0 <= index < len(rows)]
    return Table(
        ("row", "request", "predicted", "gold", "verdict"),
        tuple(_inspection_row(index, rows[index], replies[index], style) for index in chosen),
        width=44,
    )


def _inspection_row(index: int, row: Mapping[str, Any], reply: str, style: str) -> tuple[str, ...]:
    request = [message["content"] for message in row["messages"] if message["role"] == "user"][-1:]
    calls = parse_reply(reply, style).calls
    error = score_row(row, reply, style).error
    predicted = render_plain_calls(calls) if calls else f"(no call) {reply}"
    gold = row_calls(row)
    wanted = render_plain_calls(gold) if gold else "(no call)"
    return f"{index}\n{row['row_id']}", _cut("".join(request)), _cut(predicted), _cut(wanted), error or "right"


def render_plain_calls(calls: Sequence[ToolCall]) -> str:
    """Write calls for people, one a line: name(argument=JSON value, ...)."""
    return "\n".join(f"{call.name}({_show_arguments(call)})" for call in calls)


def _show_arguments(call: ToolCall) -> str:
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())


def _cut(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def select_examples(scores: Scores) -> list[int]:
    """Choose one row of every kind of error, the commonest kind first: the first row in which it occurs.

    Args:
        scores: The scores.

    Returns:
        Indices into the scored rows; [] where every row is right.
    """
    codes = [row.error for row in scores.rows]
    return [codes.index(code) for code in scores.errors]


def select_worse(before: Scores, after: Scores, limit: int = 8) -> list[int]:
    """Choose rows to look at after training: those that got worse first, then examples of what is still wrong.

    Args:
        before: Scores of the first model.
        after: Scores of the second one, of the same rows in the same order.
        limit: Largest number of rows.

    Returns:
        Indices into the scored rows.

    Raises:
        ValueError: The rows are not the same in the same order.
    """
    require_same_ids(*([row.row_id for row in scores.rows] for scores in (before, after)))
    pairs = zip(before.rows, after.rows, strict=True)
    worse = [index for index, (old, new) in enumerate(pairs) if old.ast_match and not new.ast_match]
    return list(dict.fromkeys([*worse, *select_examples(after)]))[:limit]


def render_evaluations_table(training: Mapping[str, Any]) -> Table:
    """Show a training's evaluations, and which weights were saved.

    Args:
        training: What train.json holds.

    Returns:
        A table, one line an evaluation; "" where a figure was not taken.
    """
    generated = {one["step"]: f"{one['right']}/{one['rows']}" for one in training["candidates"]}
    lines = []
    for entry in training["history"]:
        if "eval_loss" in entry:
            rows_right = f"{entry['eval_exact_match']:.3f}" if "eval_exact_match" in entry else ""
            tokens_right = f"{entry['eval_mean_token_accuracy']:.3f}"
            mark = "saved" if entry["step"] == training["saved_step"] else ""
            step = str(entry["step"])
            lines.append(
                (step, f"{entry['eval_loss']:.4f}", tokens_right, rows_right, generated.get(entry["step"], ""), mark)
            )
    return Table(("step", "eval loss", "tokens right", "rows right", "generated calls right", ""), tuple(lines))
