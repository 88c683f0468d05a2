"""What a comparison says, read apart: transitions, forgetting, behaviours, break-downs, format beside content.

Knows comparisons and scores; draws nothing (`figures`) and shows no single row (`report`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fgtools.files import InputError
from fgtools.metrics import Change, Comparison, Ratio, Scores, Share, protocol
from fgtools.metrics.behaviours import BEHAVIOURS
from fgtools.metrics.breakdowns import Parts, require_same_parts
from fgtools.metrics.comparison import NOT_COUNTED
from fgtools.report.table import Table
from fgtools.report.tables import LABELS

RIGHT = "right"
"""How a row without an error is called."""

FORGETTING = ("false_calls", "right_behaviour", "missed_calls")
"""What a model that learns to call tools may lose."""


def shorten_code(code: str) -> str:
    """Give an error code as tables and figures show it: without the checker's name; `right` for none.

    A wrong count keeps the checker's first word, since BFCL counts apart for one tool, several tools and several calls.
    """
    checker, _, rest = code.rpartition(":")
    if not checker.endswith(("_checker", "_no_order")):
        return code or RIGHT
    return f"{checker.partition('_')[0]}:{rest}" if rest == "wrong_count" else rest


def count_outcomes(comparison: Comparison) -> dict[str, int]:
    """Count the rows by what became of their AST match: both right, fixed, broken, both wrong; the sum is n."""
    counts = dict.fromkeys(("both right", "fixed", "broken", "both wrong"), 0)
    for before, after, count in comparison.transitions:
        name = ("both wrong" if after else "fixed") if before else ("broken" if after else "both right")
        counts[name] += count
    return counts


def render_outcomes_table(comparison: Comparison) -> Table:
    """Give the four outcomes of a pair with their counts and shares."""
    counts = count_outcomes(comparison)
    return Table(
        ("AST match", "rows"), tuple((name, str(Share(count, comparison.n))) for name, count in counts.items())
    )


def render_transitions_table(comparison: Comparison) -> Table:
    """Give the rows by error before and after, what was broken first, then the commonest."""
    order = sorted(comparison.transitions, key=lambda one: (bool(one[0]) or not one[1], -one[2]))
    rows = [(shorten_code(before), shorten_code(after), str(count)) for before, after, count in order]
    return Table(("before", "after", "rows"), tuple(rows))


def render_forgetting_table(comparison: Comparison, unseen: Comparison | None = None) -> Table:
    """Say what the training may have cost: calls where none is due, lost behaviours, tools it never saw.

    Args:
        comparison: Of the evaluation rows.
        unseen: Of the rows whose tools training did not see; None where there are none.

    Returns:
        A Table with what the evidence says of each.
    """
    rows = [_read_change("evaluation rows", comparison.change(name)) for name in FORGETTING]
    if unseen is not None:
        rows += [_read_change("unseen tools", unseen.change(name)) for name in ("right_tools", "ast_match")]
    return Table(("rows", "measure", "before", "after", "difference [95 %]", "reading"), tuple(rows))


def _read_change(where: str, change: Change) -> tuple[str, ...]:
    difference = ""
    if change.reading != NOT_COUNTED:
        difference = f"{100 * change.difference:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    return where, LABELS[change.name], str(change.before), str(change.after), difference, change.reading


def render_breakdown_table(before: Parts, after: Parts, label: str, measure: str = "ast_match") -> Table:
    """Give a measure part by part, before and after; by tools seen in training or not, with split_by_seen's parts.

    Args:
        before: Parts of the first model's scores.
        after: Parts of the second one's, of the same rows taken apart in the same way.
        label: What the parts are.
        measure: A Share of Scores.

    Returns:
        A Table.

    Raises:
        ValueError: The parts are not of the same rows.
    """
    require_same_parts(before, after)
    rows = [(name, str(getattr(before[name], measure)), str(getattr(after[name], measure))) for name in before]
    return Table((label, f"{LABELS[measure]}, before", "after"), tuple(rows))


def render_types_table(before: Mapping[str, Ratio], after: Mapping[str, Ratio]) -> Table:
    """Give the right arguments by JSON type, before and after.

    Args:
        before: What count_argument_types gives of the first model's scores.
        after: The same of the second one's, of the same rows.

    Returns:
        A Table.

    Raises:
        ValueError: The rows are not the same.
    """
    sizes = [{kind: ratio.denominator for kind, ratio in types.items()} for types in (before, after)]
    if sizes[0] != sizes[1]:
        raise InputError(f"both must count the same arguments, got {sizes[0]} and {sizes[1]}: count the same rows")
    rows = [(kind, str(ratio), str(after[kind])) for kind, ratio in before.items()]
    return Table(("type of argument", "right, before", "after"), tuple(rows))


def render_behaviours_table(scores: Scores) -> Table:
    """Give the rows by what the right answer does and what the reply does, in When2Call's words."""
    table = scores.behaviours
    rows = [(gold, *(str(counts.get(name, 0)) for name in BEHAVIOURS)) for gold, counts in table.items()]
    return Table(("right answer \\ reply", *BEHAVIOURS), tuple(rows))


def render_protocol_table(before: protocol.Protocol, after: protocol.Protocol) -> Table:
    """Return the tutorial's figures before and after, and beneath them what they are made of."""
    labels = {
        "tool_accuracy": "tool accuracy, the tutorial's",
        "cer": "TC-CER, gold in the tutorial's notation",
        "cer_native": "CER against the gold in FunctionGemma's grammar",
        "cer_content": "CER of the call's content, notation alike",
        "ast_match": "AST match, ours, on the same replies",
    }
    rows = [(label, str(getattr(before, name)), str(getattr(after, name))) for name, label in labels.items()]
    budgets = f"before, {protocol.TOKENS_BEFORE} tokens", f"after, {protocol.TOKENS_AFTER} tokens"
    return Table(("the tutorial's protocol", *budgets), tuple(rows))


def list_codes(comparison: Comparison, limit: int = 8) -> Sequence[str]:
    """List the error codes of a comparison, right ("") first, then the commonest ones, `limit` of them at most."""
    counts: dict[str, int] = {}
    for before, after, count in comparison.transitions:
        for code in {before, after} - {""}:
            counts[code] = counts.get(code, 0) + count
    return ["", *sorted(counts, key=lambda code: (-counts[code], code))[:limit]]
