"""Raw rows to the sides of a split, in one call: build the rows, split them, limit those without a call.

Knows the order of the steps and how to build rows in several processes; each step is done elsewhere. The result is the
same for any number of processes, and the same as calling the steps one by one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtools.files import FgtoolsError, read_text, sha256_of, track, write_json, write_jsonl
from fgtools.gold import Gold, extract_gold
from fgtools.metrics.intervals import describe_few_rows
from fgtools.profiles import Recipe, get_recipe
from fgtools.rows.build import paused_collector, tally_rows
from fgtools.rows.datafiles import open_local_rows
from fgtools.rows.duplicates import count_leaks
from fgtools.rows.formats import normalize_row
from fgtools.rows.funnel import RowSet, Tally, require_rows
from fgtools.rows.histories import Digests, Place, digest_rows, find_histories
from fgtools.rows.remedies import Coverage
from fgtools.rows.sources import RawRows
from fgtools.rows.splits import Splits, limit_no_call, split_rows
from fgtools.rows.store import PackedRows, Row, collect_keys, pack_row

CHUNK = 500
"""Raw rows that a process builds at a time."""


_LEFT_OUT = ("duplicates", "conflict_rows", "leaks", "set_aside", "overlaps", "no_call_dropped")
"""Counts of kept rows that are on no side of the split, or not trained on."""


class FunnelError(FgtoolsError, RuntimeError):
    """Counts that must add up do not: a fault of this package, not of the data."""


@dataclass(frozen=True)
class Prepared:
    """Rows ready for training and evaluation.

    Attributes:
        rowset: Every raw row, kept or rejected with its reason.
        splits: The sides of the split, as `split_rows` made them.
        train: The training rows: those of the split, less the no-call rows over the recipe's share.
        n_eval: Evaluation rows asked for.
        seed: Seed of the split.
        origin: What the raw rows were.
        recipe: The recipe.
        available: Raw rows there were before some were taken; 0: as many as were taken.

    Raises:
        EmptySetError: There is no row to train on, or none to evaluate; the message holds the funnel.
    """

    rowset: RowSet
    splits: Splits
    train: Sequence[Row]
    n_eval: int
    seed: int
    origin: str
    recipe: Recipe
    available: int = 0

    def __post_init__(self) -> None:
        """Check that both sides hold rows."""
        require_rows(self.rowset, self.origin, {"train": self.train, "eval": self.splits.eval})

    def describe(self) -> str:
        """Return a line that says how many rows there are on each side, and one where they are few or N_EVAL is cut."""
        sides = {"train": self.train, "eval": self.splits.eval, "unseen tools": self.splits.unseen}
        without = {name: sum(not key.called for key in collect_keys(rows)) for name, rows in sides.items()}
        lines = [", ".join(f"{name}: {len(rows)} ({without[name]} without a call)" for name, rows in sides.items())]
        n_eval = len(self.splits.eval)
        if n_eval < self.n_eval and self.recipe.split == "group" and n_eval >= len(self.rowset.rows) // 2 - 1:
            lines.append(f"N_EVAL asks for {self.n_eval} evaluation rows, and at most half of the rows are taken")
        return "\n".join(filter(None, [*lines, describe_few_rows(n_eval)]))

    def sides(self) -> dict[str, Sequence[Row]]:
        """Return the rows by side, as they are written."""
        return {"train": self.train, "eval": self.splits.eval, "unseen": self.splits.unseen}

    def to_funnel(self) -> dict[str, Any]:
        """Return the content of funnel.json, after checking its sums.

        Raises:
            FunnelError: A sum is not what it must be.
        """
        funnel, splits = self.rowset.funnel, self.splits
        parts = {name: self.rowset.funnel_by(name) for name in ("source", "scenario")}
        for name, table in parts.items():
            _must_equal(f"the funnels by {name}", sum(map(Counter, table.values()), Counter()), Counter(funnel))
        counts = splits.counts()
        answers = sum(number * count for number, count in self.rowset.answers.items())
        _must_equal("the answers of the raw rows", answers, sum(funnel.values()))
        _must_equal("the raw rows by shape", sum(self.rowset.shapes.values()), self.rowset.n_raw)
        lost = sum(counts[name] for name in _LEFT_OUT[:-1]) if self.recipe.split == "group" else 0
        _must_equal("the sides of the split and what left it", sum_sides(counts) + lost, funnel["kept"])
        leaks = count_leaks(collect_keys(self.rowset.rows), splits.clusters, self.n_eval)
        names = ("problems", "changes", "type_words", "remedies", "renamed")
        return {
            "origin": self.origin,
            "recipe": self.recipe.name,
            "seed": self.seed,
            "turns": self.recipe.turns,
            "available": self.available or self.rowset.n_raw,
            "rows_in": self.rowset.n_raw,
            "answers": {str(number): count for number, count in self.rowset.answers.items()},
            "shapes": self.rowset.shapes,
            "funnel": funnel,
            "examples": self.rowset.examples(),
            "by_source": parts["source"],
            "by_scenario": parts["scenario"],
            **{name: getattr(self.rowset, name) for name in names},
            "split": {**counts, "train": len(self.train), "no_call_dropped": len(splits.train) - len(self.train)},
            "held_out_tools": list(splits.held_out_tools),
            "row_wise_split_would_leak": leaks,
        }

    def write(self, folder: Path, made_from: Mapping[str, str] | None = None) -> None:
        """Write the three rows files and funnel.json into a folder; raises as `to_funnel`.

        Args:
            folder: Where to.
            made_from: Hashes by name of what the rows were made from; they stand in funnel.json beside those of the
                rows files.
        """
        funnel = self.to_funnel()
        paths = []
        for name, rows in self.sides().items():
            lines = rows.lines() if isinstance(rows, PackedRows) else rows
            paths.append(write_jsonl(folder / f"rows.{name}.jsonl", lines))
        write_json(
            folder / "funnel.json", funnel, {**{path.name: sha256_of(path) for path in paths}, **(made_from or {})}
        )


def describe_sums(funnel: Mapping[str, Any]) -> str:
    """Return how the raw rows add up: those taken, kept and rejected, and those on the sides and on none.

    Where all answers of a conversation are looked at, the answers are what is kept or rejected.

    Args:
        funnel: What `Prepared.to_funnel` returns.

    Returns:
        Two lines.
    """
    n_rows, kept, split = funnel["rows_in"], funnel["funnel"]["kept"], funnel["split"]
    reasons = [f"{count:,} {reason}" for reason, count in funnel["funnel"].items() if reason != "kept"]
    taken = f"{n_rows:,}" if n_rows == funnel["available"] else f"{n_rows:,} of {funnel['available']:,} (N_TOTAL)"
    sides = [f"{split[name]:,} {name}" for name in ("train", "eval", "unseen")]
    gone = [f"{split[name]:,} {name}" for name in _LEFT_OUT if split[name]] if sum_sides(split) != kept else []
    if funnel["turns"] == "all":
        taken += f", with {sum(funnel['funnel'].values()):,} answers"
    return (
        f"rows taken: {taken} = {' + '.join([f'{kept:,} kept', *reasons])}\n"
        f"rows kept: {kept:,} = {' + '.join([*sides, *gone])}"
    )


def sum_sides(split: Mapping[str, Any]) -> int:
    """Return the number of rows on the sides of a split."""
    return split["train"] + split["eval"] + split["unseen"]


def _must_equal(what: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise FunnelError(f"{what} must add up to {wanted}, got {got}: please report this with the data's shape")


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

    The same as, one by one, `build_rows`, `split_rows` with the recipe's options, and `limit_no_call` on the training
    side. Under the `tutorial` recipe the evaluation rows are those built from the last n_eval raw rows.

    Args:
        raw: The raw rows, shuffled.
        recipe: "native", "tutorial" or a Recipe.
        n_eval: Rows for evaluation; at most half of the rows.
        seed: Seed of the split.
        shape: Shape of the raw rows, or "auto"; see `formats`.
        coverage: What the model's chat template hides; where the recipe applies remedies, it is shown in another way.
        benchmark: Requests that must not be trained on.
        processes: How many processes build rows; 0: one per core for more than a few thousand rows.

    Returns:
        The Prepared rows.

    Raises:
        EmptySetError: No row is left on a side; the message holds the funnel.
        DataFileError: A line of the data is malformed.
    """
    recipe = get_recipe(recipe)
    rowset = _build_packed(raw.rows, recipe, shape, coverage, processes)
    splits = split_rows(
        rowset.rows,
        n_eval=rowset.count_last(n_eval) if recipe.split == "rows" else n_eval,
        seed=seed,
        by=recipe.split,
        unseen_fraction=recipe.unseen_fraction,
        benchmark=benchmark,
    )
    train = limit_no_call(splits.train, recipe.no_call_share, seed)
    return Prepared(rowset, splits, train, n_eval, seed, raw.origin, recipe, raw.available)


