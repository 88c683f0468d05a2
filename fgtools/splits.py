"""Training, evaluation and unseen-tool rows out of one set, without a leak between them.

Knows row dicts only: their group, gold, tools and an optional `split`. It does not know where rows come from.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

SIDES = ("train", "eval", "unseen")
_PRIORITY = {"unseen": 2, "eval": 1, "train": 0}

Row = dict[str, Any]


@dataclass(frozen=True)
class Splits:
    """Rows on their sides, in their given order, and where the others went.

    By "group" the sides and `duplicates`, `conflict_rows`, `leaks` and `set_aside` sum to the input; by "rows" the
    sides alone do, and the counts say what the split lets through.

    Attributes:
        train: Rows to train on.
        eval: Held-out rows.
        unseen: Rows whose gold calls a tool that no training row declares.
        duplicates: Rows beside an earlier one with the same group and the same gold.
        conflicts: Groups whose rows disagree about the gold.
        conflict_rows: Rows of the minority in those groups.
        leaks: Rows of a group that also stands on a more protected side (unseen before eval before train).
        set_aside: Rows that declare a held-out tool without calling it; neither side could keep them.
        held_out_tools: Names of the tools kept out of training.
    """

    train: tuple[Row, ...]
    eval: tuple[Row, ...]
    unseen: tuple[Row, ...] = ()
    duplicates: int = 0
    conflicts: int = 0
    conflict_rows: int = 0
    leaks: int = 0
    set_aside: int = 0
    held_out_tools: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Give every count by name, the sides' sizes included."""
        return {
            "train": len(self.train),
            "eval": len(self.eval),
            "unseen": len(self.unseen),
            "duplicates": self.duplicates,
            "conflicts": self.conflicts,
            "conflict_rows": self.conflict_rows,
            "leaks": self.leaks,
            "set_aside": self.set_aside,
            "held_out_tools": len(self.held_out_tools),
        }


class Limited(NamedTuple):
    """Rows that stay and how many went."""

    rows: tuple[Row, ...]
    dropped: int


