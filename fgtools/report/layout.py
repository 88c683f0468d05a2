"""How a table is shown: a styled one in notebooks, columns of text in a terminal, Markdown in a file.

Knows data frames, and how the columns that occur in several tables are formatted; builds no table (`tables`).
"""

from __future__ import annotations

import hashlib
import html
import math
import re
import shutil
import sys
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


MAX_WIDTH = 1000
"""Widest table of a notebook, in pixels: what JupyterLab shows on a small screen without scrolling."""

LONGEST_PIECE = 16
"""Longest text that a browser cannot break, in characters: a table of nine columns of them is as wide as MAX_WIDTH."""

NARROWEST = 8
"""Fewest characters of a column that is made narrower to fit a terminal."""

_INTERVAL = re.compile(r"(\[[-+\d.]+, [-+\d.]+\])")

_JOINT = re.compile(r"(?<=[_:;,./|>{}()\[\]=-])(?=[^\s_:;,./|>{}()\[\]=-])")
"""Where a long word may be broken: after a mark that joins its parts."""


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
    styler.format_index(lambda name: _break_words(str(name)), axis="columns").hide(axis="index")
    styler.set_table_styles(_list_styles(frame))
    for name in {"share", "rate"} & set(frame.columns):  # numbers from 0 to 1 are drawn as bars
        if frame[name].notna().any():
            styler.bar(subset=[name], color="#2f6f9f55", vmin=0, vmax=max(1.0, frame[name].max()), width=90)
    if "measure" in frame.columns:
        bold = frame["measure"] == DECIDES
        styler.set_properties(subset=pandas.IndexSlice[frame.index[bold], :], **{"font-weight": "bold"})
    return styler


def _list_styles(frame: pandas.DataFrame) -> list[dict[str, str]]:
    """Return the style sheet of a table: no wider than MAX_WIDTH; only columns of short cells are not wrapped."""
    columns = enumerate(zip(*_list_cells(frame)[1:], strict=True)) if len(frame) else ()
    short = [f"td.col{place}" for place, cells in columns if max(map(len, cells)) <= LONGEST_PIECE]
    return [
        {"selector": "", "props": f"max-width: {MAX_WIDTH}px"},
        {"selector": "th, td", "props": "text-align: left; vertical-align: top; white-space: normal"},
        *([{"selector": ", ".join(short), "props": "white-space: nowrap"}] if short else []),
    ]


def wrap_text(text: str, width: int = 100) -> str:
    """Return sentences in lines of at most `width` characters: pages of notebooks do not wrap what is printed."""
    return "\n".join(textwrap.fill(line, width, break_long_words=False) for line in text.splitlines())


def print_table(frame: pandas.DataFrame, width: int = 60) -> None:
    """Print a table; in a terminal its columns are made narrower to fit, elsewhere it is as wide as it is."""
    print(render_table(frame, width, measure_terminal()))


def measure_terminal() -> int:
    """Return how many characters a line of the terminal holds; 0 where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def render_table(frame: pandas.DataFrame, width: int = 60, total: int = 0) -> str:
    """Return a table as text for a terminal: nothing is left out, long cells are wrapped.

    Args:
        frame: The table; its index is not shown.
        width: Longest line of a cell, in characters; longer text is wrapped.
        total: Longest line of the table, in characters: the widest columns are made narrower to keep to it, down to
            NARROWEST; 0 for no limit.

    Returns:
        Columns of text; a rule stands between all rows where one of them has a cell of several lines.
    """
    texts = _list_cells(frame)
    limits = _fit_columns(texts, width, total)
    cells = [[_wrap(cell, limit) for cell, limit in zip(row, limits, strict=True)] for row in texts]
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
    return lambda value: _break_words(_format_cell(column, value)).replace("\n", "<br>")


def _break_words(text: str) -> str:
    """Return a text as HTML in which long words may be broken, so that a table is no wider than its page.

    `<wbr>` marks the places. It is no character, so that what is copied from the page is the text, and it works where
    a page's style sheets do not, as on GitHub.
    """
    parts = _INTERVAL.split(text)  # every second one is an interval, which stays on its line
    for place, part in enumerate(parts):
        if place % 2:
            parts[place] = f'<span style="white-space: nowrap">{part}</span>'
        else:
            parts[place] = re.sub(r"\S+", lambda word: "<wbr>".join(map(html.escape, _list_pieces(word[0]))), part)
    return "".join(parts)


def _list_pieces(word: str) -> list[str]:
    """Return a word in pieces of at most LONGEST_PIECE characters, cut between its parts where possible."""
    if len(word) <= LONGEST_PIECE:
        return [word]
    pieces = [""]
    for part in _JOINT.split(word):
        cut = [part[start : start + LONGEST_PIECE] for start in range(0, len(part), LONGEST_PIECE)]
        if len(pieces[-1] + cut[0]) <= LONGEST_PIECE:
            pieces[-1] += cut.pop(0)
        pieces += cut
    return [piece for piece in pieces if piece]


def _fit_columns(texts: list[list[str]], width: int, total: int) -> list[int]:
    """Return the longest line of each column's cells: `width`, or less of the widest ones where `total` asks for it."""
    columns = zip(*texts, strict=True)
    widths = [max(len(line) for cell in column for line in _wrap(cell, width)) for column in columns]
    while total and sum(widths) + 2 * (len(widths) - 1) > total and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths if total else [width] * len(widths)


def _wrap(cell: str, width: int) -> list[str]:
    return [part for line in cell.splitlines() for part in textwrap.wrap(line, max(width, 1)) or [""]] or [""]


def _escape_markdown(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", "<br>").replace("<escape>", "&lt;escape&gt;")
