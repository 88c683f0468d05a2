"""Tool definitions in the notations of published data sets, as the function schemas FunctionGemma's template shows.

Knows lists, encodings, Python functions and duplicates; the fields of one definition are found by `definitions`,
parameters are parsed by `parameters`, types by `types`, and the `tutorial` recipe is in `tutorial`. It does not know
conversations.

A schema in normal form is {"type": "function", "function": {"name", "description", "parameters"}} with parameters
{"type": "object", "properties", "required"}; normalizing it again returns an equal one. Names are never changed, since
the gold calls of published data use them.
"""

from __future__ import annotations

import marshal
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from fgtools.calls import MAX_DEPTH, Problem, nests_too_deep
from fgtools.profiles import Recipe, get_recipe
from fgtools.schema.definitions import (
    NAME_WORDS,
    find_description,
    find_name,
    find_parameters,
    unwrap,
    unwrap_parameters,
)
from fgtools.schema.limits import MAX_DEFINITION, MAX_TEXT, MAX_TOOLS, LimitError, SchemaError, require_at_most
from fgtools.schema.literals import decode_text, parse_literals, show
from fgtools.schema.parameters import ParameterParser, parse_parameters
from fgtools.schema.references import DEFINITION_WORDS
from fgtools.schema.signatures import is_signature, parse_signature
from fgtools.schema.tutorial import normalize_tutorial_tools, normalize_tutorial_type

_LIST_WORDS = ("tools", "functions", "function_declarations", "functionDeclarations", "tool_list", "api_list", "apis")
"""Fields that hold a list of definitions."""

_ENVELOPES = ("result", "toolConfig", "tool_config", "data")
"""Fields around such a field, as in the answer of an MCP server."""


class Change(NamedTuple):
    """One thing that normalizing changed in a tool's definition.

    Attributes:
        tool: The tool's name.
        kind: wrapper_removed, text_decoded, signature_read; name_from and parameters_from (they were in another
            field), parameters_ignored (a second field holds some too); flat_parameters and listed_parameters (made a
            JSON Schema), parameter_dropped (an item of the list without a name, or a second one of a name);
            null_parameter and null_keyword (a table filled them in); required_moved (it was beside the parameters),
            required_dropped (it named no parameter); type_word, unknown_type; union_narrowed (one of several types is
            shown), union_merged (several schemas of one type became one), composition_merged (allOf, anyOf, oneOf,
            then), branch_dropped (no object, where only objects make sense); reference_inlined, reference_unresolved,
            recursion_cut; unit_described, example_described, example_dropped (too long), keyword_dropped (a
            restriction that no template shows).
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
            {"type": "function", "function"}; in the notations of Anthropic, Bedrock, Cohere, Gemini, LangChain,
            ToolBench and others; in an envelope such as the result of an MCP server's tools/list; the text of a Python
            signature; or a Python function with type hints and a docstring in Google's style (parsed by transformers'
            get_json_schema).
        recipe: "native" for valid JSON Schema in normal form; "tutorial" for what the tutorial makes of the field.

    Returns:
        Fresh schemas that share nothing with `raw`; [] for None, empty text and an empty list. Under "native" a
        definition without a usable name is left out, and of several with one name the first is kept.

    Raises:
        SchemaError: The field is a number or another single value, text that is neither JSON nor Python, a Python
            function whose hints or docstring cannot be parsed, or exceeds a limit of `limits` (native only).
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
    except LimitError:
        raise
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
        require_at_most(MAX_TEXT, len(raw), "characters of a row's tools")
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
        found = []
        for one in _find_definitions(raw, depth=0):
            require_at_most(MAX_TOOLS, len(found) + 1, "tools of a row")
            found.append(one)
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
        require_at_most(MAX_TOOLS, len(raw), "tools of a row")
        for item in raw:
            yield from _parse_item(item, depth)
    elif isinstance(raw, Mapping):
        yield from _parse_mapping(raw, depth)
    elif callable(raw):
        yield unwrap(_build_schema(raw))
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
    require_at_most(MAX_TOOLS, len(raw), "tools or fields of one mapping")
    listed = next((raw[word] for word in _LIST_WORDS if isinstance(raw.get(word), (list, tuple, str))), None)
    envelope = next((raw[word] for word in _ENVELOPES if _holds_list(raw.get(word))), None)
    named = any(isinstance(raw.get(word), str) for word in NAME_WORDS) or "function" in raw or "type" in raw
    if listed is not None and not find_parameters(raw).field and (isinstance(listed, (list, tuple)) or not named):
        shared = {word: raw[word] for word in DEFINITION_WORDS if word in raw}
        for found in _parse_item(listed, depth):
            yield found if isinstance(found, Problem) or not shared else ({**shared, **found[0]}, found[1])
    elif envelope is not None and depth < 4 and not find_parameters(raw).field:
        yield from _parse_mapping(envelope, depth + 1)
    elif raw and not named and all(map(_is_definition_body, raw.values())):
        yield from (({"name": name, **value}, ()) for name, value in raw.items())
    else:
        yield unwrap(raw)


def _holds_list(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(value.get(word), (list, tuple, str)) for word in _LIST_WORDS)


def _is_definition_body(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(find_parameters(value).value, Mapping)


def _parse_tool(raw: Mapping[str, Any]) -> ParsedTools:
    """Parse one definition, each distinct one once; no tool where it has no usable name."""
    try:
        key = marshal.dumps(raw, 2)  # version 2 writes equal values alike
    except ValueError:  # values that marshal does not know, or too deep nesting
        return _parse_definition(raw)
    require_at_most(MAX_DEFINITION, len(key), "bytes of a tool's definition")
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
    field = find_name(raw)
    if field is None:
        return ParsedTools((), (Problem("no_name", show(raw)),))
    name = raw[field]
    changes = [Change(name, "name_from", field)] if field != "name" else []
    problems = []
    try:
        found = find_parameters(raw)
        value, unwrapped = unwrap_parameters(found.value)
        parameters, noted = parse_parameters(value, found.beside, [raw])
        if nests_too_deep([{"function": {"parameters": parameters}}]):  # as deep as they are in a row's tools
            raise LimitError(f"the parameters of {name[:80]} make the tools nest deeper than {MAX_DEPTH} levels")
        changes.extend(Change(name, kind, detail) for kind, detail in (*unwrapped, *found.changes, *noted))
    except LimitError:
        raise
    except ValueError as error:
        problems.append(Problem("unreadable_parameters", f"{name}: {error}"[:80]))
        parameters, _ = parse_parameters(None)
    function = {"name": name, "description": find_description(raw), "parameters": parameters}
    return ParsedTools(({"type": "function", "function": function},), tuple(problems), tuple(changes))
