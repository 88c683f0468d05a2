"""Raw conversations to training rows, with every raw row kept or rejected for a reason.

Knows raw rows and row dicts; the gold is found by `gold`, the tools are read by `schema`, the counts are kept by
`funnel`. It does not know where raw rows come from, which side a row ends on, or tokens.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from fgtools.calls import Problem, ToolCall, render_calls
from fgtools.gold import Gold, Rejected, extract_gold, shorten_reply
from fgtools.gold.tutorial import TutorialError
from fgtools.profiles import DEVELOPER_TEXT, Recipe, get_recipe
from fgtools.rows.duplicates import SIDES
from fgtools.rows.formats import guess_shape, normalize_row
from fgtools.rows.funnel import Built, RejectedRow, RowSet, Tally
from fgtools.rows.remedies import Coverage, apply_remedies
from fgtools.rows.store import Row
from fgtools.rows.tutorial import build_tutorial_row
from fgtools.schema import Change, SchemaError, parse_tools
from fgtools.schema.literals import show
from fgtools.schema.names import replace_tool_names


def build_rows(
    raw_rows: Iterable[Any], recipe: str | Recipe = "native", *, shape: str = "auto", coverage: Coverage | None = None
) -> RowSet:
    """Turn raw rows into rows.

    A row is {"row_id", "source", "scenario", "group", "messages", "tools", "gold", "reply"}, with "split" when the raw
    row says on which side it belongs, and "renamed" where names had to be replaced (see `schema.names`). A second row
    with the id "a" becomes "a#2".

    Args:
        raw_rows: Mappings of any shape that `formats` knows, not changed; anything else is rejected with a reason.
        recipe: "native", "tutorial" or a Recipe; `keep_no_call` decides on rows whose right answer is no call.
        shape: One of formats.SHAPES, or "auto" to go by each row's content.
        coverage: What the model's chat template hides; where the recipe applies remedies, it is shown in another way.

    Returns:
        The RowSet. Reasons beside those of `gold.Rejected`: bad_tools (cannot be read), no_tools,
        unknown_tool (the gold calls what is not declared), no_call (where the recipe keeps none), unrenderable (the
        call grammar cannot carry the gold), bad_text (text that UTF-8 or JSON cannot write).

    Raises:
        ValueError: The recipe or the shape is unknown.
    """
    recipe = get_recipe(recipe)
    tally = Tally()
    rows: list[Row] = []
    rejected: list[RejectedRow] = []
    positions: list[int] = []
    with paused_collector():
        for position, raw in enumerate(raw_rows):
            built = build_row(raw, recipe, position, shape, coverage)
            tally.add(built)
            if isinstance(built.fate, RejectedRow):
                rejected.append(tally.make_unique_rejection(built.fate))
                continue
            positions.append(position)
            rows.append({**built.fate, "row_id": tally.make_unique(built.fate["row_id"])})
    return tally.finish(tuple(rows), rejected, positions)


@contextmanager
def paused_collector() -> Iterator[None]:
    """Switch Python's garbage collector off: it would visit thousands of rows again and again and free none of them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def build_row(raw: Any, recipe: Recipe, index: int, shape: str = "auto", coverage: Coverage | None = None) -> Built:
    """Turn one raw row into a row, as `build_rows` does, which also makes ids unique.

    Args:
        raw: The raw row.
        recipe: The recipe.
        index: Position in the whole set; names a row without an id.
        shape: As for `build_rows`.
        coverage: As for `build_rows`.

    Returns:
        What became of it.
    """
    found = guess_shape(raw) if shape == "auto" else shape
    if recipe.call_style != "tutorial" or found not in ("hermes", "toolace"):  # the tutorial reads these as they stand
        raw = normalize_row(raw, found if found != "unknown" else "auto")
    fields = raw if isinstance(raw, Mapping) else {}
    label = _label(fields, index)
    made = _build(raw, recipe)
    if isinstance(made, Rejected):
        fate = RejectedRow(label["row_id"], label["source"], made.reason, _short_text(made.detail), label["scenario"])
        return Built(fate, shape=found)
    split = {"split": fields["split"]} if fields.get("split") in SIDES else {}
    row, remedies = {**label, **made.row, **split}, {}
    if coverage is not None and recipe.apply_remedies:
        row, remedies = apply_remedies(row, coverage)
    return Built(row, tuple(item.kind for item in made.problems), made.changes, remedies, found)


def _label(raw: Mapping[str, Any], index: int) -> dict[str, str]:
    row_id = raw.get("row_id", raw.get("id"))
    row_id = _short_text(row_id) if isinstance(row_id, (str, int)) and row_id != "" else f"row/{index}"
    scenario = raw.get("scenario_category") or raw.get("scenario")
    return {"row_id": row_id, "source": _short_text(raw.get("source")), "scenario": _short_text(scenario)}


def _short_text(value: Any) -> str:
    """Return a label's text, cut to 200 characters and safe to write to a file, whatever the field holds."""
    text = value if isinstance(value, str) else "" if value is None else show(value)
    return text[:200].encode("utf-8", "replace").decode("utf-8")


class _Made(NamedTuple):
    """A row without its label, the problems found in it, and what was changed in its tools."""

    row: Row
    problems: tuple[Problem, ...] = ()
    changes: tuple[Change, ...] = ()


def _build(raw: Any, recipe: Recipe) -> _Made | Rejected:
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
    """Return the row with its group, or the reason why it cannot be trained on or written to a file."""
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
    """Return a hash of the users' turns, but for white space, and of the tools in any order: the question of a row."""
    request = [" ".join(message["content"].split()) for message in messages if message["role"] == "user"]
    return hashlib.sha256(_text_of([request, sorted(tools)]).encode("utf-8")).hexdigest()[:16]
