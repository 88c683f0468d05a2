"""A message of any provider as turns of text: {"from", "value"} with calls as <tool_call> blocks.

Knows the fields of messages; their content parts are parsed by `parts`. It does not know conversations or tools. Parts
of reasoning are removed, as reasoning in a text is; a part that is neither text, call nor result makes the turn
unreadable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fgtools.gold.parts import normalize_call, normalize_word, parse_part
from fgtools.gold.turns import parse_turn
from fgtools.schema.literals import decode_json, plain_value, show

_CALL_FIELDS = ("tool_calls", "toolCalls", "tool_call", "function_call", "functionCall", "toolInvocations")
_TOOL_WORDS = ("tool", "function", "observation", "ipython", "result", "output", "environment", "response")

_RESULT_ROLES = frozenset({"tool", "function"})
"""Roles of messages whose `name` is the called tool's; a user's is the person's."""


def normalize_message(message: Any) -> list[dict[str, Any]]:
    """Return the turns of a message.

    A user's message with tool results gives one turn for each result, then the user's own. An assistant's message with
    calls and their results gives the calling turn, the results, and what was said after them. A call that stands in two
    fields, or both in the text and in a field, is one call.

    Args:
        message: {"role", "content"} or {"from", "value"} with text or parts, `tool_calls`, `function_call` or
            `toolInvocations`; an item of OpenAI's responses; anything else.

    Returns:
        At least one turn {"from", "value"}; with `name` where a tool's message has it, `learn` False where the message
        has it, `repeated` True where a call was repeated, and `unreadable` [reason, detail] where a part is not text
        (not_text, bad_conversation), or text and fields hold different calls (conflicting_calls). What is no mapping
        becomes the value of a turn without a role.
    """
    if not isinstance(message, Mapping):
        return [{"from": None, "value": message}]
    role, content = _first_of(message, "from", "role"), _first_of(message, "value", "content")
    if isinstance(message.get("parts"), (list, tuple)) and message["parts"]:
        content = message["parts"]  # Vercel's messages repeat their texts in `content`
    calls = list(_field_calls(message))
    kind = parse_part(message).kind if role is None and isinstance(message.get("type"), str) else ""
    if kind in ("call", "result", "reasoning"):
        role, content, calls = ("tool" if kind == "result" else "assistant"), [message], []
    if not calls and (content is None or isinstance(content, str)):
        turns: list[dict[str, Any]] = [{"from": role, "value": content}]
        turns = [{**turns[0], "unreadable": message["unreadable"]}] if message.get("unreadable") else turns
    else:
        turns = _Builder(role).build(content, calls)
    if isinstance(message.get("name"), str) and normalize_word(role) in _RESULT_ROLES:
        turns = [{**turn, "name": message["name"]} for turn in turns]
    return [{**turn, "learn": False} for turn in turns] if message.get("learn") is False else turns


def match_results(messages: Sequence[Any]) -> list[Any]:
    """Return messages in which results stand in the order of their calls, under the names of the called tools.

    OpenAI's results say by an id which call they answer. FunctionGemma's format has no ids: names and order tell it.

    Args:
        messages: Messages whose `tool_calls` have an `id` and whose results a `tool_call_id`; not changed. Others stay
            as and where they are.
    """
    names: dict[str, str] = {}
    matched: list[Any] = []
    run: list[tuple[int, Any]] = []  # results that follow one another, with the places of their calls
    places: dict[str, int] = {}
    for message in messages:
        call_id = message.get("tool_call_id") if isinstance(message, Mapping) else None
        if isinstance(call_id, str) and call_id in names:
            run.append((places[call_id], {**message, "name": message.get("name") or names[call_id]}))
            continue
        matched += [result for _, result in sorted(run, key=lambda pair: pair[0])]
        run = []
        for _, call in _field_calls(message) if isinstance(message, Mapping) else ():
            function = call.get("function") if isinstance(call, Mapping) else None
            name = function.get("name") if isinstance(function, Mapping) else None
            if isinstance(name, str) and isinstance(call.get("id"), str):
                names[call["id"]], places[call["id"]] = name, len(places)
        matched.append(message)
    return matched + [result for _, result in sorted(run, key=lambda pair: pair[0])]


def render_block(call: Any) -> str:
    """Render a call as a <tool_call> block; OpenAI's wrapper is removed and arguments given as text are decoded.

    Args:
        call: A mapping. Anything without a JSON form becomes a block that is counted as a broken call.

    Returns:
        The block.
    """
    if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
        call = call["function"]
    if isinstance(call, Mapping) and isinstance(call.get("arguments"), str):
        call = {**call, "arguments": decode_json(call["arguments"])}
    text = _to_json(call)
    return f"<tool_call>\n{show(call) if text is None else text}\n</tool_call>"


