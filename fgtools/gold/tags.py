"""Calls written as tags: the name in one tag and each argument in a tag of its own, as several models write them.

Knows tags and, for the types of their texts, the declared tools. A tag's text is the argument as it stands where the
tool declares a string; where it declares another type, it is parsed.

    <function=f><parameter=a>1</parameter></function>        <function=f>{"a": 1}</function>
    <invoke name="f"><parameter name="a">1</parameter></invoke>
    <name>f</name><arguments>{"a": 1}</arguments>             <tool_name>f</tool_name><parameters><a>1</a></parameters>
    f<arg_key>a</arg_key><arg_value>1</arg_value>             <f><a>1</a></f> for a declared tool f
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fgtools.calls import Problem
from fgtools.gold.declared import DeclaredTools
from fgtools.gold.values import Found, parse_calls
from fgtools.schema.literals import parse_literal, parse_values, plain_value

_SPACE_NAME = r"(?:[\w-]{1,20}:|[|｜][A-Z]{1,9}[|｜])?"
_NAMED = re.compile(
    rf"<{_SPACE_NAME}(?P<tag>function|invoke|tool|tool_call|call)(?:=|\s+name\s*=\s*)[\"']?(?P<name>[^\"'<>\n]{{1,200}}?)[\"']?\s*>"
)
_NAME_TAG = re.compile(
    r"<(?:invoke>\s*<)?(?P<tag>name|tool_name|function_name|tool|function)>\s*(?P<name>[^<>\n]{1,200}?)\s*</(?P=tag)>\s*"
)
_ARGUMENTS_TAG = re.compile(r"<(?P<tag>arguments|parameters|args|params|input|tool_input|arguments_json)>\s*")
_PARAMETER = re.compile(
    rf"\s*<{_SPACE_NAME}(?P<tag>parameter|param|arg|argument)(?:=|\s+name\s*=\s*)[\"']?(?P<name>[^\"'<>\n]{{1,200}}?)[\"']?"
    r"(?P<rest>\s[^<>]{0,200})?>"
)
_PLAIN_TAG = re.compile(r"\s*<(?!arg_)(?P<name>[A-Za-z_][\w.\-]{0,200})>")
_KEY = re.compile(r"\s*<arg_key>(?P<name>[^<>]{1,200})</arg_key>\s*<arg_value>")
_ENDING = re.compile(rf"\s*(?:</{_SPACE_NAME}[\w.\-]{{1,200}}>\s*){{0,3}}")


def parse_tagged_call(text: str, tools: DeclaredTools) -> tuple[list[Found], int]:
    """Parse one call in tags.

    Args:
        text: The text from the call's first character; it must not go on beyond the next call's mark.
        tools: The row's tools.

    Returns:
        The call, or a Problem (broken_call) where tags begin one that cannot be read, and the position after it; ([],
        0) where no such call begins.
    """
    if match := _NAMED.match(text):
        return _parse_body(text, match.end(), match["name"].strip(), match["tag"], tools)
    if match := _NAME_TAG.match(text):
        name, start = match["name"], match.end()
        if not (opening := _ARGUMENTS_TAG.match(text, start)):
            end = _ENDING.match(text, start).end()
            return _finish(text, end, name, {}, tools) if end > start else ([_broken(text, name)], len(text))
        return _parse_body(text, opening.end(), name, opening["tag"], tools)
    opening = _PLAIN_TAG.match(text)
    if opening and opening["name"] in tools.parameters:
        return _parse_body(text, opening.end(), opening["name"], opening["name"], tools)
    return [], 0


def parse_arg_keys(text: str, name: str, tools: DeclaredTools) -> tuple[list[Found], int]:
    """Parse the <arg_key> and <arg_value> tags that follow a name; what is returned is as in `parse_tagged_call`."""
    return _parse_parameters(text, 0, name, tools, by_keys=True)


def _parse_body(text: str, start: int, name: str, tag: str, tools: DeclaredTools) -> tuple[list[Found], int]:
    values, end = parse_values(text, start)
    if values:
        if len(values) > 1 or not isinstance(values[0], Mapping):
            return [_broken(text, name)], end
        return _finish(text, _ENDING.match(text, end).end(), name, values[0], tools)
    closing = text.find("</", start)
    if closing >= 0 and not text[start:closing].strip() and text.startswith(tag, closing + 2):
        return _finish(text, _ENDING.match(text, closing).end(), name, {}, tools)
    return _parse_parameters(text, start, name, tools)


def _parse_parameters(
    text: str, position: int, name: str, tools: DeclaredTools, by_keys: bool = False
) -> tuple[list[Found], int]:
    declared = tools.parameters.get(tools.resolve(name), {})
    arguments: dict[str, Any] = {}
    while match := _match_parameter(text, position):
        key = match["name"].strip()
        tag = "arg_value" if match.re is _KEY else match.groupdict().get("tag") or key
        closing = re.compile(rf"</{_SPACE_NAME}{re.escape(tag)}>").search(text, match.end())
        if not closing or key in arguments:
            return [_broken(text, name)], len(text)
        said = (match.groupdict().get("rest") or "").replace("'", '"')
        arguments[key] = _typed(text[match.end() : closing.start()], declared.get(key), said)
        position = closing.end()
    end = _ENDING.match(text, position).end()
    is_closed = by_keys or "</" in text[position:end]
    if not arguments or not is_closed:  # without an end mark, arguments may be missing
        return [_broken(text, name)], len(text)
    return _finish(text, end, name, arguments, tools)


def _match_parameter(text: str, position: int) -> re.Match[str] | None:
    return _KEY.match(text, position) or _PARAMETER.match(text, position) or _PLAIN_TAG.match(text, position)


def _typed(text: str, schema: Any, said: str) -> Any:
    """Return a tag's text as a value of the type that is declared, or said beside its name."""
    text = text.removeprefix("\n").removesuffix("\n")
    kind = schema.get("type") if isinstance(schema, Mapping) else "string"
    if 'string="' in said:
        kind = "string" if 'string="true"' in said else "object"
    if kind == "string" and not (text == "null" and isinstance(schema, Mapping) and schema.get("nullable")):
        return text
    try:
        return plain_value(parse_literal(text))
    except ValueError:
        return text


def _finish(
    text: str, end: int, name: str, arguments: Mapping[str, Any], tools: DeclaredTools
) -> tuple[list[Found], int]:
    return parse_calls({"name": tools.resolve(name), "arguments": arguments}, tools), end


def _broken(text: str, name: str) -> Problem:
    return Problem("broken_call", f"{name}: {text[:60]}"[:80])
