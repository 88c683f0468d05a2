"""Tool definitions in the notations of published data sets, as the function schemas FunctionGemma's template shows.

Knows wrappers, encodings, Python functions, names and duplicates; parameters are parsed by `parameters`, types by
`types`, and the `tutorial` recipe is in `tutorial`. It does not know conversations.

A schema in normal form is {"type": "function", "function": {"name", "description", "parameters"}} with parameters
{"type": "object", "properties", "required"}; normalizing it again returns an equal one. Names are never changed, since
the gold calls of published data use them.
"""

from __future__ import annotations

import json
import marshal
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from fgtools.calls import MAX_DEPTH, Problem, nests_too_deep
from fgtools.files import FgtoolsError
from fgtools.profiles import Recipe, get_recipe
from fgtools.schema.literals import decode_text, parse_literals, plain_value, show
from fgtools.schema.parameters import ParameterParser, parse_parameters
from fgtools.schema.signatures import is_signature, parse_signature
from fgtools.schema.tutorial import normalize_tutorial_tools, normalize_tutorial_type

_NAME_WORDS = ("api_call", "name", "api_name", "function_name", "tool_name")
"""Fields of a tool's callable name, best first: Gorilla's `name` is a title, and its `api_call` what is called."""

_PARAMETER_WORDS = ("parameters", "input_schema", "inputSchema", "input_parameters", "arguments", "args")
_LIST_WORDS = ("tools", "functions", "function_declarations", "functionDeclarations")


class SchemaError(FgtoolsError, ValueError):
    """A tools field that cannot be parsed at all."""


class Change(NamedTuple):
    """One thing that normalizing changed in a tool's definition.

    Attributes:
        tool: The tool's name.
        kind: wrapper_removed, text_decoded, signature_read, name_from (the name was in another field), type_word,
            unknown_type, union_narrowed, flat_parameters and listed_parameters (made a JSON Schema), required_moved
            (it was beside the parameters), required_dropped (it named no parameter), reference_inlined.
        detail: Such as "dict -> object".
    """

    tool: str
    kind: str
    detail: str


class ParsedTools(NamedTuple):
    """A parsed tools field.

    Attributes:
        tools: Function schemas in normal form, in order.
        problems: What was left out or could not be parsed: not_a_tool, no_name, unreadable_parameters, duplicate_tool,
            conflicting_tool.
        changes: What was changed, tool by tool.
    """

    tools: tuple[dict[str, Any], ...]
    problems: tuple[Problem, ...]
    changes: tuple[Change, ...] = ()


_Definition = tuple[Mapping[str, Any], tuple[str, ...]]
"""One definition without its wrappers, and the kinds of the changes that removed them."""

_Cached = tuple[bytes, tuple[Problem, ...], tuple[Change, ...]]
"""ParsedTools with the tools as marshal's bytes, the fastest way to make a copy for every caller."""


def normalize_tools(raw: Any, recipe: str | Recipe = "native") -> list[dict[str, Any]]:
    """Return the function schemas of a tools field.

    Args:
        raw: A list or tuple of definitions, one definition, text of either (JSON or Python literals, encoded up to
            twice), a list of such texts, or None. Definitions may be bare, under {"function"} or under
            {"type": "function", "function"}; the text of a Python signature; or a Python function with type hints and
            a docstring in Google's style (parsed by transformers' get_json_schema).
        recipe: "native" for valid JSON Schema in normal form; "tutorial" for what the tutorial makes of the field.

    Returns:
        Fresh schemas that share nothing with `raw`; [] for None, empty text and an empty list. Under "native" a
        definition without a usable name is left out, and of several with one name the first is kept.

    Raises:
        SchemaError: The field is a number or another single value, text that is neither JSON nor Python, or a Python
            function whose hints or docstring cannot be parsed (native only).
        ValueError: The recipe is unknown.
    """
    if get_recipe(recipe).call_style == "tutorial":
        return normalize_tutorial_tools(raw)
    return list(parse_tools(raw).tools)


