"""The card's section on failures: what the tuned model still gets wrong, and what it was not scored on.

Knows comparisons, the codes of errors and how many rows of a tool came out right; scores nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from fgtools.metrics import Comparison, Share
from fgtools.report.layout import render_markdown_table
from fgtools.report.markup import render_code
from fgtools.report.tables import shorten_code

MAX_TOOLS = 10
"""Tools of the table of those that come out wrong most often."""

ERRORS = {
    "missed_call": "no call where one was due",
    "false_call": "a call where none was due",
    "not_in_grammar": "a call that cannot be read",
    "wrong_func_name": "another tool than the right one",
    "missing_required": "a required argument is missing",
    "missing_optional": "an optional argument is missing",
    "unexpected_param": "an argument too many",
    "type_error:simple": "a value of another type",
    "type_error:nested": "a value of another type inside a list",
    "value_error:string": "another text",
    "value_error:list/tuple": "another list",
    "value_error:others": "another number or truth value",
    "value_error:dict_key": "an object with other fields",
    "value_error:dict_value": "an object with another value",
    "simple:wrong_count": "one call due, and another number of calls",
    "multiple:wrong_count": "one call due, of several tools, and another number of calls",
    "parallel:wrong_count": "several calls due, and another number of them",
    "cannot_find_match": "several calls due, and at least one is wrong",
}
"""Error codes as tables show them -> what they mean."""

NOT_SCORED = (
    "It was scored on one turn at a time, on tools like those of its data. It was not scored on safety, on long "
    "conversations, on what it says after a tool's result, or on tools of other kinds. Check every call against your "
    "schema before you carry it out."
)
"""What a run never measures."""


def render_failures(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the paragraphs of the section on failures.

    Args:
        facts: As for card.render_card.
    """
    comparison = Comparison.from_dict(facts["compare"])
    after = Counter[str]()
    for _, code, count in comparison.transitions:
        after[shorten_code(code) if code else ""] += count
    del after[""]
    rows = [
        (ERRORS.get(code, code), f"`{code}`", str(Share(count, comparison.n))) for code, count in after.most_common()
    ]
    counted = [
        f"Held-out rows that the tuned model answers wrongly: {sum(after.values())} of {comparison.n}. What is wrong, "
        "one error a row (the intervals take rows as independent):",
        render_markdown_table(pandas.DataFrame(rows, columns=["error", "code", "rows"])),
    ]
    broken = f"Rows that were right before the training and are wrong after it: {len(comparison.broken)}"
    return [
        "## Known failures",
        *(counted if rows else [f"None of the {comparison.n} held-out rows came out wrong."]),
        f"{broken}. {_describe_no_call(comparison)}".rstrip(),
        *_render_tools(facts.get("tools", {})),
        "## What it is not for",
        NOT_SCORED,
    ]


def _describe_no_call(comparison: Comparison) -> str:
    """Return the sentences on calls that should not, or should, have been made; none where no row tells."""
    false, missed = (comparison.change(name).after for name in ("false_calls", "missed_calls"))
    called = f"Where no call is due, it calls a tool in {false} of the rows." if false.n else ""
    silent = f"Where one is due, it makes none in {missed} of the rows." if missed.n else ""
    return f"{called} {silent}".strip()


def _render_tools(tools: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the tools that come out wrong most often, of those that the held-out rows need."""
    wrong = sorted(
        ((name, right, n) for name, (right, n) in tools.items() if right < n),
        key=lambda one: (one[1] / one[2], -one[2], one[0]),
    )
    if not wrong:
        return []
    never = sum(not right for _, right, _ in wrong)
    rows = [(render_code(name), f"{right}/{n}") for name, right, n in wrong[:MAX_TOOLS]]
    more = [f"... and {len(wrong) - MAX_TOOLS} more with some row wrong."] if len(wrong) > MAX_TOOLS else []
    return [
        f"Tools that the held-out rows need, by the first call that is due: {len(tools)}; tools that never come out "
        f"right: {never}. The worst, of few rows each:",
        render_markdown_table(pandas.DataFrame(rows, columns=["tool", "rows right"])),
        *more,
    ]
