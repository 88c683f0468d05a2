"""Arrow tables as rows: Parquet files, Arrow files, and the folders that datasets' save_to_disk writes.

Knows tables; not what a row means. In a nested Arrow column every row has all keys, and those that its author did not
write are null; null values are dropped in such columns.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fgtools.files import DataFileError
from fgtools.rows.store import LazyRows


class TableRows(LazyRows):
    """The rows of an Arrow table as plain values, made when they are asked for.

    A nested column does not say which keys its author wrote in a row: keys whose value is null are dropped there.

    Attributes:
        table: The pyarrow.Table.
        nested: Names of its columns in which rows may lack keys.
    """

    def __init__(self, table: Any) -> None:
        """Wrap a table; no value is copied."""
        import pyarrow.types as types

        self.table = table
        self.nested = [field.name for field in table.schema if _has_optional_keys(field.type, types)]
        self._json = {field.name: field.type for field in table.schema if "arrow.json" in str(field.type)}

    def __len__(self) -> int:
        return self.table.num_rows

    def select(self, indices: Sequence[int]) -> TableRows:
        """Return some of the rows, in the order of `indices`."""
        return TableRows(self.table.take(list(indices)))

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows one by one."""
        import pyarrow.types as types

        for batch in self.table.to_batches(max_chunksize=256):
            for row in batch.to_pylist():
                for column in self.nested:
                    row[column] = _without_null(row[column])
                for column, kind in self._json.items():  # a null in JSON text was written by its author
                    row[column] = _decode_json(row[column], kind, types)
                yield row


def load_parquet(path: Path) -> TableRows:
    """Return the rows of a Parquet file; raises DataFileError where it is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise DataFileError(f"{path} must be a Parquet file, but reading it failed: {error}") from error
    return _open_table(table, path)


def load_arrow(path: Path) -> TableRows:
    """Return the rows of an Arrow file, a stream or with an index; raises DataFileError where it is none."""
    import pyarrow
    import pyarrow.ipc

    try:
        with pyarrow.memory_map(str(path)) as source:
            table = pyarrow.ipc.open_stream(source).read_all()
    except pyarrow.ArrowInvalid:
        try:
            with pyarrow.memory_map(str(path)) as source:
                table = pyarrow.ipc.open_file(source).read_all()
        except pyarrow.ArrowInvalid as error:
            raise DataFileError(f"{path} must be an Arrow file, but reading it failed: {error}") from error
    return _open_table(table, path)


def load_saved_dataset(folder: Path) -> TableRows:
    """Return the rows of a folder that datasets' save_to_disk wrote.

    Raises:
        DataFileError: It holds several splits, or cannot be read.
    """
    import datasets

    if (folder / "dataset_dict.json").is_file():
        names = sorted(inner.name for inner in folder.iterdir() if inner.is_dir())
        raise DataFileError(f"{folder} holds the splits {', '.join(names)}: give the folder of one of them")
    try:
        table = datasets.load_from_disk(str(folder)).with_format("arrow")[:]  # in its own order, writing no file
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataFileError(f"{folder} must be a data set saved to disk, but reading it failed: {error}") from error
    return _open_table(table, folder)


def _open_table(table: Any, path: Path) -> TableRows:
    rows = TableRows(table)
    if rows.nested:
        print(f"{path.name}: nulls are dropped from {', '.join(rows.nested)}: Arrow fills missing keys with them")
    return rows


def _has_optional_keys(kind: Any, types: Any) -> bool:
    """Return whether rows of a column may lack keys; turns of {from, value} or {role, content} always have both."""
    if types.is_struct(kind):
        names = {kind.field(index).name for index in range(kind.num_fields)}
        plain = all(types.is_string(kind.field(index).type) for index in range(kind.num_fields))
        return not (plain and names in ({"from", "value"}, {"role", "content"}))
    if types.is_list(kind) or types.is_large_list(kind):
        return _has_optional_keys(kind.value_type, types)
    return False


def _decode_json(value: Any, kind: Any, types: Any) -> Any:
    """Decode the JSON text in a value of Arrow's JSON type, or in its parts, as datasets' Json feature makes them."""
    if value is None:
        return None
    if getattr(kind, "extension_name", "") == "arrow.json":
        return json.loads(value) if isinstance(value, str) else value
    if types.is_struct(kind):
        return {name: _decode_json(item, kind.field(name).type, types) for name, item in value.items()}
    if types.is_list(kind) or types.is_large_list(kind):
        return [_decode_json(item, kind.value_type, types) for item in value]
    return value


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()  # text that Arrow has turned into a date
    return value
