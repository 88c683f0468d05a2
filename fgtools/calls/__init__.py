"""Tool calls: what one is, and rendering and parsing the two grammars it is written in.

Knows text and plain values only: no tokenizer, no schema, no gold. FunctionGemma's own grammar is

    reply = [text] call* tail            tail  = "<start_function_response>" | "<end_of_turn>"
    call  = "<start_function_call>call:" NAME "{" [KEY ":" value ("," KEY ":" value)*] "}<end_function_call>"
    value = "<escape>" text "<escape>" | number | "true" | "false" | "None" | "[" values "]" | "{" pairs "}"

The tutorial writes all arguments of a call into one string: `call:NAME{args:<escape>JSON<escape>}`. Which engines
read which calls stands in `engines`.
"""

from fgtools.calls.call import MAX_DEPTH, Problem, Reply, ToolCall, nests_too_deep, row_calls
from fgtools.calls.parse import parse_reply, parse_tutorial_prediction
from fgtools.calls.render import is_writable, render_calls, render_key, render_value

__all__ = [
    "MAX_DEPTH",
    "Problem",
    "Reply",
    "ToolCall",
    "engines",
    "is_writable",
    "nests_too_deep",
    "parse_reply",
    "parse_tutorial_prediction",
    "render_calls",
    "render_key",
    "render_value",
    "row_calls",
    "tokens",
]
