"""How transformers reads a tuned model's replies: the `response_template` of a saved tokenizer.

Knows FunctionGemma's grammar as patterns of the package `regex`, and the form of a response template. transformers
reads it from tokenizer_config.json, and turns replies into messages with role, content and tool_calls by it:
`tokenizer.parse_response`, the text-generation pipeline, `transformers serve`. Knows no model and no tokenizer.

A template can match patterns and parse JSON, and no more. So a call is taken for one only where the whole of it is in
the part of the grammar that comes out right; any other call stays in the content, as the model wrote it. Nothing is
misread, and nothing raises.
"""

from __future__ import annotations

import copy
from typing import Any

from fgtools.calls.tokens import (
    END_CALL,
    END_RESPONSE,
    END_TURN,
    EOS,
    ESCAPE,
    PAD,
    START_CALL,
    START_RESPONSE,
    START_TURN,
)
from fgtools.files import InputError

_MAX_BRACKETS = 500
"""Brackets and braces that may open in one call; it bounds the depth, because transformers' JSON parser recurses."""

_KEPT = r"\x01\x02"
"""Characters that transformers' JSON parser keeps for its own use and refuses in a text."""

_SPACE = r"(?:(?<!\s)\s++)?+"  # tried at the first character of a run alone, so that a long run takes linear time
_NAME = r"(?P<name>[^{<\s](?:[^{<]*+(?<!\s))?)"
_NOT_DEEP = rf"(?!(?:(?:(?!{END_CALL})[^\[{{])*+[\[{{]){{{_MAX_BRACKETS + 1}}})"

_GRAMMAR = "".join(
    (
        "(?(DEFINE)",
        rf"(?P<text>[^<{_KEPT}]*+(?:<(?!(?:escape|end_function_call)>)[^<{_KEPT}]*+)*+)",
        # names inside of a value are words; numbers are JSON's, and never so large that a float is infinite
        rf"(?P<item>{ESCAPE}(?&text){ESCAPE}",
        r"|-?(?:0|[1-9][0-9]{0,199}+)(?:\.[0-9]{1,199}+)?+(?:[eE][+-]?[0-9]{1,2}+)?+|true|false|null",
        r"|\[(?:(?&item)(?:,(?&item))*+)?+\]",
        rf"|\{{(?:(?:\w++|{ESCAPE}(?&text){ESCAPE}):(?&item)(?:,(?:\w++|{ESCAPE}(?&text){ESCAPE}):(?&item))*+)?+\}})",
        # the name of an argument may hold more, such as dots, dashes and spaces between words
        rf"(?P<word>[^{{}}\[\],:<\s{_KEPT}](?:[^{{}}\[\],:<{_KEPT}]*+(?<!\s))?)",
        rf"(?P<argument>(?:(?&word)|{ESCAPE}(?&text){ESCAPE}):(?:None|(?&item)))",
        ")",
    )
)
_WHOLE_CALL = rf"(?=\{{(?:(?&argument)(?:,(?&argument))*+)?+\}}{END_CALL})"
_SKIP_NULLS = rf"(?:(?:(?&word)|{ESCAPE}(?&text){ESCAPE}):None[,}}])*+"
_KEY = rf"(?:{ESCAPE}(?P<key>(?&text)){ESCAPE}|(?P<key>(?&word)))"

_NATIVE_CALL = {
    "open_pattern": f"{_GRAMMAR}{_SPACE}{START_CALL}call:{_NAME}{_WHOLE_CALL}{_NOT_DEEP}",
    "close_pattern": rf"{END_CALL}\s*+",
    "content": "xml-inline",  # that is: every match of a pattern with the groups key and value
    "content_args": {
        "tag_pattern": rf"{_GRAMMAR}\G[{{,]{_SKIP_NULLS}{_KEY}:(?P<value>(?&item))",
        "value_parser": {"name": "json", "args": {"string_delims": [[ESCAPE, ESCAPE]], "unquoted_keys": True}},
    },
}
_TUTORIAL_CALL = {
    "open_pattern": (
        rf"{_SPACE}{START_CALL}call:{_NAME}\{{args:{ESCAPE}"
        rf"(?=\{{[^<]*+(?:<(?!(?:escape|end_function_call)>)[^<]*+)*+{ESCAPE}\}}{END_CALL}){_NOT_DEEP}"
    ),
    "close_pattern": rf"{ESCAPE}\}}{END_CALL}\s*+",
    "content": "json",
    "content_args": {"allow_non_json": True},
}
_ENDS = f"(?:{END_TURN}|{START_RESPONSE}|{EOS}|{PAD})"


def _build_template(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": "{name}", "arguments": "{content}"}
    return {
        "version": 1,
        "defaults": {"role": "assistant"},
        # after a tool's result the model goes on in the same turn, and the calls before it are not part of its reply
        "start_anchor": [f"{START_TURN}model\n", END_RESPONSE],
        "fields": {
            "tool_calls": {**call, "repeats": True, "transform": {"type": "function", "function": function}},
            # no "join": transformers 5.13 to 5.15 refuse templates that have it
            "content": {"close_pattern": rf"{_ENDS}(?:\s++|{_ENDS})*+", "content": "text"},
        },
    }


_TEMPLATES = {"native": _build_template(_NATIVE_CALL), "tutorial": _build_template(_TUTORIAL_CALL)}


def response_template(call_style: str = "native") -> dict[str, Any]:
    """Return the response template of models that write calls in a style.

    Read as in `fgtools.calls.parse_reply`: strings with any text, numbers, booleans, null, lists, mappings, empty ones
    too, several calls, text around them, any tool name and argument name. An argument that is None is left out. These
    calls stay in the content: a None, or a name with other characters than letters, digits and underscores, inside of
    a value; a string that holds <end_function_call> or the characters 1 or 2 of ASCII; a name with "<"; more than 500
    brackets; numbers of more than 200 digits or beyond 1e99; and whatever `parse_reply` reports a problem for, such as
    a missing end.

    Of several texts around calls, calls that are left as text among them, the last one is the content; a stream of
    `transformers serve` gives all of them. In the tutorial's style, text of `args` that is not JSON is passed on as the
    arguments.

    Args:
        call_style: "native" or "tutorial", as `Recipe.call_style`.

    Returns:
        A new dict of JSON values, in version 1 of transformers' form.

    Raises:
        InputError: The style is unknown.
    """
    if call_style not in _TEMPLATES:
        raise InputError(f"call_style must be 'native' or 'tutorial', got {call_style!r}")
    return copy.deepcopy(_TEMPLATES[call_style])
