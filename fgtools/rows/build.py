"""Raw conversations to training rows, with every raw row kept or rejected for a reason.

Knows raw rows and row dicts; the gold is found by `gold`, the tools are read by `schema`, the counts are kept by
`funnel`. It does not know where raw rows come from, which side a row ends on, or tokens.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fgtools.calls import MAX_DEPTH, ToolCall, nests_too_deep, render_calls, row_calls
from fgtools.gold import Gold, Rejected, extract_golds, shorten_reply
from fgtools.gold.tutorial import TutorialError
from fgtools.metrics import find_undeclared
from fgtools.profiles import DEVELOPER_TEXT, Recipe, get_recipe
from fgtools.rows.duplicates import SIDES
from fgtools.rows.fields import TOOLS_REPLACED
from fgtools.rows.formats import guess_shape, list_columns, normalize_row
from fgtools.rows.funnel import Built, RejectedRow, RowSet, Tally
from fgtools.rows.histories import Place, digest_rows, find_histories
from fgtools.rows.nulls import clean_nulls
from fgtools.rows.remedies import Coverage, apply_remedies
from fgtools.rows.store import Row
from fgtools.schema import ParsedTools, SchemaError, parse_tools
from fgtools.schema.literals import show
from fgtools.schema.names import replace_tool_names
from fgtools.schema.tutorial import normalize_tutorial_tools


def build_rows(
    raw_rows: Iterable[Any], recipe: str | Recipe = "native", *, shape: str = "auto", coverage: Coverage | None = None
) -> RowSet:
    """Turn raw rows into rows.

    A row is {"row_id", "source", "scenario", "group", "messages", "tools", "gold", "reply"}, with "split" when the raw
    row says on which side it belongs, "conversation" when it names one by `conversation_id` or gives several rows (a
    split keeps them on one side), and "renamed" where names had to be replaced (see `schema.names`). A second row with
    the id "a" becomes "a#2". Where the recipe takes all answers of a conversation, the first one's row has its id "a",
    and the row of the answer in turn 3, counted from 0, has "a/turn3".

    Args:
        raw_rows: Mappings of any shape that `formats` knows, not changed; anything else is rejected with a reason.
        recipe: "native", "tutorial" or a Recipe; `keep_no_call` decides on rows whose right answer is no call.
        shape: One of formats.SHAPES, or "auto" to go by each row's content.
        coverage: What the model's chat template hides; where the recipe applies remedies, it is shown in another way.

    Returns:
        The RowSet. Where one row's conversation is the beginning of another's (see `histories`; native only), each
        teaches its own last answer, and "conversation" is the same in both. Reasons beside those of `gold.Rejected`:
        unknown_shape, bad_tools (cannot be read), no_tools, unknown_tool (the gold calls what is not declared),
        broken_context (an earlier turn does, or nests too deep), no_call
        (where the recipe keeps none), unrenderable (the call grammar cannot carry the gold), bad_text (text that UTF-8
        or JSON cannot write).

    Raises:
        ValueError: The recipe or the shape is unknown.
    """
    recipe = get_recipe(recipe)
    raw_rows = raw_rows if isinstance(raw_rows, Sequence) else list(raw_rows)
    with paused_collector():
        digests = digest_rows(raw_rows, shape) if recipe.call_style == "native" else []
        places = find_histories(digests, recipe.turns == "first")
    return tally_rows(raw_rows, recipe, shape, coverage, places).finish()


def tally_rows(
    raw_rows: Iterable[Any],
    recipe: Recipe,
    shape: str = "auto",
    coverage: Coverage | None = None,
    places: Mapping[int, Place] | None = None,
    first: int = 0,
) -> Tally:
    """Build rows as `build_rows` does.

    Args:
        raw_rows: The raw rows, or some of them that follow one another.
        recipe: The recipe.
        shape: Their shape, or "auto".
        coverage: What the model's chat template hides.
        places: The places in a history of those that have one, by their positions (see `histories`).
        first: The position of the first one, which names rows without an id.

    Returns:
        The Tally.
    """
    tally = Tally()
    with paused_collector():
        for position, raw in enumerate(raw_rows, first):
            place = places.get(position) if places else None
            tally.add(_build_raw_row(raw, recipe, position, shape, coverage, place))
    return tally


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


def _build_raw_row(
    raw: Any, recipe: Recipe, position: int, shape: str, coverage: Coverage | None, place: Place | None = None
) -> list[Built]:
    """Return what became of each answer of a raw row that the recipe looks at; one at least."""
    found = guess_shape(raw) if shape == "auto" else shape
    label = _label(raw if isinstance(raw, Mapping) else {}, position)
    columns = ", ".join(list_columns(raw)) if isinstance(raw, Mapping) else "none"
    if recipe.call_style != "tutorial" or found not in ("hermes", "toolace"):  # the tutorial reads these as they stand
        raw = normalize_row(raw, found if found != "unknown" else "auto")
        label = label if isinstance(raw, Rejected) else _label(raw if isinstance(raw, Mapping) else {}, position)
    raw = place.apply(raw) if place else raw
    golds = (raw,) if isinstance(raw, Rejected) else extract_golds(raw, recipe)
    where = {} if isinstance(raw, Rejected) or not isinstance(raw, Mapping) else _place(raw)
    if len(golds) > 1:
        where = {"conversation": f"row/{position}", **where}
    native = recipe.call_style == "native" and any(isinstance(gold, Gold) for gold in golds)
    tools = _read_tools(raw) if native else None
    built = []
    for number, gold in enumerate(golds):
        own = {**label, "row_id": f"{label['row_id']}/turn{gold.answer_turn}"} if number else label
        made = gold if isinstance(gold, Rejected) else _build_content(raw, gold, tools, recipe)
        if isinstance(made, Rejected):
            detail = f"{made.detail}; columns found: {columns}" if made.reason == "no_tools" else made.detail
            made = Built(RejectedRow(**own, reason=made.reason, detail=_short_text(detail)))
        else:
            made = _mend({**own, **made.fate, **where}, made, recipe, coverage)
        built.append(replace(made, shape=found))
    return built


def _mend(row: Row, made: Built, recipe: Recipe, coverage: Coverage | None) -> Built:
    """Return the row with the remedies for what the chat template hides."""
    if coverage is None or not recipe.apply_remedies:
        return replace(made, fate=row)
    row, remedies = apply_remedies(row, coverage)
    return replace(made, fate=row, remedies=remedies)


def _label(raw: Mapping[str, Any], index: int) -> dict[str, str]:
    row_id = raw.get("row_id", raw.get("id"))
    row_id = _short_text(row_id) if isinstance(row_id, (str, int)) and row_id != "" else f"row/{index}"
    scenario = raw.get("scenario_category") or raw.get("scenario")
    return {"row_id": row_id, "source": _short_text(raw.get("source")), "scenario": _short_text(scenario)}


def _place(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return what a split must know of a raw row: the side it names and the conversation it is part of."""
    place = {"split": raw["split"]} if raw.get("split") in SIDES else {}
    conversation = raw.get("conversation_id")
    if isinstance(conversation, (str, int)) and conversation != "":
        place["conversation"] = _short_text(str(conversation))
    return place


