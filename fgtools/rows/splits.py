"""Training, evaluation and unseen-tool rows out of one set, without a leak between them.

Knows rows by their `keys`: group, gold, tools, request and an optional side. It does not know where rows come from.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fgtools.files import InputError
from fgtools.rows.keys import SIDES, RowKey, build_key, cluster_rows

_PRIORITY = {"unseen": 2, "eval": 1, "train": 0}

Row = dict[str, Any]


@dataclass(frozen=True)
class Splits:
    """Rows on their sides, in their given order, and where the others went.

    By "group" the sides and `duplicates`, `conflict_rows`, `leaks`, `set_aside` and `overlaps` sum to the input; by
    "rows" the sides alone do, and the counts say what the split lets through.

    Attributes:
        train: Rows to train on.
        eval: Held-out rows.
        unseen: Rows whose gold calls a tool that no training row declares.
        duplicates: Rows beside an earlier one with the same group and the same gold.
        conflicts: Groups whose rows disagree about the gold.
        conflict_rows: Rows of the minority in those groups; all rows of a group without a majority.
        leaks: Rows of a group that also stands on a more protected side (unseen before eval before train).
        set_aside: Rows that declare a held-out tool without calling it; neither side could keep them.
        overlaps: Rows left out of training because their request is, or nearly is, one of a benchmark's.
        near_within: Rows beside one with a nearly equal request on the same side.
        near_across: Held-out rows whose request is, or nearly is, that of a training row with other tools or another
            gold; rows that name no side themselves are never parted like that, but for held-out tools.
        held_out_tools: Names of the tools kept out of training.
    """

    train: Sequence[Row]
    eval: Sequence[Row]
    unseen: Sequence[Row] = ()
    duplicates: int = 0
    conflicts: int = 0
    conflict_rows: int = 0
    leaks: int = 0
    set_aside: int = 0
    overlaps: int = 0
    near_within: int = 0
    near_across: int = 0
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
            "overlaps": self.overlaps,
            "near_within": self.near_within,
            "near_across": self.near_across,
            "held_out_tools": len(self.held_out_tools),
        }


class Limited(NamedTuple):
    """Rows that stay and how many went."""

    rows: Sequence[Row]
    dropped: int


def split_rows(
    rows: Sequence[Row],
    *,
    n_eval: int | None = None,
    eval_fraction: float | None = None,
    seed: int = 40,
    by: str = "group",
    unseen_fraction: float = 0.0,
    keys: Sequence[RowKey] | None = None,
    clusters: Sequence[int] | None = None,
    tested: Collection[int] = (),
) -> Splits:
    """Split rows into training and evaluation.

    By "rows" the last `n_eval` rows are the evaluation rows, as the tutorial does with rows it has shuffled before; the
    duplicates, conflicts and leaks this lets through are counted. By "group", in this order: rows that carry
    `split` ("train", "eval", "unseen") pull their whole group to that side, copies on a less protected side are leaks
    and go; of each group one row stays, that of the majority's gold, and none at a tie; tools for `unseen` are held
    out; a seeded draw fills the evaluation side up to `n_eval`, near duplicates together; the rest is training.

    Args:
        rows: Row dicts with `group`, `gold` and `tools`; not changed.
        n_eval: Evaluation rows wanted; at most half of the rows that are left to split.
        eval_fraction: The same as a share of the rows, in (0, 1); give this or `n_eval`.
        seed: Seed of the draws.
        by: "group" or "rows".
        unseen_fraction: Share of the rows whose gold calls held-out tools, in [0, 1); about, since tools are held out
            whole, those first whose declaring rows are few. Needs by="group".
        keys: The rows' keys, where they are known already.
        clusters: The rows' near duplicates, as `cluster_rows` gives them, where they are known already.
        tested: Clusters that hold a benchmark's request; by "group" their rows leave the training side.

    Returns:
        The Splits.

    Raises:
        ValueError: An argument is out of its range.
    """
    _check(n_eval, eval_fraction, by, unseen_fraction)
    wanted = n_eval if n_eval is not None else round((eval_fraction or 0.0) * len(rows))
    keys = [build_key(row) for row in rows] if keys is None else keys
    clusters = cluster_rows(keys).clusters if clusters is None else clusters
    if by == "rows":
        return _split_as_given(rows, keys, clusters, min(wanted, len(rows) // 2))
    return _split_by_group(rows, keys, clusters, tested, wanted, random.Random(seed), unseen_fraction)


def _check(n_eval: int | None, eval_fraction: float | None, by: str, unseen_fraction: float) -> None:
    if by not in ("group", "rows"):
        raise InputError(f"by must be 'group' or 'rows', got {by!r}")
    if (n_eval is None) == (eval_fraction is None):
        raise InputError(f"give n_eval or eval_fraction, one of them, got {n_eval!r} and {eval_fraction!r}")
    if n_eval is not None and n_eval < 0:
        raise InputError(f"n_eval must not be negative, got {n_eval}")
    if eval_fraction is not None and not 0.0 < eval_fraction < 1.0:
        raise InputError(f"eval_fraction must lie between 0 and 1, got {eval_fraction}")
    if not 0.0 <= unseen_fraction < 1.0:
        raise InputError(f"unseen_fraction must lie in [0, 1), got {unseen_fraction}")
    if unseen_fraction and by == "rows":
        raise InputError("unseen_fraction needs by='group': a split of rows as given holds out no tools")


def _split_as_given(rows: Sequence[Row], keys: Sequence[RowKey], clusters: Sequence[int], n_eval: int) -> Splits:
    cut = len(keys) - n_eval
    golds: dict[str, Counter[str]] = {}
    for key in keys:
        golds.setdefault(key.group, Counter())[key.gold] += 1
    held_groups = {key.group for key in keys[cut:]}
    sides: dict[int, str | None] = {index: "train" if index < cut else "eval" for index in range(len(keys))}
    within, across = _count_near(keys, clusters, sides)
    return Splits(
        train=_pick(rows, range(cut)),
        eval=_pick(rows, range(cut, len(keys))),
        duplicates=sum(count - 1 for counter in golds.values() for count in counter.values()),
        conflicts=sum(len(counter) > 1 for counter in golds.values()),
        conflict_rows=sum(counter.total() - max(counter.values()) for counter in golds.values()),
        leaks=sum(key.group in held_groups for key in keys[:cut]),
        near_within=within,
        near_across=across,
    )


def _pick(rows: Sequence[Row], indices: Iterable[int]) -> Sequence[Row]:
    """Give some rows, in the kind of sequence they came in where that knows how."""
    select = getattr(rows, "select", None)
    return select(list(indices)) if select else tuple(rows[index] for index in indices)


def _split_by_group(
    rows: Sequence[Row],
    keys: Sequence[RowKey],
    clusters: Sequence[int],
    tested: Collection[int],
    wanted: int,
    draw: random.Random,
    unseen_fraction: float,
) -> Splits:
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key.group, []).append(index)
    sides: dict[int, str | None] = {}
    leaks = duplicates = conflicts = conflict_rows = 0
    for members in groups.values():
        side, stay = _protected(keys, members)
        leaks += len(members) - len(stay)
        chosen, golds = _majority(keys, stay)
        conflicts += len(golds) > 1
        conflict_rows += golds.total() - (golds[keys[chosen].gold] if chosen is not None else 0)
        if chosen is not None:
            duplicates += golds[keys[chosen].gold] - 1
            sides[chosen] = side
    _follow_named(sides, clusters)
    free = [index for index in sorted(sides) if sides[index] is None]
    n_unseen = round(unseen_fraction * len(sides)) - sum(side == "unseen" for side in sides.values())
    held_out = hold_out_tools([keys[index] for index in free], n_unseen, draw)
    set_aside = 0
    for index in list(sides):
        if sides[index] in (None, "train") and held_out and not held_out.isdisjoint(keys[index].declared):
            if sides[index] is None and not held_out.isdisjoint(keys[index].called):
                sides[index] = "unseen"
            else:
                set_aside += 1
                del sides[index]
    n_fixed = sum(side == "eval" for side in sides.values())
    _draw_eval(sides, clusters, min(wanted, len(sides) // 2) - n_fixed, draw)
    overlapping = [index for index in sides if sides[index] in (None, "train") and clusters[index] in tested]
    for index in overlapping:
        del sides[index]
    within, across = _count_near(keys, clusters, sides)
    by_side: dict[str, list[int]] = {side: [] for side in SIDES}
    for index in sorted(sides):
        by_side[sides[index] or "train"].append(index)
    return Splits(
        train=_pick(rows, by_side["train"]),
        eval=_pick(rows, by_side["eval"]),
        unseen=_pick(rows, by_side["unseen"]),
        duplicates=duplicates,
        conflicts=conflicts,
        conflict_rows=conflict_rows,
        leaks=leaks,
        set_aside=set_aside,
        overlaps=len(overlapping),
        near_within=within,
        near_across=across,
        held_out_tools=tuple(sorted(held_out)),
    )


def _protected(keys: Sequence[RowKey], members: list[int]) -> tuple[str | None, list[int]]:
    """Give the side a group belongs to (None: free) and the members that may stay."""
    named = {keys[index].side for index in members} - {""}
    if not named:
        return None, members
    side = max(named, key=_PRIORITY.__getitem__)
    return side, [index for index in members if keys[index].side in ("", side)]


def _majority(keys: Sequence[RowKey], members: list[int]) -> tuple[int | None, Counter[str]]:
    """Give the first row with the gold that most rows of a group have; None where two golds have equally many."""
    golds = Counter(keys[index].gold for index in members)
    (winner, count), *others = golds.most_common()
    if others and others[0][1] == count:
        return None, golds
    return next(index for index in members if keys[index].gold == winner), golds


def _follow_named(sides: dict[int, str | None], clusters: Sequence[int]) -> None:
    """Put free rows beside the most protected near duplicate that names its side."""
    named: dict[int, str] = {}
    for index, side in sides.items():
        if side is not None:
            named[clusters[index]] = max(side, named.get(clusters[index], side), key=_PRIORITY.__getitem__)
    for index, side in sides.items():
        if side is None and clusters[index] in named:
            sides[index] = named[clusters[index]]


def _draw_eval(sides: dict[int, str | None], clusters: Sequence[int], wanted: int, draw: random.Random) -> None:
    """Move free rows to the evaluation side, whole clusters of near duplicates at a time, until `wanted` are there."""
    members: dict[int, list[int]] = {}
    for index in sorted(index for index, side in sides.items() if side is None):
        members.setdefault(clusters[index], []).append(index)
    order = sorted(members)
    draw.shuffle(order)
    for cluster in order:
        if wanted <= 0:
            break
        if len(members[cluster]) <= wanted:
            sides.update(dict.fromkeys(members[cluster], "eval"))
            wanted -= len(members[cluster])


def _count_near(keys: Sequence[RowKey], clusters: Sequence[int], sides: Mapping[int, str | None]) -> tuple[int, int]:
    """Count rows beside a nearly equal one on their own side, and held-out rows beside one on the training side."""
    seen: set[tuple[str, int]] = set()
    within = 0
    trained = {clusters[index] for index, side in sides.items() if side in (None, "train") and keys[index].request}
    for index in sorted(sides):
        place = (sides[index] or "train", clusters[index])
        within += place in seen
        seen.add(place)
    across = sum(side in ("eval", "unseen") and clusters[index] in trained for index, side in sides.items())
    return within, across


def hold_out_tools(keys: Sequence[RowKey], n_rows: int, draw: random.Random) -> frozenset[str]:
    """Choose tools to keep out of training, so that about `n_rows` rows call them and few others declare them.

    Args:
        keys: Rows to choose from.
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
    for index, key in enumerate(keys):
        declaring.update(set(key.declared))
        for name in key.called:
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


