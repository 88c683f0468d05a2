"""Pretraining rows: made-up tools, and requests that ask for one of them, for several or for none.

FunctionGemma knows what words mean before it sees a tool. The stand-in gets its share of that from topics: words that
go together, from topics.txt (general knowledge) and from the catalogue's descriptions and training wordings. A made-up
tool takes its name and description from some words of a topic, the request uses others, so what can be learnt is to
choose the offered tool that is about the same thing, to copy its name, to copy values to the parameters they fit, and
to decline where no tool fits. No tool and no wording of the catalogue occurs, and no word is taken from the wordings
that evaluation uses. Rows are row dicts, as the rest of the package knows them.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from fgtools.offline.catalogue import (
    Parameter,
    Tool,
    build_schema,
    draw_value,
    load_catalogue,
    load_pools,
    place_value,
    read_text,
)
from fgtools.profiles import DEVELOPER_TEXT

FILLERS = tuple(
    "i want to please the a my can you me we need let is it for now some get have do would like should could of "
    "there this that and show give tell make what how".split()
)
LINKS = ("in", "on", "at", "for", "with", "to", "from", "by", "of", "as", "about", "near")
LEADS = (
    *("i want to", "please", "can you", "what is the", "how do i", "tell me", "show me the", "is there a", "i need to"),
    *("let me", "we should", "could you please", "i would like to", "do we have", "what about the", "make sure that"),
    *("how much", "give me", "there is a", "my", "i have a", "get me the", "for the", "would you"),
)
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


SHARED = 3
"""A word of more topics of the catalogue than this says nothing about any of them."""

SHARES = {"call": 55, "parallel": 17, "refusal": 28}
"""Percent of the requests that ask for one tool, for several calls, for none that is offered."""
NEAR = 0.5
"""Share of the refusals whose request is of the domain of an offered tool, and share of rows that offer two such."""
LITERAL = 0.15
"""Share of the tools that are about words without a topic: their request repeats a word of theirs."""
PARAPHRASES = 0.2
"""Share of the requests that ask for the call of an earlier request in other words."""


@dataclass(frozen=True)
class Topic:
    """Words that go together; topics of one domain are near misses of each other.

    `literal`: the words have nothing in common, so a request must repeat some of them.
    """

    domain: str
    words: tuple[str, ...]
    literal: bool = False


@dataclass(frozen=True)
class MadeUpTool:
    """A made-up tool, and the words that a request for it may use."""

    tool: Tool
    topic: Topic
    said: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """A call that a request asks for: by parameter the value, as the request words it and as the call passes it."""

    made: MadeUpTool
    values: dict[Parameter, tuple[str, Any]]


@cache
def load_words() -> tuple[str, ...]:
    """Return every word of the vocabulary: of words.txt, the topics, the catalogue and the pools, sorted."""
    spoken = " ".join([*FILLERS, *LINKS, *LEADS, *REFUSALS, *(text for pair in SMALL_TALK for text in pair)])
    text = "\n".join([read_text("words.txt"), read_text("pools.txt"), read_text("topics.txt")])
    text = "\n".join([text, read_text("catalogue.txt"), spoken])
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return tuple(sorted(set(re.findall(r"[a-z]{2,}", " ".join(lines)))))


@cache
def load_topics() -> tuple[Topic, ...]:
    """Return the topics of topics.txt, and one per seen tool of the catalogue.

    A seen tool's words are those of its name, description and training wordings that tell it from the others.
    """
    lines = [line for line in read_text("topics.txt").splitlines() if line and not line.startswith("#")]
    pairs = (line.split(" | ") for line in lines)
    written = [Topic(domain, tuple(dict.fromkeys(words.split()))) for domain, words in pairs]
    tools = load_catalogue().seen
    spoken = [re.sub(r"\{[^}]*\}", " ", " ".join(tool.wordings_for("train"))) for tool in tools]
    words = [
        dict.fromkeys(re.findall(r"[a-z]{3,}", f"{tool.name.partition('_')[0]} {tool.description} {text}"))
        for tool, text in zip(tools, spoken, strict=True)
    ]
    spread = Counter(word for topic in words for word in topic)
    plain = {*FILLERS, *LINKS}
    known = [tuple(word for word in topic if word not in plain and spread[word] <= SHARED) for topic in words]
    return (*written, *(Topic(tool.domain, topic) for tool, topic in zip(tools, known, strict=True)))


@cache
def load_endings() -> tuple[str, ...]:
    """Return what follows the noun in the catalogue's names, such as "_get"; sorted."""
    tools = (*load_catalogue().seen, *load_catalogue().unseen)
    return tuple(sorted({"_" + tool.name.partition("_")[2] for tool in tools}))


