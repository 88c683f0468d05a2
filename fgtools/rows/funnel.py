"""What became of raw rows: the funnel, in which every answer that was looked at is counted exactly once.

Knows counts, reasons and ids; rows are built by `build`, and why a row is rejected is decided there and in `gold`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fgtools.files import FgtoolsError
from fgtools.rows.store import PackedRow, PackedRows, Row, collect_keys
from fgtools.schema import Change

N_EXAMPLES = 3
"""Row ids that are shown for each reason."""


class EmptySetError(FgtoolsError, ValueError):
    """No row is left to work with; the message holds the funnel."""


@dataclass(frozen=True)
class RejectedRow:
    """A raw row that became no row, or one of its answers where all are looked at.

    Attributes:
        row_id: Its id, or one made of its position; for a later answer with its turn (see `build_rows`).
        source: Its `source` field, or "".
        reason: A short word, the funnel's key.
        detail: What was found, for people.
        scenario: Its scenario category, or "".
    """

    row_id: str
    source: str
    reason: str
    detail: str
    scenario: str = ""


@dataclass(frozen=True)
class Built:
    """What became of one raw row, or of one of its answers where all are looked at.

    Attributes:
        fate: The row dict, or the rejection; their ids need not be unique yet.
        problems: Kinds of problems found in a kept row that do not keep it from being used.
        changes: What the normal form changed in the tools of a kept row.
        remedies: Count by kind of its parameters that were changed for the chat template (see `remedies`).
        shape: The shape of the raw row.
    """

    fate: Row | RejectedRow
    problems: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    remedies: Mapping[str, int] = field(default_factory=dict)
    shape: str = "hermes"


@dataclass(frozen=True)
class RowSet:
    """Rows, and what became of the other raw rows.

    Attributes:
        rows: Row dicts, in the order of the input.
        rejected: The raw rows, or answers of raw rows, that were left out.
        funnel: Count by fate, "kept" first, then reasons by falling count. It sums to the number of answers looked at:
            one a raw row, or all (`Recipe.turns`); a raw row without any counts once.
        answers: Count of raw rows by the number of their answers; sums to the number of raw rows.
        problems: Count by kind of the problems found in kept rows.
        changes: Count by kind of the tools in kept rows that the normal form changed (kinds of `schema.Change`).
        type_words: Count by "found -> shown" of the type words that were no JSON Schema types.
        shapes: Count of raw rows by shape.
        remedies: Count by kind of the parameters that were changed for the chat template (see `remedies`).
        renamed: The names that were replaced in any row, as in a row's `renamed`; where rows differ, the first one's.
        positions: Position of each kept row among the raw rows.
    """

    rows: Sequence[Row]
    rejected: tuple[RejectedRow, ...]
    funnel: dict[str, int]
    answers: dict[int, int]
    problems: dict[str, int]
    changes: dict[str, int]
    type_words: dict[str, int]
    shapes: dict[str, int]
    remedies: dict[str, int]
    renamed: dict[str, dict[str, Any]]
    positions: tuple[int, ...]

    @property
    def n_raw(self) -> int:
        """The number of raw rows."""
        return sum(self.answers.values())

    def count_last(self, n_raw: int) -> int:
        """Return how many rows were built from the last raw rows.

        The tutorial cuts the raw rows before it filters them: `split_rows(rows, n_eval=row_set.count_last(300),
        by="rows")` cuts at the same place.

        Args:
            n_raw: Raw rows at the end; at most half of the raw rows are taken.

        Returns:
            The number of kept rows among them.
        """
        cut = self.n_raw - min(n_raw, self.n_raw // 2)
        return sum(position >= cut for position in self.positions)

    def funnel_by(self, name: str) -> dict[str, dict[str, int]]:
        """Return the funnel per value of a field.

        Args:
            name: "source" or "scenario".

        Returns:
            Value -> fate -> count; over all values the counts sum to the funnel.
        """
        table: dict[str, Counter[str]] = {}
        for key in collect_keys(self.rows):
            table.setdefault(getattr(key, name), Counter())["kept"] += 1
        for item in self.rejected:
            table.setdefault(getattr(item, name), Counter())[item.reason] += 1
        return {value: dict(counts) for value, counts in sorted(table.items())}

    def examples(self) -> dict[str, list[dict[str, str]]]:
        """Return the first N_EXAMPLES rejected rows of every reason, as {"row_id", "detail"}."""
        found: dict[str, list[dict[str, str]]] = {reason: [] for reason in self.funnel if reason != "kept"}
        for item in self.rejected:
            if len(found[item.reason]) < N_EXAMPLES:
                found[item.reason].append({"row_id": item.row_id, "detail": item.detail})
        return found


class Tally:
    """What became of raw rows, in their order, and its counts; parts that were counted apart can be joined.

    Attributes:
        fates: The row, packed row or rejection that each answer became; ids may still come twice.
        n_answers: How many of them each raw row gave.
    """

    def __init__(self) -> None:
        """Start with no rows counted."""
        self.fates: list[Row | PackedRow | RejectedRow] = []
        self.n_answers: list[int] = []
        self._counts = {name: Counter[str]() for name in ("problems", "changes", "type_words", "shapes")}
        self._remedies: Counter[str] = Counter()
        self._renamed: dict[str, dict[str, Any]] = {"tools": {}, "parameters": {}}

    def add(self, answers: Sequence[Built]) -> None:
        """Count the answers of one raw row, one at least."""
        self.n_answers.append(len(answers))
        self._counts["shapes"][answers[0].shape] += 1
        for item in answers:
            self._add_answer(item)

    def _add_answer(self, item: Built) -> None:
        self.fates.append(item.fate)
        self._counts["problems"].update(item.problems)
        self._counts["changes"].update(kind for _, kind in {(change.tool, change.kind) for change in item.changes})
        words = (change.detail for change in item.changes if change.kind in ("type_word", "unknown_type"))
        self._counts["type_words"].update(words)
        self._remedies.update(item.remedies)
        if not isinstance(item.fate, RejectedRow):
            self._add_names(item.fate.get("renamed", {}))

    def extend(self, other: Tally) -> None:
        """Add the raw rows of another part, which come after those of this one."""
        self.fates.extend(other.fates)
        self.n_answers.extend(other.n_answers)
        for name, counter in other._counts.items():
            self._counts[name].update(counter)
        self._remedies.update(other._remedies)
        self._add_names(other._renamed)

    def _add_names(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        self._renamed["tools"] = {**found.get("tools", {}), **self._renamed["tools"]}
        for tool, names in found.get("parameters", {}).items():
            self._renamed["parameters"][tool] = {**names, **self._renamed["parameters"].get(tool, {})}

    def finish(self) -> RowSet:
        """Return the RowSet of everything that was counted, packed where the rows are.

        Ids are unique in it, since they name replies and examples later: a second "a" becomes "a#2".
        """
        seen: Counter[str] = Counter()
        fates = []
        for fate in self.fates:
            row_id = fate["row_id"] if isinstance(fate, dict) else fate.row_id
            seen[row_id] += 1
            unique = row_id if seen[row_id] == 1 else f"{row_id}#{seen[row_id]}"
            fates.append({**fate, "row_id": unique} if isinstance(fate, dict) else replace(fate, row_id=unique))
        rejected = tuple(fate for fate in fates if isinstance(fate, RejectedRow))
        origins = [position for position, count in enumerate(self.n_answers) for _ in range(count)]
        pairs = [
            (position, fate) for position, fate in zip(origins, fates, strict=True) if not isinstance(fate, RejectedRow)
        ]
        positions, kept = tuple(position for position, _ in pairs), tuple(fate for _, fate in pairs)
        return RowSet(
            rows=PackedRows(kept) if kept and isinstance(kept[0], PackedRow) else kept,
            rejected=rejected,
            funnel={"kept": len(kept), **dict(Counter(item.reason for item in rejected).most_common())},
            answers=dict(sorted(Counter(self.n_answers).items())),
            remedies=dict(self._remedies),
            renamed=self._renamed,
            positions=positions,
            **{
                name: dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
                for name, counter in self._counts.items()
            },
        )


def require_rows(row_set: RowSet, origin: str = "the data", sides: Mapping[str, Sequence[Row]] | None = None) -> None:
    """Stop where filtering or splitting left nothing to train on or to evaluate.

    Args:
        row_set: The rows.
        origin: What the raw rows were, for the message.
        sides: Rows by side, when they are split already; each side must hold rows.

    Raises:
        EmptySetError: There is no row, or none on one of the sides; the message holds the funnel and one example per
            reason.
    """
    empty = [name for name, rows in (sides or {}).items() if not rows]
    if row_set.rows and not empty:
        return
    total = sum(row_set.funnel.values())
    reasons = "".join(
        f"\n  {reason}: {row_set.funnel[reason]} (e.g. {found[0]['row_id']}: {found[0]['detail']})"
        for reason, found in row_set.examples().items()
    )
    if row_set.rows:
        raise EmptySetError(
            f"{origin}: every side of the split must hold rows, but {' and '.join(empty)} got none of the "
            f"{len(row_set.rows)} usable rows of {total}: take more rows, or another N_EVAL."
            f"{reasons}"
        )
    raise EmptySetError(
        f"{origin}: at least one usable row is needed, got 0 usable of {total}.{reasons}\n"
        "A row needs conversations with a user turn and a reply, and tools; give more rows or correct these."
    )
