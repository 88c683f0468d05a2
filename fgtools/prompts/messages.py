"""Messages as a chat template takes them: calls and their results among the earlier turns, and no text as a token.

Knows messages and how FunctionGemma's template renders them; no tokenizer. A row's messages are {"role", "content"};
an assistant's may hold `tool_calls`, and one of role "tool" holds a call's result: its `name` is the tool's, its
`content` the result, a mapping or text. The template renders results inside the model's own turn: no new turn begins
after them, and the reply that follows continues the turn that called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fgtools.calls.tokens import SPECIAL_TOKEN


class Marks(NamedTuple):
    """How often a prompt must hold each mark that opens something, if no text opens anything.

    Attributes:
        turns: Turns, with the developer's and the one that the model is to write or to go on with.
        calls: Calls of earlier turns.
        results: Results of these.
        glued: Users' turns that the template writes directly after a result, without a turn of their own.
    """

    turns: int
    calls: int
    results: int
    glued: int


def prepare_messages(
    messages: Sequence[Mapping[str, Any]], special: re.Pattern[str] = SPECIAL_TOKEN
) -> list[dict[str, Any]]:
    """Return messages as a chat template takes them.

    A result becomes {"name", "response"}, the form that FunctionGemma's guide gives: in any other, the template would
    take the keys `name` and `response` of a result for its own, and write nothing for an empty result. Text is put
    under `value`, where the template puts it. Control tokens in texts, names and values are neutralised.

    Args:
        messages: Chat messages; not changed. Results without a `name` beside their content stay as they are.
        special: As for neutralize_control_tokens.
    """
    return neutralize_control_tokens([_prepare_result(message) for message in messages], special)


def _prepare_result(message: Mapping[str, Any]) -> Mapping[str, Any]:
    name, content = message.get("name"), message.get("content")
    if message.get("role") != "tool" or not isinstance(name, str) or not isinstance(content, (str, Mapping)):
        return message
    response = {"value": content} if isinstance(content, str) else content
    return {**message, "content": {"name": name, "response": response}}


def neutralize_control_tokens(value: Any, special: re.Pattern[str] = SPECIAL_TOKEN) -> Any:
    """Return a copy of a JSON value in which no text holds a control token or another token that stands for no text.

    Args:
        value: Text, a list or a mapping; anything else is returned as it is.
        special: Matches such tokens; `encode.find_special_tokens` returns those of a tokenizer.

    Returns:
        The same value with a space after the first character of every such token, keys included.
    """
    if isinstance(value, str):
        return special.sub(_part_token, value)
    if isinstance(value, Mapping):
        return {
            neutralize_control_tokens(key, special): neutralize_control_tokens(item, special)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [neutralize_control_tokens(item, special) for item in value]
    return value


def _part_token(found: re.Match[str]) -> str:
    token = found.group()
    return f"{token[0]} {token[1:]}"


def count_marks(messages: Sequence[Mapping[str, Any]]) -> Marks:
    """Return how many turns, calls and results a prompt of a row's messages has.

    Args:
        messages: A row's messages, the developer turn first.
    """
    roles = [message["role"] for message in messages]
    after_result = [before == "tool" for before in ["", *roles]]  # one more than messages: the model's turn comes last
    turns = sum(role != "tool" and not after for role, after in zip([*roles, "assistant"], after_result, strict=True))
    calls = sum(len(message.get("tool_calls") or ()) for message in messages)
    glued = sum(role == "user" and after for role, after in zip(roles, after_result[:-1], strict=True))
    return Marks(turns, calls, roles.count("tool"), glued)


def split_request(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return the messages before the last user's turn, and that turn with what followed it: calls and their results.

    Args:
        messages: Chat messages; without any user's turn, the last one counts as it.
    """
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    start = users[-1] if users else len(messages) - 1
    return list(messages[:start]), list(messages[start:])
