"""Fields of raw rows: decoding them, calls as <tool_call> blocks, turns that are not learnt, tools in system texts.

Knows values, not shapes: which columns a data set has stands in `formats`, and how each shape is rewritten in
`messages`, `tables` and `benchmarks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from fgtools.gold import render_block
from fgtools.schema.literals import decode_json, parse_literal, parse_values

Raw = Mapping[str, Any]
"""A raw row."""

Turn = dict[str, Any]
"""A turn of a conversation: {"from", "value"}, with "learn" False where it is context only."""

MAX_TEXT = 5_000_000
"""Most characters of one text of a row, and bytes of a line of a file: two hundred times the longest row of the public
data sets that the package was tried on (23,000). Longer ones are not read: it would take seconds, and no model could be
shown them."""

MAX_CALLS = 1_000
"""Most calls of one answer that are read; real answers have fewer than a hundred."""

TOO_LONG = "\x00too_long"
"""Column of a row that was not read because its line is too long; the value says which."""

GIVEN_TOOLS = "\x00tools"
"""Column of a row whose tools are given from outside: their text. Tools of its own are not used."""

TOOLS_REPLACED = "\x00tools_replaced"
"""Column of such a row: whether it has tools of its own."""

ASSISTANTS = ("gpt", "assistant", "model")
ROLE, CONTENT = ("from", "role"), ("value", "content")

_SWITCHES = ("weight", "train", "training", "train_on_turn", "trainable", "loss", "loss_scale", "learn")
"""Fields that switch a turn off where they are 0 or false: OpenAI and Mistral (weight), axolotl (train, training),
home-llm (train_on_turn), ms-swift (loss, loss_scale) and XTuner (loss)."""

_MASKS = ("masked", "mask", "is_masked")
"""Fields that switch a turn off where they are true, as in torchtune: a masked turn takes no part in the loss."""

_DETAILS = ("training_detail", "train_detail")
"""axolotl's lists of the parts of a turn, each with `train`."""

_OFF_TEXTS = frozenset({"false", "0", "0.0", "no", "off"})
_ON_TEXTS = frozenset({"true", "1", "1.0", "yes", "on"})

_LISTED_TOOL = re.compile(
    r"Name:[ \t]{0,9}([^\n]{1,200})\n[ \t]{0,9}Description:[ \t]{0,9}([^\n]{0,4000})\n"
    r"[ \t]{0,9}Parameters:[ \t]{0,9}(?=\{)"
)
_VALUE_START = re.compile(r"[{\[]")
_MAX_LISTED = 1_000
"""Tools in words that are read from a system text."""

_MAX_SEARCHES = 2_000
"""Brackets of a system text from which a value is looked for; real texts that list tools have fewer."""


def items(value: Any) -> Sequence[Any]:
    """Return a list, decoded from JSON text where it is text; an empty one for anything else."""
    value = decode_json(value)
    return value if isinstance(value, (list, tuple)) else []


def first_of(fields: Raw, *names: str) -> Any:
    """Return the first field that is there and not null, else None."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def is_empty(value: Any) -> bool:
    """Return whether a field says nothing: null, NaN (an empty cell of a table), blank text, "null" or "none"."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "null", "none", "nan", "[]", "{}")
    return value is None or value != value or (isinstance(value, (list, tuple, Mapping)) and not value)


def is_off(value: Any) -> bool:
    """Return whether a switch is off: false, 0, or text of either; null is no decision."""
    if isinstance(value, str):
        return value.strip().lower() in _OFF_TEXTS
    return isinstance(value, (bool, int, float)) and value == 0


def is_on(value: Any) -> bool:
    """Return whether a switch is on: true, 1, or text of either."""
    if isinstance(value, str):
        return value.strip().lower() in _ON_TEXTS
    return isinstance(value, (bool, int, float)) and value == 1


def is_learnt(turn: Raw) -> bool:
    """Return whether no field of a turn switches it off."""
    if len(turn) <= 2:
        return True
    if any(is_off(turn[name]) for name in _SWITCHES if name in turn):
        return False
    if any(is_on(turn[name]) for name in _MASKS if name in turn):
        return False
    for name in _DETAILS:
        parts = [part for part in items(turn.get(name)) if isinstance(part, Mapping)]
        if parts and all(is_off(part.get("train")) for part in parts):
            return False
    return True


def mark_learnt(turn: Any) -> Any:
    """Return a turn with "learn" False where a field of it switches it off; any other turn as it is."""
    return turn if not isinstance(turn, Mapping) or is_learnt(turn) else {**turn, "learn": False}


def as_context(turns: Iterable[Any]) -> list[Any]:
    """Return turns of which none is learnt."""
    return [{**turn, "learn": False} if isinstance(turn, Mapping) else turn for turn in turns]


def rewritten(row: Raw, turns: Sequence[Any], tools: Any, drop: tuple[str, ...], **more: Any) -> Raw:
    """Return a row in the Hermes shape: its other columns, and `task`, the first request, where it has none."""
    users = (turn for turn in turns if isinstance(turn, Mapping) and turn.get("from") in ("human", "user"))
    task = next((turn["value"] for turn in users), "")
    kept = {name: value for name, value in row.items() if name not in drop}
    return {"task": task, **kept, "conversations": turns, "tools": tools, **more}


