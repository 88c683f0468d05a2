"""Text from outside in a Markdown page: names and words of rows, tools and files, shown as they are.

Knows Markdown as GitHub and the hub render it (CommonMark, tables, automatic links, formulas in dollar signs) and the
HTML in it; not what a text means. Whatever such a text holds, it ends no table cell, no code and no paragraph, and
becomes no markup, link or script.
"""

from __future__ import annotations

import re
import unicodedata

_MARKUP = re.compile(r"(?<![^\W_])_|_(?![^\W_])|:(?!\s|\Z)|[^\w\s,;:()%'+=./!?-]")
"""Characters that may be markup in the middle of a line: all but a few; `_` at a word's end, and `:` before a word."""

_HIDDEN = {"Cc", "Cs", "Zl", "Zp", "Cn", "Co"}
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of the text around them."""


def clean_text(text: str) -> str:
    """Return a text in one line that shows all it holds: a run of line breaks becomes ⏎, what cannot be seen becomes �.

    Args:
        text: Any text.
    """
    lines = re.sub(r"[\r\n\u2028\u2029\x85\v\f]+", "⏎", text).replace("\t", " ")
    return "".join("�" if unicodedata.category(one) in _HIDDEN or one in _TURNING else one for one in lines)


def escape_text(text: str) -> str:
    """Return a text as Markdown that shows it letter by letter, for the middle of a line or the cell of a table.

    Args:
        text: Any text.

    Returns:
        One line; every character with a meaning in Markdown or HTML stands as its number (&#124; for |).
    """
    escaped = _MARKUP.sub(lambda found: f"&#{ord(found[0])};", clean_text(text))
    return re.sub(r"(?i)\bwww\.", lambda found: f"{found[0][:-1]}&#46;", escaped)  # no automatic link


def render_code(text: str) -> str:
    """Return a name or a short text as code, for the middle of a line or the cell of a table.

    Args:
        text: Any text.

    Returns:
        A span in backticks; in HTML where the text holds what such a span or a cell cannot, or the beginning of a tag
        or of a template's expression, which a program may look for without regard to Markdown.
    """
    cleaned = clean_text(text)
    if cleaned and cleaned == cleaned.strip() and not set("`|<{") & set(cleaned):
        return f"`{cleaned}`"
    return f"<code>{escape_text(text)}</code>"


def render_program(program: str) -> str:
    """Return a Python program as a fenced block, whatever it holds.

    Args:
        program: Its lines.
    """
    longest = max((len(run) for run in re.findall(r"`+", program)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{program.rstrip()}\n{fence}"
