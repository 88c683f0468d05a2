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
from fgtools.metrics.cer import CerResult
from fgtools.metrics.intervals import Ratio, Share, bootstrap_ratio, to_json
from fgtools.metrics.ladder import LADDER, RowScore, score_row

RATIOS = ("argument_precision", "argument_recall", "argument_f1")

_KINDS = {"bool": bool, "int": int, "str": str}
"""Types of a saved row's fields, by annotation."""


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

    def share(self, name: str) -> Share:
        """Return the share of all rows that reach a rung of LADDER."""
        return Share(sum(getattr(row, name) for row in self.rows), len(self.rows))

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

    @property
    def in_grammar(self) -> Share:
        """Share of rows whose calls follow the grammar exactly; the next six are shares of rows too."""
        return self.share("in_grammar")

    @property
    def known_tool(self) -> Share:
        """Only declared tools were called."""
        return self.share("known_tool")

    @property
    def right_tools(self) -> Share:
        """The right tools were called, or none where none is right."""
        return self.share("right_tools")

    @property
    def valid_arguments(self) -> Share:
        """Every call's arguments satisfy its schema."""
        return self.share("valid_arguments")

    @property
    def right_names(self) -> Share:
        """The right argument names were used."""
        return self.share("right_names")

    @property
    def ast_match(self) -> Share:
        """The calls mean the same as the gold calls."""
        return self.share("ast_match")

    @property
    def exact_match(self) -> Share:
        """The calls are the gold calls."""
        return self.share("exact_match")

    @property
    def right_tool_calls(self) -> Share:
        """Right tools, among the rows that need a call."""
        return Share(sum(row.right_tools for row in self.call_rows), len(self.call_rows))

    @property
    def tool_accuracy(self) -> Share:
        """The tutorial's tool accuracy, among the rows that need a call: the first name in the reply is right."""
        return Share(sum(row.first_name_right for row in self.call_rows), len(self.call_rows))

    @property
    def missed_calls(self) -> Share:
        """Rows without any call, among those that need one."""
        return Share(sum(row.missed_call for row in self.call_rows), len(self.call_rows))

    @property
    def false_calls(self) -> Share:
        """Rows with a call, among those whose right answer is none."""
        return Share(sum(row.false_call for row in self.no_call_rows), len(self.no_call_rows))

    @cached_property
    def cer(self) -> CerResult:
        """TC-CER over the rows that need a call, with the gold in the notation of `style`.

        The tutorial renders its gold in its own notation, whatever the model's: see `protocol` for that figure.
        """
        return self._cer("edits")

    @cached_property
    def cer_rendered(self) -> CerResult:
        """The same with every parsed reply rendered again: content without format."""
        return self._cer("edits_rendered")

    def _cer(self, field: str) -> CerResult:
        edits, characters = ([getattr(row, name) for row in self.call_rows] for name in (field, "characters"))
        ratio = bootstrap_ratio(edits, characters)
        return CerResult(len(edits), ratio.numerator, ratio.denominator, ratio.low, ratio.high)

    @cached_property
    def argument_precision(self) -> Ratio:
        """Right arguments among the predicted ones."""
        return bootstrap_ratio(*self.argument_counts("precision"))

    @cached_property
    def argument_recall(self) -> Ratio:
        """Right arguments among the gold ones."""
        return bootstrap_ratio(*self.argument_counts("recall"))

    @cached_property
    def argument_f1(self) -> Ratio:
        """Harmonic mean of precision and recall: twice the right arguments among predicted and gold ones."""
        return bootstrap_ratio(*self.argument_counts("f1"))

    def argument_counts(self, kind: str) -> tuple[list[int], list[int]]:
        """Return numerators and denominators per row of the "precision", "recall" or "f1" of arguments."""
        right = [row.arguments_right for row in self.rows]
        predicted, gold = ([getattr(row, f"arguments_{side}") for row in self.rows] for side in ("predicted", "gold"))
        if kind == "f1":
            return [2 * count for count in right], [sum(pair) for pair in zip(predicted, gold, strict=True)]
        return right, predicted if kind == "precision" else gold

    @property
    def chance(self) -> float:
        """Expected share of right tools if declared tools are drawn at random; nan without rows that need a call."""
        return sum(row.chance for row in self.call_rows) / len(self.call_rows) if self.call_rows else math.nan

    @property
    def gold_invalid(self) -> Share:
        """Rows whose gold breaks its own schema, among those that need a call."""
        return Share(sum(not row.gold_valid for row in self.call_rows), len(self.call_rows))

    @property
    def strict_match(self) -> Share:
        """The calls are the gold calls, exactly in the grammar; ast_match is the lenient counterpart."""
        return self.share("strict_match")

    @property
    def right_behaviour(self) -> Share:
        """Among the rows whose right answer is no call: the reply behaves as that answer does, in When2Call's words.

        Rows whose right answer is unknown are left out.
        """
        return Share(sum(row.right_behaviour for row in self.behaviour_rows), len(self.behaviour_rows))

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
        shares = (*LADDER, "strict_match", "right_tool_calls", "tool_accuracy", "missed_calls", "false_calls")
        shares = (*shares, "right_behaviour", "gold_invalid")
        return {
            "n": len(self.rows),
            "constrained": self.constrained,
            "style": self.style,
            **{name: getattr(self, name).to_dict() for name in shares},
            **{name: getattr(self, name).to_dict() for name in ("cer", "cer_rendered", *RATIOS)},
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


def require_same_ids(first: Iterable[str], second: Iterable[str]) -> None:
    """Require that two lists of row ids are equal.

    Args:
        first: Ids.
        second: Ids.

    Raises:
        ValueError: They differ; the message names the first that does.
    """
    for place, (one, other) in enumerate(zip_longest(first, second)):
        if one != other:
            raise InputError(
                f"both must be of the same rows in the same order, but at place {place} {one!r} stands beside "
                f"{other!r}: score one rows file"
            )
