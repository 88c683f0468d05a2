"""Tables that print in a terminal, render in a notebook and stand in a Markdown file.

Knows columns and cells; not what they mean.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """Columns and rows of text.

    Attributes:
        columns: Heads of the columns.
        rows: One tuple of cells a row, as many as there are columns.
        width: Longest line of a cell in a terminal, in characters; longer text is wrapped.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    width: int = 60

    @classmethod
    def from_pairs(cls, name: str, value: str, pairs: Mapping[str, Any]) -> Table:
        """Make a table of two columns.

        Args:
            name: Head of the first column.
            value: Head of the second one.
            pairs: Cells of the first column -> values of the second.

        Returns:
            The Table.
        """
        return cls((name, value), tuple((str(key), str(item)) for key, item in pairs.items()))

    def __str__(self) -> str:
        cells = [[self._wrap(cell) for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(len(line) for row in cells for line in row[index]) for index in range(len(self.columns))]
        lines: list[str] = []
        tall = any(len(cell) > 1 for row in cells[1:] for cell in row)
        for number, row in enumerate(cells):
            for line in range(max(len(cell) for cell in row)):
                parts = [
                    (cell[line] if line < len(cell) else "").ljust(width)
                    for cell, width in zip(row, widths, strict=True)
                ]
                lines.append("  ".join(parts).rstrip())
            if number == 0 or (tall and number < len(cells) - 1):
                lines.append("  ".join("-" * width for width in widths))
        return "\n".join(lines)

    def _wrap(self, cell: str) -> list[str]:
        lines = [part for line in cell.splitlines() for part in textwrap.wrap(line, self.width) or [""]]
        return lines or [""]

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:left'>{html.escape(cell)}</th>" for cell in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{_html_cell(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def to_markdown(self) -> str:
        """Write the table in Markdown."""
        return render_markdown_table(self.columns, self.rows)


def _html_cell(cell: str) -> str:
    return html.escape(cell).replace("\n", "<br>")


def render_markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write columns and rows as a Markdown table; bars and line breaks inside cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in lines)


def _markdown_cell(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", "<br>").replace("<escape>", "&lt;escape&gt;")
