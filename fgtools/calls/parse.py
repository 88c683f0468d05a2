"""Text to calls: the parser of FunctionGemma's grammar, and what the tutorial's evaluation finds in a reply.

Knows the grammar and the mistakes that models make in it; no tokenizer, no schema, no gold.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fgtools.calls.call import MAX_DEPTH, Problem, Reply, ToolCall, nests_too_deep
from fgtools.calls.render import STRUCTURE
from fgtools.calls.tokens import CONTROL_TOKEN, END_CALL, ESCAPE, PAD, START_CALL, STOP_TOKENS

_TAIL = re.compile("|".join(re.escape(token) for token in (*STOP_TOKENS, PAD)))
_SCALAR_END = re.compile(r"[,}\]]|" + CONTROL_TOKEN.pattern)
_INTEGER = re.compile(r"-?(?:0|[1-9]\d*)\Z", re.ASCII)
_FLOAT = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?\Z", re.ASCII)
_SPACE = re.compile(r"\s+")
_TUTORIAL_NAME = re.compile(r"call:([a-zA-Z0-9_]+)\{")
_CONSTANTS = {"true": True, "false": False, "None": None, "null": None}


def parse_reply(text: str, style: str = "native") -> Reply:
    """Parse a generated reply; never raises on any text.

    Tolerated beyond the grammar, and reported as a problem beside the call: a missing <end_function_call> at the end,
    a missing `{}`, text without <escape> marks, white space inside a call and outside of its strings (the parsers of
    servers refuse it), a control token outside of calls that is not part of the tail. Accepted silently: `null`,
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
    while (start := text.find(START_CALL, position)) >= 0:
        outside.append(text[position:start])
        parser = _CallParser(text, start + len(START_CALL))
        try:
            call = parser.parse_call()
        except _NotACall as error:
            problems.append(Problem(str(error), text[start : start + 80]))
            following = text.find(START_CALL, start + len(START_CALL))
            position = following if following >= 0 else len(text)  # the text up to there belongs to the broken call
            continue
        problems.extend(parser.problems)
        position = parser.position
        if style == "tutorial":
            call, noticed = _decode_arguments(call)
            problems.extend(noticed)
        calls.extend([call] if call else [])
    outside.append(text[position:])
    problems.extend(Problem("stray_token", token) for token in _stray_tokens(outside))
    prose = _TAIL.sub("", "".join(outside)).strip()
    return Reply(tuple(calls), prose, tuple(problems))


def _stray_tokens(outside: Sequence[str]) -> list[str]:
    """Return the distinct control tokens outside of calls; the stop tokens and <pad>s at the very end do not count."""
    *inner, last = outside
    found = list(CONTROL_TOKEN.finditer(last))
    end = len(last)
    while found and _TAIL.fullmatch(found[-1].group()) and not last[found[-1].end() : end].strip():
        end = found.pop().start()
    strays = [token for text in inner for token in CONTROL_TOKEN.findall(text)]
    return list(dict.fromkeys([*strays, *(match.group() for match in found)]))


class _NotACall(Exception):
    """The text after a <start_function_call> is not a call; the message is the kind of the Problem."""


