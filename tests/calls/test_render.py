"""Rendering calls: what the grammar cannot carry is refused."""

import pytest

from fgtools.calls import MAX_DEPTH, ToolCall, render_calls
from fgtools.calls.tokens import ESCAPE


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (ToolCall("f", {"a": f"x{ESCAPE}y"}), "cannot hold the mark"),
        (ToolCall("f{", {}), "tool name must be text"),
        (ToolCall(" f", {}), "tool name must be text"),
        (ToolCall("", {}), "tool name must be text"),
        (ToolCall(None, {}), "tool name must be text"),
        (ToolCall("f", {"a": float("nan")}), "must be finite"),
        (ToolCall("f", {1: "a"}), "argument name must be text"),
        (ToolCall("f", '{"a": 1}'), "must be a mapping"),
        (ToolCall("f", {"a": {1, 2}}), "must be a JSON value, got set"),
    ],
)
def test_what_the_grammar_cannot_carry_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        render_calls([call])


def test_nesting_has_a_stated_limit():
    value: object = 1
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    for style in ("native", "tutorial"):
        with pytest.raises(ValueError, match=f"deeper than {MAX_DEPTH}"):
            render_calls([ToolCall("f", {"a": value})], style)


def test_unknown_style_is_an_error():
    with pytest.raises(ValueError, match="style must be 'native' or 'tutorial', got 'xml'"):
        render_calls([], style="xml")