def _field_calls(message: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every call beside the content, with the name of its field."""
    for name in _CALL_FIELDS:
        value = decode_json(message.get(name))
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item:
                yield name, item


class _Builder:
    """The turns of one message, built part by part."""

    def __init__(self, role: Any) -> None:
        self.role = role
        self.is_user = normalize_word(role) in ("user", "human")
        self.is_tool = any(word in normalize_word(role) for word in _TOOL_WORDS)
        self.turns: list[dict[str, Any]] = []
        self.unreadable: list[str] = []
        self._begin()

    def _begin(self) -> None:
        """Begin a step: its texts, its calls as blocks, and the results that follow them."""
        self.texts: list[str] = []
        self.blocks: list[str] = []
        self.results: list[str] = []
        self.is_answered = False  # by a result apart from its call: the next call belongs to a later step
        self.is_repeated = False

    def build(self, content: Any, calls: list[tuple[str, Any]]) -> list[dict[str, Any]]:
        """Return the turns of a content and of the calls in fields beside it."""
        self._add_content(content)
        self._add_fields(calls)
        if self.texts or self.blocks or self.results or not self.turns:
            self._end()
        if self.unreadable:
            return [{"from": self.role, "value": self.turns[0]["value"], "unreadable": self.unreadable}]
        return self.turns

    def _add_content(self, content: Any) -> None:
        if isinstance(content, str):
            self.texts.append(content)
        elif isinstance(content, Mapping) and not self.is_tool and parse_part(content).kind:
            self._add_part(content)
        elif isinstance(content, (list, tuple)) and self._holds_parts(content):
            for part in content:
                self._add_part({"text": part} if isinstance(part, str) else part)
        elif content is not None and (self.is_tool or content not in ([], ())):
            self._add_value(content)

    def _holds_parts(self, content: list[Any] | tuple[Any, ...]) -> bool:
        """Return whether a list is content parts; a list of a tool's results or of an assistant's calls is a value."""
        if not content or not all(isinstance(part, (str, Mapping)) for part in content):
            return False
        known = [
            not self.is_tool if isinstance(part, str) else bool(parse_part(part).kind) or "type" in part
            for part in content
        ]
        return all(known) if self.is_tool else any(known) or self.is_user

    def _add_value(self, value: Any) -> None:
        text = _to_json(value) if isinstance(value, (Mapping, list, tuple)) else None
        if text is None:
            self._reject("bad_conversation", f"holds no text: {show(value)}")
        else:
            self.texts.append(text)

    def _add_part(self, raw: Mapping[str, Any]) -> None:
        part = parse_part(raw)
        if part.kind == "call":
            if self.is_answered:
                self._end_answered()
            self.blocks.append(render_block(part.value))
            if part.result is not None:
                self._add_result(part.result)
        elif part.kind == "result":
            self._add_result(part.value)
            self.is_answered = True
        elif part.kind in ("text", "step"):
            self._end_answered()
            if isinstance(part.value, str):
                self.texts.append(part.value)
            elif part.kind == "text":
                self._add_value(part.value)
        elif not part.kind:
            self._reject("not_text", f"holds a part that is not text: {show(raw)}")

    def _add_result(self, result: Any) -> None:
        inner = _Builder("tool")
        inner._add_content(result if isinstance(result, (str, list, tuple, Mapping, type(None))) else str(result))
        self.unreadable = self.unreadable or inner.unreadable
        self.results.append("".join(inner.texts))

    def _add_fields(self, calls: list[tuple[str, Any]]) -> None:
        """Add the calls of fields; of calls that fields and text repeat, one copy is kept."""
        by_field: dict[str, list[str]] = {}
        for name, call in calls:
            by_field.setdefault(name, []).append(render_block(normalize_call(call)))
            if name == "toolInvocations" and isinstance(call, Mapping) and call.get("result") is not None:
                self._add_result(call["result"])
        for blocks in by_field.values():
            self.blocks = self._merge(self.blocks, blocks)
        said = parse_turn("".join(self.texts)) if self.blocks and self.texts else None
        if said and said.calls:
            written = [render_block(vars(call)) for call in said.calls]
            self.blocks, self.texts = self._merge(written, self.blocks), [said.text]

    def _merge(self, one: list[str], other: list[str]) -> list[str]:
        """Return the longer of two lists of calls, which must hold the shorter one."""
        if not one or not other:
            return one or other
        shorter, longer = sorted((one, other), key=len)
        rest = [_key(block) for block in longer]
        for key in map(_key, shorter):
            if key not in rest:
                self._reject("conflicting_calls", f"holds two different answers: {show(one)} and {show(other)}")
                return longer
            rest.remove(key)
        self.is_repeated = True
        return longer

    def _reject(self, reason: str, detail: str) -> None:
        self.unreadable = self.unreadable or [reason, detail]

    def _end_answered(self) -> None:
        """End the step if its results are there; a user's text belongs to one turn."""
        if self.results and not self.is_user:
            self._end()

    def _end(self) -> None:
        said = [text for text in ("".join(self.texts), *self.blocks) if text]
        turn = {"from": self.role, "value": "\n".join(said), **({"repeated": True} if self.is_repeated else {})}
        results = [{"from": "tool", "value": text} for text in self.results]
        own = [turn] if said or not results else []
        self.turns += [*results, *own] if self.is_user else [*own, *results]
        self._begin()


def _first_of(fields: Mapping[str, Any], *names: str) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _key(block: str) -> str:
    """Return a text that is equal for blocks with the same calls, however they are written."""
    calls = parse_turn(block).calls
    return json.dumps([vars(call) for call in calls], sort_keys=True) if calls else block


def _to_json(value: Any) -> str | None:
    try:
        return json.dumps(plain_value(value), ensure_ascii=False)
    except ValueError:
        return None
