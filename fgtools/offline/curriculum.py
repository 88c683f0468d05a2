"""Pretraining rows: made-up tools, and requests that ask for one of them.

Names, descriptions and wordings are drawn word by word, so no tool or wording of the catalogue occurs; what can be
learnt is the skill alone: find the offered tool whose description shares words with the request, and copy the values.
Rows are row dicts, as the rest of the package knows them.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from fgtools.offline.catalogue import load_catalogue, load_pools, read_text
from fgtools.profiles import DEVELOPER_TEXT

FILLERS = tuple(
    "i want to please the a my can you me we need let is it for now some get have do would like should could of "
    "there this that and show give tell make what how".split()
)
LINKS = ("in", "on", "at", "for", "with", "to", "from", "by", "of", "as", "about", "near")
REFUSALS = (
    "sorry, none of my tools can do that",
    "i have no tool for that",
    "i can not help with that, my tools do something else",
    "there is no tool for this request",
)
JOINTS = (" and ", " then ", " and also ", ", then ", ". also ")
SMALL_TALK = (
    ("hello", "hello, what can i do"),
    ("thank you", "you are welcome"),
    ("good morning", "good morning to you"),
)


@dataclass(frozen=True)
class _Parameter:
    """A made-up parameter; `pool` are the values of an enum or of a pool."""

    name: str
    kind: str
    required: bool
    cues: tuple[str, ...]
    pool: tuple[str, ...]

    def schema(self) -> dict[str, Any]:
        """Give its JSON Schema."""
        description = {"description": " ".join(self.cues)}
        if self.kind == "enum":
            return {"type": "string", "enum": list(self.pool), **description}
        if self.kind == "list":
            return {"type": "array", "items": {"type": "string"}, **description}
        return {"type": self.kind, **description}


@dataclass(frozen=True)
class _Tool:
    """A made-up tool; `cues` are the words of its description."""

    name: str
    cues: tuple[str, ...]
    parameters: tuple[_Parameter, ...]

    def schema(self) -> dict[str, Any]:
        """Give its function schema."""
        parameters = {
            "type": "object",
            "properties": {parameter.name: parameter.schema() for parameter in self.parameters},
            "required": [parameter.name for parameter in self.parameters if parameter.required],
        }
        description = " ".join(self.cues)
        return {
            "type": "function",
            "function": {"name": self.name, "description": description, "parameters": parameters},
        }


@cache
def load_words() -> tuple[str, ...]:
    """Give every word of the vocabulary: of words.txt, of the catalogue and of the pools, sorted."""
    spoken = " ".join([*FILLERS, *LINKS, *REFUSALS, *(text for pair in SMALL_TALK for text in pair)])
    text = "\n".join([read_text("words.txt"), read_text("pools.txt"), read_text("catalogue.txt"), spoken])
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return tuple(sorted(set(re.findall(r"[a-z]{2,}", " ".join(lines)))))


@cache
def _content_words() -> tuple[str, ...]:
    return tuple(word for word in load_words() if word not in FILLERS and word not in LINKS and len(word) > 2)


def _words(draw: random.Random, low: int, high: int) -> tuple[str, ...]:
    return tuple(draw.sample(_content_words(), draw.randint(low, high)))


@cache
def _catalogue_names() -> frozenset[str]:
    catalogue = load_catalogue()
    return frozenset(tool.name for tool in catalogue.seen + catalogue.unseen)


def build_row(draw: random.Random, ease: float = 0.0) -> dict[str, Any]:
    """Make a pretraining row.

    Args:
        draw: Source of all choices.
        ease: From 0 (as hard as the sample) to 1 (one or two tools, one call, never a refusal).

    Returns:
        A row dict; gold [] with a refusal as reply in about one of nine rows at ease 0.
    """
    easy = draw.random() < ease
    tools = [_build_tool(draw, easy) for _ in range(draw.randint(1, 2) if easy else draw.randint(2, 4))]
    kind = "call" if easy else draw.choices(["call", "parallel", "refusal"], [77, 12, 11])[0]
    if kind == "refusal":
        text, _ = _ask(_build_tool(draw), draw)
        gold, reply = [], draw.choice(REFUSALS)
    else:
        count = 1 if kind == "call" else draw.randint(2, min(3, len(tools)))
        asked = [(tool, *_ask(tool, draw)) for tool in draw.sample(tools, count)]
        joint = draw.choice(JOINTS)
        text = joint.join(request for _, request, _ in asked)
        gold, reply = [{"name": tool.name, "arguments": arguments} for tool, _, arguments in asked], ""
    messages = [{"role": "developer", "content": DEVELOPER_TEXT}]
    if not easy and draw.random() < 0.08:
        user, answer = draw.choice(SMALL_TALK)
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": text})
    return {"messages": messages, "tools": [tool.schema() for tool in tools], "gold": gold, "reply": reply}


def _build_tool(draw: random.Random, easy: bool = False) -> _Tool:
    if easy:
        parameter = _Parameter(_words(draw, 1, 1)[0], draw.choice(["string", "integer"]), True, _words(draw, 1, 1), ())
        return _Tool(_words(draw, 1, 1)[0], _words(draw, 1, 2), (parameter,))
    while True:
        name = "_".join(_words(draw, 1, 2))
        if name not in _catalogue_names():
            break
    parameters: dict[str, _Parameter] = {}
    for _ in range(draw.choices([0, 1, 2, 3], [5, 40, 35, 20])[0]):
        parameter = _build_parameter(draw)
        parameters[parameter.name] = parameter
    return _Tool(name, _words(draw, 3, 6), tuple(parameters.values()))


def _build_parameter(draw: random.Random) -> _Parameter:
    required = draw.random() < 0.7
    kind = draw.choices(["string", "integer", "number", "boolean", "enum", "list"], [52, 18, 8, 6, 10, 6])[0]
    cues = _words(draw, 1, 3)
    if kind in ("string", "list") and draw.random() < 0.5:
        pool = draw.choice(sorted(load_pools()))
        return _Parameter(pool, kind, required, (pool, *cues[1:]), load_pools()[pool])
    name = cues[0] if draw.random() < 0.7 else "_".join(_words(draw, 1, 2))
    pool = _words(draw, 2, 4) if kind == "enum" else ()
    return _Parameter(name, kind, required, cues, pool)


def _ask(tool: _Tool, draw: random.Random) -> tuple[str, dict[str, Any]]:
    """Word a request: some of the tool's words between fillers, and each value with a hint of what it is for."""
    parts = [list(draw.sample(FILLERS, draw.randint(1, 3)))]
    for cue in draw.sample(tool.cues, draw.randint(1, min(3, len(tool.cues)))):
        parts.append([cue, *draw.sample(FILLERS, draw.randint(0, 2))])
    if draw.random() < 0.3:
        draw.shuffle(parts)
    arguments: dict[str, Any] = {}
    spoken = []
    for parameter in tool.parameters:
        if parameter.required or draw.random() < 0.5:
            surface, arguments[parameter.name] = _value(parameter, draw)
            spoken.append(_hint(parameter, surface, tool, draw))
    draw.shuffle(spoken)
    position = draw.randint(0, len(parts)) if draw.random() < 0.4 else len(parts)
    pieces = [" ".join(part) for part in parts]
    return " ".join(pieces[:position] + spoken + pieces[position:]), arguments


