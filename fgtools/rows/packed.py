"""Rows kept as JSON lines with their keys, so that tens of thousands of them fit in memory and pass between processes.

Knows row dicts as text. A row is decoded when it is asked for; every access gives an object of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from fgtools.rows.keys import RowKey

Row = dict[str, Any]


def pack_row(row: Row) -> bytes:
    """Give a row as JSON text without its row_id, which may still change."""
    rest = {name: value for name, value in row.items() if name != "row_id"}
    return json.dumps(rest, ensure_ascii=False, allow_nan=False).encode("utf-8")


class PackedRows(Sequence[Row]):
    """Rows as text.

    Attributes:
        ids: Their row ids.
        keys: Their keys.
    """

    def __init__(self, ids: Sequence[str], lines: Sequence[bytes], keys: Sequence[RowKey]) -> None:
        """Take equally many ids, texts of `pack_row` and keys."""
        self.ids, self._lines, self.keys = ids, lines, keys

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        return {"row_id": self.ids[index], **json.loads(self._lines[index])}

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int]) -> PackedRows:
        """Give some of the rows, in the order of `indices`; texts are shared, not copied."""
        parts = ([values[index] for index in indices] for values in (self.ids, self._lines, self.keys))
        return PackedRows(*parts)

    def lines(self) -> Iterator[str]:
        """Yield every row as its line of a rows file, without the line break."""
        for row_id, line in zip(self.ids, self._lines, strict=True):
            yield f'{{"row_id": {json.dumps(row_id, ensure_ascii=False)}, {line[1:].decode("utf-8")}'
