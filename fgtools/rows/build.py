"""Raw conversations to training rows, with every one of them accounted for.

Knows raw rows and row dicts; the gold is found by `gold`, the tools are read by `schema`, sides are made by `splits`.
It does not know where rows come from, nor tokens.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Any, NamedTuple

from fgtools.calls import Problem, ToolCall, render_calls
from fgtools.files import FgtoolsError
from fgtools.gold import Gold, Rejected, extract_gold, shorten_reply
from fgtools.gold.tutorial import TutorialError
from fgtools.profiles import DEVELOPER_TEXT, Recipe, get_recipe
from fgtools.rows.formats import guess_shape, normalize_row
from fgtools.rows.keys import SIDES
from fgtools.rows.packed import PackedRows
from fgtools.rows.splits import Splits, limit_no_call, split_rows
from fgtools.rows.tutorial import build_tutorial_row
from fgtools.schema import Change, SchemaError, parse_tools
from fgtools.schema.literals import show
from fgtools.schema.names import replace_tool_names

__all__ = [
    "Built",
    "EmptySetError",
    "RejectedRow",
    "RowSet",
    "Splits",
    "build_row",
    "build_rows",
    "collect_rows",
    "limit_no_call",
    "require_rows",
    "split_rows",
]

Row = dict[str, Any]

N_EXAMPLES = 3
"""Row ids that are shown for each reason."""


_TYPE_CHANGES = ("type_word", "unknown_type")


class EmptySetError(FgtoolsError, ValueError):
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
class Built:
    """What became of one raw row.

    Attributes:
        fate: The row dict, or the rejection.
        problems: Kinds of what was wrong in a kept row without hindering it.
        changes: What the normal form changed in the tools of a kept row.
        shape: The shape of the raw row.
    """

    fate: Row | RejectedRow
    problems: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    shape: str = "hermes"


@dataclass(frozen=True)
class RowSet:
    """Rows, and what became of the rest.

    Attributes:
        rows: Row dicts, in the order of the input.
        rejected: The raw rows that were left out.
        funnel: Count by fate, "kept" first, then reasons by falling count; sums to the number of raw rows.
        problems: Count by kind of what was wrong in kept rows without hindering them.
        changes: Count by kind of the tools in kept rows that the normal form changed (kinds of `schema.Change`).
        type_words: Count by "found -> shown" of the type words that were no JSON Schema types.
        shapes: Count of raw rows by shape.
    """

    rows: Sequence[Row]
    rejected: tuple[RejectedRow, ...]
    funnel: dict[str, int]
    problems: dict[str, int]
    changes: dict[str, int] = dataclass_field(default_factory=dict)
    type_words: dict[str, int] = dataclass_field(default_factory=dict)
    shapes: dict[str, int] = dataclass_field(default_factory=dict)

    def funnel_by(self, field: str) -> dict[str, dict[str, int]]:
        """Give the funnel per value of a field.

        Args:
            field: "source" or "scenario".

        Returns:
            Value -> fate -> count; over all values the counts sum to the funnel.
        """
        table: dict[str, Counter[str]] = {}
        packed = isinstance(self.rows, PackedRows)
        kept = (getattr(key, field) for key in self.rows.keys) if packed else (row[field] for row in self.rows)
        for value in kept:
            table.setdefault(value, Counter())["kept"] += 1
        for item in self.rejected:
            table.setdefault(getattr(item, field), Counter())[item.reason] += 1
        return {value: dict(counts) for value, counts in sorted(table.items())}

    def examples(self) -> dict[str, list[dict[str, str]]]:
        """Give the first N_EXAMPLES rejected rows of every reason, as {"row_id", "detail"}."""
        found: dict[str, list[dict[str, str]]] = {reason: [] for reason in self.funnel if reason != "kept"}
        for item in self.rejected:
            if len(found[item.reason]) < N_EXAMPLES:
                found[item.reason].append({"row_id": item.row_id, "detail": item.detail[:160]})
        return found


def build_rows(raw_rows: Iterable[Any], recipe: str | Recipe = "native", *, shape: str = "auto") -> RowSet:
    """Turn raw rows into rows.

    A row is {"row_id", "source", "scenario", "group", "messages", "tools", "gold", "reply"} and, when the raw row says
    on which side it belongs, "split"; where tool names had to be replaced, "renamed" (see `names`). A raw row is never
    changed, and never raises.

    Args:
        raw_rows: Mappings of any shape that `shapes` knows; anything else is rejected with a reason.
        recipe: "native", "tutorial" or a Recipe; `keep_no_call` decides on rows whose right answer is no call.
        shape: One of shapes.SHAPES, or "auto" to go by each row's content.

    Returns:
        The RowSet. Reasons beside those of `gold.Rejected`: bad_tools (cannot be read), no_tools,
        unknown_tool (the gold calls what is not declared), no_call (where the recipe keeps none), unrenderable (the
        call grammar cannot carry the gold), bad_text (text that UTF-8 or JSON cannot write).

    Raises:
        ValueError: The recipe or the shape is unknown.
    """
    recipe = get_recipe(recipe)
    with paused_collector():
        return collect_rows(build_row(raw, recipe, index, shape) for index, raw in enumerate(raw_rows))


@contextmanager
def paused_collector() -> Iterator[None]:
    """Keep the garbage collector from walking thousands of rows that are all kept; they hold no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def build_row(raw: Any, recipe: Recipe, index: int, shape: str = "auto") -> Built:
    """Turn one raw row into a row; as `build_rows`, which also makes ids unique.

    Args:
        raw: The raw row.
        recipe: The recipe.
        index: Position in the whole set; names a row without an id.
        shape: As for `build_rows`.

    Returns:
        What became of it.
    """
    found = guess_shape(raw) if shape == "auto" else shape
    if recipe.call_style != "tutorial" or found not in ("hermes", "toolace"):  # the tutorial reads these as they stand
        raw = normalize_row(raw, found if found != "unknown" else "auto")
    fields = raw if isinstance(raw, Mapping) else {}
    label = _label(fields, index)
    made = _row(raw, recipe)
    if isinstance(made, Rejected):
        fate = RejectedRow(label["row_id"], label["source"], made.reason, _short_text(made.detail), label["scenario"])
        return Built(fate, shape=found)
    split = {"split": fields["split"]} if fields.get("split") in SIDES else {}
    return Built({**label, **made.row, **split}, tuple(item.kind for item in made.problems), made.changes, found)


