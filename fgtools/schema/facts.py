"""What stands beside a parameter and belongs into its description: its unit and its examples.

Knows specifications as data sets write them. The chat template shows a parameter's description and neither of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fgtools.schema.literals import plain_value

MAX_EXAMPLES = 5
"""Most examples of one parameter that are shown."""

MAX_FACT = 200
"""Longest example or unit that is shown, in characters; a longer one would hide the description."""

_WORDS = frozenset({"unit", "units", "example", "examples", "example_value"})


def describe_facts(raw: Mapping[str, Any], description: str) -> tuple[str, list[str]]:
    """Return a description that states the unit and the examples of a specification.

    Args:
        raw: The specification.
        description: Its description, or "".

    Returns:
        The description, with "(unit: m; example: 5)" at its end for what it does not say yet; and what was done, as
        kinds of `schema.Change`: unit_described, example_described, example_dropped (too long to be shown).
    """
    if _WORDS.isdisjoint(raw):
        return description, []
    said: list[str] = []
    kinds: list[str] = []
    unit = next((raw[word] for word in ("unit", "units") if isinstance(raw.get(word), str) and raw[word].strip()), "")
    if unit and len(unit) <= MAX_FACT and not _states(description, unit):
        said.append(f"unit: {unit}")
        kinds.append("unit_described")
    examples = _list_examples(raw)
    shown = [text for text in examples if len(text) <= MAX_FACT]
    kinds += ["example_dropped"] * (len(shown) < len(examples))
    new = [text for text in shown if not _states(description, text)]
    if new:
        said.append(f"{'examples' if len(new) > 1 else 'example'}: {', '.join(new)}")
        kinds.append("example_described")
    if not said:
        return description, kinds
    end = f"({'; '.join(said)})"
    return f"{description.rstrip()} {end}" if description.strip() else end, kinds


def _list_examples(raw: Mapping[str, Any]) -> list[str]:
    """Return the texts of the first examples; OpenAPI names them and has the value inside."""
    values = [raw[word] for word in ("example", "example_value") if raw.get(word) is not None]
    listed = raw.get("examples")
    if isinstance(listed, (list, tuple)):
        values += listed
    elif isinstance(listed, Mapping):
        values += [one["value"] for one in listed.values() if isinstance(one, Mapping) and "value" in one]
    elif listed is not None:
        values.append(listed)
    texts = []
    for value in values[:MAX_EXAMPLES]:
        try:
            plain = plain_value(value)
        except ValueError:
            continue  # a value without a JSON form cannot be in a call
        text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
        if text.strip() and plain is not None:
            texts.append(text)
    return list(dict.fromkeys(texts))


def _states(description: str, text: str) -> bool:
    """Return whether a description has a text as words of its own, in upper or lower case."""
    return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", description, re.IGNORECASE) is not None
