"""Where raw rows come from: the offline sample, a local file or folder, a hub data set.

Knows files and the datasets library; not what a row means. Rows of local JSON files stay plain Python values: they
never pass through Arrow, which would fill missing keys of tools and arguments with null.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtools.artifacts import DataFileError, read_jsonl
from fgtools.profiles import HERMES

SUFFIXES = (".jsonl", ".json", ".parquet")


class SourceError(ValueError):
    """The data cannot be had; the message says what to do."""


@dataclass(frozen=True)
class RawRows:
    """Raw rows in the order they are used.

    Attributes:
        rows: The rows taken, shuffled.
        available: How many there were before taking.
        origin: What they are, for people: "offline sample", a file name or a hub id.
    """

    rows: tuple[dict[str, Any], ...]
    available: int
    origin: str


def load_raw_rows(data: str, n_total: int, seed: int) -> RawRows:
    """Load rows, shuffle them as the tutorial does and take the first ones.

    Args:
        data: "sample", the path of a JSONL, JSON or Parquet file, a folder of such files, or a hub data set id (split
            "train").
        n_total: Rows to take; fewer are there: all of them.
        seed: Seed of the shuffle (datasets' Dataset.shuffle, so that the same rows come out as in the tutorial) and of
            the offline sample.

    Returns:
        The RawRows.

    Raises:
        SourceError: The data cannot be found or loaded.
        DataFileError: A file is malformed; file and line are named.
        ValueError: n_total is not positive.
    """
    if n_total < 1:
        raise ValueError(f"N_TOTAL must be at least 1, got {n_total}")
    if data == "sample":
        from fgtools.offline.samples import build_samples

        rows = build_samples(n_total, seed)
        return _take(rows, n_total, seed, "offline sample")
    path = Path(data)
    if path.exists():
        return _take(load_local_rows(path), n_total, seed, path.name)
    if path.suffix in SUFFIXES or data.count("/") != 1 or data.startswith((".", "/", "~")):
        raise SourceError(
            f"DATA must be 'sample', an existing file or folder ({', '.join(SUFFIXES)}), or a hub data set id such as "
            f"{HERMES!r}, but got {data!r}, which does not exist: check the path"
        )
    return _load_hub_rows(data, n_total, seed)


def load_local_rows(path: Path) -> list[Any]:
    """Load every row of a file, or of a folder's files in the order of their names.

    Args:
        path: A .jsonl, .json (one list) or .parquet file, or a folder that holds some.

    Returns:
        The rows as they stand in the files.

    Raises:
        DataFileError: A file is malformed.
        SourceError: The folder holds no such file, or the suffix is unknown.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise SourceError(f"the folder {path} must hold {', '.join(SUFFIXES)} files, but it holds none")
        return [row for file in files for row in load_local_rows(file)]
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    if path.suffix == ".json":
        return _load_json_list(path)
    if path.suffix == ".parquet":
        return _load_parquet(path)
    raise SourceError(f"{path} must end in one of {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'!r}")


def _load_json_list(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{path} must hold one JSON list of rows, but reading it failed: {error}") from error
    if not isinstance(rows, list):
        raise DataFileError(f"{path} must hold one JSON list of rows, got a {type(rows).__name__}")
    return rows


def _load_parquet(path: Path) -> list[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataFileError(f"{path} must be a Parquet file, but reading it failed: {error}") from error


def shuffled_order(n_rows: int, seed: int) -> list[int]:
    """Give the order in which datasets' Dataset.shuffle(seed) puts n_rows rows."""
    from datasets import Dataset

    return Dataset.from_dict({"index": range(n_rows)}).shuffle(seed=seed)["index"][:]


def _take(rows: list[Any], n_total: int, seed: int, origin: str) -> RawRows:
    if not rows:
        raise SourceError(f"{origin} must hold at least one row, but it is empty")
    numbered = [_with_id(row, position) for position, row in enumerate(rows)]
    order = shuffled_order(len(rows), seed)[:n_total]
    return RawRows(tuple(numbered[position] for position in order), len(rows), origin)


def _with_id(row: Any, position: int) -> Any:
    """Give a row its position as row_id when it has none, so that a counted rejection can be traced to its line."""
    if isinstance(row, dict) and not row.get("row_id"):
        return {**row, "row_id": str(position)}
    return row


def _load_hub_rows(data: str, n_total: int, seed: int) -> RawRows:
    import datasets
    from huggingface_hub.errors import HTTPError

    try:
        dataset = datasets.load_dataset(data, split="train")
    except (OSError, ValueError, HTTPError) as error:
        raise SourceError(
            f"the hub data set {data!r} could not be loaded ({type(error).__name__}): check its name, switch the "
            "notebook's internet on, or pass DATA the path of a local file"
        ) from error
    rows = dataset.shuffle(seed=seed).select(range(min(n_total, len(dataset))))
    order = shuffled_order(len(dataset), seed)
    return RawRows(
        tuple(_with_id(row, position) for row, position in zip(rows, order, strict=False)), len(dataset), data
    )