def _hint(parameter: _Parameter, surface: str, tool: _Tool, draw: random.Random) -> str:
    """Put a value where its parameter can be told: by a word of the parameter, unless its kind alone tells."""
    alike = [other for other in tool.parameters if _shape(other) == _shape(parameter)]
    link = draw.choice(LINKS)
    if len(alike) == 1 and draw.random() < 0.6:
        return f"{link} {surface}" if draw.random() < 0.8 else surface
    cue = draw.choice((*parameter.cues, *parameter.name.split("_")))
    return draw.choice([f"{link} {cue} {surface}", f"{cue} {surface}", f"{link} {surface} {cue}"])


def _shape(parameter: _Parameter) -> str:
    return {"integer": "digits", "number": "digits", "list": "words", "string": "words"}.get(
        parameter.kind, parameter.name
    )


def _value(parameter: _Parameter, draw: random.Random) -> tuple[str, Any]:
    kind = parameter.kind
    if kind == "integer":
        number = draw.choice([draw.randint(0, 9), draw.randint(10, 99), draw.randint(100, 2999)])
        return str(number), number
    if kind == "number":
        amount = draw.choice([draw.randint(1, 900), draw.randint(1, 99) + 0.5, draw.randint(100, 900) + 0.5])
        return str(amount), amount
    if kind == "boolean":
        truth = draw.random() < 0.5
        word = draw.choice(parameter.cues)
        return (f"with {word}" if truth else f"without {word}"), truth
    if kind == "enum":
        word = draw.choice(parameter.pool)
        return word, word
    if kind == "list":
        values = [_text(parameter, draw) for _ in range(draw.randint(1, 3))]
        joined = values[0] if len(values) == 1 else ", ".join(values[:-1]) + " and " + values[-1]
        return joined, values
    text = _text(parameter, draw)
    return text, text


def _text(parameter: _Parameter, draw: random.Random) -> str:
    if parameter.pool and draw.random() < 0.7:
        return draw.choice(parameter.pool)
    return " ".join(_words(draw, 1, 3))
