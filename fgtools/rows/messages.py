"""Shapes that are conversations: turns or messages with roles, rewritten as turns of the Hermes shape.

Knows the columns of such shapes, and which of their turns are context only; which shape a row has is told by `formats`.
Texts, content parts and the notations of calls in them stay as they are: `gold` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from fgtools.gold import Rejected, match_results, normalize_message
from fgtools.rows.fields import (
    MAX_CALLS,
    ROLE,
    Raw,
    Turn,
    as_block,
    as_blocks,
    as_context,
    as_text,
    assistant_text,
    bare_tools,
    broken_block,
    extract_tools,
    first_of,
    is_empty,
    is_learnt,
    is_off,
    items,
    mark_learnt,
    plain_reply,
    rewritten,
    system_text,
)
from fgtools.schema.literals import decode_json
from fgtools.schema.signatures import parse_python_calls

CONVERSATION_COLUMNS = ("conversations", "conversation", "dialogue", "dialog", "turns")
TOOL_COLUMNS = (
    *("tools", "functions", "available_tools", "multiple_tools", "tool_list", "single_tool"),
    *("toolConfig", "tool_config"),
)
"""Columns of tool definitions, best first; HammerBench has two, and the longer list is the harder task. The last are
Amazon Bedrock's."""

CHOSEN_COLUMNS = ("chosen", "chosen_response", "preferred_output")
_REJECTED_COLUMNS = ("rejected", "rejected_response", "non_preferred_output")
_LANGCHAIN = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
"""The speakers of LangChain's messages, by their type."""

_KWARGS = ("tools", "xml_tools", "python_tools")
_NO_NAME = re.compile(r"[\[\]{}\"'<>=\n]")
_GLAIVE_TURN = re.compile(r"(?:^|\n)[ \t]*(USER|ASSISTANT|FUNCTION RESPONSE):")
_GLAIVE_CALL, _GLAIVE_END = "<functioncall>", "<|endoftext|>"
_GLAIVE_QUOTED = re.compile(r"""^\{\s*"name":\s*"([^"]*)"\s*,\s*"arguments":\s*'(.*)'\s*\}\s*$""", re.DOTALL)


def is_python_call(turn: Any) -> bool:
    """Return whether a turn is an assistant's whose text is calls written as Python: [f(a=1)]."""
    text = assistant_text(turn).strip()
    if not (text.startswith("[") and text.endswith("]") and text[1:-1].rstrip().endswith(")")):
        return False
    name = text[1:].partition("(")[0]
    return bool(name.strip()) and not _NO_NAME.search(name)


def mark_undesired(row: Raw) -> Raw | Rejected:
    """Mark the answers of a row that is labelled undesired (KTO's `label` or `kto_tag`) as not to be learnt.

    Args:
        row: A row in the Hermes shape. A `label` that is a number is a class, and no judgement of its answer; only
            `from_trl` takes the number 0 for False.

    Returns:
        The row, its turns as context where it is undesired; Rejected where its answer, no call, is not in a turn.
    """
    if is_number(row.get("label")):
        row = {name: value for name, value in row.items() if name != "label"}
    if not any(is_off(row.get(name)) for name in ("label", "kto_tag")):
        return row
    if row.get("no_call") is True:
        return Rejected("not_learnt", "the answer without a call is marked as undesired")
    turns = row.get("conversations")
    return {**row, "conversations": as_context(turns)} if isinstance(turns, (list, tuple)) else row


def is_number(value: Any) -> bool:
    """Return whether a value is a number: as a row's label this is a class, and no judgement of its answer."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def find_tools(row: Raw) -> Any:
    """Return the tools of a row: the first column with any, else those of a chat template's arguments or metadata."""
    listed = next((row[name] for name in TOOL_COLUMNS if not is_empty(row.get(name))), None)
    if listed is not None:
        return listed
    for column in ("chat_template_kwargs", "metadata", "extra_info", "config"):
        inner = decode_json(row.get(column))
        if isinstance(inner, Mapping):
            found = [item for name in _KWARGS if not is_empty(inner.get(name)) for item in _listed(inner[name])]
            if found:
                return found
    return next((row[name] for name in TOOL_COLUMNS if row.get(name) is not None), None)


