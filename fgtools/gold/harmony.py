"""OpenAI's Harmony format in the text of a turn: messages with channels, of which those to functions are calls.

Knows the marks of the format: <|start|>role<|channel|>name to=functions.f <|constrain|>json<|message|>text<|call|>. The
analysis channel is reasoning; the recipient stands in the role or in the channel.
"""

from __future__ import annotations

import re

from fgtools.calls import Problem
from fgtools.gold.declared import DeclaredTools
from fgtools.gold.values import Found, parse_calls

_MESSAGE = "<|message|>"
_END = re.compile(r"<\|(?:end|call|return|start|channel)\|>")
_RECIPIENT = re.compile(r"\bto=\s?([\w.\-]{1,200})")
_PEOPLE = frozenset({"user", "assistant", "all"})


def is_harmony(text: str) -> bool:
    """Return whether a text is written in the format."""
    return _MESSAGE in text or "<|channel|>" in text or ("<|start|>" in text and _RECIPIENT.search(text) is not None)


def parse_harmony(text: str, tools: DeclaredTools) -> tuple[list[Found], str]:
    """Parse the messages of a turn.

    Args:
        text: The turn's text.
        tools: The row's tools.

    Returns:
        Calls and Problems (broken_call, unread_call), and the text of messages that are neither calls nor reasoning.
    """
    header, *rest = text.split(_MESSAGE)
    found: list[Found] = []
    said: list[str] = []
    for part in rest:
        end = _END.search(part)
        body, following = (part[: end.start()], part[end.start() :]) if end else (part, "")
        recipient = _RECIPIENT.search(header)
        if recipient and recipient[1] not in _PEOPLE:
            name = tools.resolve(recipient[1].removeprefix("functions."))
            if not body.strip() and not end:
                found.append(Problem("unread_call", f"{name}: cut off"))
                continue
            found += parse_calls({"name": name, "arguments": body.strip() or {}}, tools)
        elif "analysis" not in header:
            said.append(body)
        header = following
    if _RECIPIENT.search(header):
        found.append(Problem("unread_call", header[:80]))
    return found, "\n".join(said).strip()
