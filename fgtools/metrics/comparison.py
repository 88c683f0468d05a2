"""Two models on the same rows, paired row by row.

Knows scores. One measure is named beforehand as the one that decides: the AST match. Of eighteen measures some would
move by luck alone, so the p of the others are corrected together, as Holm does. A change is claimed only where its p is
below 0.05 and its interval lies on one side of 0; both keep rows of one tool, and of one request, together (`groups`).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgtools.files import InputError
from fgtools.metrics.cer import CerResult
from fgtools.metrics.groups import (
    FEWEST_GROUPS,
    INDEPENDENT,
    Design,
    Groups,
    adjust_holm,
    describe_few_tools,
    flip_ratios,
    flip_shares,
    measure_design,
)
from fgtools.metrics.intervals import (
    Ratio,
    Share,
    bootstrap_difference,
    describe_design,
    describe_few_rows,
    format_p,
    from_json,
    list_difference_residuals,
    mcnemar_exact,
    paired_interval,
    parse_design,
    to_json,
)
from fgtools.metrics.ladder import LADDER, RowScore
from fgtools.metrics.scores import RATIOS, Scores, group_rows

BETTER, WORSE, NO_EVIDENCE, NOT_COUNTED = "better", "WORSE", "no evidence of a change", "nothing to count"
BETTER_HERE, WORSE_HERE = "better for these tools", "WORSE for these tools"
"""The readings of a Change; the last two where there are too few tools to say anything of others."""

DECIDING = "ast_match"
"""The measure that decides, named beforehand; the p of all others are corrected for their number."""

SHARES = (
    *LADDER,
    "strict_match",
    "right_tool_calls",
    "missed_calls",
    "false_calls",
    "right_behaviour",
    "tool_accuracy",
)
"""The shares that are compared: all of Scores but those of golds alone, which no reply can change."""

LOWER_IS_BETTER = ("missed_calls", "false_calls", "cer", "cer_rendered")

_OF_THE_ROW = {
    "n_tools": "tools",
    "n_gold": "golds",
    "arguments_gold": "golds",
    "characters": "golds",
    "prompt_characters": "prompts",
    "behaviour_gold": "right answers",
    "tool_group": "tools",
    "request_group": "requests",
}
"""Fields of a RowScore that depend on the row alone, not on the reply, and what an error calls them."""

_SAVED = ("low", "high", "fixed", "broken", "p", "p_corrected", "p_rows", "tools", "requests", "lower_is_better")


@dataclass(frozen=True)
class Change:
    """One measure before and after, on the same rows.

    Attributes:
        name: Its name in Scores.
        before: A Share, or a Ratio for error rates and arguments.
        after: The same afterwards.
        low: Lower end of the 95 % interval of the difference, after minus before: Bonett and Price's of paired shares,
            widened by the design; the bootstrap's over groups for a Ratio; nan where a Ratio has no denominator.
        high: Upper end.
        fixed: Rows wrong before and right after; 0 for a Ratio.
        broken: Rows right before and wrong after; 0 for a Ratio.
        p: Of the sign-flip test over whole groups; None where a side has no denominator.
        p_corrected: Holm's for all measures but the deciding one, whose p stays; None as p.
        p_rows: McNemar's exact p, which takes rows as independent, for comparison; None for a Ratio.
        tools: Groups of tools among the rows that are counted; 0 where rows are taken as independent.
        requests: Groups of requests among them.
        design: The design of the difference.
        lower_is_better: Whether a smaller value is the better one, as of false calls.
    """

    name: str
    before: Share | Ratio
    after: Share | Ratio
    low: float
    high: float
    fixed: int = 0
    broken: int = 0
    p: float | None = None
    p_corrected: float | None = None
    p_rows: float | None = None
    tools: int = 0
    requests: int = 0
    design: Design = INDEPENDENT
    lower_is_better: bool = False

    @property
    def difference(self) -> float:
        """After minus before; nan where nothing was counted."""
        return self.after.rate - self.before.rate

    @property
    def reading(self) -> str:
        """What the evidence says: BETTER, WORSE, NO_EVIDENCE, or NOT_COUNTED where a side has no denominator.

        A change is read off the interval of the difference and the corrected p at 0.05: both must say so. Of fewer
        than FEWEST_GROUPS tools it is BETTER_HERE or WORSE_HERE.
        """
        if math.isnan(self.difference):
            return NOT_COUNTED
        tested = self.p_corrected is not None and self.p_corrected < 0.05
        rose, fell = tested and self.low > 0, tested and self.high < 0
        if self.lower_is_better:
            rose, fell = fell, rose
        if 0 < self.tools < FEWEST_GROUPS:
            return BETTER_HERE if rose else WORSE_HERE if fell else NO_EVIDENCE
        return BETTER if rose else WORSE if fell else NO_EVIDENCE

    def to_dict(self) -> dict[str, Any]:
        """Return the change as JSON values."""
        fields = {name: getattr(self, name) for name in _SAVED} | {"low": to_json(self.low), "high": to_json(self.high)}
        sides = {"before": self.before.to_dict(), "after": self.after.to_dict()}
        design = describe_design(self.design)
        return {"name": self.name, **sides, "difference": to_json(self.difference), **fields, **design}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Change:
        """Return the Change that to_dict made JSON values of."""
        fields = {name: saved[name] for name in ("name", *_SAVED)} | {"design": parse_design(saved)}
        fields |= {name: from_json(saved[name]) for name in ("low", "high")}
        return cls(before=_measure(saved["before"]), after=_measure(saved["after"]), **fields)


def _measure(saved: Mapping[str, Any]) -> Share | Ratio:
    design = parse_design(saved)
    if "k" in saved:
        return Share(saved["k"], saved["n"], design)
    return Ratio(saved["numerator"], saved["denominator"], from_json(saved["low"]), from_json(saved["high"]), design)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows, paired row by row.

    Attributes:
        n: Rows.
        changes: One Change a measure: the ladder, then the calls, then error rates and arguments.
        fixed: Ids of the rows whose AST match was gained.
        broken: Ids of the rows whose AST match was lost.
        transitions: (error code before, error code after, rows), "" for an AST match; the commonest first.
    """

    n: int
    changes: tuple[Change, ...]
    fixed: tuple[str, ...]
    broken: tuple[str, ...]
    transitions: tuple[tuple[str, str, int], ...]

    def change(self, name: str) -> Change:
        """Return the change of one measure; raises KeyError for an unknown one."""
        return {change.name: change for change in self.changes}[name]

    @property
    def verdict(self) -> str:
        """Sentences on the measure that decides, which claim no more than the evidence shows."""
        change = self.change(DECIDING)
        counts = f"{change.before.k}/{change.before.n} to {change.after.k}/{change.after.n}"
        evidence = (
            f"{change.fixed} rows fixed, {change.broken} broken; difference {100 * change.difference:+.1f} points "
            f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}], p {format_p(change.p)}"
        )
        words = {BETTER: "AST match rose", WORSE: "AST match FELL"}
        words |= {BETTER_HERE: "AST match rose for these tools", WORSE_HERE: "AST match FELL for these tools"}
        claim = words.get(change.reading, "No evidence that AST match changed,")
        sentences = (
            f"{claim} from {counts}: {evidence}.",
            f"{describe_groups(change)}.",
            describe_few_tools(change.tools),
            f"{said}." if (said := describe_few_rows(self.n)) else "",
        )
        return " ".join(filter(None, sentences))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of compare.json."""
        return {
            "n": self.n,
            "verdict": self.verdict,
            "changes": [change.to_dict() for change in self.changes],
            "fixed": list(self.fixed),
            "broken": list(self.broken),
            "transitions": [list(one) for one in self.transitions],
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Comparison:
        """Return the Comparison that to_dict made a JSON object of.

        Raises:
            ValueError: The object is not a comparison.
        """
        try:
            changes = tuple(Change.from_dict(change) for change in saved["changes"])
            transitions = tuple((before, after, count) for before, after, count in saved["transitions"])
            return cls(saved["n"], changes, tuple(saved["fixed"]), tuple(saved["broken"]), transitions)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a comparison must stand as this version writes it ({error}): compare again") from error


def compare(before: Scores, after: Scores) -> Comparison:
    """Compare two sets of scores of the same rows.

    Args:
        before: Scores of the first model.
        after: Scores of the second one; the rows may stand in another order.

    Returns:
        The Comparison.

    Raises:
        ValueError: There are no rows, they are not the same with the same tools, golds and prompts, not all of them
            have an id of their own, the sides were read in different notations, or one was constrained and the other
            free.
    """
    if not before.rows and not after.rows:
        raise InputError("at least one row must be compared, got none: score the replies to a rows file")
    if before.style != after.style:
        raise InputError(
            f"both scores must be of replies in one notation, got {before.style!r} and {after.style!r}: score both "
            "with one recipe"
        )
    if before.constrained != after.constrained:
        raise InputError(
            "both scores must be of free replies or both of constrained ones, got one of each: what a constraint "
            "settles is not what training settled; evaluate both alike"
        )
    by_id = {row.row_id: row for row in after.rows}
    ids = [row.row_id for row in before.rows]
    if len(set(ids)) < len(ids) or len(by_id) < len(after.rows):
        raise InputError("every row must have an id of its own to be paired, but some ids occur twice")
    if set(ids) != set(by_id):
        odd = sorted(set(ids) ^ set(by_id))
        raise InputError(
            f"both scores must be of the same rows, but {len(odd)} rows have only one of them, such as {odd[0]!r}: "
            "evaluate both models on one rows file"
        )
    after = dataclasses.replace(after, rows=tuple(by_id[row_id] for row_id in ids))
    _require_same_rows(before.rows, after.rows)
    changes = [_share_change(name, before, after) for name in SHARES]
    changes += [_ratio_change(name, before, after) for name in RATIOS]
    changes = _correct(changes)
    pairs = list(zip(before.rows, after.rows, strict=True))
    fixed = tuple(new.row_id for old, new in pairs if new.ast_match and not old.ast_match)
    broken = tuple(new.row_id for old, new in pairs if old.ast_match and not new.ast_match)
    errors = Counter((old.error, new.error) for old, new in pairs)
    transitions = tuple((*codes, count) for codes, count in errors.most_common())
    return Comparison(len(pairs), tuple(changes), fixed, broken, transitions)


def _require_same_rows(before: Sequence[RowScore], after: Sequence[RowScore]) -> None:
    for old, new in zip(before, after, strict=True):
        for field, what in _OF_THE_ROW.items():
            if getattr(old, field) != getattr(new, field):
                raise InputError(
                    f"both scores must be of the same rows, but their {what} differ, first in row {old.row_id!r} "
                    f"({field} {getattr(old, field)!r} and {getattr(new, field)!r}): evaluate both on one rows file"
                )


def describe_groups(change: Change) -> str:
    """Return what the p and the interval of a change of a share stand on: its groups, and what taking rows alone says.

    Ends without a full stop.
    """
    kept = f"{change.requests} groups of requests"
    if change.tools >= FEWEST_GROUPS:
        kept = f"{change.tools} groups of tools and {kept}"
    rows = f"by single rows McNemar's exact p {format_p(change.p_rows)}"
    what = f"{kept}; design effect {change.design.effect:.1f}; {rows}"
    return f"Rows that share a tool or a request are kept together ({what})"


def _correct(changes: Sequence[Change]) -> list[Change]:
    """Return the changes with their corrected p: Holm's over all that have one, but for the deciding measure."""
    tested = [change for change in changes if change.p is not None and change.name != DECIDING]
    corrected = dict(zip([one.name for one in tested], adjust_holm([one.p for one in tested]), strict=True))
    return [dataclasses.replace(one, p_corrected=corrected.get(one.name, one.p)) for one in changes]


