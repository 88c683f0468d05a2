"""The shapes of raw rows in published data sets, and their conversion to one of them: the Hermes shape.

Knows by which columns and contents a shape is told; how each is rewritten stands in `messages`, `tables` and
`benchmarks`. A row is rewritten with `conversations`, `tools` and `task`; calls become <tool_call> blocks or stay in
their own notation, which `gold` reads. A row that no shape fits is rejected with what it lacks; what is missing in a
row of a known shape is found by `gold`.

    hermes          conversations [{from, value}], tools; also ShareGPT, LLaMA-Factory, tools in the system text
    toolace         the same, tools in the system text and calls as Python: [f(a=1)]
    openai          messages [{role, content, tool_calls}], tools (or functions and function_call); also Anthropic's and
                    Bedrock's content parts, HammerBench, Toucan, smoltalk2 (chat_template_kwargs), Nemotron
    mobile_actions  google/mobile-actions: the same with metadata "train" or "eval", often as text lines
    responses       OpenAI's Responses API: input and output items, or responses_create_params and expected_action
    gemini          contents [{role, parts}], tools with functionDeclarations, systemInstruction
    trl             prompt and completion as messages or text, and a tools column; also verl's reward_model
    preference      chosen and rejected answers, with a prompt or a conversation before them
    xlam            query, answers, tools as JSON text
    request_call    request and call: set_alarm(time="7:00"), JSON, or empty where no tool fits; the simplest table
    tool_columns    user_content, tool_name and tool_arguments
    alpaca          instruction, input, output, history, system, tools; also ToolRL, and a question with its answer
    nestful         input and output, a list of calls of which later ones use results of earlier ones
    glaive          system ("SYSTEM: ... functions") and chat ("USER: ... ASSISTANT: <functioncall> ...")
    bfcl            question, function, ground_truth; also ACEBench
    when2call       question, tools, answers and which of them is correct
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from fgtools.files import InputError
from fgtools.gold import Rejected
from fgtools.rows.benchmarks import from_bfcl, from_when2call
from fgtools.rows.fields import GIVEN_TOOLS, MAX_TEXT, TOO_LONG, Raw, extract_tools, items
from fgtools.rows.messages import (
    CHOSEN_COLUMNS,
    CONVERSATION_COLUMNS,
    from_gemini,
    from_glaive,
    from_hermes,
    from_openai,
    from_preference,
    from_responses,
    from_toolace,
    from_trl,
    is_python_call,
    mark_undesired,
)
from fgtools.rows.tables import (
    ANSWER_COLUMNS,
    ARGUMENT_COLUMNS,
    CALL_COLUMNS,
    NAME_COLUMNS,
    REQUEST_COLUMNS,
    from_alpaca,
    from_nestful,
    from_request_call,
    from_tool_columns,
    from_xlam,
)
from fgtools.schema.literals import decode_json

__all__ = ["SHAPES", "Raw", "extract_tools", "guess_shape", "list_columns", "normalize_row"]

SHAPES: dict[str, Callable[[Raw], Raw | Rejected]] = {
    "hermes": from_hermes,
    "toolace": from_toolace,
    "openai": from_openai,
    "mobile_actions": from_openai,
    "responses": from_responses,
    "gemini": from_gemini,
    "trl": from_trl,
    "preference": from_preference,
    "xlam": from_xlam,
    "request_call": from_request_call,
    "tool_columns": from_tool_columns,
    "alpaca": from_alpaca,
    "nestful": from_nestful,
    "glaive": from_glaive,
    "bfcl": from_bfcl,
    "when2call": from_when2call,
}
"""Every shape by name, and the function that rewrites it."""

_NEEDED: dict[str, tuple[tuple[str, ...], ...]] = {
    "hermes": (("conversations",),),
    "openai": (("messages",),),
    "trl": (("prompt",), ("completion", "response")),
    "xlam": (("query",), ("answers",)),
    "request_call": (("request", *REQUEST_COLUMNS[1:-1]), ("call", *CALL_COLUMNS[1:])),
    "tool_columns": (REQUEST_COLUMNS, NAME_COLUMNS, ARGUMENT_COLUMNS),
    "alpaca": (("instruction", *REQUEST_COLUMNS), ANSWER_COLUMNS),
    "bfcl": (("question",), ("function",)),
    "glaive": (("system",), ("chat",)),
}
"""The columns that a shape must have, one of each group; for the message about a row that no shape fits."""

_ADDED = ("row_id", "source")
"""Columns that reading a file adds."""

_MAX_COLUMNS = 12
"""Columns named in that message."""


_ITEMS = ("input", "output", "expected_action", "expected_output")
"""Columns of items of the Responses API, one of which at least is a list."""


def guess_shape(row: Any) -> str:
    """Return which shape a raw row has, from its columns and the notation of its calls.

    Args:
        row: Anything; a row is a mapping.

    Returns:
        One of SHAPES, or "unknown".
    """
    row = _unwrapped(row)
    if not isinstance(row, Mapping):
        return "unknown"
    has = {name for name, value in row.items() if value is not None}
    if not has.isdisjoint(CHOSEN_COLUMNS):
        return "preference"
    talks = next((name for name in CONVERSATION_COLUMNS if name in has), None)
    if talks and (talks == "conversations" or _are_turns(row[talks])):
        turns = items(row[talks])
        if any(isinstance(turn, Mapping) and (turn.get("tool_calls") or turn.get("function_call")) for turn in turns):
            return "openai"
        return "toolace" if any(map(is_python_call, turns)) else "hermes"
    if "messages" in has:
        return "mobile_actions" if row.get("metadata") in ("train", "eval") else "openai"
    return _guess_by_columns(row, has)


def _guess_by_columns(row: Raw, has: set[str]) -> str:
    """Return the shape of a row without a conversation."""
    if "contents" in has and _are_turns(row["contents"]):
        return "gemini"
    response = decode_json(row.get("response"))
    items_given = any(_are_turns(row.get(name)) for name in _ITEMS) or (
        isinstance(response, Mapping) and "output" in response
    )
    if "responses_create_params" in has or ("input" in has and items_given):
        return "responses"
    if "prompt" in has and (has & {"completion", "reward_model"} or ("response" in has and not _has_calls(has))):
        return "trl"
    if {"query", "answers"} <= has:
        return "xlam"
    if "question" in has and has & {"function", "functions"}:
        return "bfcl"
    if {"system", "chat"} <= has:
        return "glaive"
    asks = not has.isdisjoint(REQUEST_COLUMNS)
    if asks and any(name in row for name in NAME_COLUMNS) and any(name in row for name in ARGUMENT_COLUMNS):
        return "tool_columns"
    if any(name in row for name in CALL_COLUMNS) and any(name in row for name in REQUEST_COLUMNS):
        return "request_call"  # an empty cell is an answer: no tool fits
    listed = "output" in has and isinstance(decode_json(row["output"]), (list, tuple))
    if listed and "input" in has and "instruction" not in has:
        return "nestful"
    if {"question", "correct_answer"} <= has:
        return "when2call"
    if {"question", "answers"} <= has:
        return "xlam"
    if asks and not has.isdisjoint(ANSWER_COLUMNS) and not _has_calls(has):
        return "alpaca"
    return "unknown"


def _has_calls(has: set[str]) -> bool:
    """Return whether a column of no known name may hold the calls, so that the words beside it are not the answer."""
    return any("call" in name.lower() for name in has if isinstance(name, str))


def _are_turns(value: Any) -> bool:
    """Return whether a value is a list of mappings with a role, a speaker, parts or a type."""
    turns = items(value)
    words = {"role", "from", "parts", "type"}
    return bool(turns) and all(isinstance(turn, Mapping) and not words.isdisjoint(turn) for turn in turns)


def normalize_row(row: Any, shape: str = "auto") -> Any:
    """Return a raw row in the Hermes shape.

    Args:
        row: A raw row.
        shape: One of SHAPES, or "auto" for what `guess_shape` says.

    Returns:
        A new mapping with `conversations`, `tools`, `task` and the row's other columns; turns that are context only
        have `learn` False, `no_call` is True where the row says that no call is right without saying it in words, and
        `partial_answer` where calls that need a result are left out. A row that is in the Hermes shape already is
        returned unchanged; a mapping that no shape fits is a Rejected that names its columns and what they lack.

    Raises:
        ValueError: The shape is unknown by name.
    """
    if shape != "auto" and shape not in SHAPES:
        raise InputError(f"SHAPE must be 'auto' or one of {sorted(SHAPES)}, got {shape!r}")
    if isinstance(row, Mapping) and GIVEN_TOOLS in row:
        made = normalize_row({name: value for name, value in row.items() if name != GIVEN_TOOLS}, shape)
        return {**made, "tools": row[GIVEN_TOOLS]} if isinstance(made, Mapping) else made
    guessed = guess_shape(row) if shape == "auto" else shape
    row = _unwrapped(row)
    if not isinstance(row, Mapping):
        return row
    if (too_long := _find_long(row)) is not None:
        return too_long
    if guessed == "unknown":
        return row if "conversations" in row or "messages" in row else _reject_unknown(row)
    try:
        made = SHAPES[guessed](row)
        return made if isinstance(made, Rejected) else mark_undesired(made)
    except RecursionError:  # nested too deep to be rewritten: it stays as it is, and is rejected for that later
        return row


def _find_long(row: Raw) -> Rejected | None:
    """Return why a row is too long to be read, if it is."""
    if TOO_LONG in row:
        return Rejected("too_long", row[TOO_LONG])
    for name, value in row.items():
        if isinstance(value, str) and len(value) > MAX_TEXT:
            return Rejected("too_long", f"{name} has {len(value):,} characters, more than {MAX_TEXT:,}")
    return None


def list_columns(row: Raw) -> list[str]:
    """Return the names of a row's columns as its author wrote them, without those that reading a file adds."""
    return [str(name)[:40] for name in row if name not in _ADDED and not str(name).startswith("\x00")]


