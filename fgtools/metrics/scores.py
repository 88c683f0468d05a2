"""Scores of many rows: shares and ratios with counts and intervals, all computed from the scores of single rows.

Knows rows and replies; not models. What each measure of a row means is defined in `ladder`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

from fgtools.files import InputError
from fgtools.metrics.behaviours import BEHAVIOURS
from fgtools.metrics.cer import CerResult, pool_edits
from fgtools.metrics.groups import Groups
from fgtools.metrics.intervals import Ratio, bootstrap_ratio, measure_share, to_json
from fgtools.metrics.ladder import RowScore, score_row

RATIOS = {
    "cer": (["edits"], ["characters"]),
    "cer_rendered": (["edits_rendered"], ["characters"]),
    "argument_precision": (["arguments_right"], ["arguments_predicted"]),
    "argument_recall": (["arguments_right"], ["arguments_gold"]),
    "argument_f1": (["arguments_right", "arguments_right"], ["arguments_predicted", "arguments_gold"]),
}
"""Ratio of Scores -> the counts of a RowScore that are added up above and below the line."""

_KINDS = {"bool": bool, "int": int, "str": str}
"""Types of a saved row's fields, by annotation."""


@dataclass(frozen=True)
class ShareOf:
    """A measure of Scores: how many rows a fact holds for, as a Share. Read on the class, it is this definition.

    Attributes:
        fact: The fact: a bool of RowScore.
        among: The rows that are counted: a property of Scores.
    """

    fact: str
    among: str = "rows"

    def __get__(self, scores: Scores | None, owner: type[Scores]) -> Any:
        if scores is None:
            return self
        return measure_share(self.list_facts(scores), group_rows(getattr(scores, self.among)))

    def list_facts(self, scores: Scores) -> list[bool]:
        """Return the fact of every row that is counted."""
        return [getattr(row, self.fact) for row in getattr(scores, self.among)]


