"""A tool call, and the two grammars it is written in: FunctionGemma's own and the tutorial's.

Knows text and plain values only: no tokenizer, no schema, no gold. The native grammar is the one FunctionGemma's chat
template writes:

    reply = [text] call* tail            tail  = "<start_function_response>" | "<end_of_turn>"
    call  = "<start_function_call>call:" NAME "{" [KEY ":" value ("," KEY ":" value)*] "}<end_function_call>"
    value = "<escape>" text "<escape>" | number | "true" | "false" | "None" | "[" values "]" | "{" pairs "}"

The tutorial writes every argument into one string: `call:NAME{args:<escape>JSON<escape>}`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
START_TURN, END_TURN = "<start_of_turn>", "<end_of_turn>"
START_DECLARATION, END_DECLARATION = "<start_function_declaration>", "<end_function_declaration>"
START_CALL, END_CALL = "<start_function_call>", "<end_function_call>"
START_RESPONSE, END_RESPONSE = "<start_function_response>", "<end_function_response>"
ESCAPE = "<escape>"

STOP_TOKENS = (EOS, START_RESPONSE, END_TURN)
"""What ends a reply: FunctionGemma emits <start_function_response> after its calls, <end_of_turn> after prose (ids 1,
50, 106)."""

CONTROL_TOKENS = (
    PAD,
    EOS,
    BOS,
    "<unk>",
    START_DECLARATION,
    END_DECLARATION,
    START_CALL,
    END_CALL,
    START_RESPONSE,
    END_RESPONSE,
    ESCAPE,
    START_TURN,
    END_TURN,
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
"""Every control token text of the format; none of them may come from a user's text."""

MAX_DEPTH = 100
"""Deepest nesting of lists and mappings that is rendered or parsed."""

_STRUCTURE = re.compile(r"[{}\[\],:]")
_TAIL = re.compile("|".join(re.escape(token) for token in (*STOP_TOKENS, PAD)))
_SCALAR_END = re.compile(r"[,}\]]|" + "|".join(re.escape(token) for token in CONTROL_TOKENS))
_CONTROL = re.compile("|".join(re.escape(token) for token in CONTROL_TOKENS))
_INTEGER = re.compile(r"-?(?:0|[1-9]\d*)\Z", re.ASCII)
_FLOAT = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?\Z", re.ASCII)
_SPACE = re.compile(r"\s*")
_CONSTANTS = {"true": True, "false": False, "None": None, "null": None}

_TUTORIAL_NAME = re.compile(r"call:([a-zA-Z0-9_]+)\{")