def collect_rows(built: Iterable[Built]) -> RowSet:
    """Put together what became of raw rows, ids made unique: a second "a" becomes "a#2"."""
    rows: list[Row] = []
    rejected: list[RejectedRow] = []
    tally = Tally()
    for item in built:
        tally.add(item)
        if isinstance(item.fate, RejectedRow):
            rejected.append(tally.renamed(item.fate))
        else:
            rows.append({**item.fate, "row_id": tally.unique(item.fate["row_id"])})
    return tally.row_set(rows, rejected)


class Tally:
    """Counts what became of raw rows, over as many parts as there are."""

    def __init__(self) -> None:
        self.ids: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.type_words: Counter[str] = Counter()
        self.shapes: Counter[str] = Counter()

    def add(self, item: Built) -> None:
        """Count one raw row."""
        self.shapes[item.shape] += 1
        self.problems.update(item.problems)
        self.changes.update(kind for _, kind in {(change.tool, change.kind) for change in item.changes})
        self.type_words.update(change.detail for change in item.changes if change.kind in _TYPE_CHANGES)

    def update(self, other: Tally) -> None:
        """Add the counts of another part; ids are not among them."""
        for name in ("problems", "changes", "type_words", "shapes"):
            getattr(self, name).update(getattr(other, name))

    def unique(self, row_id: str) -> str:
        """Give an id that no earlier row has; ids name replies and examples later on."""
        self.ids[row_id] += 1
        return row_id if self.ids[row_id] == 1 else f"{row_id}#{self.ids[row_id]}"

    def renamed(self, rejected: RejectedRow) -> RejectedRow:
        """Give a rejection with a unique id."""
        return replace(rejected, row_id=self.unique(rejected.row_id))

    def row_set(self, rows: Sequence[Row], rejected: Sequence[RejectedRow]) -> RowSet:
        """Give the RowSet of all that was counted."""
        reasons = Counter(item.reason for item in rejected)
        counts = (self.problems, self.changes, self.type_words, self.shapes)
        return RowSet(
            rows if not isinstance(rows, list) else tuple(rows),
            tuple(rejected),
            {"kept": len(rows), **dict(reasons.most_common())},
            *(dict(sorted(counter.items(), key=lambda item: (-item[1], item[0]))) for counter in counts),
        )


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


