"""The shapes of raw rows in published data sets, and their conversion to one of them: the Hermes shape.

Knows the columns of published data sets. A row of another shape is rewritten with `conversations`, `tools` and `task`;
calls become <tool_call> blocks, which `gold` reads. It rejects no row: what is missing in one is found by `gold`.

    hermes          conversations [{from, value}], tools; also ShareGPT, LLaMA-Factory, tools in the system text
    toolace         the same, tools in the system text and calls as Python: [f(a=1)]
    openai          messages [{role, content, tool_calls}], tools (or functions and function_call)
    mobile_actions  google/mobile-actions: the same with metadata "train" or "eval", often as text lines
    trl             prompt and completion as messages, and a tools column
    xlam            query, answers, tools as JSON text
    glaive          system ("SYSTEM: ... functions") and chat ("USER: ... ASSISTANT: <functioncall> ...")
    bfcl            question, function, ground_truth
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fgtools.files import InputError
from fgtools.schema.literals import decode_text, parse_values, plain_value, show
from fgtools.schema.signatures import parse_python_calls

Raw = Mapping[str, Any]

_PYTHON_CALLS = re.compile(r"^\s*\[[^\[\]{}\"'<>=\n]+\(.*\)\s*\]\s*$", re.DOTALL)
_GLAIVE_TURN = re.compile(r"(?:^|\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE):", re.DOTALL)
_GLAIVE_CALL = re.compile(r"<functioncall>\s*(.*?)\s*(?:<\|endoftext\|>|$)", re.DOTALL)
_GLAIVE_QUOTED = re.compile(r"""^\{\s*"name":\s*"([^"]*)"\s*,\s*"arguments":\s*'(.*)'\s*\}\s*$""", re.DOTALL)
_TOOL_LIST = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)
_BFCL_CATEGORY = re.compile(r"_?\d+(?:-\d+)*$")
_VALUE_START = re.compile(r"[{\[]")
_ASSISTANTS = ("gpt", "assistant", "model")
_TELLING_COLUMNS = {
    "trl": {"prompt", "completion"},
    "xlam": {"query", "answers"},
    "bfcl": {"question", "function"},
    "glaive": {"system", "chat"},
}
_ROLE, _CONTENT = ("from", "role"), ("value", "content")


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
    if "conversations" in has:
        turns = _items(row["conversations"])
        if any(isinstance(turn, Mapping) and (turn.get("tool_calls") or turn.get("function_call")) for turn in turns):
            return "openai"
        return "toolace" if any(_PYTHON_CALLS.match(_assistant_text(turn)) for turn in turns) else "hermes"
    if "messages" in has:
        return "mobile_actions" if row.get("metadata") in ("train", "eval") else "openai"
    return next((shape for shape, columns in _TELLING_COLUMNS.items() if columns <= has), "unknown")


def normalize_row(row: Any, shape: str = "auto") -> Any:
    """Return a raw row in the Hermes shape.

    Args:
        row: A raw row.
        shape: One of SHAPES, or "auto" for what `guess_shape` says.

    Returns:
        A new mapping with `conversations`, `tools`, `task` and the row's other columns, and `no_call` True where the
        row says that no call is right without saying it in words. A row that is in the Hermes shape already, or whose
        shape is unknown, is returned unchanged.

    Raises:
        ValueError: The shape is unknown by name.
    """
    if shape != "auto" and shape not in SHAPES:
        raise InputError(f"SHAPE must be 'auto' or one of {sorted(SHAPES)}, got {shape!r}")
    shape = guess_shape(row) if shape == "auto" else shape
    row = _unwrapped(row)
    if shape == "unknown" or not isinstance(row, Mapping):
        return row
    try:
        return SHAPES[shape](row)
    except RecursionError:  # nested too deep to be rewritten: it stays as it is, and is rejected for that later
        return row


def _unwrapped(row: Any) -> Any:
    """Return the row that a `text` column holds as JSON; any other row as it is."""
    if not isinstance(row, Mapping) or not isinstance(row.get("text"), str):
        return row
    if any(name in row for name in ("conversations", "messages")) or not row["text"].lstrip().startswith("{"):
        return row
    try:
        inner = json.loads(row["text"])
    except (ValueError, RecursionError):
        return row
    return {**{name: value for name, value in row.items() if name != "text"}, **inner}


def _rewritten(row: Raw, turns: list[dict[str, Any]], tools: Any, drop: tuple[str, ...], **more: Any) -> Raw:
    task = next((turn["value"] for turn in turns if turn["from"] in ("human", "user")), "")
    kept = {name: value for name, value in row.items() if name not in drop}
    return {"task": task, **kept, "conversations": turns, "tools": tools, **more}


def _block(call: Any) -> str:
    """Render a call the Hermes way; OpenAI's wrapper is removed and arguments given as text are decoded."""
    if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
        call = call["function"]
    if isinstance(call, Mapping) and isinstance(call.get("arguments"), str):
        call = {**call, "arguments": _decoded(call["arguments"])}
    try:
        text = json.dumps(plain_value(call), ensure_ascii=False)
    except ValueError:  # not JSON's values, or nested too deep: counted as a broken call
        text = show(call)
    return f"<tool_call>\n{text}\n</tool_call>"