class _CallParser:
    """A recursive-descent parser of one call: braces and control tokens inside strings are text."""

    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.start = position
        self.position = position
        self.is_spaced = False
        self.problems: list[Problem] = []

    def parse_call(self) -> ToolCall:
        self._skip_space()
        if not self._accept("call:"):
            raise self._stopped()
        name = self._parse_name()
        if self._accept("{"):
            arguments = self._parse_mapping(0)
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

    def _parse_name(self) -> str:
        mark = CONTROL_TOKEN.search(self.text, self.position)
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

    def _parse_mapping(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for _ in self._items_up_to("}"):
            key = self._parse_key()
            if key in values:
                self._report("duplicate_key", key)
            values[key] = self._parse_value(depth + 1)
        return values

    def _items_up_to(self, bracket: str) -> Iterator[None]:
        """Yield at the start of every item; the caller parses it before it asks for the next one."""
        self._skip_space()
        if self._accept(bracket):
            return
        while True:
            yield
            self._skip_space()
            if self._accept(bracket):
                return
            if not self._accept(","):
                raise self._stopped()

    def _parse_key(self) -> str:
        self._skip_space()
        if self._accept(ESCAPE):
            key = self._parse_string()
            self._skip_space()
            if not self._accept(":"):
                raise self._stopped()
            return key
        end = STRUCTURE.search(self.text, self.position)
        mark = CONTROL_TOKEN.search(self.text, self.position, end.start() if end else len(self.text))
        if not end or end.group() != ":" or mark:
            raise _NotACall("unclosed_call" if not end and not mark else "malformed_call")
        key = self._strip(self.text[self.position : end.start()])
        self.position = end.end()
        return key

    def _parse_value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _NotACall("too_deep")
        self._skip_space()
        if self._accept(ESCAPE):
            return self._parse_string()
        if self._accept("{"):
            return self._parse_mapping(depth)
        if self._accept("["):
            return [self._parse_value(depth + 1) for _ in self._items_up_to("]")]
        return self._parse_scalar()

    def _parse_string(self) -> str:
        end = self.text.find(ESCAPE, self.position)
        if end < 0:
            raise _NotACall("unclosed_string")
        value = self.text[self.position : end]
        self.position = end + len(ESCAPE)
        return value

    def _parse_scalar(self) -> Any:
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

    def _stopped(self) -> _NotACall:
        return _NotACall("unclosed_call" if self.position >= len(self.text) else "malformed_call")

    def _accept(self, token: str) -> bool:
        if self.text.startswith(token, self.position):
            self.position += len(token)
            return True
        return False

    def _skip_space(self) -> None:
        if space := _SPACE.match(self.text, self.position):
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


@dataclass(frozen=True)
class TutorialPrediction:
    """What the tutorial finds in a generated text: the first name or None, and the first whole call block or ""."""

    name: str | None
    block: str


def parse_tutorial_prediction(text: str | None) -> TutorialPrediction:
    """Parse a generated text as the tutorial's evaluation does, weaknesses included.

    Args:
        text: The generated text, or None.

    Returns:
        The name of the first `call:NAME{` anywhere (letters, digits and underscores only), and the first whole call
        block.
    """
    text = text or ""
    name = _TUTORIAL_NAME.search(text)
    start = text.find(START_CALL)  # a regular expression would try every start of a reply that has no end
    end = text.find(END_CALL, start + len(START_CALL)) if start >= 0 else -1
    return TutorialPrediction(name.group(1) if name else None, text[start : end + len(END_CALL)] if end >= 0 else "")


def _decode_arguments(call: ToolCall) -> tuple[ToolCall | None, list[Problem]]:
    """Return a call with the arguments that its `args` holds as JSON text, and what is wrong with them.

    Returns the call unchanged where `args` is not JSON text of a mapping; None where that text nests too deep.
    """
    encoded = call.arguments.get("args")
    if set(call.arguments) != {"args"} or not isinstance(encoded, str):
        return call, [Problem("args_not_json", f"{call.name}: no single string argument 'args'"[:80])]
    duplicates: list[str] = []

    def build_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            duplicates.extend([key] if key in values else [])
            values[key] = value
        return values

    try:
        arguments = json.loads(
            encoded, parse_constant=_parse_finite, parse_float=_parse_finite, object_pairs_hook=build_mapping
        )
    except RecursionError:
        return None, [Problem("too_deep", encoded[:80])]
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return call, [Problem("args_not_json", encoded[:80])]
    if nests_too_deep(arguments):
        return None, [Problem("too_deep", encoded[:80])]
    return ToolCall(call.name, arguments), [Problem("duplicate_key", key[:80]) for key in duplicates]


def _parse_finite(word: str) -> float:
    if not math.isfinite(number := float(word)):
        raise ValueError(f"a number must be finite, got {word}")
    return number
