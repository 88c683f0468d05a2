"""Raw conversations to training rows, with every one of them accounted for.

Knows raw rows and row dicts; the gold is found by `gold`, the tools are read by `schema`, sides are made by `splits`.
It does not know where rows come from, nor tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fgtools.calls import Problem, ToolCall, render_calls
from fgtools.gold import Gold, Rejected, extract_gold
from fgtools.literals import show
from fgtools.profiles import DEVELOPER_TEXT, Recipe, get_recipe
from fgtools.schema import SchemaError, read_tools
from fgtools.splits import SIDES, Splits, limit_no_call, split_rows
from fgtools.tutorial import TutorialError, TutorialGold, tutorial_row

__all__ = [
    "EmptySetError",
    "RejectedRow",
    "RowSet",
    "Splits",
    "build_rows",
    "limit_no_call",
    "merge_rowsets",
    "require_rows",
    "split_rows",
]

Row = dict[str, Any]


class EmptySetError(ValueError):
    """No row is left to work with; the message holds the funnel."""


@dataclass(frozen=True)
class RejectedRow:
    """A raw row that became no row.

    Attributes:
        row_id: Its id, or one made of its position.
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
class RowSet:
    """Rows, and what became of the rest.

    Attributes:
        rows: Row dicts, in the order of the input.
        rejected: The raw rows that were left out.
        funnel: Count by fate, "kept" first, then reasons by falling count; sums to the number of raw rows.
        problems: Count by kind of what was wrong in kept rows without hindering them.
    """

    rows: tuple[Row, ...]
    rejected: tuple[RejectedRow, ...]
    funnel: dict[str, int]
    problems: dict[str, int]

    def funnel_by(self, field: str) -> dict[str, dict[str, int]]:
        """Give the funnel per value of a field.

        Args:
            field: "source" or "scenario".

        Returns:
            Value -> fate -> count; over all values the counts sum to the funnel.
        """
        table: dict[str, Counter[str]] = {}
        for row in self.rows:
            table.setdefault(row[field], Counter())["kept"] += 1
        for item in self.rejected:
            table.setdefault(getattr(item, field), Counter())[item.reason] += 1
        return {value: dict(counts) for value, counts in sorted(table.items())}


def build_rows(raw_rows: Iterable[Any], recipe: str | Recipe = "native", *, first_index: int = 0) -> RowSet:
    """Turn raw rows into rows.

    A row is {"row_id", "source", "scenario", "group", "messages", "tools", "gold", "reply"} and, when the raw row says
    on which side it belongs, "split". A raw row is never changed, and never raises.

    Args:
        raw_rows: Mappings with `conversations` and `tools`; anything else is rejected with a reason.
        recipe: "native", "tutorial" or a Recipe; `keep_no_call` decides on rows whose right answer is no call.
        first_index: Position of the first raw row in the whole set; rows without an id are named by position.

    Returns:
        The RowSet. Reasons beside those of `gold.Rejected`: bad_tools (cannot be read), no_tools,
        unknown_tool (the gold calls what is not declared), no_call (where the recipe keeps none), unrenderable (the
        call grammar cannot carry the gold), bad_text (text that UTF-8 or JSON cannot write).

    Raises:
        ValueError: The recipe is unknown.
    """
    recipe = get_recipe(recipe)
    rows: list[Row] = []
    rejected: list[RejectedRow] = []
    problems: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for index, raw in enumerate(raw_rows, first_index):
        fields = raw if isinstance(raw, Mapping) else {}
        label = _label(fields, index, seen)
        made = _row(raw, recipe)
        if isinstance(made, Rejected):
            rejected.append(RejectedRow(label["row_id"], label["source"], made.reason, made.detail, label["scenario"]))
            continue
        row, noticed = made
        split = {"split": fields["split"]} if fields.get("split") in SIDES else {}
        rows.append({**label, **row, **split})
        problems.update(problem.kind for problem in noticed)
    return _row_set(rows, rejected, problems)


def _row_set(rows: Iterable[Row], rejected: Iterable[RejectedRow], problems: Counter[str]) -> RowSet:
    kept, left_out = tuple(rows), tuple(rejected)
    reasons = Counter(item.reason for item in left_out)
    return RowSet(kept, left_out, {"kept": len(kept), **dict(reasons.most_common())}, dict(problems.most_common()))


def merge_rowsets(*row_sets: RowSet) -> RowSet:
    """Join row sets that were built apart; rows and counts follow one another.

    Args:
        *row_sets: The sets, built from different raw rows.

    Returns:
        One RowSet whose funnel sums to all raw rows.
    """
    problems: Counter[str] = Counter()
    for row_set in row_sets:
        problems.update(row_set.problems)
    rows = (row for row_set in row_sets for row in row_set.rows)
    return _row_set(rows, (item for row_set in row_sets for item in row_set.rejected), problems)


