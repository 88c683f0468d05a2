"""The tutorial's side of calls: its argument `args`, which is JSON text, and what its evaluation finds in a reply.

Knows text and plain values; reproduces the tutorial's results, weaknesses included.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from fgtools.calls.call import END_CALL, START_CALL, Problem, ToolCall, nests_too_deep

_NAME = re.compile(r"call:([a-zA-Z0-9_]+)\{")


@dataclass(frozen=True)
class TutorialPrediction:
    """What the tutorial finds in a generated text: the first name or None, and the first whole call block or ""."""

    name: str | None
    block: str


def parse_tutorial_prediction(text: str | None) -> TutorialPrediction:
    """Parse a generated text as the tutorial's evaluation does.

    Args:
        text: The generated text, or None.

    Returns:
        The name of the first `call:NAME{` anywhere (letters, digits and underscores only), and the first whole call
        block.
    """
    text = text or ""
    name = _NAME.search(text)
    start = text.find(START_CALL)  # a regular expression would try every start of a reply that has no end
    end = text.find(END_CALL, start + len(START_CALL)) if start >= 0 else -1
    return TutorialPrediction(name.group(1) if name else None, text[start : end + len(END_CALL)] if end >= 0 else "")


def decode_arguments(call: ToolCall) -> tuple[ToolCall | None, list[Problem]]:
    """Decode the argument `args` of a call.

    Args:
        call: A call as it is written in a reply.

    Returns:
        The call with its real arguments, and what is wrong with them. The call comes back as it is where `args` is not
        JSON text of a mapping; None instead of a call where that text nests too deep.
    """
    encoded = call.arguments.get("args")
    if set(call.arguments) != {"args"} or not isinstance(encoded, str):
        return call, [Problem("args_not_json", f"{call.name}: no single string argument 'args'"[:80])]
    duplicates: list[str] = []

    def build_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            duplicates.extend([key] if key in values else [])
            values[key] = value
        return values

    try:
        arguments = json.loads(
            encoded, parse_constant=_refuse_number, parse_float=_parse_finite, object_pairs_hook=build_mapping
        )
    except RecursionError:
        return None, [Problem("too_deep", encoded[:80])]
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return call, [Problem("args_not_json", encoded[:80])]
    if nests_too_deep(arguments):
        return None, [Problem("too_deep", encoded[:80])]
    return ToolCall(call.name, arguments), [Problem("duplicate_key", key[:80]) for key in duplicates]


def _refuse_number(word: str) -> Any:
    raise ValueError(f"a number must be finite, got {word}")


def _parse_finite(word: str) -> float:
    return number if math.isfinite(number := float(word)) else _refuse_number(word)
