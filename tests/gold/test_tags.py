"""Arguments in tags: their types are those that the tool declares, or that the tag says."""

import pytest

from fgtools.calls import ToolCall
from fgtools.gold.declared import DeclaredTools
from fgtools.gold.tags import parse_tagged_call

TOOLS = DeclaredTools(
    [{"name": "f", "parameters": {"n": {"type": "integer"}, "s": {"type": "string"}, "l": {"type": "array"}}}]
)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("<parameter=n>\n3\n</parameter>", {"n": 3}),
        ("<parameter=s>\n3\n</parameter>", {"s": "3"}),
        ("<parameter=s>\n a\n\n</parameter>", {"s": " a\n"}),
        ('<parameter=l>["x", 1]</parameter>', {"l": ["x", 1]}),
        ("<parameter=n>many</parameter>", {"n": "many"}),  # not valid, and for the metrics to say
        ("<parameter=other>3</parameter>", {"other": "3"}),
        ('<parameter name="other" string="false">3</parameter>', {"other": 3}),
        ('<parameter name="other" string="true">3</parameter>', {"other": "3"}),
        ('<parameter name="n" string="true">3</parameter>', {"n": "3"}),
    ],
)
def test_a_tags_text_has_the_type_that_is_declared_or_said(tag, value):
    text = f"<function=f>{tag}</function> Then."
    found, end = parse_tagged_call(text, TOOLS)
    assert (found, text[end:]) == ([ToolCall("f", value)], "Then.")


@pytest.mark.parametrize("text", ["<b>no</b>", "<g><n>3</n></g>", "plain"])
def test_other_tags_are_no_call(text):
    assert parse_tagged_call(text, TOOLS) == ([], 0)


@pytest.mark.parametrize(
    "text",
    [
        "<function=f>",
        "<function=f>words</function>",
        "<function=f><parameter=n>3",
        "<f>words</f>",
        "<name>f</name> words",
        "<function=f><parameter=n>3</parameter>",
        "<function=f><parameter=n>3</parameter><parameter=n>4</parameter></function>",
    ],
)
def test_a_call_that_is_cut_off_or_holds_other_text_is_broken(text):
    found, _ = parse_tagged_call(text, TOOLS)
    assert [item.kind for item in found] == ["broken_call"]
