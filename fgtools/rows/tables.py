"""Shapes that are tables: a request in one column and the right calls in another.

Knows column names and the ways a cell holds calls: `set_alarm(time="7:00")`, JSON, or nothing where no tool fits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fgtools.gold import Rejected
from fgtools.rows.fields import (
    MAX_CALLS,
    Raw,
    Turn,
    as_block,
    as_blocks,
    as_context,
    broken_block,
    extract_tools,
    first_of,
    is_empty,
    items,
    plain_reply,
    rewritten,
)
from fgtools.rows.messages import find_tools
from fgtools.schema.literals import decode_json, parse_literals
from fgtools.schema.signatures import parse_python_calls

REQUEST_COLUMNS = (
    *("request", "query", "question", "instruction", "prompt", "user_content", "utterance", "user_query"),
    *("user_request", "user", "text", "input"),
)
CALL_COLUMNS = ("call", "calls", "function_call", "function_calls", "tool_call", "tool_calls", "expected_call")
ANSWER_COLUMNS = ("output", "response", "answer", "assistant")
NAME_COLUMNS = ("tool_name", "function_name", "name")
ARGUMENT_COLUMNS = ("tool_arguments", "tool_args", "function_arguments", "function_args", "arguments", "args")

_REFERENCE = re.compile(r"\$[A-Za-z_]\w{0,60}(?:\.[^$\n]{1,200})?\$")
"""NESTFUL's reference to the result of an earlier call: $var_1.result$."""

_PLACEHOLDER = re.compile(r'"<([\w-]{1,99})\.{0,500}>"')
"""A value that a drafted call leaves open, such as "<city>" for city."""

_NO_TOOL = frozenset({"no tool fits", "no tool", "no call", "no_tool", "no_call"})


def from_request_call(row: Raw) -> Raw | Rejected:
    """Rewrite a row of a request and its calls; without a call, no tool fits, and `reply` is what is said instead.

    A line of a drafted sheet that is not filled in, or not to its end, is rejected.
    """
    asked = next((name for name in REQUEST_COLUMNS if row.get(name) is not None), "request")
    if row.get(asked) is None or (isinstance(row[asked], str) and not row[asked].strip()):
        return Rejected("empty_request", f"{asked} is empty: write a request for the call, or delete the row")
    called = next((row[name] for name in CALL_COLUMNS if not is_empty(row.get(name))), None)
    blocks = render_cell(called)
    if left := [name for name in _PLACEHOLDER.findall(blocks) if f'"{name}":' in blocks]:
        return Rejected("placeholder", f"the call still holds <{left[0]}>: write the value that the request names")
    turns: list[Turn] = [{"from": "human", "value": row.get(asked)}]
    reply = row.get("reply")
    silent = not blocks and is_empty(reply)
    if blocks:
        turns.append({"from": "gpt", "value": blocks})
    elif not is_empty(reply):
        turns.append({"from": "gpt", "value": reply})
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        turns = [{"from": "system", "value": system}, *turns]
    drop = (asked, *CALL_COLUMNS, "reply", "system")
    return rewritten(row, turns, find_tools(row), drop, **({"no_call": True} if silent else {}))


def render_cell(cell: Any) -> str:
    """Render the calls of a cell: a list, a mapping, JSON, or Python calls, one or several a line.

    Args:
        cell: The cell; empty, null or "no tool fits" for no call.

    Returns:
        Blocks, "" for no call; what cannot be read is in a block of its own, counted as a broken call.
    """
    if is_empty(cell) or (isinstance(cell, str) and cell.strip().lower().strip(".") in _NO_TOOL):
        return ""
    if isinstance(cell, (list, tuple)):
        return "\n".join(render_cell(one) if isinstance(one, str) else as_block(one) for one in cell)
    if not isinstance(cell, str):
        return as_block(cell)
    if cell.lstrip().startswith(("{", "[{", '["')):
        try:
            values = parse_literals(cell)
        except ValueError:
            return broken_block(cell)
        return as_blocks([call for value in values for call in (value if isinstance(value, list) else [value])])
    try:
        return as_blocks(parse_python_calls(cell))
    except (ValueError, RecursionError):
        pass  # several lines then
    blocks = []
    lines = [*filter(None, (part.strip().rstrip(";").strip() for part in cell.splitlines()))]
    if len(lines) > MAX_CALLS:
        return as_blocks(lines)
    for line in lines:
        try:
            blocks.append(as_blocks(parse_python_calls(line)))
        except (ValueError, RecursionError):
            return broken_block(cell)
    return "\n".join(blocks)