def require_rows(row_set: RowSet, origin: str = "the data", splits: Splits | None = None) -> None:
    """Stop where filtering or splitting left nothing to train on or to evaluate.

    Args:
        row_set: The rows.
        origin: What the raw rows were, for the message.
        splits: Their sides, when they are split already.

    Raises:
        EmptySetError: There is no row, or none on the training or the evaluation side; the message holds the funnel
            and one example per reason.
    """
    empty = [] if splits is None else [side for side in ("train", "eval") if not getattr(splits, side)]
    if row_set.rows and not empty:
        return
    total = sum(row_set.funnel.values())
    examples = {item.reason: item for item in reversed(row_set.rejected)}
    reasons = "".join(
        f"\n  {reason}: {count} (e.g. {examples[reason].row_id}: {examples[reason].detail[:100]})"
        for reason, count in row_set.funnel.items()
        if reason != "kept"
    )
    where = f" on the side {' and '.join(empty)}" if row_set.rows else ""
    raise EmptySetError(
        f"{origin}: at least one usable row is needed{where}, got {len(row_set.rows)} usable of {total}.{reasons}\n"
        "A row needs conversations with a user turn and a reply, and tools; give more rows or mend these."
    )


def _label(raw: Mapping[str, Any], index: int, seen: Counter[str]) -> dict[str, str]:
    row_id = raw.get("row_id", raw.get("id"))
    row_id = _short_text(row_id) if isinstance(row_id, (str, int)) and row_id != "" else f"row/{index}"
    seen[row_id] += 1
    if seen[row_id] > 1:
        row_id = f"{row_id}#{seen[row_id]}"  # ids name replies and examples later on
    scenario = raw.get("scenario_category") or raw.get("scenario")
    return {"row_id": row_id, "source": _short_text(raw.get("source")), "scenario": _short_text(scenario)}


def _short_text(value: Any) -> str:
    """Give a label's text, safe to write to a file, whatever the field holds."""
    text = value if isinstance(value, str) else "" if value is None else show(value)
    return text[:200].encode("utf-8", "replace").decode("utf-8")


def _row(raw: Any, recipe: Recipe) -> tuple[Row, tuple[Problem, ...]] | Rejected:
    gold = extract_gold(raw, recipe)
    if isinstance(gold, Rejected):
        return gold
    made = _tutorial_row(raw, gold) if recipe.call_style == "tutorial" else _native_row(raw, gold, recipe)
    if isinstance(made, Rejected):
        return made
    row, problems = made
    trouble = _unwritable(row, recipe)
    return trouble or ({"group": _group(row), **row}, problems)


def _native_row(raw: Mapping[str, Any], gold: Gold, recipe: Recipe) -> tuple[Row, tuple[Problem, ...]] | Rejected:
    if not gold.calls and not recipe.keep_no_call:
        return Rejected("no_call", f"recipe {recipe.name} keeps no rows without a call")
    try:
        reading = read_tools(raw.get("tools"))
    except SchemaError as error:
        return Rejected("bad_tools", str(error))
    if not reading.tools:
        return Rejected("no_tools", "; ".join(f"{item.kind}: {item.detail}" for item in reading.problems[:3]))
    declared = {tool["function"]["name"] for tool in reading.tools}
    unknown = [call.name for call in gold.calls if call.name not in declared]
    if unknown:
        return Rejected("unknown_tool", f"{show(unknown)} not among {show(sorted(declared))}")
    row = {
        "messages": gold.prompt_messages,
        "tools": list(reading.tools),
        "gold": [call.to_dict() for call in gold.calls],
        "reply": gold.reply,
    }
    return row, (*gold.problems, *reading.problems)


def _tutorial_row(raw: Mapping[str, Any], gold: Gold) -> tuple[Row, tuple[Problem, ...]] | Rejected:
    call = gold.calls[0]
    try:
        kept = tutorial_row(raw, TutorialGold(call.name, call.arguments, gold.turn))
    except (TutorialError, RecursionError) as error:
        return Rejected("bad_row", str(error))
    if isinstance(kept, str):
        return Rejected(kept, show(call.name))
    row = {
        "messages": [
            {"role": "developer", "content": DEVELOPER_TEXT},
            {"role": "user", "content": kept["user_content"]},
        ],
        "tools": kept["hf_tools"],
        "gold": [{"name": kept["tool_name"], "arguments": kept["tool_arguments"]}],
        "reply": "",
    }
    return row, ()


def _unwritable(row: Row, recipe: Recipe) -> Rejected | None:
    """Say why a row cannot be trained on or written to a file, if so."""
    try:
        render_calls([ToolCall(call["name"], call["arguments"]) for call in row["gold"]], style=recipe.call_style)
    except ValueError as error:
        return Rejected("unrenderable", str(error)[:200])
    try:
        json.dumps(row, ensure_ascii=False, allow_nan=False, sort_keys=True).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:  # lone surrogates; in a tutorial row NaN, mixed keys
        return Rejected("bad_text", str(error)[:200].encode("utf-8", "replace").decode("utf-8"))
    return None


def _group(row: Row) -> str:
    """Name what makes two rows one question: the users' turns, white space aside, and the tools in any order."""
    request = [" ".join(message["content"].split()) for message in row["messages"] if message["role"] == "user"]
    tools = sorted(json.dumps(tool, sort_keys=True) for tool in row["tools"])
    return hashlib.sha256(json.dumps([request, tools]).encode("utf-8")).hexdigest()[:16]