def load_requests(path: str | Path) -> list[str]:
    """Load the requests of a benchmark, to keep them out of training.

    Args:
        path: A file or folder of rows in any shape of `formats`, or a .txt file of one request a line; "" for none.

    Returns:
        The users' turns of each row, as one text; rows without any are left out.

    Raises:
        DataFileError: The file is malformed.
        SourceError: It does not exist or holds no rows.
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


def _build_packed(
    raw_rows: Sequence[Any], recipe: Recipe, shape: str, coverage: Coverage | None, processes: int
) -> RowSet:
    """Build rows as `build_rows` does, in several processes, and keep them packed."""
    chunks = [slice(start, start + CHUNK) for start in range(0, len(raw_rows), CHUNK)]
    workers = processes or (min(os.cpu_count() or 1, 8) if len(chunks) > 8 else 1)
    tally = Tally()
    with paused_collector(), _open_pool(workers) as run:
        places: dict[int, Place] = {}
        if recipe.call_style == "native":
            tasks: Iterable[tuple[Any, ...]] = ((raw_rows[chunk], shape) for chunk in chunks)
            found = track(run(_digest_chunk, tasks), len(chunks), f"comparing conversations, {CHUNK} at a time")
            places = find_histories([one for part in found for one in part], recipe.turns == "first")
        tasks = ((raw_rows[chunk], recipe, shape, coverage, _places_in(places, chunk), chunk.start) for chunk in chunks)
        for part in track(run(_build_chunk, tasks), len(chunks), f"building rows, {CHUNK} at a time"):
            tally.extend(part)
        return tally.finish()


def _places_in(places: Mapping[int, Place], chunk: slice) -> dict[int, Place]:
    return {position: places[position] for position in range(chunk.start, chunk.stop) if position in places}


@contextmanager
def _open_pool(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yield a `map`: the built-in one, or that of several processes."""
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_process)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, what has not begun is left undone


def _begin_process() -> None:
    """Leave Ctrl-C to the process that started this one, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # this thread alone cannot raise what ends the others


def _digest_chunk(task: tuple[Sequence[Any], str]) -> list[Digests]:
    return digest_rows(*task)


def _build_chunk(task: tuple[Any, ...]) -> Tally:
    tally = tally_rows(*task)
    tally.fates = [pack_row(fate) if isinstance(fate, dict) else fate for fate in tally.fates]
    return tally
