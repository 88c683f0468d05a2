"""Prompts as FunctionGemma's chat template renders them, to hold against the template that a model brings.

Knows texts alone. What is shown of each type, the order of names, how calls and results stand in a turn: each rule of
the format that this package relies on occurs in one of them. The stand-in's template, which is tested against prompts
that others have published, renders them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgtools.profiles import DEVELOPER_TEXT


@dataclass(frozen=True)
class GoldenPrompt:
    """Messages and tools, and the text that they must become.

    Attributes:
        label: What it shows.
        messages: Chat messages, as `render_prompt` takes them.
        tools: Function schemas.
        text: The text, <bos> included.
        add_generation_prompt: Whether the text ends where the model is to write.
    """

    label: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    text: str
    add_generation_prompt: bool = True


def _tool(name: str, description: str, properties: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    parameters = {"type": "object", "properties": dict(properties), "required": list(required)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def _call(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": dict(arguments)}}


_BOOK = _tool(
    "book_table",
    "Book a table.",
    {
        "when": {"type": "string", "description": "Day."},
        "Guests": {"type": "integer", "description": "How many."},
        "area": {"type": "string", "description": "Where.", "enum": ["inside", "garden"]},
        "budget": {"type": "number", "description": "Euros."},
        "quiet": {"type": "boolean", "description": "Away from music."},
        "dishes": {"type": "array", "description": "Ordered ahead.", "items": {"type": "string"}},
        "host": {
            "type": "object",
            "description": "Who pays.",
            "properties": {"phone": {"type": "string", "description": "Number."}},
            "required": ["phone"],
        },
    },
    ["when", "Guests"],
)
_CLOSE = _tool("close_door", "Close the door.", {})
_DEVELOPER = {"role": "developer", "content": DEVELOPER_TEXT}
_REQUEST = {"role": "user", "content": "A table for two in the garden"}

_BOOKED = _call(
    "book_table",
    {
        "when": "Friday",
        "Guests": 2,
        "budget": 37.5,
        "quiet": True,
        "dishes": ["soup", "rice"],
        "host": {"phone": "030"},
        "area": None,
    },
)

_HEAD = (
    "<bos><start_of_turn>developer\nYou are a model that can do function calling with the following functions"
    "<start_function_declaration>declaration:book_table{description:<escape>Book a table.<escape>,parameters:{"
    "properties:{"
    "area:{description:<escape>Where.<escape>,enum:[<escape>inside<escape>,<escape>garden<escape>],"
    "type:<escape>STRING<escape>},"
    "budget:{description:<escape>Euros.<escape>,type:<escape>NUMBER<escape>},"
    "dishes:{description:<escape>Ordered ahead.<escape>,items:{type:<escape>STRING<escape>},"
    "type:<escape>ARRAY<escape>},"
    "Guests:{description:<escape>How many.<escape>,type:<escape>INTEGER<escape>},"
    "host:{description:<escape>Who pays.<escape>,properties:{phone:{description:<escape>Number.<escape>,"
    "type:<escape>STRING<escape>}},required:[<escape>phone<escape>],type:<escape>OBJECT<escape>},"
    "quiet:{description:<escape>Away from music.<escape>,type:<escape>BOOLEAN<escape>},"
    "when:{description:<escape>Day.<escape>,type:<escape>STRING<escape>}},"
    "required:[<escape>when<escape>,<escape>Guests<escape>],type:<escape>OBJECT<escape>}}<end_function_declaration>"
    "<start_function_declaration>declaration:close_door{description:<escape>Close the door.<escape>,parameters:{"
    "type:<escape>OBJECT<escape>}}<end_function_declaration><end_of_turn>\n"
    "<start_of_turn>user\nA table for two in the garden<end_of_turn>\n<start_of_turn>model\n"
)
_CALLS = (
    "<start_function_call>call:book_table{area:None,budget:37.5,dishes:[<escape>soup<escape>,<escape>rice<escape>],"
    "Guests:2,host:{phone:<escape>030<escape>},quiet:true,when:<escape>Friday<escape>}<end_function_call>"
    "<start_function_call>call:close_door{}<end_function_call><start_function_response>"
)

GOLDEN_PROMPTS = (
    GoldenPrompt("tools and a request", (_DEVELOPER, _REQUEST), (_BOOK, _CLOSE), _HEAD),
    GoldenPrompt(
        "two calls, values of every type",
        (
            _DEVELOPER,
            _REQUEST,
            {"role": "assistant", "content": "", "tool_calls": [_BOOKED, _call("close_door", {})]},
        ),
        (_BOOK, _CLOSE),
        _HEAD + _CALLS,
        add_generation_prompt=False,
    ),
    GoldenPrompt(
        "results of calls, after which the model goes on",
        (
            _DEVELOPER,
            _REQUEST,
            {"role": "assistant", "content": "", "tool_calls": [_BOOKED, _call("close_door", {})]},
            {"role": "tool", "name": "book_table", "content": {"table": 4}},
            {"role": "tool", "name": "close_door", "content": "done"},
        ),
        (_BOOK, _CLOSE),
        _HEAD + _CALLS + "response:book_table{table:4}<end_function_response>"
        "<start_function_response>response:close_door{value:<escape>done<escape>}<end_function_response>",
    ),
    GoldenPrompt(
        "a conversation without tools",
        (
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": ' Hello "there" & <b>you</b>\n'},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "And now?"},
        ),
        (),
        "<bos><start_of_turn>developer\nBe brief.<end_of_turn>\n"
        '<start_of_turn>user\nHello "there" & <b>you</b><end_of_turn>\n'
        "<start_of_turn>model\nHello.<end_of_turn>\n<start_of_turn>user\nAnd now?<end_of_turn>\n<start_of_turn>model\n",
    ),
)
"""The prompts."""
