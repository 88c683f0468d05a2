"""Remedies for what a chat template hides of a tool: parameters are renamed, facts are written into descriptions.

Knows tools in normal form, rows, and a Coverage; which facts a template hides is found in `prompts`, by rendering.
Both remedies lose nothing: a row records the names it replaced (`serve.restore_calls` restores them), and a fact that
is written into the description keeps its keyword, by which replies are scored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgtools.rows.store import Row
from fgtools.schema.names import rename_arguments, rename_parameters, replace_parameter_names


@dataclass(frozen=True)
class Coverage:
    """What a chat template does not show.

    Attributes:
        hidden_names: Parameter names that it drops.
        hidden_facts: (JSON type, keyword) of the facts about a parameter that do not change the rendered text.
    """

    hidden_names: frozenset[str] = frozenset()
    hidden_facts: frozenset[tuple[str, str]] = frozenset()


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value.strip() else json.dumps(value, ensure_ascii=False)


SENTENCES: dict[str, Callable[[Any], str]] = {
    "enum": lambda value: f"one of {', '.join(map(_value, value))}",
    "const": lambda value: f"always {_value(value)}",
    "anyOf": lambda value: " or ".join(dict.fromkeys(str(one.get("type")) for one in value)),
    "default": lambda value: "" if value is None else f"default {_value(value)}",  # a default of null says nothing
    "minimum": lambda value: f"at least {value}",
    "exclusiveMinimum": lambda value: f"more than {value}",
    "maximum": lambda value: f"at most {value}",
    "exclusiveMaximum": lambda value: f"less than {value}",
    "multipleOf": lambda value: f"a multiple of {value}",
    "minLength": lambda value: f"at least {value} characters",
    "maxLength": lambda value: f"at most {value} characters",
    "minItems": lambda value: f"at least {value} items",
    "maxItems": lambda value: f"at most {value} items",
    "uniqueItems": lambda value: "no item twice" if value else "",
    "format": lambda value: f"format {value}",
    "pattern": lambda value: f"matches {value}",
    "nullable": lambda value: "may be null" if value else "",
}
"""The words for a fact, by its keyword."""

_MAX_SENTENCE = 300
"""Characters; longer words, such as a list of a thousand choices, are left out."""


def apply_remedies(row: Row, coverage: Coverage) -> tuple[Row, Counter[str]]:
    """Return a row whose tools show what the template would hide.

    Args:
        row: A row dict; not changed.
        coverage: What the template hides.

    Returns:
        The row (itself where nothing is hidden), its gold and its earlier calls under the new names, and how many
        parameters were changed by kind: parameter_renamed, default_described, enum_described and so on.
    """
    applied: Counter[str] = Counter()
    tools: list[Any] = []
    renamed: dict[str, dict[str, str]] = {}
    schemas: dict[str, Mapping[str, Any]] = {}
    for tool in row["tools"]:
        function = tool["function"]
        name, schema = function["name"], function["parameters"]
        parameters = describe_facts(schema, coverage, applied)
        if new_to_old := replace_parameter_names(schema, coverage.hidden_names):
            parameters = rename_parameters(parameters, {old: new for new, old in new_to_old.items()})
            renamed[name], schemas[name] = new_to_old, schema
            applied["parameter_renamed"] += len(new_to_old)
        changed = parameters != schema
        tools.append({**tool, "function": {**function, "parameters": parameters}} if changed else tool)
    if not applied:
        return row, applied
    result = {**row, "tools": tools}
    if renamed:
        before = row.get("renamed", {"tools": {}, "parameters": {}})
        result["renamed"] = {**before, "parameters": {**before["parameters"], **renamed}}

        def rename(call: Mapping[str, Any]) -> Mapping[str, Any]:
            if call["name"] not in renamed:
                return call
            new_names = {old: new for new, old in renamed[call["name"]].items()}
            return {**call, "arguments": rename_arguments(call["arguments"], schemas[call["name"]], new_names)}

        result["gold"] = [rename(call) for call in row["gold"]]
        result["messages"] = change_calls(row["messages"], rename)
    return result, applied


def change_calls(
    messages: Sequence[Mapping[str, Any]], change: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return messages with every call of an earlier turn, {"name", "arguments"}, changed by a function."""
    result: list[Mapping[str, Any]] = []
    for message in messages:
        calls = [{**call, "function": change(call["function"])} for call in message.get("tool_calls") or ()]
        result.append({**message, "tool_calls": calls} if calls else message)
    return result


def describe_facts(schema: Mapping[str, Any], coverage: Coverage, applied: Counter[str]) -> dict[str, Any]:
    """Return a copy of a parameters schema with hidden facts written into the parameters' descriptions.

    Args:
        schema: Parameters in normal form.
        coverage: What the template hides.
        applied: Counts, by kind, of the facts written; added to.

    Returns:
        The copy; a fact that the description states already is not repeated.
    """
    result = dict(schema)
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        result["properties"] = {
            name: _described(spec, coverage, applied) if isinstance(spec, Mapping) else spec
            for name, spec in properties.items()
        }
    if isinstance(schema.get("items"), Mapping):
        result["items"] = describe_facts(schema["items"], coverage, applied)
    return result


def _described(spec: Mapping[str, Any], coverage: Coverage, applied: Counter[str]) -> dict[str, Any]:
    result = describe_facts(spec, coverage, applied)
    text = str(spec.get("description", ""))
    said = []
    for keyword, sentence in SENTENCES.items():
        if keyword not in spec or (spec.get("type"), keyword) not in coverage.hidden_facts:
            continue
        words = sentence(spec[keyword])
        if words and len(words) <= _MAX_SENTENCE and not _says(text, keyword, spec[keyword], words):
            said.append(words)
            applied[f"{keyword}_described"] += 1
    if not said:
        return result
    end = f"({'; '.join(said)})"
    return {**result, "description": f"{text.rstrip()} {end}" if text.strip() else end}


def _says(text: str, keyword: str, value: Any, words: str) -> bool:
    """Return whether a description states the fact already, in our words or in its author's."""
    if words in text:
        return True
    lowered = text.lower()
    if keyword == "default":
        return "default" in lowered
    if keyword == "enum":
        return all(_value(choice).lower() in lowered for choice in value)
    return keyword == "nullable" and "null" in lowered