def _listed(tools: Any) -> Sequence[Any]:
    found = items(tools)
    return found if found else [tools]


# one function per shape


def from_hermes(row: Raw) -> Raw:
    """Rewrite a row of turns {from, value} or {role, content}: only what stands elsewhere is moved."""
    column = next((name for name in CONVERSATION_COLUMNS if row.get(name) is not None), "conversations")
    conversations = decode_json(row.get(column))
    if column != "conversations":
        row = {**{name: value for name, value in row.items() if name != column}, "conversations": conversations}
    if isinstance(conversations, (list, tuple)) and not all(
        is_learnt(turn) for turn in conversations if isinstance(turn, Mapping)
    ):
        conversations = [mark_learnt(turn) for turn in conversations]
        row = {**row, "conversations": conversations}
    system = row.get("system")
    if isinstance(system, str) and system.strip() and isinstance(conversations, (list, tuple)):
        turns = [{"from": "system", "value": system}, *conversations]
        row = {**{name: value for name, value in row.items() if name != "system"}, "conversations": turns}
    if row.get("tools") is not None:
        return row
    found = find_tools(row) or extract_tools(system_text(row))
    return {**row, "tools": found} if found else row


def from_toolace(row: Raw) -> Raw:
    """Rewrite a row whose calls are written as Python and whose tools stand in the system text."""
    conversations = decode_json(row.get("conversations"))
    if not isinstance(conversations, (list, tuple)):
        return row
    return from_hermes({**row, "conversations": [_turn_with_blocks(turn) for turn in conversations]})


def _turn_with_blocks(turn: Any) -> Any:
    if not is_python_call(turn):
        return turn
    made: Turn = {"from": "gpt", "value": python_blocks(assistant_text(turn))}
    return made if is_learnt(turn) else {**made, "learn": False}


def python_blocks(text: str) -> str:
    """Render calls that are written as Python; text that cannot be read becomes one block, counted as a broken call."""
    try:
        return as_blocks(parse_python_calls(text))
    except (ValueError, RecursionError):
        return broken_block(text)


def from_openai(row: Raw) -> Raw:
    """Rewrite a row of messages with roles; tools and calls may be OpenAI's, Anthropic's, Bedrock's or Gemini's."""
    messages = decode_json(first_of(row, "messages", *CONVERSATION_COLUMNS))
    if not isinstance(messages, (list, tuple)):
        return {**row, "conversations": messages}
    tools = find_tools(row)
    side = {"split": row["metadata"]} if row.get("metadata") in ("train", "eval") else {}
    turns = [turn for message in match_results(messages) for turn in from_message(message)]
    system = as_text(decode_json(row.get("system")))  # Anthropic's place for it, text or parts
    if not is_empty(system):
        turns = [{"from": "system", "value": system}, *turns]
    tools = extract_tools(system_text({"conversations": turns})) if tools is None else tools
    return rewritten(row, turns, bare_tools(tools), ("messages", "functions", "system"), **side)


def from_message(message: Any) -> list[Any]:
    """Return a message as turns, with its calls as blocks after its text; most messages are one turn."""
    kind = message.get("type") if isinstance(message, Mapping) and _role(message) is None else None
    if isinstance(kind, str) and kind in _LANGCHAIN:
        inner = message["data"] if isinstance(message.get("data"), Mapping) else message
        message = {"role": _LANGCHAIN[kind], **{name: inner[name] for name in inner if name != "type"}}
    turns = [{**turn, "value": plain_reply(turn.get("value"))} for turn in normalize_message(message)]
    return turns if not isinstance(message, Mapping) or is_learnt(message) else as_context(turns)


