"""One key-value cache for a batch of rows, and the forward passes that fill it.

Knows token ids and a Gemma-like model; not rows, texts or tokenizers, nor which token is chosen. What makes it fast:

- a prompt is read without padding, and what it shares with the one before is copied, not computed;
- all rows of a batch are decoded together, and a row that has ended leaves the batch;
- the cache has room for the whole reply, so that no step copies what is there.

A token at position p of its row lies in slot p, in every row. So a mask follows from positions alone: a token attends
to the slots up to its own, in sliding layers to the last ones of them. What lies behind a row's last token, padding of
a prompt or nothing yet, is never attended to and is overwritten by the row's next tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from fgtools.files import InputError
from fgtools.models.half import products_dtype

ATTENTION = ("sdpa", "eager")
"""The attention implementations of transformers that take additive masks."""


class _CacheLayer(DynamicLayer):
    """One layer's tensors; `keys` and `values` are views of the rows and slots that the current pass attends to."""

    def __init__(self, n_rows: int, n_slots: int) -> None:
        super().__init__()
        self.n_rows, self.n_slots = n_rows, n_slots
        self.rows, self.end = slice(n_rows), 0  # what the current pass attends to: these rows, slots before this one
        self.own: tuple[Tensor, Tensor] | None = None  # row and slot of each token, where every row writes one
        self.stored: tuple[Tensor, Tensor] | None = None
        self.is_initialized = True
        self.keys = self.values = torch.empty(0)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values of a pass; return all that its queries may attend to."""
        _, heads, width, size = key_states.shape
        if self.stored is None:
            shape = (self.n_rows, heads, self.n_slots, size)
            self.stored = (key_states.new_zeros(shape), value_states.new_zeros(shape))  # masked slots must hold numbers
        for stored, states in zip(self.stored, (key_states, value_states), strict=True):
            if self.own is None:
                stored[self.rows, :, self.end - width : self.end] = states
            else:
                stored[self.own[0], :, self.own[1]] = states[:, :, 0]
        self.keys, self.values = (stored[self.rows, :, : self.end] for stored in self.stored)
        return self.keys, self.values


class KVCache:
    """The keys and values of a batch of rows, and the forward passes that fill them."""

    def __init__(self, model: PreTrainedModel, n_rows: int, n_slots: int) -> None:
        """Make an empty cache.

        Args:
            model: The model.
            n_rows: Rows of the batch.
            n_slots: Tokens a row may take: prompt and reply.

        Raises:
            ValueError: The model's attention implementation takes no masks.
        """
        config = model.config.get_text_config()
        self.attention = config._attn_implementation
        if self.attention not in ATTENTION:
            raise InputError(
                f"the model's attention must be one of {', '.join(ATTENTION)} to answer rows together, got "
                f"{self.attention!r}: load it with attn_implementation='sdpa'"
            )
        self.model, self.n_slots = model, n_slots
        self.window = config.sliding_window or n_slots
        self.layers = [_CacheLayer(n_rows, n_slots) for _ in range(config.num_hidden_layers)]
        self.cache = Cache(layers=self.layers)

    def read(self, ids: Tensor, first: int, at: int) -> Tensor:
        """Run parts of prompts through the model and keep their keys and values.

        Args:
            ids: Token ids, [rows, width]; padding, of any id, follows a row's last token.
            first: Row of the cache that the first of them belongs to.
            at: Position of their first column.

        Returns:
            Hidden states, [rows, width, hidden].
        """
        end = at + ids.shape[1]
        for layer in self.layers:
            layer.rows, layer.end, layer.own = slice(first, first + len(ids)), end, None
        positions = torch.arange(at, end, device=ids.device)[None]
        return self._run(ids, positions, self._masks(positions, end, is_causal=at == 0 and self.attention == "sdpa"))

    def write(self, ids: Tensor, positions: Tensor, n_seen: int) -> Tensor:
        """Run one token of every row through the model and keep its keys and values.

        Its shapes depend on the number of rows and on `n_seen` alone, and it never waits for a GPU.

        Args:
            ids: Token ids, [rows, 1], of the cache's first rows.
            positions: Their positions, [rows, 1].
            n_seen: Slots to attend to, from the first on: more than the largest position.

        Returns:
            Hidden states, [rows, hidden].
        """
        own = torch.arange(len(ids), device=ids.device), positions[:, 0]
        for layer in self.layers:
            layer.rows, layer.end, layer.own = slice(len(ids)), n_seen, own
        return self._run(ids, positions, self._masks(positions, n_seen))[:, -1]

    def _run(self, ids: Tensor, positions: Tensor, masks: dict[str, Tensor | None]) -> Tensor:
        return self.model.model(
            input_ids=ids, attention_mask=masks, position_ids=positions, past_key_values=self.cache, use_cache=True
        ).last_hidden_state

    def _masks(self, positions: Tensor, n_seen: int, is_causal: bool = False) -> dict[str, Tensor | None]:
        """Return the masks for both kinds of layers; None where sdpa's own causal attention is the same."""
        query, slots = positions[:, None, :, None], torch.arange(n_seen, device=positions.device)
        full = None if is_causal else self._additive(slots <= query)
        if n_seen <= self.window:
            return {"full_attention": full, "sliding_attention": full}
        near = (slots <= query) & (slots > query - self.window)
        return {"full_attention": full, "sliding_attention": self._additive(near)}

    def _additive(self, allowed: Tensor) -> Tensor:
        """Return a mask to add to attention scores: 0 where attention is allowed, minus infinity elsewhere."""
        mask = torch.zeros(allowed.shape, dtype=products_dtype(self.model), device=allowed.device)
        return mask.masked_fill_(~allowed, float("-inf"))

    def copy_prefix(self, row: int, targets: Sequence[int], length: int) -> None:
        """Copy the first slots of a row to other rows."""
        for layer in self.layers:
            for stored in layer.stored:
                stored[list(targets), :, :length] = stored[row, :, :length].clone()

    def keep_rows(self, rows: Sequence[int]) -> list[int]:
        """Drop all other rows; the last of those that stay move into the places of those that leave.

        Returns:
            For each place now, the row that it held before.
        """
        order, moving = list(range(len(rows))), [row for row in rows if row >= len(rows)]
        for hole in sorted(set(order) - set(rows)):
            order[hole] = moving.pop()
            for layer in self.layers:
                for stored in layer.stored:
                    stored[hole] = stored[order[hole]]
        return order


