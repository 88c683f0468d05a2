"""The tools of the offline sample: their parameters, their values and the wordings of requests for them.

Parses catalogue.txt and pools.txt and fills wordings with values. Does not know conversations or the notations in which
tools are stored; `samples` does.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

N_TRAIN, N_DEVELOPMENT = 7, 1
"""Wordings of a seen tool: seven to train, one for development, the rest for the final evaluation."""

_HEAD = re.compile(r"(\w+) \| (\w+) \| (.+)")
_PARAMETER = re.compile(r"  ([\w.]+)(\*?) (string|integer|number|boolean|enum|list) ([^:]+): (.+)")
_OPTIONAL = re.compile(r"\[([^\]]*)\]")
_SLOT = re.compile(r"\{([\w.]+)\}")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a tool; `pool` names its values: a pool, a range or alternatives."""

    name: str
    required: bool
    kind: str
    pool: str
    description: str


@dataclass(frozen=True)
class Tool:
    """A tool and the wordings of requests for it."""

    name: str
    domain: str
    description: str
    parameters: tuple[Parameter, ...]
    wordings: tuple[str, ...]

    def wordings_for(self, side: str) -> tuple[str, ...]:
        """Return the wordings of a side: "train", "development" or "eval"; all of them where a tool has few."""
        if len(self.wordings) <= N_TRAIN + N_DEVELOPMENT:
            return self.wordings
        starts = {"train": (0, N_TRAIN), "development": (N_TRAIN, N_TRAIN + N_DEVELOPMENT)}
        start, end = starts.get(side, (N_TRAIN + N_DEVELOPMENT, len(self.wordings)))
        return self.wordings[start:end]


@dataclass(frozen=True)
class Catalogue:
    """Tools that training sees, and tools it never sees."""

    seen: tuple[Tool, ...]
    unseen: tuple[Tool, ...]


@dataclass(frozen=True)
class Request:
    """A request in words and the call it asks for."""

    text: str
    tool: Tool
    arguments: dict[str, Any]


def read_text(name: str) -> str:
    """Return the text of a file of this room."""
    return resources.files("fgtools.offline").joinpath(name).read_text(encoding="utf-8")


@cache
def load_catalogue() -> Catalogue:
    """Load catalogue.txt."""
    seen, unseen = read_text("catalogue.txt").split("== unseen ==")
    return Catalogue(_parse_tools(seen), _parse_tools(unseen))


@cache
def load_pools() -> dict[str, tuple[str, ...]]:
    """Load pools.txt: values by pool; the pool `any` holds the words of words.txt, for made-up tools."""
    lines = [line for line in read_text("pools.txt").splitlines() if line and not line.startswith("#")]
    pairs = (line.split(": ", 1) for line in lines)
    words = [line for line in read_text("words.txt").splitlines() if not line.startswith("#")]
    return {name: tuple(values.split(", ")) for name, values in pairs} | {"any": tuple(" ".join(words).split())}


def _parse_tools(text: str) -> tuple[Tool, ...]:
    tools = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            continue
        name, domain, description = _HEAD.fullmatch(lines[0]).groups()
        details = (_PARAMETER.fullmatch(line).groups() for line in lines[1:] if not line.startswith("  > "))
        parameters = [Parameter(key, bool(star), kind, pool, about) for key, star, kind, pool, about in details]
        wordings = tuple(line.removeprefix("  > ") for line in lines if line.startswith("  > "))
        tools.append(Tool(name, domain, description, tuple(parameters), wordings))
    return tuple(tools)


def build_request(tool: Tool, side: str, draw: random.Random) -> Request:
    """Build a request for a tool.

    Args:
        tool: The tool.
        side: "train", "development" or "eval": which wordings may be used.
        draw: Random generator of every choice.

    Returns:
        The request; each optional part of the wording is left out with probability one half.
    """
    wording = _OPTIONAL.sub(
        lambda part: part.group(1) if draw.random() < 0.5 else "", draw.choice(tool.wordings_for(side))
    )
    parameters = {parameter.name: parameter for parameter in tool.parameters}
    arguments: dict[str, Any] = {}
    used: set[str] = set()

    def fill(slot: re.Match[str]) -> str:
        surface, value = draw_value(parameters[slot.group(1)], used, draw)
        place_value(arguments, slot.group(1), value)
        return surface

    return Request(_SLOT.sub(fill, wording), tool, arguments)


def place_value(arguments: dict[str, Any], name: str, value: Any) -> None:
    """Put a value under a parameter's name, whose dots lead into objects; `arguments` is changed."""
    *outer, last = name.split(".")
    for key in outer:
        arguments = arguments.setdefault(key, {})
    arguments[last] = value


def draw_value(parameter: Parameter, used: set[str], draw: random.Random) -> tuple[str, Any]:
    """Draw a value, as the request words it and as the call passes it; the texts of one request all differ."""
    kind, pool = parameter.kind, parameter.pool
    if kind == "integer":
        low, high = (int(end) for end in pool.split("-"))
        number = draw.randint(low, high)
        return str(number), number
    if kind == "number":
        low, high = (float(end) for end in pool.split("-"))
        halves = draw.randint(int(low * 2), int(high * 2))
        amount = halves // 2 if halves % 2 == 0 else halves / 2
        return str(amount), amount
    if kind == "boolean":
        truth = draw.random() < 0.5
        yes, no = pool.split("/")
        return (yes if truth else no), truth
    if kind == "enum":
        word = draw.choice(pool.split("|"))
        return word, word
    if pool == "pair":
        value = " ".join(draw.sample(load_pools()["any"], 2))
        return value, value
    free = [value for value in load_pools()[pool] if value not in used]
    if kind == "list":
        values = draw.sample(free, draw.randint(1, 3))
        used.update(values)
        joined = values[0] if len(values) == 1 else ", ".join(values[:-1]) + " and " + values[-1]
        return joined, values
    value = draw.choice(free)
    used.add(value)
    return value, value


def build_schema(tool: Tool) -> dict[str, Any]:
    """Return a tool's parameters as JSON Schema."""
    root: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for parameter in tool.parameters:
        *outer, last = parameter.name.split(".")
        place = root
        for key in outer:
            place = place["properties"].setdefault(key, {"type": "object", "properties": {}, "required": []})
        kind: dict[str, Any] = {"type": parameter.kind}
        if parameter.kind == "list":
            kind = {"type": "array", "items": {"type": "string"}}
        if parameter.kind == "enum":
            kind = {"type": "string", "enum": parameter.pool.split("|")}
        place["properties"][last] = {**kind, "description": parameter.description}
        if parameter.required:
            place["required"].append(last)
    return root
