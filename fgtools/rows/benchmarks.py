"""Shapes of benchmarks: questions with the expected calls, as BFCL, ACEBench and When2Call publish them.

Knows their columns and what an expected value may be. BFCL lists the allowed values of each argument; others write the
arguments as they are, so that a list is a value. The declared parameters tell which it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fgtools.rows.fields import (
    Raw,
    Turn,
    as_block,
    as_context,
    bare_tools,
    broken_block,
    first_of,
    is_empty,
    rewritten,
)
from fgtools.rows.messages import find_tools, from_message, is_python_call, python_blocks
from fgtools.schema import SchemaError, parse_tools
from fgtools.schema.literals import decode_json
from fgtools.schema.signatures import parse_python_calls

_CATEGORY = re.compile(r"_?\d+(?:-\d+)*$")
_SPEAKER = re.compile(r"(?:^|\n)[ \t]*(user|system|assistant)[ \t]*:", re.IGNORECASE)
_NUMBERED = re.compile(r"_\d{1,3}$")
_SPEAKERS = {"user": "human", "system": "gpt", "assistant": "gpt"}
"""ACEBench calls the assistant "system"."""

_Schemas = Mapping[str, Mapping[str, Any]]
"""The declared parameters' schemas by name, by tool."""

_PLAIN = ("string", "integer", "number", "boolean", "object")


def from_bfcl(row: Raw) -> Raw:
    """Rewrite a row of question, function and ground truth (BFCL, ACEBench)."""
    tools = first_of(row, "function", "functions", "tools")
    turns: list[Any] = as_context(_question_turns(row.get("question")))
    told = [row[name].strip() for name in ("time", "profile") if isinstance(row.get(name), str) and row[name].strip()]
    turns = [*([{"from": "system", "value": "\n".join(told)}] if told else []), *turns]
    category = _CATEGORY.sub("", row["id"]) if isinstance(row.get("id"), str) else ""
    more: dict[str, Any] = {"scenario_category": category} if category else {}
    truth = decode_json(first_of(row, "ground_truth", "possible_answer"))
    schemas = _read_schemas(tools)
    if is_empty(truth):
        if truth is not None or "irrelevance" in category:
            more["no_call"] = True
    elif _names_no_call(truth, schemas, category):
        more["no_call"] = True
    else:
        turns.append({"from": "gpt", "value": _render_truth(truth, schemas)})
    drop = ("question", "function", "functions", "ground_truth", "possible_answer")
    return rewritten(row, turns, tools, drop, **more)


def _question_turns(question: Any) -> list[Any]:
    """Return the turns of a question: text, messages, or a list of messages per turn, of which the first is taken."""
    question = decode_json(question)
    if isinstance(question, str):
        pieces = _SPEAKER.split(question)
        if len(pieces) < 3 or pieces[0].strip():  # no speakers are named
            return [{"from": "human", "value": question}]
        said = zip(pieces[1::2], pieces[2::2], strict=True)
        turns = ({"from": _SPEAKERS[speaker.lower()], "value": text.strip()} for speaker, text in said)
        return [{**turn, "value": python_blocks(turn["value"])} if is_python_call(turn) else turn for turn in turns]
    first = question[0] if isinstance(question, (list, tuple)) and question else None
    messages = first if isinstance(first, (list, tuple)) else question
    messages = messages if isinstance(messages, (list, tuple)) else []
    return [turn for message in messages for turn in from_message(message)]


def _read_schemas(tools: Any) -> dict[str, Mapping[str, Any]]:
    try:
        parsed = parse_tools(tools).tools
    except SchemaError:  # reported when the row's tools are read
        return {}
    functions = [tool["function"] for tool in parsed]
    return {one["name"]: one["parameters"].get("properties", {}) for one in functions}


def _names_no_call(truth: Any, schemas: _Schemas, category: str) -> bool:
    """Return whether a mapping says why no call is possible: parameters that are missing, or their wrong values."""
    if not isinstance(truth, Mapping) or "name" in truth:
        return False
    if not all(_are_texts(value) for value in truth.values()):
        return False
    known = {name for parameters in schemas.values() for name in parameters}
    return category.startswith("special") or all(key in schemas or key in known for key in truth)


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)


def _render_truth(truth: Any, schemas: _Schemas) -> str:
    """Render the expected calls; text that is no call is what is said instead."""
    if isinstance(truth, str):
        try:
            return "\n".join(as_block(call) for call in parse_python_calls(truth))
        except (ValueError, RecursionError):
            return truth
    listed = truth if isinstance(truth, (list, tuple)) else [truth]
    if listed and isinstance(listed[0], (list, tuple)):  # one list for each turn
        listed = listed[0]
    return "\n".join(_render_one(one, schemas) for one in listed)


