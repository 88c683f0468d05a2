"""The offline sample: seeded rows in the Hermes row schema, with the real set's mess in them.

Requests come from `catalogue`; here they become conversations, tools are written in the notations of public data sets,
and some rows are damaged on purpose. Evaluation rows use wordings that no training row uses, and `unseen` rows use
tools that no other row declares.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from fgtools.offline.catalogue import Request, Tool, build_request, build_schema, load_catalogue
from fgtools.offline.curriculum import REFUSALS, SMALL_TALK

EVAL_SHARE, UNSEEN_SHARE = 0.10, 0.05
SCENARIOS = {"single_turn": 56, "multi_turn": 12, "multi_step": 14, "relevance": 18}
"""Percent of the rows; in relevance rows no offered tool fits."""
NEAR = 0.5
"""Probability that a row offers a near miss, a tool of the request's domain, where that domain has another tool."""

THOUGHTS = (
    "the user asks for something a tool can do",
    'one of the tools fits, perhaps <tool_call>{"name": "draft", "arguments": {}}</tool_call> is not yet right',
    "let me look at the tools and fill in the arguments",
)
JOINTS = (" and ", " then ", " and also ")
BOILERPLATE = (
    "You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags.\n"
    "<tools>\n{tools}\n</tools>\nReturn each call as a JSON object within <tool_call></tool_call> XML tags."
)
TYPE_WORDS = {
    "string": ("str", "string", "String"),
    "integer": ("int", "integer", "Integer"),
    "number": ("float", "number", "double"),
    "boolean": ("bool", "boolean", "Boolean"),
    "array": ("List[str]", "list[str]"),
}
NOTATIONS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "list": json.dumps,
    "wrapped": lambda functions: json.dumps([{"type": "function", "function": one} for one in functions]),
    "bare_wrapper": lambda functions: json.dumps([{"function": one} for one in functions]),
    "strings": lambda functions: json.dumps([json.dumps(one) for one in functions]),
    "literals": repr,
}
"""How public data sets store a row's tools; the plain list is drawn twice as often as each of the others."""


def build_samples(n_rows: int = 3000, seed: int = 40, *, wordings: str = "eval") -> list[dict[str, Any]]:
    """Build the offline sample.

    Args:
        n_rows: Raw rows in all.
        seed: Seed of every choice; equal seeds give equal rows.
        wordings: Wordings of the evaluation rows: "eval", or "development" while the stand-in or the generator is being
            changed, so that no choice is made by the final wordings.

    Returns:
        Raw rows in random order: conversations, tools, task, category, source, scenario_category, row_id, and `split`
        ("train", "eval" or "unseen"). About one training row in twenty-five is damaged beyond use, and about one in
        twenty repeats an earlier row, half of these with another gold.
    """
    draw = random.Random(seed)
    n_eval, n_unseen = round(n_rows * EVAL_SHARE), round(n_rows * UNSEEN_SHARE)
    catalogue = load_catalogue()
    rows = [_build_row(catalogue.seen, "eval", wordings, draw) for _ in range(n_eval)]
    rows += [_build_row(catalogue.unseen, "unseen", "eval", draw) for _ in range(n_unseen)]
    train: list[dict[str, Any]] = []
    for _ in range(n_rows - len(rows)):
        fate = draw.random()
        if 0.04 <= fate < 0.09 and train:
            train.append(_repeat(draw.choice(train), draw))
        else:
            row = _build_row(catalogue.seen, "train", "train", draw)
            train.append(_damage(row, draw) if fate < 0.04 else row)
    rows += train
    draw.shuffle(rows)
    return [{"row_id": f"sample/{index:05d}", **row} for index, row in enumerate(rows)]


def _build_row(tools: tuple[Tool, ...], side: str, wordings: str, draw: random.Random) -> dict[str, Any]:
    scenario = draw.choices([*SCENARIOS], [*SCENARIOS.values()])[0]
    offered = _offer(tools, draw)
    if scenario == "relevance":
        asked, offered = _withhold(tools, offered, draw)
        requests = [build_request(asked, wordings, draw)]
        answers = [("gpt", _think(draw.choice(REFUSALS), draw))]
    else:
        count = min(draw.choice([2, 2, 3]), len(offered)) if scenario == "multi_step" else 1
        requests = [build_request(tool, wordings, draw) for tool in offered[:count]]
        answers = [("gpt", _think(_render_blocks(requests, draw), draw))]
        if draw.random() < 0.4:
            answers += [("tool", '<tool_response>\n{"ok": true}\n</tool_response>'), ("gpt", "done")]
    draw.shuffle(offered)
    task = draw.choice(JOINTS).join(request.text for request in requests)
    conversation = [(draw.choice(["human", "user"]), task), *answers]
    if scenario == "multi_turn":
        question, reply = draw.choice(SMALL_TALK)
        conversation = [("human", question), ("gpt", reply), *conversation]
    functions = [{"name": one.name, "description": one.description, **_write_schema(one, draw)} for one in offered]
    notation = draw.choice(["list", *NOTATIONS])
    stored = NOTATIONS[notation](functions)
    if draw.random() < 0.5:
        conversation = [("system", BOILERPLATE.format(tools=stored)), *conversation]
    return {
        "conversations": [{"from": speaker, "value": value} for speaker, value in conversation],
        "tools": stored,
        "task": task,
        "category": requests[0].tool.domain,
        "source": f"sample_{notation}",
        "scenario_category": scenario,
        "split": side,
    }


