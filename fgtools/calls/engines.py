"""Which engine reads which calls: what the parsers of serving engines lose or change of a correct call.

Knows calls and, as data, the parser for FunctionGemma of each engine in one version; no engine is imported or asked. A
kind is something that a call can hold, such as null or a tool's name with a dot; a rule says what one engine does with
it. A call without any kind of an engine comes out of it as it was meant, but for numbers of another type (5 as 5.0).

Each engine's `checked` says whether its own code was run on calls, or its published source was only read and restated.
A newer version may read more, or less. Engines' streams of parts of a reply are not covered.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from fgtools.calls.call import ToolCall
from fgtools.calls.render import is_bare

CALL_LOST, LOST, CHANGED = "the call is lost", "the argument is lost", "the value is changed"
"""What can happen to a call."""

_KEEP_TEXT = "parse the reply with fgtools.calls.parse_reply"

KINDS: dict[str, tuple[str, str]] = {
    "null": ("null", "declare the parameter as optional, so that it can be left out"),
    "number": ("a number", f"declare it as text, or {_KEEP_TEXT}"),
    "boolean": ("true or false", f"declare it as text, such as an enum of yes and no, or {_KEEP_TEXT}"),
    "list": ("a list", f"declare it as one text, or {_KEEP_TEXT}"),
    "single_list": ("a list of one number or truth value", f"declare it as one text, or {_KEEP_TEXT}"),
    "empty_list": ("an empty list", "declare the parameter as optional, so that it can be left out"),
    "object": ("an object", f"give each of its fields a parameter of its own, or {_KEEP_TEXT}"),
    "text_like_json": ('text that is JSON, such as "42"', "convert it back in the application, which knows its schema"),
    "text_with_brace": ("text with }", _KEEP_TEXT),
    "text_with_newline": ("text with a line break", f"say in the description that it is one line, or {_KEEP_TEXT}"),
    "text_with_mark": ('text with <ctrl46> or <|"|>', _KEEP_TEXT),
    "text_with_control": ("text with the characters 1 or 2 of ASCII", _KEEP_TEXT),
    "text_like_argument": ('text such as "x, b" beside an argument b', f"rename the parameter, or {_KEEP_TEXT}"),
    "integer_beyond_64_bits": ("an integer beyond 64 bits that no double holds", "declare it as text"),
    "integer_beyond_53_bits": ("an integer beyond 53 bits that no double holds", "declare it as text"),
    "decimal_with_exponent": ("a number such as 1.5e-07", "declare it in another unit, or as text"),
    "huge_number": ("a number beyond 1e99 or nearer to 0 than 1e-99", "declare it in another unit, or as text"),
    "tool_not_word": ("a tool's name with other signs than letters, digits and _", "rename the tool"),
    "tool_not_identifier": (
        "a tool's name that is no identifier (letter or _ first, then A-Z a-z 0-9 _ . -)",
        "rename it",
    ),
    "name_not_word": ("an argument's name with other signs than letters, digits and _", "rename the parameter"),
    "name_in_marks": ("a name with { } [ ] , : or white space around it", "rename the parameter"),
    "name_not_identifier": ("a name that is no identifier, or is call, true, false, null or like e5", "rename it"),
    "name_like_value": ("a name that is true, false, null or a number such as 05 or 1e5", "rename the parameter"),
    "field_not_word": ("a name inside an object, with other signs than letters, digits and _", "rename it"),
    "deep": ("more than 500 brackets", "declare a flatter tool"),
    "tutorial_notation": ("all arguments as JSON in one text", "train with the recipe native"),
}
"""What a call can hold, in words, and what to change in the tools where an engine does not read it."""


@dataclass(frozen=True)
class Engine:
    """One engine's way with FunctionGemma's calls.

    Attributes:
        name: The engine.
        version: Version or date of the parser that the rules describe.
        source: Where the parser stands.
        checked: "its own code was run", "its source was restated", "its template is run by the tests", or "no parser".
        rules: What happens, by kind; what is not named is read.
    """

    name: str
    version: str
    source: str
    checked: str
    rules: Mapping[str, str]


NO_PARSER = "no parser"
_RUN, _RESTATED = "its own code was run", "its source was restated"

ENGINES: tuple[Engine, ...] = (
    Engine(
        "vLLM",
        "0.32.0",
        "vllm/tool_parsers/functiongemma_tool_parser.py",
        _RUN,
        {
            **dict.fromkeys(("null", "number", "boolean", "list", "single_list", "empty_list"), LOST),
            "object": "its texts become arguments",
            "text_like_json": CHANGED,
            "name_not_word": "another name",
            "tool_not_word": CALL_LOST,
        },
    ),
    Engine(
        "MLX-LM",
        "0.32.2",
        "mlx_lm/tool_parsers/function_gemma.py",
        _RUN,
        {
            "null": 'the text "None"',
            "list": "the call is lost, or a text",
            "object": "a text cut at the first }",
            "text_with_brace": CALL_LOST,
            "name_in_marks": "another name",
            "tool_not_word": CALL_LOST,
        },
    ),
    Engine(
        "Ollama",
        "August 2026",
        "model/parsers/functiongemma.go",
        _RESTATED,
        {
            "null": 'the text "None"',
            "empty_list": "null",
            "text_with_newline": CALL_LOST,
            "integer_beyond_64_bits": "rounded",
            "name_in_marks": "another name",
        },
    ),
    Engine(
        "LiteRT-LM",
        "2026",
        "runtime/components/tool_use: antlr/AntlrFcLexer.g4, AntlrFcParser.g4, fc_parser_utils.cc",
        _RESTATED,
        {
            "null": CALL_LOST,
            "decimal_with_exponent": CALL_LOST,
            "integer_beyond_53_bits": "rounded",
            "text_with_mark": CALL_LOST,
            "text_like_argument": "cut",
            "name_not_identifier": CALL_LOST,
            "tool_not_identifier": CALL_LOST,
        },
    ),
    Engine(
        "BFCL",
        "bfcl-eval 2026.3.23",
        "bfcl_eval/model_handler/local_inference/functiongemma.py",
        _RUN,
        {"null": 'the text "None"', "name_like_value": "another name"},
    ),
    Engine(
        "transformers",
        "5",
        "the response_template of the saved tokenizer (fgtools.models.response)",
        "its template is run by the tests",
        {
            "null": "left out; inside a value, the call stays text",
            **dict.fromkeys(("field_not_word", "text_with_control", "huge_number", "deep"), "the call stays text"),
        },
    ),
    Engine("llama.cpp, SGLang", "2026", "no parser for FunctionGemma; the client parses the text", NO_PARSER, {}),
)
"""The engines, and what each does not read; llama.cpp and SGLang return the text, and `parse_reply` reads all of it."""

_WORD = regex.compile(r"\w+")
_IDENTIFIER = regex.compile(r"(?!(?:call|true|false|null|[eE][+-]?[0-9]+)\Z)[A-Za-z_][A-Za-z0-9_.-]*")
_ARGUMENT_IN_TEXT = regex.compile(r",[ \t\n\f\r]*([A-Za-z_][A-Za-z0-9_.-]*)[ \t\n\f\r]*(?::|\Z)")
_MOST_BRACKETS, _MOST_DIGITS = 500, 200


def find_kinds(call: ToolCall) -> set[str]:
    """Return the kinds of KINDS that a call holds.

    Args:
        call: The call, with control tokens in its texts neutralised as in a training text.
    """
    found = {"tool_not_word"} if not _WORD.fullmatch(call.name) else set()
    found |= {"tool_not_identifier"} if not _IDENTIFIER.fullmatch(call.name) else set()
    n_brackets = 1
    for name, value in call.arguments.items():
        found |= {"name_not_word"} if not _WORD.fullmatch(name) else set()
        if isinstance(value, str):
            found |= _top_text_kinds(name, value, call.arguments)
    waiting: list[Any] = [call.arguments]
    while waiting:
        value = waiting.pop()
        found.update(_value_kinds(value))
        if isinstance(value, Mapping):
            n_brackets += 1
            for name in value:
                found.update(_name_kinds(name, is_top=value is call.arguments))
            waiting.extend(value.values())
            if value is not call.arguments:
                found.add("object")
        elif isinstance(value, (list, tuple)):
            n_brackets += 1
            waiting.extend(value)
    return found | ({"deep"} if n_brackets > _MOST_BRACKETS else set())


def _name_kinds(name: str, is_top: bool) -> Iterator[str]:
    """Yield what a name at any level is."""
    if not is_bare(name):
        yield "name_in_marks"
    if not _IDENTIFIER.fullmatch(name) or not is_bare(name):
        yield "name_not_identifier"
    if is_bare(name) and _reads_otherwise(name):
        yield "name_like_value"
    if not is_top and is_bare(name) and not _WORD.fullmatch(name):
        yield "field_not_word"
    yield from _text_kinds(name)


def _reads_otherwise(name: str) -> bool:
    """Return whether a name that is taken for a value would be another text then."""
    if name in ("true", "false", "null"):
        return True
    for kind in (int, float):
        try:
            return str(kind(name)) != name
        except ValueError:
            continue
    return False


def _text_kinds(text: str) -> Iterator[str]:
    if "}" in text:
        yield "text_with_brace"
    if "\n" in text:
        yield "text_with_newline"
    if "<ctrl46>" in text or '<|"|>' in text:
        yield "text_with_mark"
    if "\x01" in text or "\x02" in text:
        yield "text_with_control"


def _value_kinds(value: Any) -> Iterator[str]:
    """Yield what one value is, whatever lies inside of it."""
    if value is None:
        yield "null"
    elif isinstance(value, bool):
        yield "boolean"
    elif isinstance(value, (int, float)):
        yield from _number_kinds(value)
    elif isinstance(value, str):
        yield from _text_kinds(value)
    elif isinstance(value, (list, tuple)):
        yield "empty_list" if not value else "single_list" if _is_single(value) else "list"


def _number_kinds(value: int | float) -> Iterator[str]:
    yield "number"
    if isinstance(value, int):
        if abs(value) > 2**53 and (abs(value) > sys.float_info.max or int(float(value)) != value):
            yield "integer_beyond_53_bits"
            if not -(2**63) <= value < 2**63:
                yield "integer_beyond_64_bits"
        if abs(value) >= 10**_MOST_DIGITS:
            yield "huge_number"
        return
    text = repr(value)
    if "e" in text and "." in text:
        yield "decimal_with_exponent"
    if len(text.partition("e")[2].lstrip("+-")) > 2:
        yield "huge_number"


def _is_single(value: Sequence[Any]) -> bool:
    """Return whether a list holds one number, true or false, or one list that is empty or such a list."""
    while len(value) == 1 and isinstance(value[0], (list, tuple)):
        value = value[0]
    return not value or (len(value) == 1 and isinstance(value[0], (bool, int, float)))


def _top_text_kinds(name: str, text: str, arguments: Mapping[str, Any]) -> set[str]:
    """Return what a text is as an argument among others."""
    found = {"text_like_json"} if _is_json(text) else set()
    others = arguments.keys() - {name}
    if any(match.group(1) in others for match in _ARGUMENT_IN_TEXT.finditer(text)):
        found.add("text_like_argument")
    return found


def _is_json(text: str) -> bool:
    """Return whether a text is JSON, NaN and the like included, or nests or counts too far for Python's decoder."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return True