@dataclass(frozen=True)
class ToolCall:
    """A call of one tool.

    Attributes:
        name: The tool's name, as declared.
        arguments: Argument values by name; JSON values.
    """

    name: str
    arguments: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Give the call as it stands in a row: {"name", "arguments"}."""
        return {"name": self.name, "arguments": self.arguments}


@dataclass(frozen=True)
class Problem:
    """Why a part of a reply is not in the grammar.

    Attributes:
        kind: One of missing_name, missing_braces, unclosed_call, missing_end, malformed_call, unclosed_string,
            unquoted_string, duplicate_key, too_deep, args_not_json, white_space, stray_token.
        detail: What was found, in at most 80 characters.
    """

    kind: str
    detail: str


@dataclass(frozen=True)
class Reply:
    """A model's reply, read.

    Attributes:
        calls: The calls that could be read, in order.
        text: What stands outside calls, stripped, without stop tokens.
        problems: What was not in the grammar; a call that is listed here under unclosed_call, malformed_call,
            unclosed_string, missing_name or too_deep is not among `calls`.
    """

    calls: tuple[ToolCall, ...]
    text: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class TutorialPrediction:
    """What the tutorial reads in a generated text: the first name or None, the first whole call block or ""."""

    name: str | None
    block: str


def row_calls(row: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """Give the gold calls of a row dict; empty for a row whose right answer is no call."""
    return tuple(ToolCall(call["name"], call["arguments"]) for call in row["gold"])


def render_calls(calls: Iterable[ToolCall], style: str = "native") -> str:
    """Write calls one after the other, as the model is trained to write them, without the stop token.

    Native arguments are sorted by name without regard to case, as the chat template does. A name that the grammar
    cannot write bare (it holds structure characters or outer white space, or is empty) is written between <escape>
    marks; the parser reads both.

    Args:
        calls: The calls.
        style: "native" or "tutorial".

    Returns:
        The text; "" for no calls.

    Raises:
        ValueError: The style is unknown, or a call holds what the grammar cannot carry: the <escape> mark inside a
            string, a tool name with a brace, a control token or outer white space, a number that is not finite, a key
            that is not text, nesting deeper than MAX_DEPTH.
    """
    if style not in ("native", "tutorial"):
        raise ValueError(f"style must be 'native' or 'tutorial', got {style!r}")
    return "".join(_render_call(call, style) for call in calls)


def _render_call(call: ToolCall, style: str) -> str:
    name = call.name
    if not isinstance(name, str) or not name or name != name.strip() or "{" in name or _CONTROL.search(name):
        raise ValueError(
            f"a tool name must be text without '{{', control tokens or outer white space, got {name!r}: rename the tool"
        )
    if not isinstance(call.arguments, Mapping):
        raise ValueError(
            f"arguments of {name!r} must be a mapping, got {type(call.arguments).__name__}: decode them first"
        )
    if style == "tutorial":
        if nests_deeper(call.arguments, MAX_DEPTH):
            raise ValueError(f"arguments must not nest deeper than {MAX_DEPTH} levels")
        text = json.dumps(call.arguments, ensure_ascii=False)
        return f"{START_CALL}call:{name}{{args:{_render_string(text)}}}{END_CALL}"
    return f"{START_CALL}call:{name}{render_value(call.arguments, 0)}{END_CALL}"


def _render_string(value: str) -> str:
    if ESCAPE in value:
        raise ValueError(f"a string cannot hold the mark {ESCAPE}, got {value[:80]!r}: reject or rewrite the row")
    return f"{ESCAPE}{value}{ESCAPE}"


def render_key(key: object) -> str:
    """Write an argument's name, between marks where it could be taken for structure; ValueError for what is no name."""
    if not isinstance(key, str):
        raise ValueError(f"an argument name must be text, got {key!r}")
    if not key or key != key.strip() or _STRUCTURE.search(key) or _CONTROL.search(key):
        return _render_string(key)
    return key


