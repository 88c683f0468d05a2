"""How a table is shown: a styled one in notebooks, columns of text in a terminal, Markdown in a file.

Knows data frames, and how the columns that occur in several tables are formatted; builds no table (`tables`).
"""

from __future__ import annotations

import hashlib
import html
import math
import textwrap
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

import pandas
from pandas.io.formats.style import Styler

from fgtools.metrics.intervals import format_p

DECIDES = "AST match"
"""The measure that decides; where a table has a column "measure", its row is bold."""

_FORMATS: Mapping[str, Callable[[float], str]] = {
    "share": "{:.1%}".format,
    "rate": "{:.3f}".format,
    "difference": "{:+.3g}".format,
    "design effect": "{:.1f}".format,
    **dict.fromkeys(("p", "p (Holm)"), lambda p: format_p(p).removeprefix("= ")),
    **dict.fromkeys(("eval loss", "tokens right", "rows right"), "{:.4f}".format),
}
"""How the numbers of a column are written, by its name; other numbers are written as Python writes them."""


def build_pairs_table(name: str, value: str, pairs: Mapping[str, Any]) -> pandas.DataFrame:
    """Return a table of two columns.

    Args:
        name: Head of the first column.
        value: Head of the second one.
        pairs: Cells of the first column -> values of the second.
    """
    return pandas.DataFrame({name: list(pairs), value: pandas.Series(list(pairs.values()), dtype=object)})


class StyledTable(Styler):
    """A pandas Styler whose text, for places that cannot show HTML, is the whole table."""

    def __repr__(self) -> str:
        return render_table(self.data)


def style_table(frame: pandas.DataFrame) -> StyledTable:
    """Return a table as notebooks show it: whole, aligned to the left, with bars for shares, the deciding row bold.

    Args:
        frame: The table; its index is not shown. It is the result's `data`.

    Returns:
        A pandas Styler; the same table always gives the same HTML.
    """
    identity = hashlib.sha256(render_markdown_table(frame).encode()).hexdigest()[:10]
    styler = StyledTable(frame, uuid=identity, cell_ids=False)
    # Styler takes formatted cells for HTML, so text from rows has to be escaped here
    styler.format({name: _html_formatter(name) for name in frame.columns})
    styler.format_index(lambda name: html.escape(str(name)), axis="columns").hide(axis="index")
    styler.set_table_styles([{"selector": "th, td", "props": "text-align: left; vertical-align: top"}])
    for name in {"share", "rate"} & set(frame.columns):  # numbers from 0 to 1 are drawn as bars
        if frame[name].notna().any():
            styler.bar(subset=[name], color="#2f6f9f55", vmin=0, vmax=max(1.0, frame[name].max()), width=90)
    if "measure" in frame.columns:
        bold = frame["measure"] == DECIDES
        styler.set_properties(subset=pandas.IndexSlice[frame.index[bold], :], **{"font-weight": "bold"})
    return styler


def render_table(frame: pandas.DataFrame, width: int = 60) -> str:
    """Return a table as text for a terminal: nothing is left out, long cells are wrapped.

    Args:
        frame: The table; its index is not shown.
        width: Longest line of a cell, in characters; longer text is wrapped.

    Returns:
        Columns of text; a rule stands between all rows where one of them has a cell of several lines.
    """
    cells = [[_wrap(cell, width) for cell in row] for row in _list_cells(frame)]
    widths = [max(len(line) for row in cells for line in row[index]) for index in range(len(frame.columns))]
    rule = "  ".join("-" * width for width in widths)
    tall = any(len(cell) > 1 for row in cells[1:] for cell in row)
    lines: list[str] = []
    for number, row in enumerate(cells):
        for parts in zip_longest(*row, fillvalue=""):
            lines.append("  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip())
        if number == 0 or (tall and number < len(cells) - 1):
            lines.append(rule)
    return "\n".join(lines)


def render_markdown_table(frame: pandas.DataFrame) -> str:
    """Return a table in Markdown; bars, line breaks and control tokens inside cells are escaped."""
    head, *rows = [[_escape_markdown(cell) for cell in row] for row in _list_cells(frame)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _list_cells(frame: pandas.DataFrame) -> list[list[str]]:
    """Return the heads and then every row, as text."""
    columns = [[_format_cell(name, value) for value in frame[name].tolist()] for name in frame.columns]
    return [[str(name) for name in frame.columns], *(list(row) for row in zip(*columns, strict=True))]


def _format_cell(column: str, value: Any) -> str:
    if value is pandas.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return _FORMATS[column](value) if column in _FORMATS and isinstance(value, int | float) else str(value)


def _html_formatter(column: str) -> Callable[[Any], str]:
    return lambda value: html.escape(_format_cell(column, value)).replace("\n", "<br>")


def _wrap(cell: str, width: int) -> list[str]:
    return [part for line in cell.splitlines() for part in textwrap.wrap(line, width) or [""]] or [""]


def _escape_markdown(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", "<br>").replace("<escape>", "&lt;escape&gt;")
