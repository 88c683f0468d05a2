"""Tables of the data as data frames: where every raw row went, what the template hides, what the audit found.

Knows funnels, tools, remedies and audits; not how a table looks (`layout`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas

from fgtools.calls.engines import ENGINES, KINDS, NO_PARSER
from fgtools.rows.remedies import Coverage
from fgtools.schema.types import JSON_TYPES

if TYPE_CHECKING:
    from fgtools.prompts import Audit, Check

NO_PARSER_SAID = "the client parses the text (fgtools.calls.parse_reply)"
"""What is said of an engine without a parser for FunctionGemma."""

HOLDS = {
    "control_tokens_in_vocabulary": "every control token is one id",
    "round_trip": "every target reads back as its gold",
    "bos": "every text begins with the one <bos>",
    "label_mask": "the labels are those that the recipe promises",
    "active_control_tokens": "no text of a row is read as a turn or a call",
    "glued_requests": "every request has a turn of its own",
    "control_tokens_in_messages": "no message holds a control token",
    "control_tokens_in_tools": "no tool holds a control token",
    "control_tokens_in_gold": "no gold holds a control token",
    "undeclared_tool": "every gold calls a declared tool",
    "hidden_gold_arguments": "the prompt shows every parameter that a gold uses",
    "hidden_parameters": "the prompt shows every declared parameter",
    "hidden_facts": "the prompt shows every fact of a tool",
    "renamed": "no name had to be replaced",
    "null_arguments": "no gold holds null",
    "gold_fails_schema": "every gold fits its own schema",
    "replies_mention_tools": "no reply without a call names a declared tool",
    "over_budget": "every training row fits the budget",
    "leaks": "no held-out row has its request and tools in training",
    "near_leaks": "no held-out row has nearly its request in training",
    "duplicates": "no training row is a copy",
    "no_call_rows": "every training row has a call as its right answer",
}
"""What is said of a check that found nothing, by its name."""

_OF_SPLIT = {
    "train": "rows to train on",
    "eval": "held-out rows that score the model",
    "unseen": "held-out rows whose tools no training row declares",
    "duplicates": "left out: same request, tools and gold as an earlier row",
    "conflicts": "requests with the same tools whose golds disagree",
    "conflict_rows": "left out: the minority of those, or all where there is no majority",
    "leaks": "left out of training: the same request and tools are held out",
    "set_aside": "left out: they declare a held-out tool without calling it",
    "overlaps": "left out of training: their request is one of BENCHMARK's",
    "near_within": "rows with a near duplicate on their own side",
    "near_across": "held-out rows with a near duplicate in training",
    "held_out_tools": "tools that training does not see",
    "no_call_dropped": "left out of training: no call, and over NO_CALL_SHARE",
}
"""What the counts of a split say, by their name in funnel.json."""

_SEVERITIES = ("error", "warning", "note")
"""From the gravest to the least."""


def build_funnel_table(funnel: Mapping[str, int], n_raw: int = 0) -> pandas.DataFrame:
    """Return the count and share of every fate, and their sum in the last row.

    Args:
        funnel: Count by fate.
        n_raw: Raw rows, where answers of their conversations were counted; 0: raw rows were.
    """
    total = sum(funnel.values())
    counts = [*funnel.items(), ("all", total)]
    rows = [(fate, count, count / total if total else math.nan) for fate, count in counts]
    return pandas.DataFrame(rows, columns=["fate", "answers" if n_raw and n_raw != total else "rows", "share"])


def build_funnel_by_table(table: Mapping[str, Mapping[str, int]], label: str) -> pandas.DataFrame:
    """Return the fates per source or scenario: one row a value, one column a fate, kept first.

    Args:
        table: Value -> fate -> count, as RowSet.funnel_by returns it.
        label: What the values are.

    Returns:
        The counts; a value's `rows` is their sum.
    """
    fates = ["kept", *sorted({fate for counts in table.values() for fate in counts} - {"kept"})]
    rows = [
        (value or "(none)", sum(counts.values()), *(counts.get(fate, 0) for fate in fates))
        for value, counts in table.items()
    ]
    return pandas.DataFrame(rows, columns=[label, "rows", *fates])


def build_examples_table(examples: Mapping[str, Sequence[Mapping[str, str]]]) -> pandas.DataFrame:
    """Return the rejected rows that are shown for each reason."""
    rows = [(reason, item["row_id"], item["detail"]) for reason, items in examples.items() for item in items]
    return pandas.DataFrame(rows, columns=["reason", "row", "what was found"])


def build_split_table(funnel: Mapping[str, Any]) -> pandas.DataFrame:
    """Return the counts of a split with what they say, and what the last raw rows as evaluation rows would let through.

    Args:
        funnel: What `rows.Prepared.to_funnel` returns.
    """
    split, would = funnel["split"], funnel["row_wise_split_would_leak"]
    rows = [(name, count, _OF_SPLIT.get(name, "")) for name, count in split.items()]
    last = f"had the last {would['n_eval']} rows been the evaluation rows, as in the tutorial"
    rows += [
        ("would leak: exact", would["exact"], f"{last}: those whose request and tools are in training too"),
        ("would leak: request", would["request"], "those whose request alone is in training"),
        ("would leak: near", would["near"], "those whose request is nearly in training, or their conversation is"),
    ]
    return pandas.DataFrame(rows, columns=["rows", "count", "what they are"])


def build_parameters_table(tools: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Return one row a parameter of some function schemas: tool, parameter, its type, whether it is required."""
    rows = []
    for function in (tool["function"] for tool in tools):
        schema = function["parameters"]
        for name, spec in schema.get("properties", {}).items():
            kind = spec.get("type") if isinstance(spec, Mapping) else None
            rows.append((function["name"], name, kind, name in schema.get("required", ())))
    return pandas.DataFrame(rows, columns=["tool", "parameter", "type", "required"])


