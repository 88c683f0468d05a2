"""Smaller versions of a row that is over the budget, the least loss first.

Knows row dicts; not tokens: whoever counts them tries one version after the other.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from fgtools.rows import Row


def drop_context(row: Mapping[str, Any]) -> Iterator[Row]:
    """Give the row with ever fewer turns before its request, the oldest going first.

    Args:
        row: A row dict; not changed.

    Yields:
        Rows that keep the developer turn, begin with a user's turn and end with the same request.
    """
    first, *turns = row["messages"]
    for start in range(1, len(turns)):
        if turns[start]["role"] == "user":
            yield {**row, "messages": [first, *turns[start:]]}


def drop_declarations(row: Mapping[str, Any], seed: int) -> Iterator[Row]:
    """Give the row without context and with ever fewer declarations, one distractor less each time.

    Args:
        row: A row dict; not changed.
        seed: Seed of the order in which distractors go; with the row's id it decides alone.

    Yields:
        Rows that keep every tool the gold calls, and one tool at least; the order of the tools is kept.
    """
    called = {call["name"] for call in row["gold"]}
    others = [index for index, tool in enumerate(row["tools"]) if tool["function"]["name"] not in called]
    random.Random(f"{seed} {row.get('row_id', '')}").shuffle(others)
    gone: set[int] = set()
    last_turn = [row["messages"][0], row["messages"][-1]] if len(row["messages"]) > 1 else list(row["messages"])
    for index in others:
        gone.add(index)
        left = [tool for position, tool in enumerate(row["tools"]) if position not in gone]
        if left:
            yield {**row, "messages": last_turn, "tools": left}