def as_block(call: Any) -> str:
    """Render a call the Hermes way; OpenAI's wrapper is removed and arguments given as text are decoded."""
    return render_block(call)


def broken_block(text: str) -> str:
    """Put text between the marks of a call as it stands; what is no call is counted as a broken one."""
    return f"<tool_call>\n{text}\n</tool_call>"


def as_blocks(calls: Sequence[Any]) -> str:
    """Render calls one after the other; more than MAX_CALLS of them are one block, counted as a broken call."""
    if len(calls) > MAX_CALLS:
        return broken_block(f"{len(calls):,} calls in one answer, more than {MAX_CALLS:,}")
    return "\n".join(map(as_block, calls))


def bare_tools(tools: Any) -> Any:
    """Remove the wrappers of tools in a list: {"type", "function"}, {"functionDeclarations"}, JSON text.

    Args:
        tools: A tools field of any kind.

    Returns:
        The definitions in a list; a field that is no list as it is.
    """
    tools = decode_json(tools)
    if not isinstance(tools, (list, tuple)):
        return tools
    return [bare for tool in tools for bare in _bare(decode_json(tool))]


def _bare(tool: Any) -> Sequence[Any]:
    if not isinstance(tool, Mapping):
        return [tool]
    declared = first_of(tool, "functionDeclarations", "function_declarations")
    if isinstance(declared, (list, tuple)):
        return declared
    is_wrapper = isinstance(tool.get("function"), Mapping) and set(tool) <= {"type", "function"}
    return [tool["function"] if is_wrapper else tool]


def extract_tools(system: str) -> list[Any]:
    """Find the tool definitions in a system text: inside <tools> marks, else every JSON object or list with names.

    A list that is written as Python is read too (ToolBench), and lines of "Name: ...", "Description: ..." and
    "Parameters: {...}" (ToolRL).

    Args:
        system: The text.

    Returns:
        Definitions as they were written, lists flattened; [] where there are none.
    """
    marked = [text for text in _find_marked(system, "<tools>", "</tools>") if text.strip()]
    found: list[Any] = []
    for text in marked or [system]:
        position = searches = 0
        while (start := _VALUE_START.search(text, position)) and searches < _MAX_SEARCHES:
            values, end = parse_values(text, start.start())
            found.extend(item for value in values for item in (value if isinstance(value, list) else [value]))
            position, searches = max(end, start.end()), searches + 1
    found = found or _python_list(system)
    named = [item for item in found if isinstance(item, Mapping) and ("name" in item or "function" in item)]
    listed = islice(_LISTED_TOOL.finditer(system), _MAX_LISTED)
    return named or [_listed_tool(match, system) for match in listed]


def _find_marked(text: str, opening: str, closing: str) -> list[str]:
    """Return the texts between marks, in one pass."""
    found = []
    position = text.find(opening)
    while position >= 0 and (end := text.find(closing, position)) >= 0:
        found.append(text[position + len(opening) : end])
        position = text.find(opening, end)
    return found


def _python_list(system: str) -> list[Any]:
    """Return the mappings of the one list that is written as Python, as in ToolBench's system texts."""
    start, end = system.find("[{'"), system.rfind("}]")
    if start < 0 or end < start:
        return []
    try:
        found = parse_literal(system[start : end + 2])
    except ValueError:
        return []
    return list(found) if isinstance(found, list) else []


def _listed_tool(match: re.Match[str], system: str) -> dict[str, Any]:
    values, _ = parse_values(system, match.end())
    name, description = match.group(1).strip(), match.group(2).strip()
    return {"name": name, "description": description, "parameters": values[0] if values else None}


def as_text(content: Any) -> Any:
    """Return the joined text of content parts that are all text; any other content as it is."""
    if not isinstance(content, (list, tuple)) or not content:
        return content
    texts = [
        part.get("text") if isinstance(part, Mapping) and set(part) <= {"type", "text"} else None for part in content
    ]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content


def plain_reply(text: Any) -> Any:
    """Return an answer without ToolRL's marks around what is said: <response> and </response>."""
    if not isinstance(text, str) or "<response>" not in text:
        return text
    return text.replace("<response>", "").replace("</response>", "").strip()


def system_text(row: Raw) -> str:
    """Return the texts of a row's `system` column and of its system turns."""
    turns = [turn for turn in items(row.get("conversations")) if isinstance(turn, Mapping)]
    said = [first_of(turn, *CONTENT) for turn in turns if first_of(turn, *ROLE) in ("system", "developer")]
    return "\n".join(text for text in (row.get("system"), *said) if isinstance(text, str))


def assistant_text(turn: Any) -> str:
    """Return the text of an assistant's turn; "" for any other turn."""
    role, text = (first_of(turn, *names) for names in (ROLE, CONTENT)) if isinstance(turn, Mapping) else ("", "")
    is_assistant = isinstance(role, str) and role.strip().lower() in ASSISTANTS
    return text if is_assistant and isinstance(text, str) else ""
