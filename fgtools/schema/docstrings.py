"""Docstrings: what they say of a function and of its arguments, in Google's, numpy's or Sphinx's style.

Knows text only. A line that is out of form is part of the text around it; nothing is refused. This is more tolerant
than the library docstring_parser, which rejects a whole docstring for one such line and does not know section titles in
lower case or entries without indentation.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_ARGUMENT_SECTIONS = ("arg", "param", "attribute", "other param", "keyword arg")
_SECTION = re.compile(
    r"(args|arguments|parameters|params|other parameters|keyword args|keyword arguments|attributes|returns?|raises"
    r"|yields?|examples?|notes?|see also|references|warnings?|warns)\s*:?",
    re.IGNORECASE,
)
_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\(([^)]*)\)\s*)?:\s*(.*)$")
_NUMPY_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?::(.*))?$")
_FIELD = re.compile(r"^[:@](\w+)(?:\s([^:]*))?:(.*)$")
_TYPE_MARKS = re.compile(r",\s*(optional|defaults?\b.*)$", re.IGNORECASE)


class Described(NamedTuple):
    """What a docstring says of one argument.

    Attributes:
        hint: Its type, or "".
        text: Its description, or "".
    """

    hint: str = ""
    text: str = ""


def parse_docstring(text: str) -> tuple[str, dict[str, Described]]:
    """Parse a docstring.

    Args:
        text: The docstring, without the indentation of its function.

    Returns:
        The text before the sections, and what is said of each argument or attribute, by name.
    """
    summary: list[str] = []
    entries: dict[str, Described] = {}
    section, name, indent, numpy = "", "", 0, False
    lines = text.splitlines()
    for number, line in enumerate(lines):
        stripped, depth = line.strip(), len(line) - len(line.lstrip())
        below = lines[number + 1].strip() if number + 1 < len(lines) else ""
        if stripped and set(stripped) <= {"-", "="} and numpy:
            continue
        if (match := _SECTION.fullmatch(stripped)) and (stripped.endswith(":") or set(below) in ({"-"}, {"="})):
            section, name, numpy = match.group(1).lower(), "", not stripped.endswith(":")
        elif field := _FIELD.match(stripped):
            section, name, indent = "field", _add_field(entries, field), depth
        elif not section:
            summary.append(line)
        elif section == "field" and stripped and depth > indent:
            _add_text(entries, name, stripped)
        elif section.startswith(_ARGUMENT_SECTIONS) and stripped:
            entry = (_NUMPY_ENTRY if numpy else _ENTRY).match(stripped)
            if entry and (not name or depth <= indent):
                name, indent = entry.group(1), depth
                said = "" if numpy else entry.group(3)
                entries[name] = Described(_TYPE_MARKS.sub("", (entry.group(2) or "").strip()).strip(), said.strip())
            else:
                _add_text(entries, name, stripped)
    return "\n".join(summary).strip(), entries


def _add_field(entries: dict[str, Described], field: re.Match[str]) -> str:
    """Add a line such as ":param int days: How many." and return the argument's name; "" for other fields."""
    word, subject, said = field.group(1).lower(), (field.group(2) or "").split(), field.group(3).strip()
    if not subject or word not in ("param", "parameter", "arg", "argument", "key", "keyword", "type"):
        return ""
    name = subject[-1].lstrip("*\\")
    before = entries.get(name, Described())
    if word == "type":
        entries[name] = Described(_TYPE_MARKS.sub("", said), before.text)
        return ""
    entries[name] = Described(" ".join(subject[:-1]) or before.hint, said)
    return name


def _add_text(entries: dict[str, Described], name: str, text: str) -> None:
    if name:
        entries[name] = entries[name]._replace(text=f"{entries[name].text} {text}".strip())
