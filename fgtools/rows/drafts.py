"""A sheet of examples to fill in: for each tool calls that need a request, and lines for which no tool fits.

Knows tools and lines; the calls come from `proposals`, requests from whoever fills in the sheet, or from an endpoint
(see `synthetic`). A filled sheet is data as it stands: columns request and call.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtools.calls import ToolCall
from fgtools.files import InputError, write_text
from fgtools.rows.proposals import find_placeholders, propose_calls, render_call

COLUMNS = ("request", "call", "note", "source", "synthetic")

WRITTEN, SYNTHETIC = "written", "synthetic"
"""The `source` of a line that a person fills in, and of one that a model wrote; the funnel counts rows by it."""


@dataclass(frozen=True)
class Line:
    """A line of the sheet.

    Attributes:
        call: The right call; None where no tool fits.
        note: What the request must be, for who writes it.
        request: The request; "" while it is to be written.
        synthetic: Whether a model wrote the request.
    """

    call: ToolCall | None
    note: str
    request: str = ""
    synthetic: bool = False

    def to_dict(self) -> dict[str, str]:
        """Return the line by column."""
        return {
            "request": self.request,
            "call": "" if self.call is None else render_call(self.call),
            "note": self.note,
            "source": SYNTHETIC if self.synthetic else WRITTEN,
            "synthetic": "true" if self.synthetic else "",
        }


def build_draft(tools: Sequence[Mapping[str, Any]], per_tool: int = 8, refusals: int | None = None) -> list[Line]:
    """Return the lines of a sheet without requests.

    Args:
        tools: Function schemas in normal form.
        per_tool: Lines with a call of each tool; more where its choices need more. Where it has fewer different
            calls, they come again, for other wordings.
        refusals: Lines without a call; None: one for four lines with one, and one a tool at least.

    Returns:
        For each tool its calls, then the lines for which no tool fits: requests near a tool that it cannot serve, that
        leave out what it needs, or that are about something else.

    Raises:
        InputError: A number is negative, or there are no tools.
    """
    if per_tool < 1 or (refusals is not None and refusals < 0):
        raise InputError(f"a sheet takes 1 or more calls a tool and 0 or more refusals, got {per_tool} and {refusals}")
    if not tools:
        raise InputError("a sheet needs at least one tool")
    lines = []
    for tool in tools:
        calls = propose_calls(tool, per_tool)
        repeated = [calls[number % len(calls)] for number in range(max(per_tool, len(calls)))] if calls else []
        lines += [Line(call, _describe_call(call)) for call in repeated]
    count = max(len(tools), len(lines) // 4) if refusals is None else refusals
    return lines + _refusal_lines(tools, count)


def _describe_call(call: ToolCall) -> str:
    left = find_placeholders(call.arguments)
    said = f"a request that {call.name} serves with these values"
    return f"{said}; replace {', '.join(dict.fromkeys(left))} in the call" if left else said


def _refusal_lines(tools: Sequence[Mapping[str, Any]], count: int) -> list[Line]:
    functions = [tool["function"] for tool in tools]
    notes = [f"a request near {function['name']} that no tool can serve" for function in functions]
    for function in functions:
        if needed := function["parameters"]["required"]:
            notes.append(f"a request for {function['name']} that does not say {needed[0]}")
    notes.append("a question or remark that has nothing to do with the tools")
    return [Line(None, notes[number % len(notes)]) for number in range(count)]


def write_sheet(path: Path, lines: Iterable[Line], force: bool = False) -> Path:
    """Write lines as a CSV file in UTF-8.

    Args:
        path: Where to write it.
        lines: The lines.
        force: Whether a file that is there may be overwritten.

    Returns:
        `path`.

    Raises:
        InputError: The file is there, and may hold what somebody wrote.
    """
    require_new(path, force)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(line.to_dict() for line in lines)
    return write_text(path, text.getvalue())


def require_new(path: Path, force: bool) -> None:
    """Raise InputError where a file is there already, unless it may be overwritten."""
    if path.exists() and not force:
        raise InputError(
            f"{path} must be a new file, but it exists and may hold what you wrote: name another, or --force"
        )