def build_audit_table(audit: Audit) -> pandas.DataFrame:
    """Return every check of an audit, those that found something first.

    Where nothing was found `severity` is "ok", and `what` says what holds.
    """
    checks = sorted(audit.checks, key=lambda check: (not check.count, _SEVERITIES.index(check.severity)))
    rows = [
        (
            check.severity if check.count else "ok",
            check.name,
            check.count,
            check.n,
            _describe_check(check),
            check.remedy if check.count else "",
        )
        for check in checks
    ]
    return pandas.DataFrame(rows, columns=["severity", "check", "found", "of", "what", "remedy"])


def _describe_check(check: Check) -> str:
    """Return what a check found, with its examples; what holds where it found nothing."""
    if not check.count:
        return HOLDS.get(check.name, f"none of these: {check.what}")
    return check.what + (f" (e.g. {', '.join(check.examples)})" if check.examples else "")


def build_engines_table(counts: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Return what each serving engine reads of the golds, and what to change in the tools where it does not.

    Args:
        counts: `engines` of an audit, as `calls.engines.count_unread` returns it.

    Returns:
        One row an engine and kind of what it does not read, the most common first; one row for an engine that reads
        all. `reads` counts the rows whose calls come out as they were meant, `rows` those that hold the kind.
    """
    rules = {engine.name: engine.rules for engine in ENGINES}
    rows = []
    for one in counts:
        label = (f"{one['engine']} ({one['version']})", one["read"], one["n"])
        for kind, count in one["unread"].items():
            hold, remedy = KINDS.get(kind, (kind, ""))
            rows.append((*label, count, hold, rules.get(one["engine"], {}).get(kind, "one text named args"), remedy))
        if not one["unread"]:
            read = "nothing is misread" if one["checked"] != NO_PARSER else NO_PARSER_SAID
            rows.append((*label, 0, "", read, ""))
    return pandas.DataFrame(
        rows,
        columns=["engine", "reads", "of", "rows", "that hold", "what becomes of it", "what to change in the tools"],
    )


def build_coverage_table(coverage: Coverage, remedies: Mapping[str, int]) -> pandas.DataFrame:
    """Return what a chat template hides, and what was done about it.

    Args:
        coverage: What it hides.
        remedies: Count of the parameters changed, by kind.
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
    return pandas.DataFrame(rows, columns=["the template hides", "of", "remedy, in parameters"])
