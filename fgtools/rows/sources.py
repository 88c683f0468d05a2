"""Where raw rows come from: the offline sample, a local file or folder, a hub data set.

Knows what a data set is called and in which order its rows are taken; files are read by `datafiles`. It does not know
what a row means. Rows are read when they are asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fgtools.files import InputError
from fgtools.profiles import HERMES
from fgtools.rows.datafiles import SUFFIXES, SourceError, TableRows, find_suffix, open_local_rows
from fgtools.rows.fields import GIVEN_TOOLS, TOOLS_REPLACED, is_empty
from fgtools.rows.hub_errors import explain_hub_error
from fgtools.rows.messages import TOOL_COLUMNS
from fgtools.rows.store import LazyRows, select_rows
from fgtools.schema import parse_tool_file

N_TOTAL = 3_000
"""Rows that are taken of the sample or of a hub data set unless told otherwise: the tutorial's number."""

_TURN = re.compile(r"/turn\d+(#\d+)?$")


class OrderedRows(LazyRows):
    """Rows of one or several files in a given order; a slice holds its own rows only and is small to send to a process.

    A row without `row_id` gets its `id` or its position, and a row without `source` its file's name, so that a rejected
    row can be found in its file.
    """

    def __init__(
        self, parts: Sequence[tuple[str, Sequence[Any]]], places: Sequence[tuple[int, int, int]] | None = None
    ) -> None:
        """Join parts of (name, rows).

        Each place is a row's part, its index there, and its position in all parts together; None takes all rows.
        """
        self._parts = list(parts)
        every = ((part, index) for part, (_, rows) in enumerate(self._parts) for index in range(len(rows)))
        self._places = [(*place, n) for n, place in enumerate(every)] if places is None else list(places)

    def __len__(self) -> int:
        return len(self._places)

    def select(self, indices: Sequence[int]) -> OrderedRows:
        """Return some of the rows, in the order of `indices`."""
        wanted: list[list[int]] = [[] for _ in self._parts]
        places = []
        for part, place, position in (self._places[index] for index in indices):
            places.append((part, len(wanted[part]), position))
            wanted[part].append(place)
        chosen = zip(self._parts, wanted, strict=True)
        return OrderedRows([(name, select_rows(rows, indices)) for (name, rows), indices in chosen], places)

    def __iter__(self) -> Iterator[Any]:
        """Read the rows one by one; raises DataFileError for a malformed line."""
        readers = [iter(rows) for _, rows in self.select(range(len(self)))._parts]
        for part, _, position in self._places:
            yield _labelled(next(readers[part]), position, self._parts[part][0])


class ToolRows(LazyRows):
    """Rows to which tools are given; those that a row has itself are not used, and it says that it had some."""

    def __init__(self, rows: Sequence[Any], tools: str) -> None:
        """Take the rows, and the tools as JSON text."""
        self._rows, self._tools = rows, tools

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, indices: Sequence[int]) -> ToolRows:
        """Return some of the rows, in the order of `indices`."""
        return ToolRows(select_rows(self._rows, indices), self._tools)

    def __iter__(self) -> Iterator[Any]:
        """Read the rows one by one."""
        for row in self._rows:
            if not isinstance(row, dict):
                yield row
                continue
            own = any(not is_empty(row.get(name)) for name in (*TOOL_COLUMNS, "function"))
            yield {**row, "tools": self._tools, GIVEN_TOOLS: self._tools, TOOLS_REPLACED: own}


def _labelled(row: Any, position: int, name: str) -> Any:
    if not isinstance(row, dict):
        return row
    own = row.get("id") if isinstance(row.get("id"), (str, int)) and row["id"] != "" else position
    source = name if row.get("source") is None else row["source"]
    return {**row, "row_id": row.get("row_id") or str(own), "source": source}


@dataclass(frozen=True)
class RawRows:
    """Raw rows in the order they are used.

    Attributes:
        rows: The rows taken, shuffled.
        available: How many there were before taking.
        origin: What they are, for people: "offline sample", a file name or a hub id.
    """

    rows: Sequence[dict[str, Any]]
    available: int
    origin: str

    def find(self, row_id: str) -> dict[str, Any]:
        """Return the first raw row with an id, or {}; of "a#2", made unique, or "a/turn3" also the one with "a"."""
        names = (row_id, row_id.rpartition("#")[0], _TURN.sub("", row_id))
        return next((row for row in self.rows if isinstance(row, dict) and row.get("row_id") in names), {})