def from_trl(row: Raw) -> Raw:
    """Rewrite a row of a prompt and its completion; turns of the prompt are context."""
    reward = decode_json(row.get("reward_model"))  # verl's rows for reinforcement learning
    truth = reward.get("ground_truth") if isinstance(reward, Mapping) else None
    prompt, completion = decode_json(row.get("prompt")), first_of(row, "completion", "response")
    completion = decode_json(truth if completion is None else completion)
    drop = ("prompt", "completion", "response", "reward_model")
    if is_number(row.get("label")):
        row = {**row, "label": not is_off(row["label"])}
    return _from_parts(row, _as_messages(prompt, "user"), _as_messages(completion, "assistant"), drop)


def from_preference(row: Raw) -> Raw:
    """Rewrite a row with a chosen and a rejected answer: the chosen one is learnt, the rejected one never."""
    asked = decode_json(row.get("input"))
    if isinstance(asked, Mapping):  # OpenAI's preference rows
        row = {**{name: value for name, value in row.items() if name != "input"}, **asked}
    chosen = _as_messages(first_of(row, *CHOSEN_COLUMNS), "assistant")
    rejected = _as_messages(first_of(row, *_REJECTED_COLUMNS), "assistant")
    before = first_of(row, "messages", *CONVERSATION_COLUMNS)
    asked = row.get("prompt") if before is None else before
    prompt = _as_messages(first_of(row, "question", "instruction") if asked is None else asked, "user")
    if chosen and any(_role(message) in ("user", "human") for message in chosen):  # a whole conversation
        pairs = zip(chosen, rejected or [], strict=False)
        n_shared = len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
        system = [*takewhile(lambda message: _role(message) == "system", prompt or [])]
        prompt, chosen = [*system, *chosen[:n_shared]], chosen[n_shared:]
    drop = ("prompt", *CHOSEN_COLUMNS, *_REJECTED_COLUMNS, *CONVERSATION_COLUMNS)
    return _from_parts(row, prompt, chosen, drop)


def _from_parts(row: Raw, prompt: Sequence[Any] | None, answer: Sequence[Any] | None, drop: tuple[str, ...]) -> Raw:
    rest = {name: value for name, value in row.items() if name not in (*drop, "messages")}
    if prompt is None or answer is None:
        return from_openai({**rest, "messages": None})
    return from_openai({**rest, "messages": [*as_context(prompt), *answer]})


def _as_messages(value: Any, role: str) -> Sequence[Any] | None:
    """Return messages: a list of them, one message, or text that one of this role says; None for anything else."""
    value = decode_json(value)
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, Mapping):
        return [value if _role(value) else {"role": role, "content": value}]
    return value if isinstance(value, (list, tuple)) else None


def _role(message: Any) -> Any:
    return first_of(message, *ROLE) if isinstance(message, Mapping) else None


def from_glaive(row: Raw) -> Raw:
    """Rewrite a row of `system` and `chat`, texts with the speakers' names in capitals."""
    chat, system = (row[name] if isinstance(row.get(name), str) else "" for name in ("chat", "system"))
    pieces = _GLAIVE_TURN.split(chat)
    turns = [_glaive_turn(role, text) for role, text in zip(pieces[1::2], pieces[2::2], strict=True)]
    return rewritten(row, turns, find_tools(row) or extract_tools(system), ("chat", "system"))


def _glaive_turn(role: str, text: str) -> Turn:
    speakers = {"USER": "human", "FUNCTION RESPONSE": "tool"}
    if role in speakers:
        return {"from": speakers[role], "value": text.replace(_GLAIVE_END, "").strip()}
    before, *called = text.split(_GLAIVE_CALL)
    parts = [part.partition(_GLAIVE_END) for part in called]
    if len(called) > MAX_CALLS:
        return {"from": "gpt", "value": as_blocks(called)}
    said = "".join([before, *(rest for _, _, rest in parts)]).replace(_GLAIVE_END, "").strip()
    return {"from": "gpt", "value": "\n".join([*([said] if said else []), *(_glaive_call(part[0]) for part in parts)])}