def _reject_unknown(row: Raw) -> Rejected:
    """Return why no shape fits a row: the columns it has, and what the nearest shape lacks."""
    columns = list_columns(row)
    scores = {shape: sum(_match(names, row) for names in needed) / len(needed) for shape, needed in _NEEDED.items()}
    nearest = max(scores, key=scores.__getitem__) if any(scores.values()) else "openai"
    lacks = [names[0] for names in _NEEDED[nearest] if set(names).isdisjoint(row)]
    shown = ", ".join(columns[:_MAX_COLUMNS]) + (", ..." if len(columns) > _MAX_COLUMNS else "")
    return Rejected(
        "unknown_shape",
        f"no shape is known with these columns; the nearest, {nearest}, lacks {', '.join(lacks) or 'nothing'}; "
        f"columns found: {shown or 'none'}",
    )


def _match(names: tuple[str, ...], row: Raw) -> float:
    """Return how well a row has one of a shape's columns: by its first name best, by none not at all."""
    return 1.0 if names[0] in row else 0.9 if not set(names).isdisjoint(row) else 0.0


def _unwrapped(row: Any) -> Any:
    """Return a row with plain column names, and with the columns that a `text` column holds as JSON."""
    if not isinstance(row, Mapping):
        return row
    if any(isinstance(name, str) and not name.islower() for name in row):
        row = _with_plain_names(row)
    if not isinstance(row.get("text"), str) or any(name in row for name in ("conversations", "messages")):
        return row
    if not row["text"].lstrip().startswith("{"):
        return row
    try:
        inner = json.loads(row["text"])
    except (ValueError, RecursionError):
        return row
    return {**{name: value for name, value in row.items() if name != "text"}, **inner}


_KNOWN = frozenset(
    {"messages", "tools", "functions", "function", "system", "completion", "response", "answers", "query", "question"}
    | {"ground_truth", "output", "input", "history", "chat", "chosen", "rejected", "reply", "contents", "label"}
    | {*CONVERSATION_COLUMNS, *REQUEST_COLUMNS, *CALL_COLUMNS, *NAME_COLUMNS, *ARGUMENT_COLUMNS}
)
"""Columns that are found however they are capitalized."""


def _with_plain_names(row: Raw) -> Raw:
    """Return a row whose known columns have their plain names: "Tool Name" is tool_name."""
    plain: dict[Any, Any] = {}
    for name, value in row.items():
        folded = "_".join(name.strip().lower().replace("-", " ").split()) if isinstance(name, str) else name
        plain[folded if folded in _KNOWN and folded not in row else name] = value
    return plain