def _offer(tools: tuple[Tool, ...], draw: random.Random) -> list[Tool]:
    """Draw two to four tools; the first is asked for, and with probability NEAR another is of the same domain."""
    first = draw.choice(tools)
    near = [tool for tool in tools if tool.domain == first.domain and tool is not first]
    offered = [first]
    if near and draw.random() < NEAR:
        offered.append(draw.choice(near))
    others = [tool for tool in tools if tool not in offered]
    return offered + draw.sample(others, draw.randint(2, 4) - len(offered))


def _withhold(tools: tuple[Tool, ...], offered: list[Tool], draw: random.Random) -> tuple[Tool, list[Tool]]:
    """Return a tool to ask for that is not offered, and the offered ones, with probability NEAR with a near miss."""
    domain = offered[0].domain
    near = [tool for tool in tools if tool.domain == domain and tool is not offered[0]]
    if near and draw.random() < NEAR:
        asked = draw.choice(near)
        others = [tool for tool in tools if tool is not asked and tool not in offered]
        return asked, [draw.choice(others) if tool is asked else tool for tool in offered]
    elsewhere = [tool for tool in tools if tool.domain not in {one.domain for one in offered}]
    return draw.choice(elsewhere), offered


def _think(answer: str, draw: random.Random) -> str:
    return f"<think>\n{draw.choice(THOUGHTS)}\n</think>\n{answer}" if draw.random() < 0.5 else answer


def _render_blocks(requests: list[Request], draw: random.Random) -> str:
    """Render the calls as JSON, sometimes as Python literals or with the arguments as a string."""
    blocks = []
    for request in requests:
        call: dict[str, Any] = {"name": request.tool.name, "arguments": request.arguments}
        style = draw.random()
        if style < 0.06:
            body = repr(call)
        elif style < 0.12:
            body = json.dumps({**call, "arguments": json.dumps(request.arguments)})
        else:
            body = json.dumps(call)
        blocks.append(f"<tool_call>\n{body}\n</tool_call>")
    return "\n".join(blocks)


def _write_schema(tool: Tool, draw: random.Random) -> dict[str, Any]:
    """Write a tool's parameters as a schema, a schema with top type dict, or flat with type words."""
    schema = build_schema(tool)
    nested = any(spec["type"] == "object" for spec in schema["properties"].values())
    style = draw.random()
    if style < 0.5 or nested:
        return {"parameters": schema}
    if style < 0.75:
        return {"parameters": {"type": "dict", "properties": schema["properties"]}, "required": schema["required"]}
    flat = {}
    for name, spec in schema["properties"].items():
        word = draw.choice(TYPE_WORDS[spec["type"]])
        optional = "" if name in schema["required"] else ", optional"
        flat[name] = {**{key: value for key, value in spec.items() if key != "items"}, "type": word + optional}
    return {"parameters": flat, "required": schema["required"]}


def _repeat(row: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Repeat a row, as data sets with several answers to one prompt do; half of the time with another gold."""
    turns = [dict(turn) for turn in row["conversations"] or []]
    if draw.random() < 0.5:
        for turn in turns:
            if turn["from"] == "gpt" and '"arguments": {"' in turn["value"]:
                turn["value"] = turn["value"].replace('"arguments": {"', '"arguments": {"note": true, "')
    return {**row, "conversations": turns}


def _damage(row: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Damage a row in one of the ways seen in public data."""
    turns = row["conversations"]
    kind = draw.choice("no_conversations no_tools unreadable_tools undeclared broken no_user silent".split())
    if kind == "no_conversations":
        return {**row, "conversations": None}
    if kind == "no_tools":
        return {**row, "tools": "[]"}
    if kind == "unreadable_tools":
        return {**row, "tools": row["tools"][: len(row["tools"]) // 2]}
    if kind == "no_user":
        return {**row, "conversations": [turn for turn in turns if turn["from"] not in ("human", "user")]}
    if kind == "silent":
        return {**row, "conversations": [turn for turn in turns if turn["from"] not in ("gpt", "tool")]}
    call = '{"name": "open_portal", "arguments": {}}' if kind == "undeclared" else '{"name": "open_portal", "argu'
    until = next(index for index, turn in enumerate(turns) if turn["from"] in ("human", "user"))
    answer = {"from": "gpt", "value": f"<tool_call>\n{call}\n</tool_call>"}
    return {**row, "conversations": [*turns[: until + 1], answer]}
