"""Rows: raw conversations of any shape to rows that a model is trained and scored on, each of them accounted for.

Knows sources, shapes, duplicates, splits and the funnel; not token ids or models.
"""

from fgtools.rows.build import RejectedRow, RowSet, build_rows
from fgtools.rows.preparation import Prepared, prepare
from fgtools.rows.sources import RawRows, load_raw_rows
from fgtools.rows.splits import Splits, split_rows
from fgtools.rows.store import load_rows

__all__ = [
    "Prepared",
    "RawRows",
    "RejectedRow",
    "RowSet",
    "Splits",
    "build",
    "build_rows",
    "datafiles",
    "formats",
    "keys",
    "load_raw_rows",
    "load_rows",
    "packed",
    "preparation",
    "prepare",
    "remedies",
    "sources",
    "split_rows",
    "splits",
    "store",
]