# one function per shape


def _from_hermes(row: Raw) -> Raw:
    system, conversations = row.get("system"), _decoded(row.get("conversations"))
    if isinstance(system, str) and system.strip() and isinstance(conversations, (list, tuple)):
        turns = [{"from": "system", "value": system}, *conversations]
        row = {**{name: value for name, value in row.items() if name != "system"}, "conversations": turns}
    if row.get("tools") is not None:
        return row
    found = extract_tools(_system_text(row))
    return {**row, "tools": found} if found else row


def _from_toolace(row: Raw) -> Raw:
    conversations = _decoded(row.get("conversations"))
    if not isinstance(conversations, (list, tuple)):
        return row
    return _from_hermes({**row, "conversations": [_turn_with_blocks(turn) for turn in conversations]})


def _turn_with_blocks(turn: Any) -> Any:
    text = _assistant_text(turn)
    return {"from": "gpt", "value": _python_blocks(text)} if _PYTHON_CALLS.match(text) else turn


def _python_blocks(text: str) -> str:
    """Render calls that are written as Python; text that cannot be read becomes one block, counted as a broken call."""
    try:
        return "\n".join(_block(call) for call in parse_python_calls(text))
    except (ValueError, RecursionError):
        return f"<tool_call>\n{text}\n</tool_call>"


def _from_openai(row: Raw) -> Raw:
    messages = _decoded(_first_of(row, "messages", "conversations"))
    if not isinstance(messages, (list, tuple)):
        return {**row, "conversations": messages}
    tools = next((row[name] for name in ("tools", "functions") if row.get(name)), row.get("tools"))
    side = {"split": row["metadata"]} if row.get("metadata") in ("train", "eval") else {}
    turns = [_from_message(message) for message in messages]
    tools = extract_tools(_system_text({"conversations": turns})) if tools is None else tools
    return _rewritten(row, turns, _bare(tools), ("messages", "functions"), **side)


def _bare(tools: Any) -> Any:
    """Remove the wrapper of this shape: {"type": "function", "function": {...}}."""
    tools = _decoded(tools)
    if not isinstance(tools, (list, tuple)):
        return tools
    return [tool["function"] if isinstance(tool, Mapping) and _is_wrapper(tool) else tool for tool in tools]


def _is_wrapper(tool: Raw) -> bool:
    return isinstance(tool.get("function"), Mapping) and set(tool) <= {"type", "function"}


