"""How large tools may be, and the error for tools that cannot be used.

Knows numbers and their reasons. Tools may come from anywhere; without limits one row could take minutes or all memory.
A row's tools that exceed a limit are refused whole, since a shortened tool would no longer be its author's.
"""

from __future__ import annotations

from fgtools.files import FgtoolsError

MAX_TOOLS = 1_000
"""Most tools of one row. Published rows hold up to some dozens, large MCP servers about a hundred."""

MAX_TEXT = 4_000_000
"""Longest text of a row's tools, in characters. The longest published ones have some ten thousand."""

MAX_LITERAL = 500_000
"""Longest text parsed as Python literals, in characters: Python's own parser takes a second for it."""

MAX_DEFINITION = 1_000_000
"""Largest definition of one tool, in bytes. Long published ones have some ten thousand."""

MAX_DESCRIPTION = 50_000
"""Longest description of a tool or a parameter, in characters; more than any model here can be shown."""

MAX_ENUM = 5_000
"""Most choices of one parameter. Lists of countries, currencies and time zones hold 200 to 600."""

MAX_NODES = 20_000
"""Most specifications parsed in one tool; references can multiply them without end."""


class SchemaError(FgtoolsError, ValueError):
    """Tools that cannot be parsed at all."""


class LimitError(SchemaError):
    """Tools that exceed a limit; the message names the limit and the remedy."""


def require_at_most(most: int, got: int, what: str) -> None:
    """Raise LimitError where there is more of something than allowed.

    Args:
        most: The limit.
        got: How much there is.
        what: What is counted, for the message: "tools in a row", "choices of a parameter".
    """
    if got > most:
        raise LimitError(f"at most {most:,} {what} are read, got {got:,}: shorten or drop them")
