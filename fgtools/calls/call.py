"""A tool call, a parsed reply, and the control tokens of FunctionGemma's format.

Knows plain values and token texts only: no tokenizer, no schema, no gold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
START_TURN, END_TURN = "<start_of_turn>", "<end_of_turn>"
START_DECLARATION, END_DECLARATION = "<start_function_declaration>", "<end_function_declaration>"
START_CALL, END_CALL = "<start_function_call>", "<end_function_call>"
START_RESPONSE, END_RESPONSE = "<start_function_response>", "<end_function_response>"
ESCAPE = "<escape>"

STOP_TOKENS = (EOS, START_RESPONSE, END_TURN)
"""What ends a reply: FunctionGemma emits <start_function_response> after its calls, <end_of_turn> after prose (ids 1,
50, 106)."""

CONTROL_TOKENS = (
    PAD,
    EOS,
    BOS,
    "<unk>",
    START_DECLARATION,
    END_DECLARATION,
    START_CALL,
    END_CALL,
    START_RESPONSE,
    END_RESPONSE,
    ESCAPE,
    START_TURN,
    END_TURN,
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
"""The text of every control token of the format; none of them may come from a user's text."""

CONTROL_TOKEN = re.compile("|".join(re.escape(token) for token in CONTROL_TOKENS))
"""Matches any control token."""

MAX_DEPTH = 100
"""Deepest nesting of lists and mappings in a call that is rendered or parsed."""


@dataclass(frozen=True)
class ToolCall:
    """A call of one tool.

    Attributes:
        name: The tool's name, as declared.
        arguments: Argument values by name; JSON values.
    """

    name: str
    arguments: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the call in the form it has in a row: {"name", "arguments"}."""
        return {"name": self.name, "arguments": self.arguments}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a text or a value.

    Attributes:
        kind: A short word. In a reply it is one of missing_name, missing_braces, unclosed_call, missing_end,
            malformed_call, unclosed_string, unquoted_string, duplicate_key, too_deep, args_not_json, white_space,
            stray_token.
        detail: What was found, in at most 80 characters.
    """

    kind: str
    detail: str


@dataclass(frozen=True)
class Reply:
    """A parsed reply of a model.

    Attributes:
        calls: The calls that could be parsed, in order.
        text: The text outside of calls, stripped, without stop tokens.
        problems: What was not in the grammar. A call with the problem unclosed_call, malformed_call, unclosed_string,
            missing_name or too_deep is not among `calls`.
    """

    calls: tuple[ToolCall, ...]
    text: str
    problems: tuple[Problem, ...]


def row_calls(row: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """Return the gold calls of a row dict; empty for a row whose right answer is no call."""
    return tuple(ToolCall(call["name"], call["arguments"]) for call in row["gold"])


def nests_too_deep(value: object) -> bool:
    """Tell whether a part of a JSON value is nested deeper than MAX_DEPTH; the value itself has depth 0."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for one in level
            if isinstance(one, (Mapping, list, tuple))
            for item in (one.values() if isinstance(one, Mapping) else one)
        ]
        if not level:
            return False
    return True
