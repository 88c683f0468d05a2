"""The card's section on data: where the rows come from, what became of them, and which names were replaced.

Knows what funnel.json holds, and what is known of the data's licence and languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas

from fgtools.report.data_tables import build_funnel_table
from fgtools.report.layout import render_markdown_table
from fgtools.report.markup import escape_text, render_code

MAX_NAMES = 40
"""Lines of a table of names or sources; the others are counted."""


def render_data(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the paragraphs of the section on data.

    Args:
        facts: As for card.render_card.
    """
    funnel = facts["funnel"]
    split = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in funnel["split"].items())
    return [
        "## Data",
        f"{count_raw(funnel)} from {render_code(funnel['origin'])}. What became of them:",
        render_markdown_table(build_funnel_table(funnel["funnel"], funnel["rows_in"])),
        f"Split: {split}.",
        *_render_sources(funnel.get("by_source", {})),
        _describe_rights(facts.get("data", {})),
        *_render_names(funnel.get("renamed", {})),
    ]


def count_raw(funnel: Mapping[str, Any]) -> str:
    """Return how many raw rows were read, and how many answers they hold where all were looked at."""
    n_answers = sum(funnel["funnel"].values())
    rows = f"{funnel['rows_in']} raw rows"
    return rows if n_answers == funnel["rows_in"] else f"{n_answers} answers in {rows}"


def _render_sources(by_source: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the table of sources as the rows name them, those with the most rows first; none for a single one."""
    named = sorted(by_source.items(), key=lambda one: (-one[1].get("kept", 0), one[0]))
    if len(named) < 2:
        return []
    rows = [
        (render_code(name) if name else "(none)", fates.get("kept", 0), sum(fates.values())) for name, fates in named
    ]
    return [
        "Sources, as the rows name them:",
        render_markdown_table(pandas.DataFrame(rows[:MAX_NAMES], columns=["source", "kept", "of"])),
        *_count_rest(len(rows)),
    ]


def _describe_rights(data: Mapping[str, Any]) -> str:
    """Return the sentences on the licence and the languages of the rows, and what else has to be known of them."""
    licence = data.get("licence") or (
        "the files of the run do not say under which one they may be used, so whoever publishes the model has to"
    )
    languages = ", ".join(map(escape_text, data.get("languages", ()))) or "not stated by whoever published it"
    said = f"Licence of the rows: {escape_text(licence)}. Languages of the requests: {languages}."
    return f"{said} {data.get('note', '')}".rstrip()


def _render_names(renamed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the paragraphs on names the model uses in place of the author's, which a server has to put back."""
    rows = [(new, "", old) for new, old in renamed.get("tools", {}).items()]
    for tool, names in renamed.get("parameters", {}).items():
        rows.extend((tool, new, old) for new, old in names.items())
    if not rows:
        return []
    cells = [[render_code(name) if name else "" for name in row] for row in rows[:MAX_NAMES]]
    return [
        "The chat template drops some parameter names, and the call grammar cannot carry some tool names. The model "
        "uses others for these; `fgtools.load_caller` puts the author's back into its calls:",
        render_markdown_table(pandas.DataFrame(cells, columns=["tool", "parameter", "its author's name"])),
        *_count_rest(len(rows)),
    ]


def _count_rest(n_rows: int) -> list[str]:
    return [f"... and {n_rows - MAX_NAMES} more, in `funnel.json`."] if n_rows > MAX_NAMES else []
