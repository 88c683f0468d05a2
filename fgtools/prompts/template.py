"""What a tokenizer's chat template shows of a tool, found by rendering with and without each fact.

Knows a tokenizer and its template; no row. Nothing is assumed of the template: a fact is hidden when the prompt is the
same without it. The parameter names to try are the words of the template's own text, since a template can treat a name
differently only if it contains it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from fgtools.prompts.encode import render_prompt
from fgtools.rows.remedies import Coverage

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MESSAGES = [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}]

_KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "string": ({}, "ab"),
    "integer": ({}, 7),
    "number": ({}, 7.5),
    "boolean": ({}, True),
    "array": ({"items": {"type": "string"}}, ["ab"]),
    "object": ({"properties": {"inner": {"type": "string", "description": "d"}}}, {"inner": "ab"}),
    "null": ({}, None),
}
"""The rest of a schema, and a value that fits it, by type."""

_FACTS: dict[str, Any] = {
    "minimum": 3,
    "maximum": 9,
    "exclusiveMinimum": 3,
    "exclusiveMaximum": 9,
    "multipleOf": 5,
    "minLength": 3,
    "maxLength": 9,
    "minItems": 3,
    "maxItems": 9,
    "uniqueItems": True,
    "format": "date",
    "pattern": "^ab$",
    "nullable": True,
    "title": "T",
    "description": "words",
    "anyOf": [{"type": "string"}, {"type": "integer"}],
}


def probe_template(tokenizer: PreTrainedTokenizerBase) -> Coverage:
    """Find what a chat template hides of a tool's parameters.

    Args:
        tokenizer: A tokenizer with a chat template.

    Returns:
        The Coverage. A name counts as hidden when it is at the top, in an object or in a list of objects.

    Raises:
        ValueError: The tokenizer has no chat template.
    """
    _render({}, tokenizer)  # raises here if there is no template; later every fact would seem hidden
    facts = set()
    for kind, (rest, sample) in _KINDS.items():
        base = {"type": kind, **rest}
        plain = _render({"probe": base}, tokenizer)
        samples = {"enum": [sample], "const": sample, "default": sample, "examples": [sample], **_FACTS}
        facts |= {
            (kind, word)
            for word, value in samples.items()
            if _render({"probe": {**base, word: value}}, tokenizer) == plain
        }
    return Coverage(find_hidden_names(_WORD.findall(str(tokenizer.chat_template)), tokenizer), frozenset(facts))


def find_hidden_names(names: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Return those parameter names whose declaration the template drops, at any level."""
    found = set()
    outside = {"probe": {"type": "string", "description": "other"}}
    for name in sorted(set(names)):
        inside = {name: {"type": "string", "description": "words"}, **outside}
        nested = {"type": "object", "properties": inside}, {"type": "object", "properties": outside}
        listed = tuple({"type": "array", "items": schema} for schema in nested)
        pairs = [(inside, outside), *(({"p": with_it}, {"p": without}) for with_it, without in (nested, listed))]
        if any(_render(with_it, tokenizer) == _render(without, tokenizer) for with_it, without in pairs):
            found.add(name)
    return frozenset(found)


def _render(properties: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    parameters = {"type": "object", "properties": dict(properties), "required": []}
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters}}
    try:
        return render_prompt(_MESSAGES, [tool], tokenizer)
    except (TemplateError, TypeError) as error:  # a fact that the template fails on is not shown either
        return f"error: {type(error).__name__}" if properties else render_prompt(_MESSAGES, None, tokenizer)