def _short_text(value: Any) -> str:
    """Return a label's text, cut to 200 characters and safe to write to a file, whatever the field holds."""
    text = value if isinstance(value, str) else "" if value is None else show(value)
    return text[:200].encode("utf-8", "replace").decode("utf-8")


def _build_content(raw: Any, gold: Gold, tools: ParsedTools | Rejected | None, recipe: Recipe) -> Built | Rejected:
    """Return the row of one answer without its label, or the reason why it cannot be used."""
    native = recipe.call_style == "native"
    made = _native_row(raw, gold, tools, recipe) if native else build_tutorial_row(raw, gold.calls[0])
    return made if isinstance(made, Rejected) else _with_group(made, recipe)


def _read_tools(raw: Mapping[str, Any]) -> ParsedTools | Rejected:
    try:
        reading = parse_tools(raw.get("tools"))
    except SchemaError as error:
        return Rejected("bad_tools", str(error))
    if reading.tools:
        return reading
    noticed = "; ".join(f"{item.kind}: {item.detail}" for item in reading.problems[:3])
    remedy = "give the tools of all rows with --tools FILE"
    return Rejected("no_tools", noticed or f"no tool is declared, got {show(raw.get('tools'))}: {remedy}")


def _native_row(
    raw: Mapping[str, Any], gold: Gold, reading: ParsedTools | Rejected, recipe: Recipe
) -> Built | Rejected:
    if not gold.calls and not recipe.keep_no_call:
        return Rejected("no_call", f"recipe {recipe.name} keeps no rows without a call")
    if isinstance(reading, Rejected):
        return reading
    declared = [tool["function"]["name"] for tool in reading.tools]
    unknown = [call.name for call in gold.calls if call.name not in declared]
    if unknown:
        return Rejected("unknown_tool", f"{show(unknown)} not among {show(sorted(declared))}")
    earlier = [call["function"]["name"] for one in gold.prompt_messages for call in one.get("tool_calls", ())]
    if not set(earlier) <= set(declared):
        unknown = [name for name in earlier if name not in declared]
        return Rejected("broken_context", f"an earlier turn calls {show(unknown)}, not among {show(sorted(declared))}")
    keep_nulls = recipe.keep_null_arguments
    calls, nulls = clean_nulls(gold.calls, reading.tools, keep_nulls)
    replaced = replace_tool_names(declared)
    new_names = {old: new for new, old in replaced.items()}
    cleaned = [_clean_message(message, reading.tools, new_names, keep_nulls) for message in gold.prompt_messages]
    reply = shorten_reply(gold.reply, recipe.no_call_limit)
    problems = [item.kind for item in (*gold.problems, *reading.problems)]
    problems += ["reply_shortened"] * (reply != gold.reply) + ["tool_renamed"] * len(new_names)
    problems += (nulls + sum((counts for _, counts in cleaned), Counter())).elements()
    problems += ["tools_replaced"] * (raw.get(TOOLS_REPLACED) is True)
    parameters = {tool["function"]["name"]: tool["function"]["parameters"] for tool in reading.tools}
    problems += ["undeclared_argument"] * any(find_undeclared(call, parameters[call.name]) for call in calls)
    problems += ["partial_answer"] * (raw.get("partial_answer") is True)
    row = {
        "messages": [message for message, _ in cleaned],
        "tools": list(reading.tools),
        "gold": [{"name": new_names.get(call.name, call.name), "arguments": call.arguments} for call in calls],
        "reply": reply,
    }
    if replaced:
        row["tools"] = [
            {**tool, "function": {**tool["function"], "name": new_names.get(name, name)}}
            for tool, name in zip(reading.tools, declared, strict=True)
        ]
        row["renamed"] = {"tools": replaced, "parameters": {}}
    return Built(row, tuple(problems), reading.changes)