def _label(raw: Mapping[str, Any], index: int) -> dict[str, str]:
    row_id = raw.get("row_id", raw.get("id"))
    row_id = _short_text(row_id) if isinstance(row_id, (str, int)) and row_id != "" else f"row/{index}"
    scenario = raw.get("scenario_category") or raw.get("scenario")
    return {"row_id": row_id, "source": _short_text(raw.get("source")), "scenario": _short_text(scenario)}


def _short_text(value: Any) -> str:
    """Give a label's text, safe to write to a file, whatever the field holds."""
    text = value if isinstance(value, str) else "" if value is None else show(value)
    return text[:200].encode("utf-8", "replace").decode("utf-8")


class _Made(NamedTuple):
    """A row without its label, and what was noticed on the way."""

    row: Row
    problems: tuple[Problem, ...] = ()
    changes: tuple[Change, ...] = ()


def _row(raw: Any, recipe: Recipe) -> _Made | Rejected:
    gold = extract_gold(raw, recipe)
    if isinstance(gold, Rejected):
        return gold
    made = _tutorial_row(raw, gold) if recipe.call_style == "tutorial" else _native_row(raw, gold, recipe)
    return made if isinstance(made, Rejected) else _grouped(made, recipe)


def _native_row(raw: Mapping[str, Any], gold: Gold, recipe: Recipe) -> _Made | Rejected:
    if not gold.calls and not recipe.keep_no_call:
        return Rejected("no_call", f"recipe {recipe.name} keeps no rows without a call")
    try:
        reading = parse_tools(raw.get("tools"))
    except SchemaError as error:
        return Rejected("bad_tools", str(error))
    if not reading.tools:
        noticed = "; ".join(f"{item.kind}: {item.detail}" for item in reading.problems[:3])
        return Rejected("no_tools", noticed or f"no tool is declared, got {show(raw.get('tools'))}")
    declared = [tool["function"]["name"] for tool in reading.tools]
    unknown = [call.name for call in gold.calls if call.name not in declared]
    if unknown:
        return Rejected("unknown_tool", f"{show(unknown)} not among {show(sorted(declared))}")
    replaced = replace_tool_names(declared)
    new_names = {old: new for new, old in replaced.items()}
    reply = shorten_reply(gold.reply, recipe.no_call_limit)
    noticed = [Problem("reply_shortened", gold.reply[:80])] if reply != gold.reply else []
    noticed += [Problem("tool_renamed", name[:80]) for name in new_names]
    row = {
        "messages": gold.prompt_messages,
        "tools": [_with_name(tool, new_names) for tool in reading.tools],
        "gold": [{"name": new_names.get(call.name, call.name), "arguments": call.arguments} for call in gold.calls],
        "reply": reply,
    }
    row.update({"renamed": {"tools": replaced, "parameters": {}}} if replaced else {})
    return _Made(row, (*gold.problems, *reading.problems, *noticed), reading.changes)


def _with_name(tool: dict[str, Any], new_names: Mapping[str, str]) -> dict[str, Any]:
    function = tool["function"]
    new = new_names.get(function["name"])
    return tool if new is None else {**tool, "function": {**function, "name": new}}


def _tutorial_row(raw: Mapping[str, Any], gold: Gold) -> _Made | Rejected:
    call = gold.calls[0]
    try:
        kept = build_tutorial_row(raw, call)
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
    return _Made(row)


def _grouped(made: _Made, recipe: Recipe) -> _Made | Rejected:
    """Give the row with its group, or say why it cannot be trained on or written to a file."""
    row = made.row
    try:
        render_calls([ToolCall(call["name"], call["arguments"]) for call in row["gold"]], style=recipe.call_style)
    except ValueError as error:
        return Rejected("unrenderable", str(error)[:200])
    try:
        tools = [_text_of(tool) for tool in row["tools"]]
        rest = _text_of({name: value for name, value in row.items() if name != "tools"})
        "".join((*tools, rest)).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:  # lone surrogates; in a tutorial row NaN, mixed keys
        return Rejected("bad_text", str(error)[:200].encode("utf-8", "replace").decode("utf-8"))
    return made._replace(row={"group": _group(row["messages"], tools), **row})


def _text_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)


def _group(messages: Sequence[Mapping[str, Any]], tools: Sequence[str]) -> str:
    """Name what makes two rows one question: the users' turns, white space aside, and the tools in any order."""
    request = [" ".join(message["content"].split()) for message in messages if message["role"] == "user"]
    return hashlib.sha256(_text_of([request, sorted(tools)]).encode("utf-8")).hexdigest()[:16]
