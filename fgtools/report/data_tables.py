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
    from fgtools.prompts import Audit

NO_PARSER_SAID = "the client parses the text (fgtools.calls.parse_reply)"
"""What is said of an engine without a parser for FunctionGemma."""

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
    """Return every check of an audit, those that found something first; `severity` is "ok" where nothing was found."""
    checks = sorted(audit.checks, key=lambda check: (not check.count, _SEVERITIES.index(check.severity)))
    rows = [
        (
            check.severity if check.count else "ok",
            check.name,
            check.count,
            check.n,
            check.what + (f" (e.g. {', '.join(check.examples)})" if check.examples else ""),
            check.remedy if check.count else "",
        )
        for check in checks
    ]
    return pandas.DataFrame(rows, columns=["severity", "check", "found", "of", "what", "remedy"])


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
