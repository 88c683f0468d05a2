"""Pretraining rows: made-up tools, and requests that ask for one of them.

FunctionGemma knows what words mean before it sees a tool. The stand-in gets its share of that from topics: the words
that occur together in one catalogue tool's description and training wordings. A made-up tool takes its name and
description from some words of a topic, the request uses others, so what can be learnt is to choose the offered tool
that is about the same thing, to copy its name, and to copy values to the parameters they fit. No tool and no wording of
the catalogue occurs, and no word is taken from the wordings that evaluation uses. Rows are row dicts, as the rest of
the package knows them.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from typing import Any

from fgtools.offline.catalogue import (
    Parameter,
    Request,
    Tool,
    build_request,
    build_schema,
    load_catalogue,
    load_pools,
    read_text,
)
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


WORDINGS = 4
SHARED = 3
"""A word of more topics than this says nothing about any of them."""


@cache
def load_words() -> tuple[str, ...]:
    """Give every word of the vocabulary: of words.txt, of the catalogue and of the pools, sorted."""
    spoken = " ".join([*FILLERS, *LINKS, *REFUSALS, *(text for pair in SMALL_TALK for text in pair)])
    text = "\n".join([read_text("words.txt"), read_text("pools.txt"), read_text("catalogue.txt"), spoken])
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return tuple(sorted(set(re.findall(r"[a-z]{2,}", " ".join(lines)))))


@cache
def load_topics() -> tuple[tuple[str, ...], ...]:
    """Give one tuple of words a seen tool: those of its name, description and training wordings that tell it."""
    tools = load_catalogue().seen
    spoken = [re.sub(r"\{[^}]*\}", " ", " ".join(tool.wordings_for("train"))) for tool in tools]
    words = [
        dict.fromkeys(re.findall(r"[a-z]{3,}", f"{tool.name.partition('_')[0]} {tool.description} {text}"))
        for tool, text in zip(tools, spoken, strict=True)
    ]
    spread = Counter(word for topic in words for word in topic)
    plain = {*FILLERS, *LINKS}
    known = tuple(tuple(word for word in topic if word not in plain and spread[word] <= SHARED) for topic in words)
    return known + _made_up_topics(frozenset(word for topic in words for word in topic))


def _made_up_topics(known: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """Put the other words together by chance, so that a topic is more than the catalogue's tools."""
    rest = [word for word in load_pools()["any"] if word not in known]
    random.Random(0).shuffle(rest)
    return tuple(tuple(rest[start : start + 10]) for start in range(0, len(rest) - 9, 10))[:20]


@cache
def load_endings() -> tuple[str, ...]:
    """Give what follows the noun in the catalogue's names, such as "_get"; sorted."""
    tools = (*load_catalogue().seen, *load_catalogue().unseen)
    return tuple(sorted({"_" + tool.name.partition("_")[2] for tool in tools}))


@cache
def _known() -> tuple[frozenset[str], tuple[Parameter, ...]]:
    """Give the catalogue's tool names, which are not made up again, and every parameter."""
    tools = (*load_catalogue().seen, *load_catalogue().unseen)
    parameters = dict.fromkeys(parameter for tool in tools for parameter in tool.parameters)
    return frozenset(tool.name for tool in tools), tuple(parameters)


def build_rows(draw: random.Random, ease: float = 0.0, count: int = 4) -> list[dict[str, Any]]:
    """Make pretraining rows that offer the same tools.

    Args:
        draw: Source of all choices.
        ease: From 0 (as hard as the sample) to 1 (at most one parameter, one call, never a refusal).
        count: Rows.

    Returns:
        Row dicts with the same tools, each with a request of its own; gold [] with a refusal as reply in about one of
        nine rows at ease 0.
    """
    easy = draw.random() < ease
    *topics, absent = draw.sample(load_topics(), draw.randint(3, 5))
    tools = [_build_tool(topic, draw, easy) for topic in topics]
    return [_build_row(tools, absent, draw, easy) for _ in range(count)]


