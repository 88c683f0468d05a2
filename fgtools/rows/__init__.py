"""Rows: raw conversations of any shape become rows that a model is trained and scored on; every one is counted.

Knows sources, shapes, duplicates, splits and the funnel; not token ids or models.
"""

from fgtools.rows.build import build_rows
from fgtools.rows.funnel import EmptySetError, RejectedRow, RowSet
from fgtools.rows.preparation import Prepared, load_requests, prepare
from fgtools.rows.sources import RawRows, load_raw_rows
from fgtools.rows.splits import Splits, limit_no_call, split_rows
from fgtools.rows.store import Row, load_rows

__all__ = [
    "EmptySetError",
    "Prepared",
    "RawRows",
    "RejectedRow",
    "Row",
    "RowSet",
    "Splits",
    "build",
    "build_rows",
    "drafts",
    "duplicates",
    "endpoint",
    "formats",
    "hub_errors",
    "limit_no_call",
    "load_raw_rows",
    "load_requests",
    "load_rows",
    "preparation",
    "prepare",
    "remedies",
    "sources",
    "split_rows",
    "splits",
    "store",
    "synthetic",
]