def _share_change(name: str, before: Scores, after: Scores) -> Change:
    measure = getattr(Scores, name)
    was, now = (measure.list_facts(scores) for scores in (before, after))
    groups = group_rows(getattr(before, measure.among))
    differences = [new - old for old, new in zip(was, now, strict=True)]
    gained, lost = differences.count(1), differences.count(-1)
    mean = sum(differences) / max(1, len(differences))
    design = measure_design([one - mean for one in differences], groups)
    interval = paired_interval(gained, lost, len(was), design)
    lower = name in LOWER_IS_BETTER
    fixed, broken = (lost, gained) if lower else (gained, lost)
    shares = getattr(before, name), getattr(after, name)
    tests = {"p": flip_shares(differences, groups) if was else None, "p_rows": mcnemar_exact(fixed, broken)}
    return _build_change(name, *shares, *interval, fixed, broken, groups=groups, design=design, **tests)


def _ratio_change(name: str, before: Scores, after: Scores) -> Change:
    sides = [getattr(scores, name) for scores in (before, after)]
    ratios = [side.ratio if isinstance(side, CerResult) else side for side in sides]
    counts, groups = [scores.list_counts(name) for scores in (before, after)], before.groups_of(name)
    interval = bootstrap_difference(*counts, groups)
    if math.isnan(ratios[0].rate) or math.isnan(ratios[1].rate):
        return _build_change(name, *ratios, *interval, groups=groups)
    design = measure_design(list_difference_residuals(*counts), groups)
    return _build_change(name, *ratios, *interval, groups=groups, design=design, p=flip_ratios(*counts, groups))


def _build_change(name: str, *values: Any, groups: Groups, **fields: Any) -> Change:
    counts = {"tools": groups.n_tools, "requests": groups.n_requests}
    return Change(name, *values, **counts, **fields, lower_is_better=name in LOWER_IS_BETTER)