def render_value(value: object, depth: int = 0) -> str:
    """Write a JSON value in FunctionGemma's grammar.

    Args:
        value: The value.
        depth: How deep it stands.

    Returns:
        The text: strings between marks, names sorted, `None` for null.

    Raises:
        ValueError: It nests too deep, holds a mark, or is no JSON value.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"arguments must not nest deeper than {MAX_DEPTH} levels")
    if value is None:
        return "None"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _render_string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a number must be finite, got {value}")
        return repr(value)
    if isinstance(value, Mapping):
        pairs = [(render_key(key), render_value(item, depth + 1), key) for key, item in value.items()]
        pairs.sort(key=lambda pair: pair[2].lower())
        return "{" + ",".join(f"{key}:{item}" for key, item, _ in pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(render_value(item, depth + 1) for item in value) + "]"
    raise ValueError(f"an argument must be a JSON value, got {type(value).__name__}")


def parse_reply(text: str, style: str = "native") -> Reply:
    """Read a generated reply; never raises on any text.

    Tolerated beyond the grammar, and reported as a problem beside the call: a missing <end_function_call> at the end,
    a missing `{}`, text without <escape> marks, white space inside a call and outside of its strings (the parsers of
    servers do not take it), a control token outside of calls that is not part of the tail. Accepted silently: `null`,
    names between <escape> marks, prose around calls, a tail of several stop tokens and <pad>s.

    Args:
        text: The reply, special tokens kept, with or without its stop token.
        style: "native"; "tutorial" also decodes a call's only argument `args` from JSON, with the same limits.

    Returns:
        The Reply.
    """
    calls: list[ToolCall] = []
    problems: list[Problem] = []
    outside: list[str] = []
    position = 0
    while True:
        start = text.find(START_CALL, position)
        if start < 0:
            outside.append(text[position:])
            break
        outside.append(text[position:start])
        reader = _CallReader(text, start + len(START_CALL))
        try:
            call = reader.read_call()
        except _NotACall as error:
            problems.append(Problem(error.kind, text[start : start + 80]))
            position = text.find(START_CALL, start + len(START_CALL))
            if position < 0:
                outside.append("")  # what follows the call that could not be read is part of it
                break
            continue
        problems.extend(reader.problems)
        position = reader.position
        if style == "tutorial":
            try:
                call = _decode_tutorial_arguments(call, problems)
            except _NotACall as error:
                problems.append(Problem(error.kind, text[start : start + 80]))
                continue
        calls.append(call)
    problems.extend(Problem("stray_token", token) for token in _stray_tokens(outside))
    prose = _TAIL.sub("", "".join(outside)).strip()
    return Reply(tuple(calls), prose, tuple(problems))


def _stray_tokens(outside: Sequence[str]) -> list[str]:
    """Give the distinct control tokens in the text before, between and after calls, the tail of the last one aside."""
    *inner, last = outside
    found = list(_CONTROL.finditer(last))
    end = len(last)
    while found and _TAIL.fullmatch(found[-1].group()) and not last[found[-1].end() : end].strip():
        end = found.pop().start()
    strays = [token for text in inner for token in _CONTROL.findall(text)]
    return list(dict.fromkeys([*strays, *(match.group() for match in found)]))


def _decode_tutorial_arguments(call: ToolCall, problems: list[Problem]) -> ToolCall:
    """Decode the argument `args`, add what is wrong with it to `problems`; raises _NotACall where it nests too deep."""
    encoded = call.arguments.get("args")
    if set(call.arguments) != {"args"} or not isinstance(encoded, str):
        problems.append(Problem("args_not_json", f"{call.name}: no single string argument 'args'"[:80]))
        return call
    twice: list[str] = []

    def read_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            twice.extend([key] if key in values else [])
            values[key] = value
        return values

    try:
        arguments = json.loads(
            encoded, parse_constant=_refuse_number, parse_float=_read_finite, object_pairs_hook=read_pairs
        )
    except RecursionError as error:
        raise _NotACall("too_deep") from error
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        problems.append(Problem("args_not_json", encoded[:80]))
        return call
    if nests_deeper(arguments, MAX_DEPTH):
        raise _NotACall("too_deep")
    problems.extend(Problem("duplicate_key", key[:80]) for key in twice)
    return ToolCall(call.name, arguments)


def _refuse_number(word: str) -> Any:
    raise ValueError(f"a number must be finite, got {word}")


def _read_finite(word: str) -> float:
    return number if math.isfinite(number := float(word)) else _refuse_number(word)


def nests_deeper(value: object, limit: int) -> bool:
    """Tell whether a part of a JSON value stands deeper than a limit; the value itself stands at depth 0."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            item
            for one in level
            if isinstance(one, (Mapping, list, tuple))
            for item in (one.values() if isinstance(one, Mapping) else one)
        ]
        if not level:
            return False
    return True