def from_tool_columns(row: Raw) -> Raw | Rejected:
    """Rewrite a row with a request, a tool's name and its arguments in three columns; no name means no call."""
    name, arguments = first_of(row, *NAME_COLUMNS), first_of(row, *ARGUMENT_COLUMNS)
    call = None if is_empty(name) else {"name": name, "arguments": {} if is_empty(arguments) else arguments}
    rest = {key: value for key, value in row.items() if key not in (*NAME_COLUMNS, *ARGUMENT_COLUMNS)}
    return from_request_call({**rest, "call": call})


def from_xlam(row: Raw) -> Raw:
    """Rewrite a row of query, answers and tools, as xLAM and APIGen have them."""
    blocks = render_cell(decode_json(row.get("answers")))
    turns: list[Turn] = [{"from": "human", "value": first_of(row, "query", "question")}]
    if blocks:
        turns.append({"from": "gpt", "value": blocks})
    return rewritten(row, turns, find_tools(row), ("query", "answers"), **({} if blocks else {"no_call": True}))


def from_alpaca(row: Raw) -> Raw:
    """Rewrite a row of instruction, input and output, with earlier exchanges in `history`, as Alpaca has them.

    Other names for a request and its answer are read too, such as question and answer.
    """
    asked = [name for name in ("instruction", "input") if not is_empty(row.get(name))]
    asked = asked or [name for name in REQUEST_COLUMNS if not is_empty(row.get(name))][:1]
    said = [text for name in asked if isinstance(text := row.get(name), str)]
    given = next((name for name in ANSWER_COLUMNS if row.get(name) is not None), "output")
    system, tools = row.get("system"), find_tools(row)
    if tools is None and len(said) == 2 and (found := extract_tools(said[0])):  # ToolRL: the instruction is the system
        system, tools, said = said[0], found, said[1:]
    turns: list[Any] = [{"from": "system", "value": system}] if isinstance(system, str) and system.strip() else []
    for pair in items(row.get("history")):
        if isinstance(pair, (list, tuple)) and len(pair) == 2:
            turns.append({"from": "human", "value": pair[0]})
            turns.extend(as_context([{"from": "gpt", "value": pair[1]}]))
        else:
            turns.append({"from": None, "value": pair})
    turns.append({"from": "human", "value": "\n".join(said) if said or not asked else row[asked[0]]})
    output = decode_json(row.get(given))
    answer = as_blocks(output) if isinstance(output, list) else as_block(output) if _is_call(output) else output
    answer = plain_reply(answer)
    turns.append({"from": "gpt", "value": answer})
    if tools is None:
        tools = extract_tools(system) if isinstance(system, str) else None
    return rewritten(row, turns, tools, ("instruction", "input", "history", "system", given, *asked))


def _is_call(value: Any) -> bool:
    return isinstance(value, Mapping) and "name" in value


def from_nestful(row: Raw) -> Raw:
    """Rewrite a row of a request and a sequence of calls in which later ones use results of earlier ones.

    Calls up to the first one that refers to a result are the answer: the others can be made only when the results are
    there. `partial_answer` says that they are left out.
    """
    calls = items(row.get("output"))
    n_free = next((place for place, call in enumerate(calls) if _refers(call)), len(calls))
    kept = [_without_label(call) for call in calls[:n_free]]
    turns: list[Turn] = [{"from": "human", "value": row.get("input")}]
    if kept:
        turns.append({"from": "gpt", "value": as_blocks(kept)})
    elif calls:
        turns.append({"from": "gpt", "value": broken_block("the first call refers to a result")})
    more: dict[str, Any] = {} if calls else {"no_call": True}
    if n_free < len(calls):
        more["partial_answer"] = True
    return rewritten(row, turns, find_tools(row), ("input", "output"), **more)


def _without_label(call: Any) -> Any:
    return {name: value for name, value in call.items() if name != "label"} if isinstance(call, Mapping) else call


def _refers(value: Any, depth: int = 0) -> bool:
    """Return whether a call's arguments hold a reference to a result."""
    if isinstance(value, str):
        return bool(_REFERENCE.search(value))
    if depth > 20 or not isinstance(value, (Mapping, list, tuple)):
        return False
    return any(_refers(item, depth + 1) for item in (value.values() if isinstance(value, Mapping) else value))
