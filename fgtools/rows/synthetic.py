"""Requests for a sheet's lines, written by a language model; each is checked before it becomes a line.

Knows what is asked and what an answer must hold; the address is for `endpoint`. A request whose call is not valid under
the tool's schema, differs from the line's call or leaves a placeholder, and one that is there already, is counted and
left out. Whether a request really asks for its call is not checked: read the lines before you train on them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fgtools.calls import ToolCall
from fgtools.metrics import has_valid_arguments
from fgtools.rows.drafts import Line
from fgtools.rows.proposals import find_placeholders
from fgtools.schema.literals import parse_values

WORDINGS = 3
"""Requests that are asked for each line with a call."""

CALLS_A_QUESTION = 5
"""Lines of one question; a longer answer is more often cut."""

MAX_REQUEST = 2_000
"""Longest request, in characters."""

_SYSTEM = (
    "You write what users say to an assistant that calls tools. Vary wording, length, politeness and sentence form. "
    "Answer with one JSON list and nothing else."
)


class Asks(Protocol):
    """Something that answers a conversation, such as `endpoint.Endpoint`."""

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the answer."""


@dataclass
class Written:
    """What a model has written so far.

    Attributes:
        lines: Lines with requests, and those that got none, in the order of the sheet.
        counts: How many requests were kept, and how many were left out by reason: unreadable, invalid_call,
            changed_call, placeholder, bad_request (empty or longer than MAX_REQUEST), duplicate.
    """

    lines: list[Line] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def write_requests(
    lines: Sequence[Line], tools: Sequence[Mapping[str, Any]], model: Asks, written: Written, wordings: int = WORDINGS
) -> Written:
    """Ask a model for the requests of a sheet.

    Args:
        lines: The lines without requests, as `build_draft` returns them.
        tools: The tools they are for.
        model: Who is asked.
        written: Takes what was received; when the model fails, it holds all lines up to there.
        wordings: Requests for each line with a call; a line without a call gets one.

    Returns:
        `written`, with one line for each request that passed the checks, and the lines that got none as they were.

    Raises:
        EndpointError: As `Endpoint.ask`; the lines not yet asked for are added to `written` as they are.
    """
    schemas = {tool["function"]["name"]: tool for tool in tools}
    seen: set[str] = set()
    groups = list(_group(lines))
    for number, group in enumerate(groups):
        try:
            answer = model.ask(_compose_question(group, schemas, wordings))
        except BaseException:
            written.lines += [line for rest in groups[number:] for line in rest]
            raise
        received: dict[int, list[Line]] = {}
        for place, line in _read_answer(answer, group, schemas, written.counts):
            key = " ".join(line.request.casefold().split()).rstrip(".!?")
            if key in seen:
                written.counts["duplicate"] += 1
            else:
                seen.add(key)
                written.counts["kept"] += 1
                received.setdefault(place, []).append(line)
        for place, line in enumerate(group):
            written.lines += received.get(place) or [line]
    return written


def _group(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Yield lines that are asked for together: calls of one tool, or lines without a call."""
    group: list[Line] = []
    for line in lines:
        alike = not group or (group[0].call and group[0].call.name) == (line.call and line.call.name)
        if group and (not alike or len(group) == CALLS_A_QUESTION):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def _compose_question(
    group: Sequence[Line], schemas: Mapping[str, Mapping[str, Any]], wordings: int
) -> list[dict[str, str]]:
    first = group[0].call
    if first is None:
        tools = [tool["function"] for tool in schemas.values()]
        asked = [{"number": number, "write": line.note} for number, line in enumerate(group)]
        text = (
            f"The assistant's tools:\n{json.dumps(tools, ensure_ascii=False)}\n\nFor each number write one request, in "
            'answer to which no tool may be called. Answer as [{"number": 0, "request": "..."}, ...].\n'
        )
    else:
        tools = schemas[first.name]["function"]
        asked = [{"number": n, "arguments": line.call.arguments} for n, line in enumerate(group) if line.call]
        text = (
            f"A tool of the assistant:\n{json.dumps(tools, ensure_ascii=False)}\n\nFor each number write {wordings} "
            "different requests that are answered by a call with exactly these arguments. Put a realistic value in "
            "place of every placeholder such as <city>, a new one for each request, and keep all other values. Every "
            "value must be in the request or follow from it. Answer as "
            '[{"number": 0, "request": "...", "arguments": {...}}, ...].\n'
        )
    return [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": text + json.dumps(asked, ensure_ascii=False)},
    ]


def _read_answer(
    answer: str, group: Sequence[Line], schemas: Mapping[str, Mapping[str, Any]], counts: Counter[str]
) -> Iterator[tuple[int, Line]]:
    """Yield (place in the group, line) for each item of an answer that passes the checks; count the others."""
    values, _ = parse_values(answer, max(answer.find("["), 0))
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    if not items:
        counts["unreadable"] += 1
    for item in items:
        place = item.get("number") if isinstance(item, Mapping) else None
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(group):
            counts["unreadable"] += 1
            continue
        request, line = item.get("request"), group[place]
        if not isinstance(request, str) or not request.strip() or len(request) > MAX_REQUEST:
            counts["bad_request"] += 1
            continue
        call = line.call
        if call is not None:
            if reason := _find_fault(item.get("arguments"), call, schemas[call.name]["function"]["parameters"]):
                counts[reason] += 1
                continue
            call = ToolCall(call.name, item["arguments"])
        yield place, replace(line, call=call, request=request.strip(), synthetic=True)


def _find_fault(arguments: Any, wanted: ToolCall, schema: Mapping[str, Any]) -> str:
    """Return why arguments cannot stand for a line's call; "" where they can."""
    if not isinstance(arguments, Mapping):
        return "unreadable"
    if find_placeholders(arguments):
        return "placeholder"
    if not _fills(wanted.arguments, arguments):
        return "changed_call"
    valid = has_valid_arguments([ToolCall(wanted.name, dict(arguments))], {wanted.name: schema})
    return "" if valid else "invalid_call"


def _fills(wanted: Any, given: Any, name: str = "") -> bool:
    """Return whether a value is the wanted one with other texts in place of its placeholders."""
    if find_placeholders(wanted, name) and isinstance(wanted, str):
        return isinstance(given, str) and bool(given.strip())
    if isinstance(wanted, Mapping):
        same = isinstance(given, Mapping) and set(given) == set(wanted)
        return same and all(_fills(value, given[key], key) for key, value in wanted.items())
    if isinstance(wanted, list):
        if len(wanted) == 1 and find_placeholders(wanted, name):  # one placeholder may become several values
            return isinstance(given, list) and bool(given) and all(_fills(wanted[0], one, name) for one in given)
        same = isinstance(given, list) and len(given) == len(wanted)
        return same and all(_fills(one, other, name) for one, other in zip(wanted, given, strict=True))
    return type(wanted) is type(given) and wanted == given