def _glaive_call(text: str) -> str:
    """Render one call; its arguments are JSON text between single quotes, with apostrophes inside not escaped."""
    text = text.strip()
    if match := _GLAIVE_QUOTED.match(text):
        return as_block({"name": match.group(1), "arguments": match.group(2).replace("\\'", "'")})
    return broken_block(text)


def from_gemini(row: Raw) -> Raw:
    """Rewrite a row of Gemini's `contents`, whose parts `gold` reads."""
    contents = items(row.get("contents"))
    turns: list[Any] = []
    for content in contents:
        if isinstance(content, Mapping):
            turn = {"from": content.get("role") or "user", "value": as_text(first_of(content, "parts", "text"))}
            turns.append(turn if is_learnt(content) else {**turn, "learn": False})
        else:
            turns.append({"from": None, "value": content})
    system = decode_json(first_of(row, "systemInstruction", "system_instruction", "system"))
    if isinstance(system, Mapping):
        system = first_of(system, "parts", "text")
    if system:
        turns = [{"from": "system", "value": as_text(system)}, *turns]
    drop = ("contents", "systemInstruction", "system_instruction", "system")
    return rewritten(row, turns, bare_tools(find_tools(row)), drop)


def from_responses(row: Raw) -> Raw:
    """Rewrite a row of OpenAI's Responses API: items of the input, and those of the output or the expected action."""
    asked = decode_json(row.get("responses_create_params"))
    request: Raw = asked if isinstance(asked, Mapping) else row
    response = decode_json(row.get("response"))
    output = response.get("output") if isinstance(response, Mapping) else None
    given = first_of({"output": output, **row}, "expected_action", "expected_output", "output")
    parts = [_as_items(request.get("input"), "user"), _as_items(given, "assistant")]
    instructions = request.get("instructions")
    turns: list[Any] = [{"from": "system", "value": instructions}] if isinstance(instructions, str) else []
    before = [turn for item in parts[0] for turn in _from_item(item)]
    after = [turn for item in parts[1] for turn in _from_item(item)]
    turns = _joined([*turns, *(as_context(before) if after else before), *after])
    tools = find_tools(request)
    drop = ("responses_create_params", "input", "output", "expected_action", "expected_output", "response")
    return rewritten(row, turns, bare_tools(find_tools(row) if tools is None else tools), drop)


def _as_items(value: Any, role: str) -> Sequence[Any]:
    value = decode_json(value)
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    listed = [value] if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else []
    return [_with_role(item, role) for item in listed]


def _with_role(item: Any, role: str) -> Any:
    """Return an item with its speaker where it is a message that names none."""
    is_message = isinstance(item, Mapping) and item.get("type") in (None, "message") and _role(item) is None
    return {**item, "role": role} if is_message else item


def _from_item(item: Any) -> list[Any]:
    """Return an item as turns; none for reasoning, which is never shown."""
    kind = item.get("type") if isinstance(item, Mapping) else None
    if kind == "reasoning":
        return []
    if kind in ("function_call", "custom_tool_call"):
        call = {"name": item.get("name"), "arguments": first_of(item, "arguments", "input")}
        return [{"from": "gpt", "value": as_block(call), "call": True}]
    if kind in ("function_call_output", "custom_tool_call_output"):
        return [{"from": "tool", "value": item.get("output")}]
    if kind in (None, "message") and isinstance(item, Mapping):
        return from_message(item)
    return [{"from": kind, "value": item}]  # a search, an image: `gold` says that it cannot read the turn


def _joined(turns: Sequence[Any]) -> list[Any]:
    """Join calls that follow one another: they were made at once."""
    made: list[Any] = []
    for turn in turns:
        if turn.get("call") and made and made[-1].get("call") and made[-1].get("learn") == turn.get("learn"):
            made[-1] = {**made[-1], "value": f"{made[-1]['value']}\n{turn['value']}"}
        else:
            made.append(turn)
    return [{name: value for name, value in turn.items() if name != "call"} for turn in made]