@cache
def _known() -> tuple[frozenset[str], tuple[Parameter, ...]]:
    """Return the catalogue's tool names, which are not made up again, and every parameter."""
    tools = (*load_catalogue().seen, *load_catalogue().unseen)
    parameters = dict.fromkeys(parameter for tool in tools for parameter in tool.parameters)
    return frozenset(tool.name for tool in tools), tuple(parameters)


def build_rows(draw: random.Random, ease: float = 0.0, count: int = 12) -> list[dict[str, Any]]:
    """Make pretraining rows that offer the same tools.

    Args:
        draw: Random generator of every choice.
        ease: From 0 (as hard as the sample) to 1 (at most one parameter, one call, never a refusal).
        count: Rows.

    Returns:
        Row dicts with the same tools, each with a request of its own; gold [] with a refusal as reply where no tool
        fits. Either all rows ask for several calls or none does, so that they are of about one length.
    """
    easy = draw.random() < ease
    tools = _build_tools(draw, easy)
    several = not easy and draw.random() < SHARES["parallel"] / 100
    refusals = 0.0 if easy or several else SHARES["refusal"] / (SHARES["call"] + SHARES["refusal"])
    rows: list[dict[str, Any]] = []
    earlier: list[Wish] = []
    for _ in range(count):
        if draw.random() < refusals:
            rows.append(_build_row(tools, [_wish(_build_absent(tools, draw), draw)], draw, refused=True))
            continue
        if earlier and draw.random() < PARAPHRASES:
            wishes = [draw.choice(earlier)]
        else:
            wishes = [_wish(tool, draw) for tool in (_choose(tools, draw) if several else [draw.choice(tools)])]
            earlier += [] if several else wishes
        rows.append(_build_row(tools, wishes, draw, refused=False, small_talk=not easy))
    return rows


def _build_tools(draw: random.Random, easy: bool) -> list[MadeUpTool]:
    """Make up three to five tools of different names, in half of the cases two of one domain."""
    topics = draw.sample(load_topics(), draw.randint(3, 5))
    if draw.random() < NEAR:
        topics[1] = draw.choice([topic for topic in load_topics() if topic.domain == topics[0].domain])
    tools = {}
    for topic in dict.fromkeys(topics):
        known = {word for other in topics if other is not topic for word in other.words}
        made = _build_tool(_scatter(topic, draw), known, draw, easy)
        tools[made.tool.name] = made
    return list(tools.values())


def _scatter(topic: Topic, draw: random.Random) -> Topic:
    """Return the topic, or in few cases words without a topic, of which a request repeats some."""
    return replace(topic, words=tuple(draw.sample(load_words(), 8)), literal=True) if draw.random() < LITERAL else topic


def _build_absent(tools: list[MadeUpTool], draw: random.Random) -> MadeUpTool:
    """Make up a tool that is not offered, in half of the cases of the domain of one that is.

    Half of the near ones take the parameters of that tool, so that values do not tell whether a tool fits.
    """
    offered = draw.choice(tools)
    used = {made.topic for made in tools}
    near = [topic for topic in load_topics() if topic.domain == offered.topic.domain and topic not in used]
    known = {word for made in tools for word in made.topic.words}
    if near and draw.random() < NEAR:
        made = _build_tool(draw.choice(near), known, draw, easy=False)
        same = replace(made, tool=replace(made.tool, parameters=offered.tool.parameters))
        return same if draw.random() < 0.5 else made
    far = [topic for topic in load_topics() if topic.domain not in {one.domain for one in used}]
    return _build_tool(draw.choice(far), known, draw, easy=False)


def _choose(tools: list[MadeUpTool], draw: random.Random) -> list[MadeUpTool]:
    """Choose the tools of a request for several calls: two or three, in a quarter of the cases one tool twice."""
    if draw.random() < 0.25:
        return [draw.choice(tools)] * 2
    return draw.sample(tools, draw.randint(2, min(3, len(tools))))


def _wish(made: MadeUpTool, draw: random.Random) -> Wish:
    """Draw the values of a call; an optional parameter is left out in half of the cases."""
    used: set[str] = set()
    wanted = [one for one in made.tool.parameters if one.required or draw.random() < 0.5]
    return Wish(made, {parameter: draw_value(parameter, used, draw) for parameter in wanted})