@dataclass(frozen=True)
class Scores:
    """The scores of all rows and their aggregates, each with its counts and interval.

    Attributes:
        rows: The scores of the rows.
        constrained: Whether generation was constrained to the declared tools; such scores are never compared with those
            of free replies.
        style: The notation of the replies and of the rendered gold, "native" or "tutorial".
    """

    rows: tuple[RowScore, ...]
    constrained: bool = False
    style: str = "native"

    @cached_property
    def call_rows(self) -> tuple[RowScore, ...]:
        """The rows whose gold holds a call."""
        return tuple(row for row in self.rows if row.n_gold)

    @cached_property
    def no_call_rows(self) -> tuple[RowScore, ...]:
        """The rows whose right answer is no call."""
        return tuple(row for row in self.rows if not row.n_gold)

    @cached_property
    def behaviour_rows(self) -> tuple[RowScore, ...]:
        """The rows whose right answer is no call, and is known."""
        return tuple(row for row in self.no_call_rows if row.behaviour_gold)

    @cached_property
    def groups(self) -> Groups:
        """Which of all rows belong together."""
        return group_rows(self.rows)

    in_grammar = ShareOf("in_grammar")  # the rungs of the ladder come first, as `ladder` defines them
    known_tool = ShareOf("known_tool")
    right_tools = ShareOf("right_tools")
    valid_arguments = ShareOf("valid_arguments")
    right_names = ShareOf("right_names")
    ast_match = ShareOf("ast_match")
    exact_match = ShareOf("exact_match")
    strict_match = ShareOf("strict_match")  # the calls are the gold calls, exactly in the grammar
    right_tool_calls = ShareOf("right_tools", "call_rows")
    tool_accuracy = ShareOf("first_name_right", "call_rows")  # the tutorial's: the first name in the reply is right
    missed_calls = ShareOf("missed_call", "call_rows")
    false_calls = ShareOf("false_call", "no_call_rows")
    right_behaviour = ShareOf("right_behaviour", "behaviour_rows")
    gold_invalid = ShareOf("gold_invalid", "call_rows")
    gold_numeric = ShareOf("gold_numeric", "call_rows")

    @cached_property
    def cer(self) -> CerResult:
        """TC-CER over the rows that need a call, with the gold in the notation of `style`.

        The tutorial renders its gold in its own notation, whatever the model's: see `protocol` for that figure.
        """
        return pool_edits(*self.list_counts("cer"), self.groups_of("cer"))

    @cached_property
    def cer_rendered(self) -> CerResult:
        """The same with every parsed reply rendered again: content without format."""
        return pool_edits(*self.list_counts("cer_rendered"), self.groups_of("cer_rendered"))

    @cached_property
    def argument_precision(self) -> Ratio:
        """Right arguments among the predicted ones."""
        return bootstrap_ratio(*self.list_counts("argument_precision"), self.groups_of("argument_precision"))

    @cached_property
    def argument_recall(self) -> Ratio:
        """Right arguments among the gold ones."""
        return bootstrap_ratio(*self.list_counts("argument_recall"), self.groups_of("argument_recall"))

    @cached_property
    def argument_f1(self) -> Ratio:
        """Harmonic mean of precision and recall: twice the right arguments among predicted and gold ones."""
        return bootstrap_ratio(*self.list_counts("argument_f1"), self.groups_of("argument_f1"))

    def rows_of(self, name: str) -> tuple[RowScore, ...]:
        """Return the rows that one of RATIOS is counted on."""
        return self.call_rows if name.startswith("cer") else self.rows

    def groups_of(self, name: str) -> Groups:
        """Return which of the rows that one of RATIOS is counted on belong together."""
        return group_rows(self.rows_of(name))

    def list_counts(self, name: str) -> tuple[list[int], list[int]]:
        """Return the numerators and the denominators of one of RATIOS, row by row."""
        rows = self.rows_of(name)
        above, below = ([sum(getattr(row, field) for field in fields) for row in rows] for fields in RATIOS[name])
        return above, below

    @property
    def chance(self) -> float:
        """Expected share of right tools if declared tools are drawn at random; nan without rows that need a call."""
        return sum(row.chance for row in self.call_rows) / len(self.call_rows) if self.call_rows else math.nan

    @property
    def behaviours(self) -> dict[str, dict[str, int]]:
        """Number of rows by the behaviour of the right answer and of the reply; unknown right answers are left out."""
        table: dict[str, Counter[str]] = {}
        for row in self.rows:
            table.setdefault(row.behaviour_gold, Counter())[row.behaviour] += 1
        return {gold: dict(table[gold].most_common()) for gold in BEHAVIOURS if gold in table}

    @property
    def errors(self) -> dict[str, int]:
        """Number of rows by error code, the most common first."""
        return dict(Counter(row.error for row in self.rows if row.error).most_common())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of scores.*.json: aggregates first, then the rows."""
        shares = [name for name, measure in vars(Scores).items() if isinstance(measure, ShareOf)]
        return {
            "n": len(self.rows),
            "constrained": self.constrained,
            "style": self.style,
            **{name: getattr(self, name).to_dict() for name in (*shares, *RATIOS)},
            "chance": to_json(self.chance),
            "errors": self.errors,
            "behaviours": self.behaviours,
            "rows": [dataclasses.asdict(row) for row in self.rows],
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Scores:
        """Return the Scores that to_dict made a JSON object of; aggregates are computed again from the rows.

        Raises:
            ValueError: The object does not hold scores.
        """
        try:
            rows = tuple(_parse_row(row) for row in saved["rows"])
            constrained, style = saved["constrained"], saved["style"]
        except (KeyError, TypeError) as error:
            raise InputError(f"scores must hold rows as this version writes them ({error}): score again") from error
        if not rows:
            raise InputError("scores must hold at least one row, got none: score again")
        return cls(rows, constrained, style)


def _parse_row(row: Mapping[str, Any]) -> RowScore:
    read = RowScore(**{**row, "arguments_by_type": tuple(map(tuple, row["arguments_by_type"]))})
    for field in dataclasses.fields(read):
        value, kind = getattr(read, field.name), _KINDS.get(str(field.type))
        if kind and type(value) is not kind:
            raise TypeError(f"{field.name} of row {read.row_id!r} must be {field.type}, got {value!r}")
    return read


def score(rows: Sequence[Mapping[str, Any]], replies: Sequence[str], style: str = "native") -> Scores:
    """Score replies against the gold of their rows.

    Args:
        rows: Row dicts, as build_rows makes them.
        replies: One reply per row, special tokens kept, in the same order.
        style: Call grammar of the replies: "native" or "tutorial".

    Returns:
        The Scores of all rows.

    Raises:
        ValueError: There are no rows, the lengths differ, the style is unknown, or a reply is not text.
    """
    if len(rows) != len(replies):
        raise InputError(
            f"every row must have a reply, got {len(rows)} rows and {len(replies)} replies: generate for these rows"
        )
    if not rows:
        raise InputError("at least one row must be scored, got none: check the rows file")
    if style not in ("native", "tutorial"):
        raise InputError(f"style must be 'native' or 'tutorial', got {style!r}")
    return Scores(tuple(score_row(row, reply, style) for row, reply in zip(rows, replies, strict=True)), style=style)


def group_rows(rows: Sequence[RowScore]) -> Groups:
    """Return which of some rows belong together, by tool and by request."""
    return Groups(tuple(row.tool_group for row in rows), tuple(row.request_group for row in rows))


def require_same_ids(first: Iterable[str], second: Iterable[str]) -> None:
    """Require that two lists of row ids are equal.

    Raises:
        ValueError: They differ; the message names the first that does.
    """
    for place, (one, other) in enumerate(zip_longest(first, second)):
        if one != other:
            raise InputError(
                f"both must be of the same rows in the same order, but at place {place} {one!r} stands beside "
                f"{other!r}: score one rows file"
            )