def _clean_message(
    message: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], new_names: Mapping[str, str], keep_nulls: bool
) -> tuple[dict[str, Any], Counter[str]]:
    """Return a message of the context, its calls and results treated as the gold, and the nulls by kind."""
    if message["role"] == "tool":
        return {**message, "name": new_names.get(message["name"], message["name"])}, Counter()
    if not message.get("tool_calls"):
        return dict(message), Counter()
    called = [ToolCall(**call["function"]) for call in message["tool_calls"]]
    calls, nulls = clean_nulls(called, tools, keep_nulls)
    functions = [{"name": new_names.get(call.name, call.name), "arguments": call.arguments} for call in calls]
    return {**message, "tool_calls": [{"type": "function", "function": one} for one in functions]}, nulls


def build_tutorial_row(row: Mapping[str, Any], call: ToolCall) -> Built | Rejected:
    """Build the row that the published tutorial makes, result for result, weaknesses included.

    Args:
        row: A raw row; never changed.
        call: What `extract_tutorial_gold` found in it.

    Returns:
        The row, without its label and group, or why it is left out: no_tools, unknown_tool, or bad_row where the
        tutorial's code raises.
    """
    try:
        tools = normalize_tutorial_tools(row.get("tools"))
        if not tools:
            return Rejected("no_tools", show(call.name))
        required = {tool["function"]["name"]: tool["function"]["parameters"]["required"] for tool in tools}
        if call.name not in required:
            return Rejected("unknown_tool", show(call.name))
        keeps = isinstance(call.arguments, dict) and required[call.name]  # nothing required, no arguments
        arguments = copy.deepcopy(call.arguments) if keeps else {}
    except TypeError as error:
        return Rejected("bad_row", f"a tool name must be hashable: {error}")
    except (TutorialError, RecursionError) as error:
        return Rejected("bad_row", str(error))
    content = {
        "messages": [
            {"role": "developer", "content": DEVELOPER_TEXT},
            {"role": "user", "content": row.get("task") or ""},
        ],
        "tools": tools,
        "gold": [{"name": call.name, "arguments": arguments}],
        "reply": "",
    }
    return Built(content)


def _with_group(made: Built, recipe: Recipe) -> Built | Rejected:
    """Return the row with its group, or the reason why it cannot be trained on or written to a file."""
    row = made.fate
    try:
        render_calls(row_calls(row), style=recipe.call_style)
    except ValueError as error:
        return Rejected("unrenderable", str(error))
    if nests_too_deep(row["messages"]):
        return Rejected("broken_context", f"earlier calls and results must not nest deeper than {MAX_DEPTH} levels")
    try:
        tools = [_text_of(tool) for tool in row["tools"]]
        rest = _text_of({name: value for name, value in row.items() if name != "tools"})
        "".join((*tools, rest)).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:  # lone surrogates; in a tutorial row NaN, mixed keys
        return Rejected("bad_text", str(error))
    # the users' turns but for white space, calls and results, and the tools in any order
    request = [" ".join(message["content"].split()) for message in row["messages"] if message["role"] == "user"]
    steps = [
        message.get("tool_calls") or message["content"]
        for message in row["messages"]
        if message["role"] == "tool" or message.get("tool_calls")
    ]
    question = _text_of([request, *([steps] if steps else []), sorted(tools)])
    group = hashlib.sha256(question.encode("utf-8")).hexdigest()[:16]
    return replace(made, fate={"group": group, **row})


def _text_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)