def split_rows(
    rows: Sequence[Row],
    *,
    n_eval: int | None = None,
    eval_fraction: float | None = None,
    seed: int = 40,
    by: str = "group",
    unseen_fraction: float = 0.0,
) -> Splits:
    """Split rows into training and evaluation.

    By "rows" the last `n_eval` rows are the evaluation rows, as the tutorial does with rows it has shuffled before; the
    duplicates, conflicts and leaks this lets through are counted. By "group", in this order: rows that carry
    `split` ("train", "eval", "unseen") pull their whole group to that side, copies on a less protected side are leaks
    and go; of each group one row stays, that of the majority's gold (at a tie: of the gold met first); tools for
    `unseen` are held out; a seeded draw fills the evaluation side up to `n_eval`, the rest is training.

    Args:
        rows: Row dicts with `group`, `gold` and `tools`; not changed.
        n_eval: Evaluation rows wanted; at most half of the rows that are left to split.
        eval_fraction: The same as a share of the rows, in (0, 1); give this or `n_eval`.
        seed: Seed of the draws.
        by: "group" or "rows".
        unseen_fraction: Share of the rows whose gold calls held-out tools, in [0, 1); about, since tools are held out
            whole, those first whose declaring rows are few. Needs by="group".

    Returns:
        The Splits.

    Raises:
        ValueError: An argument is out of its range.
    """
    _check(n_eval, eval_fraction, by, unseen_fraction)
    wanted = n_eval if n_eval is not None else round((eval_fraction or 0.0) * len(rows))
    if by == "rows":
        return _split_as_given(rows, min(wanted, len(rows) // 2))
    return _split_by_group(rows, wanted, random.Random(seed), unseen_fraction)


def _check(n_eval: int | None, eval_fraction: float | None, by: str, unseen_fraction: float) -> None:
    if by not in ("group", "rows"):
        raise ValueError(f"by must be 'group' or 'rows', got {by!r}")
    if (n_eval is None) == (eval_fraction is None):
        raise ValueError(f"give n_eval or eval_fraction, one of them, got {n_eval!r} and {eval_fraction!r}")
    if n_eval is not None and n_eval < 0:
        raise ValueError(f"n_eval must not be negative, got {n_eval}")
    if eval_fraction is not None and not 0.0 < eval_fraction < 1.0:
        raise ValueError(f"eval_fraction must lie between 0 and 1, got {eval_fraction}")
    if not 0.0 <= unseen_fraction < 1.0:
        raise ValueError(f"unseen_fraction must lie in [0, 1), got {unseen_fraction}")
    if unseen_fraction and by == "rows":
        raise ValueError("unseen_fraction needs by='group': a split of rows as given holds out no tools")


def _split_as_given(rows: Sequence[Row], n_eval: int) -> Splits:
    cut = len(rows) - n_eval
    train, held = tuple(rows[:cut]), tuple(rows[cut:])
    golds: dict[str, Counter[str]] = {}
    for row in rows:
        golds.setdefault(row["group"], Counter())[gold_key(row)] += 1
    held_groups = {row["group"] for row in held}
    return Splits(
        train=train,
        eval=held,
        duplicates=sum(count - 1 for counter in golds.values() for count in counter.values()),
        conflicts=sum(len(counter) > 1 for counter in golds.values()),
        conflict_rows=sum(counter.total() - max(counter.values()) for counter in golds.values()),
        leaks=sum(row["group"] in held_groups for row in train),
    )


def _split_by_group(rows: Sequence[Row], wanted: int, draw: random.Random, unseen_fraction: float) -> Splits:
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row["group"], []).append(index)
    sides: dict[int, str | None] = {}
    leaks = duplicates = conflicts = conflict_rows = 0
    for members in groups.values():
        side, stay = _protected(rows, members)
        leaks += len(members) - len(stay)
        chosen, golds = _majority(rows, stay)
        conflicts += len(golds) > 1
        conflict_rows += golds.total() - max(golds.values())
        duplicates += max(golds.values()) - 1
        sides[chosen] = side
    free = [index for index in sorted(sides) if sides[index] is None]
    n_unseen = round(unseen_fraction * len(sides)) - sum(side == "unseen" for side in sides.values())
    held_out = hold_out_tools([rows[index] for index in free], n_unseen, draw)
    set_aside = 0
    for index in list(sides):
        if sides[index] in (None, "train") and held_out and not held_out.isdisjoint(_declared(rows[index])):
            calls_it = not held_out.isdisjoint(_called(rows[index]))
            if sides[index] is None and calls_it:
                sides[index] = "unseen"
            else:
                set_aside += 1
                del sides[index]
    free = [index for index in free if index in sides and sides[index] is None]
    room = len(sides) // 2 - sum(side == "eval" for side in sides.values())
    needed = min(wanted - sum(side == "eval" for side in sides.values()), room, len(free))
    sides.update(dict.fromkeys(draw.sample(free, max(0, needed)), "eval"))
    by_side: dict[str, list[Row]] = {side: [] for side in SIDES}
    for index in sorted(sides):
        by_side[sides[index] or "train"].append(rows[index])
    return Splits(
        train=tuple(by_side["train"]),
        eval=tuple(by_side["eval"]),
        unseen=tuple(by_side["unseen"]),
        duplicates=duplicates,
        conflicts=conflicts,
        conflict_rows=conflict_rows,
        leaks=leaks,
        set_aside=set_aside,
        held_out_tools=tuple(sorted(held_out)),
    )


def _protected(rows: Sequence[Row], members: list[int]) -> tuple[str | None, list[int]]:
    """Give the side a group belongs to (None: free) and the members that may stay."""
    named = {rows[index].get("split") for index in members} & set(SIDES)
    if not named:
        return None, members
    side = max(named, key=_PRIORITY.__getitem__)
    return side, [index for index in members if rows[index].get("split") not in (set(SIDES) - {side})]


def _majority(rows: Sequence[Row], members: list[int]) -> tuple[int, Counter[str]]:
    golds = Counter(gold_key(rows[index]) for index in members)
    winner = golds.most_common(1)[0][0]  # most_common keeps the order of first sight among equals
    return next(index for index in members if gold_key(rows[index]) == winner), golds


def gold_key(row: Mapping[str, Any]) -> str:
    """Give a text that is equal for equal golds: calls in any order, argument names in any order."""
    return json.dumps(sorted(json.dumps(call, sort_keys=True) for call in row["gold"]))


def _declared(row: Mapping[str, Any]) -> set[str]:
    return {tool["function"]["name"] for tool in row["tools"]}


def _called(row: Mapping[str, Any]) -> set[str]:
    return {call["name"] for call in row["gold"]}


def hold_out_tools(rows: Sequence[Row], n_rows: int, draw: random.Random) -> frozenset[str]:
    """Choose tools to keep out of training, so that about `n_rows` rows call them and few others declare them.

    Args:
        rows: Rows to choose from.
        n_rows: Rows wanted on the unseen side; nothing is chosen for 0 or less.
        draw: Source of the order among equally cheap tools.

    Returns:
        Names. A tool is taken when the rows that call it still fit, cheapest first: those that the fewest rows declare
        without calling it.
    """
    if n_rows <= 0:
        return frozenset()
    calling: dict[str, set[int]] = {}
    declaring: Counter[str] = Counter()
    for index, row in enumerate(rows):
        declaring.update(_declared(row))
        for name in _called(row):
            calling.setdefault(name, set()).add(index)
    names = sorted(calling)
    draw.shuffle(names)
    names.sort(key=lambda name: declaring[name] - len(calling[name]))
    chosen: set[str] = set()
    covered: set[int] = set()
    for name in names:
        if len(covered) >= n_rows:
            break
        if len(covered | calling[name]) <= n_rows:
            chosen.add(name)
            covered |= calling[name]
    return frozenset(chosen)


def limit_no_call(rows: Sequence[Row], share: float, seed: int = 40) -> Limited:
    """Keep at most a share of rows whose right answer is no call.

    Args:
        rows: Rows, usually the training side.
        share: Largest share of no-call rows in the result, in [0, 1].
        seed: Seed of the draw among them.

    Returns:
        The rows that stay, in their order, and how many went.

    Raises:
        ValueError: The share is not in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    without = [index for index, row in enumerate(rows) if not row["gold"]]
    n_calls = len(rows) - len(without)
    limit = len(without) if share == 1.0 else min(len(without), int(share * n_calls / (1.0 - share) + 1e-9))
    stay = set(random.Random(seed).sample(without, limit))
    kept = tuple(row for index, row in enumerate(rows) if row["gold"] or index in stay)
    return Limited(kept, len(rows) - len(kept))
