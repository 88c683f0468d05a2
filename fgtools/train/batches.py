"""Which rows train together: the rows of every optimizer step, and the micro-batches a step is computed in.

Knows lengths in tokens, not rows, tensors or devices. An optimizer step has a fixed number of rows, drawn from windows
that are sorted by length, so that a step's rows are of like length while the windows and the steps come in random
order. A step is then cut into micro-batches by tokens, padding counted: how many fit is a matter of memory and changes
neither the rows of a step nor its gradient.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from fgtools.files import InputError

WINDOW_STEPS = 16
"""Steps whose rows are sorted together: with 16 rows a step 256 rows, where padding is about 4 % of a step."""


def plan_steps(lengths: Sequence[int], rows_per_step: int, seed: int, epoch: int) -> list[list[int]]:
    """Say which rows each optimizer step of an epoch trains on.

    Args:
        lengths: Tokens of each row.
        rows_per_step: Rows of one step, over all processes; the last one drawn may have fewer.
        seed: Seed of the order.
        epoch: Pass over the rows, from 0; another one has another order.

    Returns:
        Row numbers by step; every row is in exactly one step, longest rows first within it.

    Raises:
        ValueError: rows_per_step is not positive.
    """
    if rows_per_step < 1:
        raise InputError(f"rows_per_step must be at least 1, got {rows_per_step}")
    draw = random.Random(f"{seed}:{epoch}")
    order = list(range(len(lengths)))
    draw.shuffle(order)
    window = rows_per_step * WINDOW_STEPS
    steps = []
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window], key=lambda row: -lengths[row])
        steps += [rows[first : first + rows_per_step] for first in range(0, len(rows), rows_per_step)]
    draw.shuffle(steps)
    return steps


def split_by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut rows into micro-batches whose tokens, padding included, stay within a budget.

    Args:
        lengths: Tokens of each row.
        budget: Tokens of one micro-batch: its rows times its longest row. A row longer than that is alone.

    Returns:
        Row numbers by micro-batch, longest rows first, so that a budget too large for the memory shows at once.
    """
    batches: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
            longest = lengths[row]
    return batches


def count_padding(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> int:
    """Count the tokens of padding in batches that are padded to their longest row."""
    return sum(
        len(batch) * max(lengths[row] for row in batch) - sum(lengths[row] for row in batch) for batch in batches
    )