def _from_message(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return {"from": None, "value": message}
    calls = [*_items(message.get("tool_calls"))]
    if isinstance(message.get("function_call"), (Mapping, str)) and message["function_call"]:
        calls = [*calls, _decoded(message["function_call"])]
    role, content = _first_of(message, *_ROLE), _first_of(message, *_CONTENT)
    if not calls:
        return {"from": role, "value": content}
    if isinstance(content, (list, tuple)):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    said = [content] if isinstance(content, str) and content else []
    return {"from": role, "value": "\n".join([*said, *map(_block, calls)])}


def _from_trl(row: Raw) -> Raw:
    prompt, completion = _decoded(row.get("prompt")), _decoded(row.get("completion"))
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    completion = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
    both = all(isinstance(part, (list, tuple)) for part in (prompt, completion))
    rest = {name: value for name, value in row.items() if name not in ("prompt", "completion")}
    return _from_openai({**rest, "messages": [*prompt, *completion] if both else None})


def _from_xlam(row: Raw) -> Raw:
    answers = _decoded(row.get("answers"))
    turns = [{"from": "human", "value": row.get("query")}]
    if isinstance(answers, str):
        turns.append({"from": "gpt", "value": f"<tool_call>\n{answers}\n</tool_call>"})
    elif answers:
        listed = answers if isinstance(answers, (list, tuple)) else [answers]
        turns.append({"from": "gpt", "value": "\n".join(_block(call) for call in listed)})
    return _rewritten(row, turns, row.get("tools"), ("query", "answers"), **({} if answers else {"no_call": True}))


def _from_glaive(row: Raw) -> Raw:
    chat, system = (row[name] if isinstance(row.get(name), str) else "" for name in ("chat", "system"))
    pieces = _GLAIVE_TURN.split(chat)
    turns = [_glaive_turn(role, text) for role, text in zip(pieces[1::2], pieces[2::2], strict=True)]
    return _rewritten(row, turns, extract_tools(system), ("chat", "system"))


def _glaive_turn(role: str, text: str) -> dict[str, str]:
    speakers = {"USER": "human", "FUNCTION RESPONSE": "tool"}
    if role in speakers:
        return {"from": speakers[role], "value": text.replace("<|endoftext|>", "").strip()}
    blocks = [_glaive_call(found) for found in _GLAIVE_CALL.findall(text)]
    said = _GLAIVE_CALL.sub("", text).replace("<|endoftext|>", "").strip()
    return {"from": "gpt", "value": "\n".join([*([said] if said else []), *blocks])}


def _glaive_call(text: str) -> str:
    """Render one call; its arguments are JSON text between single quotes, with apostrophes inside not escaped."""
    if match := _GLAIVE_QUOTED.match(text):
        return _block({"name": match.group(1), "arguments": match.group(2).replace("\\'", "'")})
    return f"<tool_call>\n{text}\n</tool_call>"


def _from_bfcl(row: Raw) -> Raw:
    question = _decoded(row.get("question"))
    if isinstance(question, str):
        question = [{"role": "user", "content": question}]
    first = question[0] if isinstance(question, (list, tuple)) and question else None
    messages = first if isinstance(first, (list, tuple)) else question  # of a list of messages per turn, the first
    turns = [_from_message(message) for message in messages] if isinstance(messages, (list, tuple)) else []
    category = _BFCL_CATEGORY.sub("", row["id"]) if isinstance(row.get("id"), str) else ""
    answer = _decoded(_first_of(row, "ground_truth", "possible_answer"))
    more: dict[str, Any] = {"scenario_category": category} if category else {}
    if answer:
        listed = answer if isinstance(answer, (list, tuple)) else [answer]
        if listed and isinstance(listed[0], (list, tuple)):
            listed = listed[0]
        turns.append({"from": "gpt", "value": "\n".join(_truth_block(truth) for truth in listed)})
    elif answer is not None or "irrelevance" in category:
        more["no_call"] = True
    return _rewritten(row, turns, row.get("function"), ("question", "function", "ground_truth"), **more)


def _truth_block(truth: Any) -> str:
    """Render one expected call, with the first allowed value of each argument; "" means that it is left out."""
    if isinstance(truth, str):
        return _python_blocks(truth)
    if isinstance(truth, Mapping) and len(truth) == 1:
        name, arguments = next(iter(truth.items()))
        return _block({"name": name, "arguments": _first_allowed(arguments)})
    return _block(truth)


def _first_allowed(value: Any) -> Any:
    """Resolve a mapping of lists of allowed values; a list among these may hold such mappings again."""
    if isinstance(value, (list, tuple)):
        return [_first_allowed(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    chosen = {
        name: allowed[0] if isinstance(allowed, (list, tuple)) and allowed else allowed
        for name, allowed in value.items()
    }
    return {name: _first_allowed(item) for name, item in chosen.items() if item != ""}


SHAPES: dict[str, Callable[[Raw], Raw]] = {
    "hermes": _from_hermes,
    "toolace": _from_toolace,
    "openai": _from_openai,
    "mobile_actions": _from_openai,
    "trl": _from_trl,
    "xlam": _from_xlam,
    "glaive": _from_glaive,
    "bfcl": _from_bfcl,
}
"""Every shape by name, and the function that rewrites it."""


# parts of rows


def extract_tools(system: str) -> list[Any]:
    """Find the tool definitions in a system text: inside <tools> marks, else every JSON object or list with names.

    Args:
        system: The text.

    Returns:
        Definitions as they were written, lists flattened; [] where there are none.
    """
    marked = [text for text in _TOOL_LIST.findall(system) if text.strip()]
    found: list[Any] = []
    for text in marked or [system]:
        position = 0
        while start := _VALUE_START.search(text, position):
            values, end = parse_values(text, start.start())
            found.extend(item for value in values for item in (value if isinstance(value, list) else [value]))
            position = max(end, start.end())
    return [item for item in found if isinstance(item, Mapping) and ("name" in item or "function" in item)]


def _system_text(row: Raw) -> str:
    turns = [turn for turn in _items(row.get("conversations")) if isinstance(turn, Mapping)]
    said = [_first_of(turn, *_CONTENT) for turn in turns if _first_of(turn, *_ROLE) in ("system", "developer")]
    return "\n".join(text for text in (row.get("system"), *said) if isinstance(text, str))


def _assistant_text(turn: Any) -> str:
    """Return the text of an assistant's turn; "" for any other turn."""
    role, text = (_first_of(turn, *names) for names in (_ROLE, _CONTENT)) if isinstance(turn, Mapping) else ("", "")
    is_assistant = isinstance(role, str) and role.strip().lower() in _ASSISTANTS
    return text if is_assistant and isinstance(text, str) else ""


def _first_of(fields: Raw, *names: str) -> Any:
    """Return the first field that is there and not null, else None."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _items(value: Any) -> Sequence[Any]:
    """Return a list, decoded from JSON text where it is text; an empty one for anything else."""
    value = _decoded(value)
    return value if isinstance(value, (list, tuple)) else []


def _decoded(value: Any) -> Any:
    """Decode JSON text of a list or mapping; anything else, and text that cannot be decoded, is returned as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return decode_text(value, times=1)
    except ValueError:
        return value
