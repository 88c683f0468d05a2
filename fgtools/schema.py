"""Tool definitions of every notation in the wild, as the function schemas FunctionGemma's template shows.

Knows wrappers, encodings, names and duplicates; what stands inside `parameters` is read by `parameters`, type words by
`typewords`. It does not know conversations. The `tutorial` recipe is `tutorial`'s own reading.

A schema in normal form is {"type": "function", "function": {"name", "description", "parameters"}} with parameters
{"type": "object", "properties", "required"}; normalising it again gives it back. Names are never changed: the gold
calls of published data use them as they stand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fgtools.calls import Problem
from fgtools.literals import decode_text, parse_literals, plain_value, show
from fgtools.parameters import normalize_parameters, normalize_spec
from fgtools.profiles import Recipe, get_recipe
from fgtools.tutorial import tutorial_tools, tutorial_type

_NAME_WORDS = ("api_call", "name", "api_name", "function_name", "tool_name")
"""Where a tool's callable name stands, best first: Gorilla's `name` is a title, its `api_call` is what is called."""

_PARAMETER_WORDS = ("parameters", "input_schema", "inputSchema", "input_parameters", "arguments", "args")
_LIST_WORDS = ("tools", "functions", "function_declarations", "functionDeclarations")


class SchemaError(ValueError):
    """A tools field that cannot be read at all."""


@dataclass(frozen=True)
class ToolsReading:
    """A tools field, read.

    Attributes:
        tools: Function schemas in normal form, in order.
        problems: What was left out or could not be read: not_a_tool, no_name, unreadable_parameters, duplicate_tool,
            conflicting_tool.
    """

    tools: tuple[dict[str, Any], ...]
    problems: tuple[Problem, ...]


def normalize_tools(raw: Any, recipe: str | Recipe = "native") -> list[dict[str, Any]]:
    """Give the function schemas of a tools field.

    Args:
        raw: A list or tuple of definitions, one definition, text of either (JSON or Python literals, encoded up to
            twice), a list of such texts, or None. Definitions may be bare, under {"function"} or under
            {"type": "function", "function"}.
        recipe: "native" gives valid JSON Schema in normal form; "tutorial" what the tutorial makes of the field.

    Returns:
        Fresh schemas that share nothing with `raw`; [] for None, empty text and an empty list. Under "native" a
        definition without a usable name is left out, and of several with one name the first is kept.

    Raises:
        SchemaError: The field is a number or another single value, or text that is neither JSON nor a Python literal
            (native only).
        ValueError: The recipe is unknown.
    """
    if get_recipe(recipe).call_style == "tutorial":
        return tutorial_tools(raw)
    return list(read_tools(raw).tools)


def normalize_type(raw: Any, recipe: str | Recipe = "native") -> dict[str, Any]:
    """Give the schema of a parameter's type.

    Args:
        raw: A type word or expression ("int, optional", "List[str]", "array of strings"), a list of types, a whole
            specification, or None.
        recipe: "native" or "tutorial".

    Returns:
        A fresh schema. Native: valid JSON Schema with one concrete type; text that is no type gives "string".

    Raises:
        SchemaError: The specification nests too deep (native only).
        ValueError: The recipe is unknown.
    """
    if get_recipe(recipe).call_style == "tutorial":
        return tutorial_type(raw)
    try:
        return normalize_spec({"type": raw} if isinstance(raw, str) else raw)
    except ValueError as error:
        raise SchemaError(f"type cannot be read: {error}") from error


def read_tools(raw: Any) -> ToolsReading:
    """Give the function schemas of a tools field (native) together with what was wrong with it.

    Text is read once per distinct value; every caller gets objects of its own.

    Args:
        raw: As for `normalize_tools`.

    Returns:
        The ToolsReading.

    Raises:
        SchemaError: As for `normalize_tools`.
    """
    if isinstance(raw, str):
        text, problems = _read_text(raw)
        return ToolsReading(tuple(json.loads(text)), problems)
    return _read(raw)


@lru_cache(maxsize=2048)
def _read_text(raw: str) -> tuple[str, tuple[Problem, ...]]:
    if not raw.strip():
        return "[]", ()
    try:
        values = parse_literals(raw)
        value = values[0] if len(values) == 1 else values
        value = decode_text(value, times=1) if isinstance(value, str) and value.strip() else value
    except ValueError as error:
        raise SchemaError(
            f"tools must be JSON or a Python literal, got {raw.strip()[:60]!r}: fix or drop the row"
        ) from error
    reading = _read(None if value == "" else value)
    return json.dumps(reading.tools), reading.problems


def _read(raw: Any) -> ToolsReading:
    problems: list[Problem] = []
    tools: dict[str, dict[str, Any]] = {}
    try:
        for definition in _definitions(raw, problems, depth=0):
            tool = _tool(definition, problems)
            if tool is None:
                continue
            name = tool["function"]["name"]
            if name in tools:
                kind = "duplicate_tool" if tools[name] == tool else "conflicting_tool"
                problems.append(Problem(kind, name[:80]))
            tools.setdefault(name, tool)
    except RecursionError as error:
        raise SchemaError("tools nest too deep to be read: flatten or drop the row") from error
    return ToolsReading(tuple(tools.values()), tuple(problems))


def _definitions(raw: Any, problems: list[Problem], depth: int) -> list[Mapping[str, Any]]:
    """Give every definition in a decoded field, wrappers taken off."""
    if raw is None:
        return []
    if isinstance(raw, (list, tuple)):
        found: list[Mapping[str, Any]] = []
        for item in raw:
            found.extend(_item(item, problems, depth))
        return found
    if isinstance(raw, Mapping):
        return _mapping_definitions(raw, problems, depth)
    raise SchemaError(
        f"tools must be a list, a mapping or text of one, got {type(raw).__name__} {show(raw)}: fix or drop the row"
    )


def _item(item: Any, problems: list[Problem], depth: int) -> list[Mapping[str, Any]]:
    try:
        item = decode_text(item)
    except ValueError:
        problems.append(Problem("not_a_tool", show(item)))
        return []
    if isinstance(item, (list, tuple, Mapping)) and depth < 4:  # lists of lists: one per turn in some sets
        return _definitions(item, problems, depth + 1)
    problems.append(Problem("not_a_tool", show(item)))
    return []


def _mapping_definitions(raw: Mapping[str, Any], problems: list[Problem], depth: int) -> list[Mapping[str, Any]]:
    for word in _LIST_WORDS:
        if isinstance(raw.get(word), (list, tuple, str)) and "name" not in raw:
            return _item(raw[word], problems, depth)
    named = bool(raw) and not any(word in raw for word in (*_NAME_WORDS, "function", "type"))
    if named and all(isinstance(value, Mapping) and _is_definition_body(value) for value in raw.values()):
        return [{"name": name, **value} for name, value in raw.items()]
    return [_unwrapped(raw)]


def _is_definition_body(value: Mapping[str, Any]) -> bool:
    return any(isinstance(value.get(word), Mapping) for word in _PARAMETER_WORDS)


def _unwrapped(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take off {"function": ...} wrappers; what stands beside the function counts where the function is silent."""
    for _ in range(4):
        inner = raw.get("function")
        if isinstance(inner, str):
            try:
                inner = decode_text(inner)
            except ValueError:
                inner = {"name": inner}  # {"function": "get_weather", "parameters": ...}
        if not isinstance(inner, Mapping):
            break
        beside = {word: value for word, value in raw.items() if word not in ("function", "type")}
        raw = {**beside, **inner}
        if "function" not in inner:
            break
    return raw


def _tool(raw: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any] | None:
    name = next((raw[word] for word in _NAME_WORDS if isinstance(raw.get(word), str) and raw[word].strip()), None)
    if name is None:
        problems.append(Problem("no_name", show(raw)))
        return None
    word = next((word for word in _PARAMETER_WORDS if raw.get(word) is not None), None)
    try:
        parameters = normalize_parameters(raw[word] if word else None, raw.get("required"))
    except ValueError as error:
        problems.append(Problem("unreadable_parameters", f"{name}: {error}"[:80]))
        parameters = normalize_parameters(None)
    function = {"name": name, "description": _description(raw), "parameters": parameters}
    return {"type": "function", "function": function}


def _description(raw: Mapping[str, Any]) -> str:
    text = next((raw[word] for word in ("description", "api_description") if raw.get(word) is not None), "")
    if isinstance(text, str):
        return text
    try:
        return json.dumps(plain_value(text), ensure_ascii=False)
    except ValueError:
        return ""
