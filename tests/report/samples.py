"""Rows of the offline sample, and replies to them: all right, half of them, a call always."""

from fgtools.calls import render_calls, row_calls
from fgtools.offline.samples import build_samples
from fgtools.rows import build_rows

ROWS = build_rows(build_samples(240, 5)).rows
RIGHT = [render_calls(row_calls(row)) if row["gold"] else row.get("reply") or "I cannot." for row in ROWS]
HALF = [text if number % 2 else "I cannot." for number, text in enumerate(RIGHT)]
ONE_CALL = next(text for row, text in zip(ROWS, RIGHT, strict=True) if row["gold"])
CALLS_ALWAYS = [text if row["gold"] else ONE_CALL for row, text in zip(ROWS, RIGHT, strict=True)]