def hold_out(rows: Sequence[Row], n: int, seed: int = 40) -> tuple[list[Row], list[Row]]:
    """Hold rows of the training side out, by which the trainer chooses among checkpoints.

    Args:
        rows: The training rows.
        n: Rows wanted; at most half of them. Rows of one group and near duplicates go together.
        seed: Seed of the draw.

    Returns:
        The rows to train on and the rows held out, each in their order.
    """
    keys = [build_key(row) for row in rows]
    together: dict[int, list[int]] = {}
    by_group: dict[str, int] = {}
    for index, (key, cluster) in enumerate(zip(keys, cluster_rows(keys).clusters, strict=True)):
        together.setdefault(by_group.setdefault(key.group, cluster), []).append(index)
    parts = list(together.values())
    random.Random(seed).shuffle(parts)
    held: set[int] = set()
    for part in parts:
        if len(held) + len(part) <= min(n, len(rows) // 2):
            held.update(part)
    return ([row for index, row in enumerate(rows) if index not in held], [rows[index] for index in sorted(held)])


def limit_no_call(
    rows: Sequence[Row], share: float, seed: int = 40, *, keys: Sequence[RowKey] | None = None
) -> Limited:
    """Keep at most a share of rows whose right answer is no call.

    Args:
        rows: Rows, usually the training side.
        share: Largest share of no-call rows in the result, in [0, 1].
        seed: Seed of the draw among them.
        keys: The rows' keys, where they are known already.

    Returns:
        The rows that stay, in their order, and how many went.

    Raises:
        ValueError: The share is not in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"share must lie in [0, 1], got {share}")
    calling = [bool(row["gold"]) for row in rows] if keys is None else [bool(key.called) for key in keys]
    without = [index for index, calls in enumerate(calling) if not calls]
    n_calls = len(calling) - len(without)
    limit = len(without) if share == 1.0 else min(len(without), int(share * n_calls / (1.0 - share) + 1e-9))
    stay = set(random.Random(seed).sample(without, limit))
    kept = [index for index, calls in enumerate(calling) if calls or index in stay]
    return Limited(_pick(rows, kept), len(calling) - len(kept))
