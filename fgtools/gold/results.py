"""Results of calls: which call a tool's turn answers, and what the result is.

Knows the text of tool turns in published data: Hermes writes <tool_response> blocks with the tool's name and content as
JSON, others the bare result of each call in turn. It does not know conversations. A result that is a JSON object
becomes a mapping, any other stays text: so FunctionGemma's template takes them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgtools.calls import nests_too_deep

_OPENING, _CLOSING = "<tool_response>", "</tool_response>"
_NAMES = ("name", "tool_name", "function", "tool")
_CONTENTS = ("content", "response", "results", "result", "output")
_LABELS = frozenset({"role", "type", "id", "call_id", "tool_call_id", "tool_use_id", "status"})


@dataclass(frozen=True)
class Result:
    """The result of a call.

    Attributes:
        name: The called tool.
        content: The result: a mapping, or text.
    """

    name: str
    content: Mapping[str, Any] | str


def parse_results(turns: Sequence[tuple[str, str]], called: Sequence[str]) -> list[Result]:
    """Parse the tool turns that follow a calling turn; never raises on any text.

    A result that names a called tool, or whose turn does, is that tool's; the others belong to the calls without a
    result, in order. A JSON list in the only turn is one result for each of as many calls, or else one result. What
    comes after every call has a result is a further result of the last call.

    Args:
        turns: The tool turns, in order: the tool that is named beside the text, or "", and the text.
        called: The names of the called tools, in order; one at least.

    Returns:
        The results in the order in which they stand.
    """
    values = [(name, _decode(body)) for name, text in turns for body in _split_blocks(text)]
    if len(values) == 1 and not values[0][0] and _is_list_of_results(values[0][1], len(called)):
        values = [("", item) for item in values[0][1]]
    known, named = set(called), Counter[str]()
    waiting = iter(called)
    results = []
    for given, value in values:
        name, content = _unwrap(value)
        if name not in known:
            name, content = given, value
        if name in known:
            named[name] += 1
        else:
            name, content = _next_without_result(waiting, named) or called[-1], value
        results.append(Result(name, normalize_result(content)))
    return results


def _next_without_result(waiting: Iterator[str], named: Counter[str]) -> str | None:
    """Return the next called tool, without those whose calls have got results by name."""
    for name in waiting:
        if not named[name]:
            return name
        named[name] -= 1
    return None


def _split_blocks(text: str) -> list[str]:
    """Return the texts between <tool_response> marks; the whole text where there are none, or others stand beside."""
    pieces = text.split(_OPENING)
    if len(pieces) < 2 or pieces[0].strip():
        return [text.strip()]
    bodies, rests = [], []
    for piece in pieces[1:]:
        body, _, rest = piece.partition(_CLOSING)
        bodies.append(body.strip())
        rests.append(rest.strip())
    return [text.strip()] if any(rests) else bodies


def _decode(text: str) -> Any:
    """Return the JSON value that a text holds; the text itself where it holds none that could be written again."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    return text if nests_too_deep(value) else value


def _refuse(word: str) -> Any:
    raise ValueError(f"a number must be finite, got {word}")


def _is_list_of_results(value: Any, n_calls: int) -> bool:
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        return False
    return all(_unwrap(item)[0] is not None for item in value) or (n_calls > 1 and len(value) == n_calls)


def _unwrap(value: Any) -> tuple[str | None, Any]:
    """Return the tool's name and the content of a result that holds both; None and the value itself for any other."""
    if not isinstance(value, Mapping):
        return None, value
    name = next((word for word in _NAMES if isinstance(value.get(word), str)), None)
    content = next((word for word in _CONTENTS if word in value), None)
    if name is None or content is None or not set(value) <= _LABELS | {name, content}:
        return None, value
    return value[name], value[content]


def normalize_result(value: Any) -> Mapping[str, Any] | str:
    """Return a result as a mapping where it is one, if need be decoded once more; else as text.

    Args:
        value: A JSON value.
    """
    if isinstance(value, str):
        inner = _decode(value)
        return inner if isinstance(inner, Mapping) else value
    return value if isinstance(value, Mapping) else json.dumps(value, ensure_ascii=False)
