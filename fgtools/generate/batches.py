"""Which rows are answered together, and which prompts go through the model in one pass: as many as the memory holds.

Knows lengths, a model's shape and free memory; not replies. Sizes in bytes are arithmetic from the model's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from transformers import PreTrainedModel

from fgtools.generate.kv_cache import common_prefix_length, reusable_length
from fgtools.models.device import CACHE_SHARE, free_memory_bytes

CPU_ROWS = 64
"""Rows of a batch on a CPU: more take no less time each, and their replies come later."""

CPU_CACHE_BYTES = 2**30
"""Memory for keys and values of one batch on a CPU."""

GPU_TOKENS = 16_384
"""Tokens of prompts in one pass on a GPU at most, padding included; a CPU reads one prompt at a time."""

PASS_SHARE = 0.25
"""Share of a GPU's free memory for what one pass over prompts computes in between."""

SHARED_PREFIX = 0.5
"""Prompts go through the model in one pass when this share of the shorter one is a common prefix, or when their lengths
are much the same."""


@dataclass(frozen=True)
class Room:
    """How much fits the memory of a device.

    Attributes:
        rows: Rows of a batch at most.
        bytes: For the keys, values and logits of a batch.
        row_bytes: Logits of one row.
        token_bytes: Keys and values of one token.
        pass_tokens: Tokens of prompts in one pass at most.
        free: Free memory of a GPU in bytes; None on a CPU.
    """

    rows: int
    bytes: int
    row_bytes: int
    token_bytes: int
    pass_tokens: int
    free: int | None


def measure_room(model: PreTrainedModel, batch_size: int = 0) -> Room:
    """Measure how many rows and tokens a model's device has memory for.

    Args:
        model: The model, loaded.
        batch_size: Rows of a batch at most; 0: what the memory holds, and CPU_ROWS on a CPU.
    """
    config, free = model.config.get_text_config(), free_memory_bytes(model.device)
    token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
    if free is None:
        return Room(batch_size or CPU_ROWS, CPU_CACHE_BYTES, 0, token_bytes, 1, None)
    # a token in one layer: residuals in fp32, queries, keys and values repeated for them, four tensors of the MLP
    wide = 3 * config.num_attention_heads * config.head_dim + 4 * config.intermediate_size
    passing = 4 * 3 * config.hidden_size + model.dtype.itemsize * wide
    tokens = max(1, min(GPU_TOKENS, int(PASS_SHARE * free) // passing))
    logits = config.vocab_size * (model.dtype.itemsize + 2 * 4)  # and in fp32 once, and as log-probabilities
    return Room(batch_size or 2**31, int(CACHE_SHARE * free), logits, token_bytes, tokens, free)


def count_fitting(sizes: Sequence[int], room: Room) -> int:
    """Count the rows, from the first on, that fit the memory together; one at least.

    Args:
        sizes: Tokens that each row may take, prompt and reply.
        room: What fits.
    """
    for count, longest in enumerate(accumulate(sizes[: room.rows], max), start=1):
        if count * (longest * room.token_bytes + room.row_bytes) > room.bytes:
            return max(1, count - 1)
    return min(len(sizes), room.rows)


def describe_batch(n_rows: int, n_all: int, batch_size: int, room: Room) -> str:
    """Return how many rows are answered at once on a GPU and why, for people.

    Args:
        n_rows: Rows of the first batch.
        n_all: Rows to answer.
        batch_size: As it was asked for; 0: not.
        room: What fits.
    """
    free = f"{(room.free or 0) / 2**30:.1f} GB free"
    if n_rows == n_all:
        return f"batch: all {n_rows} rows at once, they fit half of {free}"
    if n_rows == batch_size:
        return f"batch: {n_rows} of {n_all} rows at once, as asked for"
    return f"batch: {n_rows} of {n_all} rows at once, as many as fit half of {free}"


def group_prompts(prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Return the numbers of the neighbouring prompts that go through the model in one pass, pass by pass.

    Args:
        prompts: Token ids, sorted.
        tokens: Tokens of one pass at most, padding included.
    """
    groups: list[list[int]] = []
    for number, prompt in enumerate(prompts):
        if groups:
            first = prompts[groups[-1][0]]
            widest = max(len(prompt), *(len(prompts[one]) for one in groups[-1]))
            alike = common_prefix_length(first, prompt) >= SHARED_PREFIX * min(len(first), len(prompt))
            alike = alike or min(len(first), len(prompt)) >= 0.8 * widest
            if alike and widest * (len(groups[-1]) + 1) <= tokens:
                groups[-1].append(number)
                continue
        groups.append([number])
    return groups


def count_unread(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens that must be read of sorted prompts, each prefix that neighbours share once."""
    shared = sum(reusable_length(prompt, prompts[place]) for place, prompt in enumerate(prompts[1:]))
    return sum(map(len, prompts)) - shared


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that memory is short, of a GPU or not."""
    from accelerate.utils.memory import should_reduce_batch_size

    known = isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)
    return known or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)