def find_unread(calls: Sequence[ToolCall], engine: Engine, style: str = "native") -> tuple[str, ...]:
    """Return the kinds in calls that an engine does not read as they are meant; () where it reads the calls.

    Args:
        calls: The calls of one reply.
        engine: One of ENGINES.
        style: The notation they are written in; no engine reads the arguments of the tutorial's.
    """
    if style == "tutorial":
        return ("tutorial_notation",) if calls else ()
    held = set().union(*map(find_kinds, calls))
    return tuple(kind for kind in KINDS if kind in held and kind in engine.rules)


def count_unread(golds: Iterable[Sequence[ToolCall]], style: str = "native") -> list[dict[str, Any]]:
    """Count what each engine reads of many replies.

    Args:
        golds: The calls of each; those without a call are left out, since they are text for every engine.
        style: The notation they are written in.

    Returns:
        One object an engine, in the order of ENGINES: {"engine", "version", "checked", "read", "n", "unread": {kind:
        replies that hold it}}; a reply that holds several kinds counts for each.
    """
    held = [set().union(*map(find_kinds, calls)) for calls in golds if calls]
    if style == "tutorial":
        held = [{"tutorial_notation"} for _ in held]
    counts = []
    for engine in ENGINES:
        rules = {"tutorial_notation"} if style == "tutorial" else engine.rules.keys()
        found = [kinds & rules for kinds in held]
        unread = Counter(kind for kinds in found for kind in kinds)
        counts.append(
            {
                "engine": engine.name,
                "version": engine.version,
                "checked": engine.checked,
                "read": sum(not kinds for kinds in found),
                "n": len(held),
                "unread": dict(sorted(unread.items(), key=lambda item: (-item[1], item[0]))),
            }
        )
    return counts