def normalize_type(raw: Any, recipe: str | Recipe = "native") -> dict[str, Any]:
    """Return the schema of a parameter's type.

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
        return normalize_tutorial_type(raw)
    try:
        spec = {"type": raw} if isinstance(raw, str) else raw
        return ParameterParser(spec).parse_spec(spec, 0).schema
    except ValueError as error:
        raise SchemaError(f"type cannot be parsed: {error}") from error


def parse_tools(raw: Any) -> ParsedTools:
    """Parse a tools field (native), and report its problems and what was changed.

    Each distinct text is parsed once; every caller gets objects of its own.

    Args:
        raw: As for `normalize_tools`.

    Returns:
        The function schemas, problems and changes.

    Raises:
        SchemaError: As for `normalize_tools`.
    """
    if isinstance(raw, str):
        tools, problems, changes = _parse_text(raw)
        return ParsedTools(marshal.loads(tools), problems, changes)
    return _parse(raw)


@lru_cache(maxsize=2048)
def _parse_text(raw: str) -> _Cached:
    if not raw.strip():
        return marshal.dumps(()), (), ()
    twice = False
    try:
        values = parse_literals(raw)
        value = values[0] if len(values) == 1 else values
        twice = isinstance(value, str) and bool(value.strip())
        value = decode_text(value, times=1) if twice else value
    except ValueError as error:
        value = _parse_signatures(raw)
        if not value:
            raise SchemaError(
                f"tools must be JSON or a Python literal, got {raw.strip()[:60]!r}: fix or drop the row"
            ) from error
    tools, *noted = _parse(None if value == "" else value, ("text_decoded",) if twice else ())
    return marshal.dumps(tools), *noted


def _parse_signatures(text: str) -> list[Mapping[str, Any]]:
    """Parse every Python signature of a text; [] where a part of it is none."""
    parts = [part for part in re.split(r"(?m)^(?=(?:async\s+)?def\s)", text) if part.strip()]
    try:
        return [parse_signature(part) for part in parts if is_signature(part)]
    except ValueError:
        return []


def _parse(raw: Any, before: tuple[str, ...] = ()) -> ParsedTools:
    changes: list[Change] = []
    tools: dict[str, dict[str, Any]] = {}
    try:
        found = list(_find_definitions(raw, depth=0))
        problems = [item for item in found if isinstance(item, Problem)]
        for body, kinds in (item for item in found if not isinstance(item, Problem)):
            parsed = _parse_tool(body)
            problems.extend(parsed.problems)
            changes.extend(parsed.changes)
            for tool in parsed.tools:
                name = tool["function"]["name"]
                changes.extend(Change(name, kind, "") for kind in (*before, *kinds))
                if name in tools:
                    kind = "duplicate_tool" if tools[name] == tool else "conflicting_tool"
                    problems.append(Problem(kind, name[:80]))
                tools.setdefault(name, tool)
    except RecursionError as error:
        raise SchemaError("tools nest too deep to be parsed: flatten or drop the row") from error
    return ParsedTools(tuple(tools.values()), tuple(problems), tuple(changes))


def _find_definitions(raw: Any, depth: int) -> Iterator[_Definition | Problem]:
    """Yield every definition in a decoded field, without its wrappers, and a Problem for each part that is none."""
    if isinstance(raw, (list, tuple)):
        for item in raw:
            yield from _parse_item(item, depth)
    elif isinstance(raw, Mapping):
        yield from _parse_mapping(raw, depth)
    elif callable(raw):
        yield _unwrap(_build_schema(raw))
    elif raw is not None:
        raise SchemaError(
            f"tools must be a list, a mapping or text of one, got {type(raw).__name__} {show(raw)}: fix or drop the row"
        )


def _parse_item(item: Any, depth: int) -> Iterator[_Definition | Problem]:
    changes: tuple[str, ...] = ()
    if isinstance(item, str):
        text, changes = item, ("text_decoded",)
        try:
            item = decode_text(text)
        except ValueError:
            item, changes = (_parse_signatures(text) or text), ("signature_read",)
    if callable(item) and not isinstance(item, type):
        yield from _find_definitions(item, depth + 1)
    elif isinstance(item, (list, tuple, Mapping)) and depth < 4:  # some sets have one list per turn
        for found in _find_definitions(item, depth + 1):
            yield found if isinstance(found, Problem) else (found[0], (*changes, *found[1]))
    else:
        yield Problem("not_a_tool", show(item))


def _build_schema(function: Callable[..., Any]) -> Mapping[str, Any]:
    from transformers.utils import get_json_schema
    from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

    try:
        return get_json_schema(function)
    except (DocstringParsingException, TypeHintParsingException, ValueError, TypeError) as error:
        name = getattr(function, "__name__", show(function))
        raise SchemaError(
            f"the function {name} must have type hints and a docstring with an Args section in Google's style: {error}"
        ) from error


def _parse_mapping(raw: Mapping[str, Any], depth: int) -> Iterator[_Definition | Problem]:
    lists = [raw[word] for word in _LIST_WORDS if isinstance(raw.get(word), (list, tuple, str))]
    named = bool(raw) and not any(word in raw for word in (*_NAME_WORDS, "function", "type"))
    if lists and "name" not in raw:
        yield from _parse_item(lists[0], depth)
    elif named and all(map(_is_definition_body, raw.values())):
        yield from (({"name": name, **value}, ()) for name, value in raw.items())
    else:
        yield _unwrap(raw)


def _is_definition_body(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(value.get(word), Mapping) for word in _PARAMETER_WORDS)


def _unwrap(raw: Mapping[str, Any]) -> _Definition:
    """Remove {"function": ...} wrappers; fields beside the function are kept where the function does not have them."""
    changes: tuple[str, ...] = ()
    own = set(raw) <= {"type", "function"}  # the wrapper of the normal form is no change
    for level in range(4):
        inner = raw.get("function")
        if isinstance(inner, str):
            try:
                inner = decode_text(inner)
            except ValueError:
                inner = parse_signature(inner) if _parse_signatures(inner) else {"name": inner}
        if not isinstance(inner, Mapping):
            break
        changes = () if own and not level and "type" in raw else ("wrapper_removed",)
        beside = {word: value for word, value in raw.items() if word not in ("function", "type")}
        raw = {**beside, **inner}
        if "function" not in inner:
            break
    return raw, changes


def _parse_tool(raw: Mapping[str, Any]) -> ParsedTools:
    """Parse one definition, each distinct one once; no tool where it has no usable name."""
    try:
        key = marshal.dumps(raw, 2)  # version 2 writes equal values alike
    except ValueError:  # values that marshal does not know, or too deep nesting
        return _parse_definition(raw)
    tools, problems, changes = _parse_marshalled(key)
    return ParsedTools(marshal.loads(tools), problems, changes)


@lru_cache(maxsize=20_000)  # a few kilobytes each; the same tools are in many rows, and parsing is slow
def _parse_marshalled(raw: bytes) -> _Cached:
    tools, *noted = _parse_definition(marshal.loads(raw))
    return marshal.dumps(tools), *noted


def clear_caches() -> None:
    """Forget all parsed tools, so that the time of a first parsing can be measured."""
    _parse_marshalled.cache_clear()
    _parse_text.cache_clear()


def _parse_definition(raw: Mapping[str, Any]) -> ParsedTools:
    field = next((word for word in _NAME_WORDS if isinstance(raw.get(word), str) and raw[word].strip()), None)
    if field is None:
        return ParsedTools((), (Problem("no_name", show(raw)),))
    name = raw[field]
    changes = [Change(name, "name_from", field)] if field != "name" else []
    problems = []
    word = next((word for word in _PARAMETER_WORDS if raw.get(word) is not None), None)
    try:
        parameters, noted = parse_parameters(raw[word] if word else None, raw.get("required"))
        if nests_too_deep([{"function": {"parameters": parameters}}]):  # as deep as they are in a row's tools
            raise SchemaError(f"parameters make the tools nest deeper than {MAX_DEPTH} levels")
        changes.extend(Change(name, kind, detail) for kind, detail in noted)
    except ValueError as error:
        problems.append(Problem("unreadable_parameters", f"{name}: {error}"[:80]))
        parameters, _ = parse_parameters(None)
    function = {"name": name, "description": _description(raw), "parameters": parameters}
    return ParsedTools(({"type": "function", "function": function},), tuple(problems), tuple(changes))


def _description(raw: Mapping[str, Any]) -> str:
    text = next((raw[word] for word in ("description", "api_description") if raw.get(word) is not None), "")
    if isinstance(text, str):
        return text
    try:
        return json.dumps(plain_value(text), ensure_ascii=False)
    except ValueError:
        return ""
