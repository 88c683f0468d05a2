"""Training, evaluation and unseen-tool rows out of one set, without leaks between the sides.

Knows rows by their keys (see `duplicates`): group, gold, tools, request and an optional side. It does not know where
rows come from.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from fgtools.files import InputError
from fgtools.metrics.texts import normalize_request
from fgtools.rows.duplicates import SIDES, RowKey, build_key, cluster_texts, link_conversations
from fgtools.rows.store import Row, collect_keys, label_requests, select_rows

_BY_PROTECTION = ("", *SIDES)
"""What a row may name, the most protected side last; "" for a row that is free to go to any."""


@dataclass(frozen=True)
class Splits:
    """Rows by side, in their given order, and counts of the rows that are on no side.

    By "group" the sides and `duplicates`, `conflict_rows`, `leaks`, `set_aside` and `overlaps` sum to the input; by
    "rows" the sides alone sum to it, and the counts are of rows that are on a side.

    Attributes:
        train: Rows to train on.
        eval: Held-out rows. Near duplicates among them, and rows of one conversation, have the same `request_group`.
        unseen: The same for rows whose gold calls a tool that no training row declares.
        duplicates: Rows with the same group and the same gold as an earlier row.
        conflicts: Groups whose rows have different golds.
        conflict_rows: Rows of the minority in those groups; all rows of a group without a majority.
        leaks: Rows of a group that is also on a more protected side (unseen before eval before train).
        set_aside: Rows that declare a held-out tool without calling it, which are on neither side.
        overlaps: Rows left out of training because their request is a benchmark's, or a near duplicate of one.
        near_within: Rows with a near duplicate, of another conversation, earlier on the same side.
        near_across: Held-out rows whose request equals or nearly equals that of a training row. By "group" only rows
            that name their side, or that call a held-out tool, are among them.
        held_out_tools: Names of the tools kept out of training.
        clusters: One number per row of the input, equal for near duplicates and for rows of one conversation.
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
    clusters: tuple[int, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return every count by name, the sizes of the sides included."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "clusters"}
        return {name: value if isinstance(value, int) else len(value) for name, value in values.items()}


def split_rows(
    rows: Sequence[Row],
    *,
    n_eval: int | None = None,
    eval_fraction: float | None = None,
    seed: int = 40,
    by: str = "group",
    unseen_fraction: float = 0.0,
    benchmark: Sequence[str] = (),
) -> Splits:
    """Split rows into training and evaluation.

    By "rows" the last `n_eval` rows are the evaluation rows, as in the tutorial, which has shuffled them before; the
    duplicates, conflicts and leaks of such a split are counted. By "group", in this order: rows that carry `split`
    ("train", "eval", "unseen") pull their whole group to that side, and copies on a less protected side are dropped as
    leaks; one row of each group is kept, the first with the gold of the majority, or none at a tie; tools are held out
    for `unseen`; a seeded draw fills the evaluation side up to `n_eval`, near duplicates and the rows of one
    conversation together; the rest is training.

    Args:
        rows: Row dicts with `group`, `gold` and `tools`; not changed.
        n_eval: Evaluation rows wanted; at most half of the rows that are left to split.
        eval_fraction: The same as a share of the rows, in (0, 1); give this or `n_eval`.
        seed: Seed of the draws.
        by: "group" or "rows".
        unseen_fraction: Share of the rows whose gold calls held-out tools, in [0, 1); approximate, since a tool is held
            out with all its rows, tools that few rows declare first. Needs by="group".
        benchmark: Requests that must not be trained on; by "group", rows with such a request or a near duplicate of one
            are dropped from the training side, and with them the other rows of their conversation.

    Returns:
        The Splits.

    Raises:
        ValueError: An argument is out of its range.
    """
    _check(n_eval, eval_fraction, by, unseen_fraction)
    wanted = n_eval if n_eval is not None else round((eval_fraction or 0.0) * len(rows))
    keys = collect_keys(rows)
    near = cluster_texts([*(key.request for key in keys), *map(normalize_request, benchmark)])
    near, tested = near[: len(keys)], frozenset(near[len(keys) :])
    if by == "rows":
        return _split_as_given(rows, keys, near, min(wanted, len(rows) // 2))
    return _split_by_group(rows, keys, near, tested, wanted, random.Random(seed), unseen_fraction)


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


def _split_as_given(rows: Sequence[Row], keys: Sequence[RowKey], near: Sequence[int], n_eval: int) -> Splits:
    cut = len(keys) - n_eval
    golds: dict[str, Counter[str]] = {}
    for key in keys:
        golds.setdefault(key.group, Counter())[key.gold] += 1
    held_groups = {key.group for key in keys[cut:]}
    sides = {index: "train" if index < cut else "eval" for index in range(len(keys))}
    within, across = _count_near(keys, near, sides)
    clusters = link_conversations(keys, near)
    return Splits(
        train=select_rows(rows, range(cut)),
        eval=_select_held_out(rows, range(cut, len(keys)), clusters),
        duplicates=sum(count - 1 for counter in golds.values() for count in counter.values()),
        conflicts=sum(len(counter) > 1 for counter in golds.values()),
        conflict_rows=sum(counter.total() - max(counter.values()) for counter in golds.values()),
        leaks=sum(key.group in held_groups for key in keys[:cut]),
        near_within=within,
        near_across=across,
        clusters=tuple(clusters),
    )


def _split_by_group(
    rows: Sequence[Row],
    keys: Sequence[RowKey],
    near: Sequence[int],
    tested: frozenset[int],
    wanted: int,
    draw: random.Random,
    unseen_fraction: float,
) -> Splits:
    clusters = link_conversations(keys, near)
    overlapped = {clusters[index] for index, cluster in enumerate(near) if cluster in tested}
    sides, counts = _merge_groups(keys)
    _follow_named(sides, clusters)
    named = Counter(sides.values())
    held_out, set_aside = _hold_out_tools(sides, keys, round(unseen_fraction * len(sides)) - named["unseen"], draw)
    free: dict[int, list[int]] = {}
    for index in sorted(index for index, side in sides.items() if not side):
        free.setdefault(clusters[index], []).append(index)
    n_eval = min(wanted, len(sides) // 2) - named["eval"]
    drawn = _draw_parts((free[cluster] for cluster in sorted(free)), n_eval, draw)
    sides = {index: side or ("eval" if index in drawn else "train") for index, side in sides.items()}
    overlapping = [index for index, side in sides.items() if side == "train" and clusters[index] in overlapped]
    for index in overlapping:
        del sides[index]
    within, across = _count_near(keys, near, sides)
    by_side: dict[str, list[int]] = {side: [] for side in SIDES}
    for index in sorted(sides):
        by_side[sides[index]].append(index)
    return Splits(
        train=select_rows(rows, by_side["train"]),
        **{side: _select_held_out(rows, by_side[side], clusters) for side in ("eval", "unseen")},
        **counts,
        set_aside=set_aside,
        overlaps=len(overlapping),
        near_within=within,
        near_across=across,
        held_out_tools=tuple(sorted(held_out)),
        clusters=tuple(clusters),
    )


def _select_held_out(rows: Sequence[Row], indices: Sequence[int], clusters: Sequence[int]) -> Sequence[Row]:
    """Return held-out rows; those that share a cluster with another of them say so in `request_group`."""
    sizes = Counter(clusters[index] for index in indices)
    together = {place: clusters[index] for place, index in enumerate(indices) if sizes[clusters[index]] > 1}
    labels = {place: f"near duplicates {cluster}" for place, cluster in together.items()}
    return label_requests(select_rows(rows, indices), labels)


def _merge_groups(keys: Sequence[RowKey]) -> tuple[dict[int, str], dict[str, int]]:
    """Choose the row that is kept of each group: the side it names, "" for none, by position; and counts of Splits."""
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key.group, []).append(index)
    sides: dict[int, str] = {}
    counts = dict.fromkeys(("duplicates", "conflicts", "conflict_rows", "leaks"), 0)
    for members in groups.values():
        side = max((keys[index].side for index in members), key=_BY_PROTECTION.index)
        stay = [index for index in members if keys[index].side in ("", side)]
        golds = Counter(keys[index].gold for index in stay)
        (winner, count), *others = golds.most_common()
        is_tie = bool(others) and others[0][1] == count
        counts["leaks"] += len(members) - len(stay)
        counts["conflicts"] += len(golds) > 1
        counts["conflict_rows"] += golds.total() - (0 if is_tie else count)
        if not is_tie:
            counts["duplicates"] += count - 1
            sides[next(index for index in stay if keys[index].gold == winner)] = side
    return sides, counts


def _follow_named(sides: dict[int, str], clusters: Sequence[int]) -> None:
    """Put each free row on the most protected side that one of its near duplicates names."""
    named: dict[int, str] = {}
    for index, side in sides.items():
        named[clusters[index]] = max(side, named.get(clusters[index], ""), key=_BY_PROTECTION.index)
    for index, side in sides.items():
        sides[index] = side or named[clusters[index]]


def _hold_out_tools(
    sides: dict[int, str], keys: Sequence[RowKey], n_rows: int, draw: random.Random
) -> tuple[frozenset[str], int]:
    """Move free rows that call held-out tools to the unseen side, and drop and count others that declare them."""
    held_out = choose_tools([keys[index] for index in sorted(sides) if not sides[index]], n_rows, draw)
    set_aside = 0
    for index in [index for index, side in sides.items() if side in ("", "train")]:
        if held_out.isdisjoint(keys[index].declared):
            continue
        if not sides[index] and not held_out.isdisjoint(keys[index].called):
            sides[index] = "unseen"
        else:
            set_aside += 1
            del sides[index]
    return held_out, set_aside


def _draw_parts(parts: Iterable[list[int]], wanted: int, draw: random.Random) -> set[int]:
    """Draw parts of rows at random, each of them whole, as long as they fit into the number of rows wanted."""
    order = list(parts)
    draw.shuffle(order)
    drawn: set[int] = set()
    for part in order:
        if len(drawn) + len(part) <= wanted:
            drawn.update(part)
    return drawn


def _count_near(keys: Sequence[RowKey], near: Sequence[int], sides: Mapping[int, str]) -> tuple[int, int]:
    """Count rows with a near duplicate earlier on their own side, and held-out rows with one on the training side.

    Rows of one conversation are no duplicates of each other, although they begin with the same requests.
    """
    seen: dict[tuple[str, int], set[str | int]] = {}
    within = 0
    trained = {near[index] for index, side in sides.items() if side == "train"}
    for index in sorted(sides):
        source = keys[index].conversation or index
        before = seen.setdefault((sides[index], near[index]), set())
        within += len(before) > (source in before)
        before.add(source)
    across = sum(side in ("eval", "unseen") and near[index] in trained for index, side in sides.items())
    return within, across


def choose_tools(keys: Sequence[RowKey], n_rows: int, draw: random.Random) -> frozenset[str]:
    """Choose tools to keep out of training, so that about `n_rows` rows call them and few others declare them.

    Args:
        keys: Rows to choose from.
        n_rows: Rows wanted on the unseen side; no tool is chosen for 0 or less.
        draw: Random generator for the order among tools of equal cost.

    Returns:
        Names of the tools. A tool's cost is the number of rows that declare it without calling it, since they are
        lost; the cheapest tools are taken first, as long as the rows that call them fit into `n_rows` and the costs
        together stay within half of the rows: where every row declares every tool, no tool is held out.
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
    lost = 0
    for name in names:
        if len(covered) >= n_rows:
            break
        cost = declaring[name] - len(calling[name])
        if len(covered | calling[name]) <= n_rows and lost + cost <= len(keys) // 2:
            chosen.add(name)
            covered |= calling[name]
            lost += cost
    return frozenset(chosen)


def hold_out(rows: Sequence[Row], n: int, seed: int = 40) -> tuple[list[Row], list[Row]]:
    """Hold out rows of the training side, by which the trainer chooses among checkpoints.

    Args:
        rows: The training rows.
        n: Rows wanted; at most half of them. Rows of one group, near duplicates and rows of one conversation go
            together.
        seed: Seed of the draw.

    Returns:
        The rows to train on and the rows held out, each in their order.
    """
    keys = [build_key(row) for row in rows]
    clusters = link_conversations(keys, cluster_texts([key.request for key in keys]))
    together: dict[int, list[int]] = {}
    by_group: dict[str, int] = {}
    for index, (key, cluster) in enumerate(zip(keys, clusters, strict=True)):
        together.setdefault(by_group.setdefault(key.group, cluster), []).append(index)
    held = _draw_parts(together.values(), min(n, len(rows) // 2), random.Random(seed))
    return [row for index, row in enumerate(rows) if index not in held], [rows[index] for index in sorted(held)]


def limit_no_call(rows: Sequence[Row], share: float, seed: int = 40) -> Sequence[Row]:
    """Keep at most a share of rows whose right answer is no call.

    Args:
        rows: Rows, usually the training side.
        share: Largest share of no-call rows in the result, in [0, 1].
        seed: Seed of the draw among them.

    Returns:
        The rows that are kept, in their order.

    Raises:
        ValueError: The share is not in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"share must lie in [0, 1], got {share}")
    calling = [bool(key.called) for key in collect_keys(rows)]
    without = [index for index, calls in enumerate(calling) if not calls]
    n_calls = len(calling) - len(without)
    limit = len(without) if share == 1.0 else min(len(without), int(share * n_calls / (1.0 - share) + 1e-9))
    stay = set(random.Random(seed).sample(without, limit))
    kept = [index for index, calls in enumerate(calling) if calls or index in stay]
    return select_rows(rows, kept)