def common_prefix_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that two prompts share at their start."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # the first `low` tokens are the same; comparing slices is faster than a loop over tokens
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def read_group(cache: KVCache, prompts: Sequence[Sequence[int]], group: Sequence[int]) -> Tensor:
    """Run some prompts of a batch through the model in one pass, what they share once.

    Args:
        cache: The cache; the row of a prompt is its number, and the prompt before the group was read already.
        prompts: Token ids of the batch, sorted, so that neighbours share most.
        group: Consecutive prompt numbers; a single one has no padding.

    Returns:
        The last hidden state of every prompt, [rows, hidden].
    """
    device, first, parts = cache.model.device, group[0], [prompts[number] for number in group]
    base = 0
    if first:
        base = min(reusable_length(part, prompts[first - 1]) for part in parts)
        cache.copy_prefix(first - 1, group, base)
    shared = min(reusable_length(part, parts[0]) for part in parts) if len(parts) > 1 else 0
    if shared > base:
        cache.read(torch.tensor([parts[0][base:shared]], device=device), first, base)
        cache.copy_prefix(first, group[1:], shared)
        base = shared
    width = max(len(part) for part in parts) - base
    ids = torch.tensor([[*part[base:], *[0] * (base + width - len(part))] for part in parts], device=device)
    last = torch.tensor([len(part) - 1 - base for part in parts], device=device)
    return cache.read(ids, first, base)[torch.arange(len(parts), device=device), last]


def reusable_length(prompt: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens of a prompt whose keys and values can be copied from another one; never its last token."""
    return min(common_prefix_length(prompt, other), len(prompt) - 1)