def _build_row(
    tools: list[MadeUpTool], wishes: list[Wish], draw: random.Random, refused: bool, small_talk: bool = True
) -> dict[str, Any]:
    messages = [{"role": "developer", "content": DEVELOPER_TEXT}]
    if small_talk and draw.random() < 0.08:
        user, answer = draw.choice(SMALL_TALK)
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    text = draw.choice(JOINTS).join(_word_request(wish, draw) for wish in wishes)
    messages.append({"role": "user", "content": text})
    gold = [] if refused else [_call(wish) for wish in wishes]
    reply = draw.choice(REFUSALS) if refused else ""
    return {"messages": messages, "tools": [_schema(made.tool) for made in tools], "gold": gold, "reply": reply}


def _call(wish: Wish) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for parameter, (_, value) in wish.values.items():
        place_value(arguments, parameter.name, value)
    return {"name": wish.made.tool.name, "arguments": arguments}


def _schema(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": build_schema(tool)}
    return {"type": "function", "function": function}


def _build_tool(topic: Topic, known: set[str], draw: random.Random, easy: bool) -> MadeUpTool:
    """Make up a tool about a topic; requests for it use other words of the topic, none of `known`."""
    names, bank = _known()
    words = draw.sample(topic.words, len(topic.words))
    name = words[0] if easy and draw.random() < 0.5 else words[0] + draw.choice(load_endings())
    if name in names:
        name = words[0]
    half = max(2, min(5, len(words) // 2))
    parameters: dict[str, Parameter] = {}
    for _ in range(draw.randint(0, 1) if easy else draw.choices([0, 1, 2, 3], [8, 37, 35, 20])[0]):
        parameter = draw.choice(bank) if draw.random() < 0.7 else _build_parameter(draw)
        outer = parameter.name.partition(".")[0]
        if all(outer != name.partition(".")[0] or ("." in parameter.name and "." in name) for name in parameters):
            parameters[parameter.name] = parameter  # a name is a value or an object, not both
    tool = Tool(name, topic.domain, _speak(words[:half], draw), tuple(parameters.values()), ())
    others = words[:half] if topic.literal else words[half:] if draw.random() < 0.75 else words
    said = tuple(word for word in others if word not in known)
    return MadeUpTool(tool, topic, said or tuple(words))


def _build_parameter(draw: random.Random) -> Parameter:
    """Make up a parameter of any kind, some of them inside an object."""
    words = load_pools()["any"]
    name, about, *more = draw.sample(words, 5)
    outer = f"{draw.choice(words)}." if draw.random() < 0.12 else ""
    kind, pool = draw.choices(
        [
            ("string", "any"),
            ("string", "pair"),
            ("integer", "1-999"),
            ("number", "0.5-99"),
            ("enum", "|".join(more)),
            ("boolean", f"{more[0]}/{more[1]}"),
            ("list", "any"),
        ],
        [30, 20, 15, 8, 12, 5, 10],
    )[0]
    return Parameter(outer + name, draw.random() < 0.7, kind, pool, f"{name} {about}" if kind != "enum" else about)


def _speak(words: Sequence[str], draw: random.Random) -> str:
    """Put words into a row, most of them with a filler before them."""
    return " ".join(f"{draw.choice(FILLERS)} {word}" if draw.random() < 0.6 else word for word in words)


def _word_request(wish: Wish, draw: random.Random) -> str:
    """Word a request: words of the topic between fillers, and each value, with a hint of what it is for.

    A value needs no hint where the call has no other of its shape; the hint, a word of the parameter's name or
    description, stands before or behind it.
    """
    said = wish.made.said
    spoken = draw.sample(said, min(len(said), draw.choices([1, 2, 3, 4], [30, 35, 25, 10])[0]))
    lead = draw.choice(LEADS) if draw.random() < 0.6 else " ".join(draw.sample(FILLERS, draw.randint(1, 3)))
    parts = [lead, *(_speak([word], draw) for word in spoken)]
    kinds = Counter(_shape(parameter) for parameter in wish.values)
    for parameter, (surface, _) in wish.values.items():
        link = f"{draw.choice(LINKS)} " if draw.random() < 0.7 else ""
        cue = draw.choice(re.findall(r"[a-z]+", parameter.name))
        part = f"{link}{surface}"
        if kinds[_shape(parameter)] > 1 or draw.random() < 0.3:
            part = f"{link}{cue} {surface}" if draw.random() < 0.6 else f"{part} {cue}"
        parts.insert(draw.randint(0 if draw.random() < 0.15 else 1, len(parts)), part)
    return " ".join(parts)


def _shape(parameter: Parameter) -> str:
    return "digits" if parameter.kind in ("integer", "number") else parameter.pool