def load_raw_rows(
    data: str, n_total: int, seed: int, *, split: str = "train", config: str = "", revision: str = "", tools: str = ""
) -> RawRows:
    """Open rows, shuffle them as the tutorial does and take the first ones.

    Args:
        data: "sample", the path of a file with one of datafiles.SUFFIXES, a folder of such files, or a hub data set id.
        n_total: Rows to take; all rows where there are fewer; 0: what `choose_total` says.
        seed: Seed of the shuffle (datasets' Dataset.shuffle, for the same order as in the tutorial) and of the offline
            sample.
        split: Split of a hub data set.
        config: Configuration of a hub data set; "" for its only or default one.
        revision: Commit, tag or branch of a hub data set; "" for the newest.
        tools: A file of tools as `schema.load_tools` reads it, for all rows, in place of their own; "" for none.

    Returns:
        The RawRows.

    Raises:
        SourceError: The data cannot be found or loaded.
        DataFileError: A file is malformed; a malformed line is named when it is read.
        SchemaError: The file of tools holds none.
        InputError: n_total is negative, or tools are given for the offline sample.
    """
    if not data:
        raise SourceError("DATA must name a file, a folder, a hub data set or 'sample', got '': leave it out for none")
    if tools:
        if data == "sample":
            raise InputError(f"TOOLS must come with DATA of your own: the offline sample has its own; got {tools!r}")
        text = _read_tools(tools)
        raw = load_raw_rows(data, n_total, seed, split=split, config=config, revision=revision)
        return replace(raw, rows=ToolRows(raw.rows, text))
    if n_total < 0:
        raise InputError(f"N_TOTAL must be at least 1, or 0 for all rows of a file, got {n_total}")
    n_total = n_total or choose_total(data)
    if data == "sample":
        from fgtools.offline.samples import build_samples

        return _take([("", build_samples(n_total, seed))], n_total, seed, "offline sample")
    path = Path(data)
    if path.exists():
        return _take(open_local_rows(path), n_total, seed, path.name)
    if find_suffix(path) or data.count("/") != 1 or data.startswith((".", "/", "~")):
        raise SourceError(
            f"DATA must be 'sample', an existing file or folder ({', '.join(SUFFIXES)}), or a hub data set id such as "
            f"{HERMES!r}, but got {data!r}, which does not exist: check the path"
        )
    return _take([(data, _load_hub_rows(data, split, config, revision))], n_total, seed, data)


def _read_tools(path: str) -> str:
    """Return the tools of a file as JSON text, and print what they are and what was left out."""
    parsed = parse_tool_file(path)
    functions = [tool["function"] for tool in parsed.tools]
    names = ", ".join(function["name"] for function in functions[:12]) + (", ..." if len(functions) > 12 else "")
    print(f"{Path(path).name}: {len(functions)} tools for all rows: {names}")
    for problem in parsed.problems:
        print(f"{Path(path).name}: {problem.kind}: {problem.detail}")
    return json.dumps(functions, ensure_ascii=False)


def choose_total(data: str) -> int:
    """Return how many rows are taken unless told: 0, that is all, of a local file, and N_TOTAL of other data."""
    return 0 if data != "sample" and Path(data).exists() else N_TOTAL


def shuffled_order(n_rows: int, seed: int) -> list[int]:
    """Return the positions of n_rows rows in the order that datasets' Dataset.shuffle(seed) gives them."""
    from datasets import Dataset

    return Dataset.from_dict({"index": range(n_rows)}).shuffle(seed=seed)["index"][:]


def _take(parts: list[tuple[str, Sequence[Any]]], n_total: int, seed: int, origin: str) -> RawRows:
    rows = OrderedRows(parts)
    if not len(rows):
        raise SourceError(f"{origin} must hold at least one row, but it is empty")
    order = shuffled_order(len(rows), seed)[: n_total or len(rows)]
    if len(order) < len(rows):
        print(f"{origin}: taking {len(order):,} of {len(rows):,} rows (N_TOTAL)")
    return RawRows(rows.select(order), len(rows), origin)


def _load_hub_rows(data: str, split: str, config: str, revision: str) -> Sequence[Any]:
    """Load a split of a hub data set, from its JSON files where Arrow would add null keys or refuse mixed types."""
    import datasets
    from huggingface_hub.errors import HTTPError

    options = {"name": config, "revision": revision}
    try:
        dataset = datasets.load_dataset(data, split=split, **{name: value for name, value in options.items() if value})
        rows = TableRows(dataset.data.table)
    except (OSError, ValueError, HTTPError) as error:
        raise SourceError(_explain(error, data, split)) from error
    except datasets.exceptions.DatasetGenerationError:  # rows of different types, which Arrow cannot hold
        return _load_hub_json(data, split, config, revision)
    if not rows.nested:
        return rows
    try:
        return _load_hub_json(data, split, config, revision)
    except SourceError:
        print(f"{data}: nulls are dropped from {', '.join(rows.nested)}: Arrow fills missing keys with them")
        return rows


def _explain(error: Exception, data: str, split: str) -> str:
    """Return why a hub data set did not load; errors of datasets about a split or a configuration say it themselves."""
    if type(error) is ValueError:
        return f"the split {split!r} of the data set {data!r} must load, but {' '.join(str(error).split())[:300]}"
    return explain_hub_error(error, data, "data set")


def _load_hub_json(data: str, split: str, config: str, revision: str) -> Sequence[Any]:
    """Read the JSON files of a hub data set unchanged; raises SourceError where it has none for the split."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HTTPError

    at = {"repo_type": "dataset", "revision": revision or None}
    try:
        names = [name for name in HfApi().list_repo_files(data, **at) if name.endswith((".jsonl", ".json"))]
        named = [name for name in names if split in PurePosixPath(name).stem or f"{split}/" in name]
        wanted = [name for name in named or names if not config or config in name]
        if not wanted or (len(wanted) > 1 and not named):
            raise SourceError(f"the hub data set {data!r} must hold JSON files for the split {split!r}, got {names}")
        paths = [hf_hub_download(data, name, **at) for name in sorted(wanted)]
    except (OSError, HTTPError) as error:
        raise SourceError(explain_hub_error(error, data, "data set")) from error
    print(f"{data}: read from {', '.join(sorted(wanted))}, since Arrow's columns would change nested values")
    return OrderedRows([part for path in paths for part in open_local_rows(Path(path))])
