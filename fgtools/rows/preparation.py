"""Raw rows to sides of a split, over as many processes as pay, with every row accounted for.

Knows the order of the steps: build, mend for the template, split, limit; each is done elsewhere. The result is the same
for any number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from fgtools.files import FgtoolsError, read_text, track, write_json, write_jsonl
from fgtools.gold import Gold, extract_gold
from fgtools.profiles import UNSEEN_FRACTION, Recipe, get_recipe
from fgtools.rows.build import EmptySetError, RejectedRow, RowSet, Tally, build_row, paused_collector, require_rows
from fgtools.rows.datafiles import open_local_rows
from fgtools.rows.formats import normalize_row
from fgtools.rows.keys import Leaks, RowKey, build_key, cluster_rows, count_leaks
from fgtools.rows.packed import PackedRows, pack_row
from fgtools.rows.remedies import Coverage, apply_remedies
from fgtools.rows.sources import RawRows
from fgtools.rows.splits import Splits, limit_no_call, split_rows

CHUNK = 500
"""Raw rows built at once."""


class FunnelError(FgtoolsError, RuntimeError):
    """Counts that must add up do not: a fault of this package, not of the data."""


@dataclass(frozen=True)
class Prepared:
    """Rows ready for training and evaluation.

    Attributes:
        rowset: Every raw row, kept or rejected with its reason.
        splits: The sides of the split, as split_rows made them.
        train: The training rows: those of the split, less the no-call rows over the recipe's share.
        no_call_dropped: No-call rows left out of training to hold the recipe's share.
        leaks: What a split of the same rows without groups would have let through.
        remedies: Count by kind of the parameters that were changed for the chat template (see `remedies`).
        renamed: The names that were replaced in any row, as in a row's `renamed`; where rows differ, the first one's.
        seed: Seed of the split.
        origin: What the raw rows were.
        recipe: Name of the recipe.
    """

    rowset: RowSet
    splits: Splits
    train: Sequence[dict[str, Any]]
    no_call_dropped: int
    leaks: Leaks
    remedies: Mapping[str, int]
    renamed: Mapping[str, Mapping[str, Any]]
    seed: int
    origin: str
    recipe: str

    def describe(self) -> str:
        """Say in one line how many rows there are on each side."""
        sides = {"train": self.train, "eval": self.splits.eval, "unseen tools": self.splits.unseen}
        return ", ".join(f"{name}: {len(rows)} ({_no_call(rows)} without a call)" for name, rows in sides.items())

    def describe_shapes(self) -> str:
        """Say in one line which shapes the raw rows were taken for."""
        counts = ", ".join(f"{shape}: {count}" for shape, count in self.rowset.shapes.items())
        return f"shapes of the raw rows, by their columns: {counts} (SHAPE forces one)"

    def sides(self) -> dict[str, Sequence[dict[str, Any]]]:
        """Give the rows by side, as they are written."""
        return {"train": self.train, "eval": self.splits.eval, "unseen": self.splits.unseen}

    def to_funnel(self) -> dict[str, Any]:
        """Give the content of funnel.json, its sums checked.

        Raises:
            FunnelError: A sum is not what it must be.
        """
        funnel, splits = self.rowset.funnel, self.splits
        parts = {name: self.rowset.funnel_by(name) for name in ("source", "scenario")}
        for name, table in parts.items():
            total: Counter[str] = Counter()
            for counts in table.values():
                total.update(counts)
            _must_equal(f"the funnels by {name}", dict(total), {fate: n for fate, n in funnel.items() if n})
        counts = splits.counts()
        sides = counts["train"] + counts["eval"] + counts["unseen"]
        gone = ("duplicates", "conflict_rows", "leaks", "set_aside", "overlaps")
        lost = sum(counts[name] for name in gone) if get_recipe(self.recipe).split == "group" else 0
        _must_equal("the sides of the split and what left it", sides + lost, funnel["kept"])
        return {
            "origin": self.origin,
            "recipe": self.recipe,
            "seed": self.seed,
            "rows_in": sum(funnel.values()),
            "shapes": self.rowset.shapes,
            "funnel": funnel,
            "examples": self.rowset.examples(),
            "by_source": parts["source"],
            "by_scenario": parts["scenario"],
            "problems": self.rowset.problems,
            "changes": self.rowset.changes,
            "type_words": self.rowset.type_words,
            "remedies": dict(self.remedies),
            "renamed": self.renamed,
            "split": {**counts, "train": len(self.train), "no_call_dropped": self.no_call_dropped},
            "held_out_tools": list(splits.held_out_tools),
            "row_wise_split_would_leak": self.leaks._asdict(),
        }

    def write(self, folder: Path) -> None:
        """Write the three rows files and funnel.json into a folder; raises as `to_funnel`."""
        funnel = self.to_funnel()
        paths = []
        for name, rows in self.sides().items():
            lines = rows.lines() if isinstance(rows, PackedRows) else rows
            paths.append(write_jsonl(folder / f"rows.{name}.jsonl", lines))
        write_json(folder / "funnel.json", funnel, paths)


def _must_equal(what: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise FunnelError(f"{what} must add up to {wanted}, got {got}: please report this with the data's shape")


def _no_call(rows: Iterable[Mapping[str, Any]]) -> int:
    if isinstance(rows, PackedRows):
        return sum(not key.called for key in rows.keys)
    return sum(not row["gold"] for row in rows)


def prepare(
    raw: RawRows,
    recipe: str | Recipe,
    n_eval: int,
    seed: int,
    *,
    shape: str = "auto",
    coverage: Coverage | None = None,
    benchmark: Sequence[str] = (),
    processes: int = 0,
) -> Prepared:
    """Turn raw rows into rows and split them as the recipe says.

    The `tutorial` recipe splits the raw rows (the last n_eval are for evaluation) and builds each side; the `native`
    recipe builds the rows, then splits by group.

    Args:
        raw: The raw rows, shuffled.
        recipe: "native", "tutorial" or a Recipe.
        n_eval: Rows for evaluation; at most half of the rows.
        seed: Seed of the split.
        shape: Shape of the raw rows, or "auto"; see `shapes`.
        coverage: What the model's chat template shows; what it hides is mended where the recipe says so.
        benchmark: Requests that must not be trained on.
        processes: How many processes build rows; 0: one a core for more than a few thousand rows.

    Returns:
        The Prepared rows.

    Raises:
        EmptySetError: No row is left on a side; the funnel stands in the message.
        DataFileError: A line of the data is malformed.
    """
    recipe = get_recipe(recipe)
    built = _build(raw.rows, recipe, shape, coverage if recipe.apply_remedies else None, processes)
    rowset, rows = built.rowset, built.rowset.rows
    require_rows(rowset, raw.origin)
    found = cluster_rows(rows.keys, benchmark)
    known = {"seed": seed, "keys": rows.keys, "clusters": found.clusters}
    if recipe.split == "rows":
        cut = len(raw.rows) - min(n_eval, len(raw.rows) // 2)
        held = sum(position >= cut for position in built.positions)
        splits = split_rows(rows, n_eval=held, by="rows", **known)
    else:
        splits = split_rows(
            rows, n_eval=n_eval, by="group", unseen_fraction=UNSEEN_FRACTION, tested=found.tested, **known
        )
    limited = limit_no_call(splits.train, recipe.no_call_share, seed, keys=splits.train.keys)
    if not limited.rows or not splits.eval:
        raise EmptySetError(
            f"{raw.origin}: both sides of the split must hold rows, got {len(limited.rows)} to train on and "
            f"{len(splits.eval)} for evaluation out of {len(raw.rows)} raw rows ({rowset.funnel}): take more rows"
        )
    return Prepared(
        rowset=rowset,
        splits=splits,
        train=limited.rows,
        no_call_dropped=limited.dropped,
        leaks=count_leaks(rows.keys, found.clusters, n_eval),
        remedies=built.remedies,
        renamed=built.renamed,
        seed=seed,
        origin=raw.origin,
        recipe=recipe.name,
    )


def load_requests(path: str | Path) -> list[str]:
    """Read the requests of a benchmark, to keep them out of training.

    Args:
        path: A file or folder of rows in any shape of `shapes`, or a .txt file of one request a line; "" for none.

    Returns:
        The users' turns of each row, as one text; rows without any are left out.

    Raises:
        DataFileError: The file is malformed.
        LocalRowsError: It does not exist or holds no rows.
    """
    if not path:
        return []
    path = Path(path)
    if path.suffix == ".txt":
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    found = []
    for _, rows in open_local_rows(path):
        for row in rows:
            plain = normalize_row(row)
            # benchmarks keep their answers apart: a question without one counts all the same
            gold = extract_gold({**plain, "no_call": True}) if isinstance(plain, Mapping) else None
            if isinstance(gold, Gold):
                found.append("\n".join(one["content"] for one in gold.prompt_messages if one["role"] == "user"))
            elif isinstance(row, Mapping) and isinstance(row.get("question"), str):
                found.append(row["question"])
    return found


class _Build(NamedTuple):
    rowset: RowSet
    positions: list[int]
    remedies: Counter[str]
    renamed: dict[str, dict[str, Any]]


class _Chunk(NamedTuple):
    """Some raw rows, built: rejections and packed rows in order, and their counts."""

    fates: list[RejectedRow | tuple[str, bytes, RowKey]]
    tally: Tally
    remedies: Counter[str]
    renamed: dict[str, dict[str, Any]]


def _build(raw_rows: Sequence[Any], recipe: Recipe, shape: str, coverage: Coverage | None, processes: int) -> _Build:
    starts = range(0, len(raw_rows), CHUNK)
    tasks = ((raw_rows[start : start + CHUNK], start, recipe, shape, coverage) for start in starts)
    tally, remedies = Tally(), Counter[str]()
    renamed: dict[str, dict[str, Any]] = {"tools": {}, "parameters": {}}
    rejected: list[RejectedRow] = []
    kept: tuple[list[str], list[bytes], list[RowKey]] = ([], [], [])
    positions: list[int] = []
    with paused_collector():
        for start, chunk in zip(starts, _map(tasks, len(starts), processes), strict=True):
            tally.update(chunk.tally)
            remedies.update(chunk.remedies)
            _merge_names(renamed, chunk.renamed)
            for position, fate in enumerate(chunk.fates, start):
                if isinstance(fate, RejectedRow):
                    rejected.append(tally.renamed(fate))
                    continue
                positions.append(position)
                for values, value in zip(kept, (tally.unique(fate[0]), *fate[1:]), strict=True):
                    values.append(value)
    return _Build(tally.row_set(PackedRows(*kept), rejected), positions, remedies, renamed)


def _merge_names(into: dict[str, dict[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> None:
    into["tools"] = {**found.get("tools", {}), **into["tools"]}
    for tool, names in found.get("parameters", {}).items():
        into["parameters"][tool] = {**names, **into["parameters"].get(tool, {})}


def _map(tasks: Iterable[tuple[Any, ...]], n_tasks: int, processes: int) -> Iterator[_Chunk]:
    workers = processes or (min(os.cpu_count() or 1, 8) if n_tasks > 8 else 1)
    if workers == 1:
        yield from track(map(_build_chunk, tasks), n_tasks, f"building rows, {CHUNK} at a time")
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from track(_in_order(pool, iter(tasks), 2 * workers), n_tasks, f"building rows, {CHUNK} at a time")


def _in_order(pool: ProcessPoolExecutor, tasks: Iterator[tuple[Any, ...]], ahead: int) -> Iterator[_Chunk]:
    """Give the results in the order of the tasks, of which only a few are read ahead."""
    waiting = deque(pool.submit(_build_chunk, task) for task in islice(tasks, ahead))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(_build_chunk, task) for task in islice(tasks, 1))


def _build_chunk(task: tuple[Sequence[Any], int, Recipe, str, Coverage | None]) -> _Chunk:
    raw_rows, first, recipe, shape, coverage = task
    fates: list[RejectedRow | tuple[str, bytes, RowKey]] = []
    tally, remedies = Tally(), Counter[str]()
    renamed: dict[str, dict[str, Any]] = {"tools": {}, "parameters": {}}
    with paused_collector():
        for index, raw in enumerate(raw_rows, first):
            built = build_row(raw, recipe, index, shape)
            tally.add(built)
            if isinstance(built.fate, RejectedRow):
                fates.append(built.fate)
                continue
            row = built.fate
            if coverage is not None:
                row, applied = apply_remedies(row, coverage)
                remedies.update(applied)
            _merge_names(renamed, row.get("renamed", {}))
            fates.append((row["row_id"], pack_row(row), build_key(row)))
    return _Chunk(fates, tally, remedies, renamed)