class _NotACall(Exception):
    """The text at a call mark is not a call; `kind` says why."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class _CallReader:
    """A recursive-descent reader of one call: braces and marks inside strings mean nothing to it."""

    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.start = position
        self.position = position
        self.is_spaced = False
        self.problems: list[Problem] = []

    def read_call(self) -> ToolCall:
        self._skip_space()
        if not self._accept("call:"):
            raise _NotACall("malformed_call" if self.position < len(self.text) else "unclosed_call")
        name = self._read_name()
        if self._accept("{"):
            arguments = self._read_mapping(0)
        else:
            arguments = {}
            self._report("missing_braces", name)
        self._skip_space()
        if not self._accept(END_CALL):
            rest = self.position
            if rest < len(self.text) and not self.text.startswith((START_CALL, *STOP_TOKENS, PAD), rest):
                raise _NotACall("malformed_call")
            self._report("missing_end", name)
        return ToolCall(name, arguments)

    def _read_name(self) -> str:
        mark = _CONTROL.search(self.text, self.position)
        limit = mark.start() if mark else len(self.text)
        brace = self.text.find("{", self.position, limit)
        end = limit if brace < 0 else brace
        name = self._strip(self.text[self.position : end])
        if brace < 0 and not mark:
            raise _NotACall("unclosed_call")
        if not name:
            raise _NotACall("missing_name")
        self.position = end
        return name

    def _read_mapping(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        self._skip_space()
        if self._accept("}"):
            return values
        while True:
            key = self._read_key()
            if key in values:
                self._report("duplicate_key", key)
            values[key] = self._read_value(depth + 1)
            if self._at_end_of("}"):
                return values

    def _read_list(self, depth: int) -> list[Any]:
        values: list[Any] = []
        self._skip_space()
        if self._accept("]"):
            return values
        while True:
            values.append(self._read_value(depth + 1))
            if self._at_end_of("]"):
                return values

    def _read_key(self) -> str:
        self._skip_space()
        if self._accept(ESCAPE):
            key = self._read_string()
            self._skip_space()
            if not self._accept(":"):
                raise self._stopped()
            return key
        end = _STRUCTURE.search(self.text, self.position)
        mark = _CONTROL.search(self.text, self.position, end.start() if end else len(self.text))
        if not end or end.group() != ":" or mark:
            raise _NotACall("unclosed_call" if not end and not mark else "malformed_call")
        key = self._strip(self.text[self.position : end.start()])
        self.position = end.end()
        return key

    def _read_value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _NotACall("too_deep")
        self._skip_space()
        if self._accept(ESCAPE):
            return self._read_string()
        if self._accept("{"):
            return self._read_mapping(depth)
        if self._accept("["):
            return self._read_list(depth)
        return self._read_scalar()

    def _read_string(self) -> str:
        end = self.text.find(ESCAPE, self.position)
        if end < 0:
            raise _NotACall("unclosed_string")
        value = self.text[self.position : end]
        self.position = end + len(ESCAPE)
        return value

    def _read_scalar(self) -> Any:
        end = _SCALAR_END.search(self.text, self.position)
        if not end:
            raise _NotACall("unclosed_call")
        word = self._strip(self.text[self.position : end.start()])
        self.position = end.start()
        if word in _CONSTANTS:
            return _CONSTANTS[word]
        if _INTEGER.match(word) and len(word) < 4300:  # Python refuses to convert longer ones
            return int(word)
        if _FLOAT.match(word) and math.isfinite(float(word)):
            return float(word)
        if not word:
            raise _NotACall("malformed_call")
        self._report("unquoted_string", word)
        return word

    def _at_end_of(self, bracket: str) -> bool:
        self._skip_space()
        if self._accept(bracket):
            return True
        if not self._accept(","):
            raise self._stopped()
        return False

    def _stopped(self) -> _NotACall:
        return _NotACall("unclosed_call" if self.position >= len(self.text) else "malformed_call")

    def _accept(self, token: str) -> bool:
        if self.text.startswith(token, self.position):
            self.position += len(token)
            return True
        return False

    def _skip_space(self) -> None:
        space = _SPACE.match(self.text, self.position)
        if space and space.group():
            self.position = space.end()
            self._report_space()

    def _strip(self, word: str) -> str:
        if word != word.strip():
            self._report_space()
        return word.strip()

    def _report_space(self) -> None:
        if not self.is_spaced:
            self.is_spaced = True
            self._report("white_space", self.text[self.start : self.start + 80])

    def _report(self, kind: str, detail: str) -> None:
        self.problems.append(Problem(kind, detail[:80]))


def parse_tutorial_prediction(text: str | None) -> TutorialPrediction:
    """Read a generated text as the tutorial's evaluation does, weaknesses included.

    Args:
        text: The generated text, or None.

    Returns:
        The name of the first `call:NAME{` anywhere (letters, digits and underscores only), and the first whole call
        block.
    """
    text = text or ""
    name = _TUTORIAL_NAME.search(text)
    start = text.find(START_CALL)  # not a regular expression: it would try every start of a reply that has no end
    end = text.find(END_CALL, start + len(START_CALL)) if start >= 0 else -1
    return TutorialPrediction(name.group(1) if name else None, text[start : end + len(END_CALL)] if end >= 0 else "")