def _render_one(truth: Any, schemas: _Schemas) -> str:
    """Render one entry of the expected calls: Python text, a call, or calls by their tools' names."""
    if isinstance(truth, str):
        try:
            return "\n".join(as_block(call) for call in parse_python_calls(truth))
        except (ValueError, RecursionError):
            return broken_block(truth)
    if not isinstance(truth, Mapping) or ("name" in truth and "name" not in schemas):
        return as_block(truth)
    blocks = []
    for name, arguments in truth.items():
        called = name if name in schemas or not isinstance(name, str) else _without_number(name, schemas)
        arguments = decode_json(arguments)
        if isinstance(arguments, Mapping):
            arguments = choose_values(arguments, schemas.get(called, {}))
        blocks.append(as_block({"name": called, "arguments": arguments}))
    return "\n".join(blocks)


def _without_number(name: str, schemas: _Schemas) -> str:
    """Return the declared name of a call that has a number, since a mapping holds a name once: get_time_2."""
    bare = _NUMBERED.sub("", name)
    return bare if bare in schemas else name


def choose_values(arguments: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an expected call, of which each value may be a list of the allowed ones.

    Values of which one is no list are the values themselves, but for lists where no list is declared. Where all are
    lists and one of their parameters is declared as something else, all are lists of allowed values. Where lists are
    declared for all, a list of lists is one of allowed values, unless a list of lists is declared.

    Args:
        arguments: The expected arguments by name.
        parameters: The declared parameters' schemas by name; {} where they are not known.

    Returns:
        The arguments; of allowed values the first one, and no argument where that is "" (left out).
    """
    given = {name: (value, parameters.get(name)) for name, value in arguments.items()}
    all_lists = all(isinstance(value, (list, tuple)) for value, _ in given.values())
    fitting = all_lists and (
        any(_is_scalar(spec) for _, spec in given.values())
        or all(_may_be_allowed(value, spec) for value, spec in given.values() if value != [])
    )
    is_plain = any(
        _is_array(spec) and value != [] and not _may_be_allowed(value, spec) for value, spec in given.values()
    )
    chosen: dict[str, Any] = {}
    for name, (value, spec) in given.items():
        if not (fitting or _is_allowed(value, spec, all_lists and not is_plain)):
            chosen[name] = _choose_in_object(value, spec)
        elif isinstance(value, (list, tuple)) and value:
            if value[0] != "":
                chosen[name] = _choose_inside(value[0], spec)
        else:
            chosen[name] = value
    return chosen


def _is_allowed(value: Any, spec: Any, may_be: bool) -> bool:
    """Return whether a value is a list of allowed ones: no list is declared, or `may_be` and no type contradicts."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    if _is_array(spec):
        return may_be and _may_be_allowed(value, spec)
    return may_be or (isinstance(spec, Mapping) and "type" in spec)


def _choose_in_object(value: Any, spec: Any) -> Any:
    """Return a plain value; a mapping whose lists are all one list deeper than declared holds allowed values."""
    parameters = spec.get("properties") if isinstance(spec, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(parameters, Mapping):
        return value
    pairs = [(one, parameters.get(name)) for name, one in value.items()]
    filled = [(one, inner) for one, inner in pairs if one != []]
    deeper = all(_is_array(inner) and _may_be_allowed(one, inner) for one, inner in filled)
    return choose_values(value, parameters) if filled and deeper else value


def _is_scalar(spec: Any) -> bool:
    return isinstance(spec, Mapping) and spec.get("type") in _PLAIN


def _is_array(spec: Any) -> bool:
    return isinstance(spec, Mapping) and spec.get("type") == "array"


def _may_be_allowed(value: Any, spec: Any) -> bool:
    """Return whether every entry of a list could be a parameter's value, or is "" for none."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    if _is_array(spec) and not _is_array(spec.get("items")):
        return all(one == "" or isinstance(one, (list, tuple)) for one in value)
    return all(one == "" or _fits(one, spec) for one in value)


def _fits(value: Any, spec: Any) -> bool:
    """Return whether a value has the declared type; only lists are told from other types with certainty."""
    kind = spec.get("type") if isinstance(spec, Mapping) else None
    if kind != "array":
        return kind not in _PLAIN or not isinstance(value, (list, tuple))
    if not isinstance(value, (list, tuple)):
        return False
    return all(_fits(one, spec.get("items")) for one in value)


def _choose_inside(value: Any, spec: Any) -> Any:
    """Resolve the mappings inside an allowed value, whose values are lists of allowed ones again."""
    inner = spec if isinstance(spec, Mapping) else {}
    if isinstance(value, (list, tuple)):
        return [_choose_inside(item, inner.get("items")) for item in value]
    if isinstance(value, Mapping):
        return choose_values(value, inner.get("properties") or {})
    return value


def from_when2call(row: Raw) -> Raw:
    """Rewrite a row of question, tools and several answers of which `correct_answer` names the right one."""
    answers = decode_json(row.get("answers"))
    right = row.get("correct_answer")
    answer = answers.get(right) if isinstance(answers, Mapping) and isinstance(right, str) else right
    target = first_of(row, "target_tool", "target_tools") if is_empty(answer) else None
    turns: list[Turn] = [{"from": "human", "value": row.get("question")}]
    if not is_empty(answer):
        turns.append({"from": "gpt", "value": answer})
    elif not is_empty(target):
        turns.append({"from": "gpt", "value": broken_block(str(target))})
    return rewritten(row, turns, bare_tools(find_tools(row)), ("question", "answers"))