def _build_row(tools: list[Tool], absent: tuple[str, ...], draw: random.Random, easy: bool) -> dict[str, Any]:
    kind = "call" if easy else draw.choices(["call", "parallel", "refusal"], [77, 12, 11])[0]
    asked = draw.sample(tools, draw.randint(2, min(3, len(tools))) if kind == "parallel" else 1)
    if kind == "refusal":
        asked = [_build_tool(absent, draw, easy)]
    requests = [build_request(tool, "train", draw) for tool in asked]
    messages = [{"role": "developer", "content": DEVELOPER_TEXT}]
    if not easy and draw.random() < 0.08:
        user, answer = draw.choice(SMALL_TALK)
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    text = draw.choice(JOINTS).join(" ".join(request.text.split()) for request in requests)
    messages.append({"role": "user", "content": text})
    gold = [] if kind == "refusal" else [_call(request) for request in requests]
    reply = draw.choice(REFUSALS) if kind == "refusal" else ""
    return {"messages": messages, "tools": [_schema(tool) for tool in tools], "gold": gold, "reply": reply}


def _call(request: Request) -> dict[str, Any]:
    return {"name": request.tool.name, "arguments": request.arguments}


def _schema(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": build_schema(tool)}
    return {"type": "function", "function": function}


def _build_tool(topic: tuple[str, ...], draw: random.Random, easy: bool) -> Tool:
    """Make up a tool about a topic, with ways to ask for it that use other words of the topic."""
    names, bank = _known()
    words = draw.sample(topic, len(topic))
    name = words[0] if easy and draw.random() < 0.5 else words[0] + draw.choice(load_endings())
    if name in names:
        name = words[0]
    half = max(2, min(5, len(words) // 2))
    description = _speak(words[:half], draw)
    said = words[half:] if draw.random() < 0.8 else words[1:]
    parameters: dict[str, Parameter] = {}
    for _ in range(draw.randint(0, 1) if easy else draw.choices([0, 1, 2, 3], [5, 40, 35, 20])[0]):
        parameter = draw.choice(bank) if draw.random() < 0.85 else _build_parameter(draw)
        parameters[parameter.name] = parameter
    wanted = tuple(parameters.values())
    return Tool(name, "", description, wanted, tuple(_word_request(said, wanted, draw) for _ in range(WORDINGS)))


def _build_parameter(draw: random.Random) -> Parameter:
    name, *about = draw.sample(load_pools()["any"], 3)
    kind, pool = draw.choice([("string", "any"), ("string", "any"), ("integer", "1-999")])
    return Parameter(name, True, kind, pool, f"{name} {about[0]}")


def _speak(words: list[str], draw: random.Random) -> str:
    """Put words into a row, most of them with a filler before them."""
    return " ".join(f"{draw.choice(FILLERS)} {word}" if draw.random() < 0.6 else word for word in words)


def _word_request(words: list[str], parameters: tuple[Parameter, ...], draw: random.Random) -> str:
    """Word a request: words of the topic between fillers, and a place for each value, with a hint of what it is for."""
    spoken = draw.sample(words, min(len(words), draw.randint(1, 3)))
    parts = [" ".join(draw.sample(FILLERS, draw.randint(1, 3))), *(_speak([word], draw) for word in spoken)]
    kinds = Counter(_shape(parameter) for parameter in parameters)
    for parameter in parameters:
        cue = draw.choice(parameter.name.replace(".", "_").split("_"))
        hint = (
            draw.choice(LINKS)
            if kinds[_shape(parameter)] == 1 and draw.random() < 0.7
            else f"{draw.choice(LINKS)} {cue}"
        )
        part = f"{hint} {{{parameter.name}}}"
        parts.insert(draw.randint(1, len(parts)), part if parameter.required else f"[{part}]")
    return " ".join(parts)


def _shape(parameter: Parameter) -> str:
    return "digits" if parameter.kind in ("integer", "number") else parameter.pool
