"""Keys and values of many rows in one buffer, and greedy decoding on it: the engine of `generate`.

Knows token ids and a Gemma-like model; not rows, texts or tokenizers. What makes it fast:

- a prompt is read without padding, and what it shares with the one before is copied, not computed;
- all rows of a batch are decoded together, and a row that has ended leaves the batch;
- the buffer has room for the whole reply, so that no step copies what is there.

Every slot knows the position of its token, and masks are made from positions: padding may lie between a prompt and its
reply, sliding windows stay exact, and in fp32 the tokens are those of one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from fgtools.files import InputError

_SLOW_ROWS = range(7, 21)

NO_POSITION = -1
"""Position of a slot that holds no token."""


ATTENTION = ("sdpa", "eager")
"""Attention of transformers that takes masks of numbers to add."""


@dataclass
class _Place:
    """What all layers of a buffer share: its size, and where the pass under way writes.

    It stands apart from Slab so that a layer does not refer to the slab that holds it: such a ring is freed only when
    Python's collector comes by, and until then the memory of batches that are done piles up.
    """

    n_rows: int
    n_slots: int
    first: int = 0
    last: int = 0
    at: int = 0


class _SlabLayer(DynamicLayer):
    """One layer's buffer; its keys and values are views of the rows and slots that a pass reads."""

    def __init__(self, place: _Place) -> None:
        super().__init__()
        self.place = place
        self.stored: tuple[Tensor, Tensor] | None = None
        self.is_initialized = True
        self.keys = self.values = torch.empty(0)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write a pass's keys and values at its place; give all that its queries may look at."""
        place, width = self.place, key_states.shape[-2]
        if self.stored is None:
            _, heads, _, size = key_states.shape
            shape = (place.n_rows, heads, place.n_slots, size)
            self.stored = (key_states.new_empty(shape), value_states.new_empty(shape))
        first, last, at = place.first, place.last, place.at
        for buffer, states in zip(self.stored, (key_states, value_states), strict=True):
            buffer[first:last, :, at : at + width] = states
        self.keys, self.values = (buffer[first:last, :, : at + width] for buffer in self.stored)
        return self.keys, self.values


class Slab:
    """The buffer of a batch of rows, and the passes through the model that fill it."""

    def __init__(self, model: PreTrainedModel, n_rows: int, n_slots: int) -> None:
        """Make an empty buffer.

        Args:
            model: The model.
            n_rows: Rows of the batch.
            n_slots: Tokens a row may take, prompt, padding and reply.

        Raises:
            ValueError: The model's attention is one of those that take no masks.
        """
        config = model.config.get_text_config()
        self.attention = config._attn_implementation
        if self.attention not in ATTENTION:
            raise InputError(
                f"the model's attention must be one of {', '.join(ATTENTION)} to answer rows together, got "
                f"{self.attention!r}: load it with attn_implementation='sdpa'"
            )
        self.model = model
        self.window = config.sliding_window or n_slots
        self.place = _Place(n_rows, n_slots)
        self.layers = [_SlabLayer(self.place) for _ in range(config.num_hidden_layers)]
        self.cache = Cache(layers=self.layers)
        self.positions = torch.full((n_rows, n_slots), NO_POSITION, device=model.device)

    def read(self, ids: Tensor, positions: Tensor, first: int, at: int) -> Tensor:
        """Put tokens through the model and keep their keys and values.

        Args:
            ids: Token ids, [rows, width].
            positions: Their positions, [rows, width]; NO_POSITION for padding.
            first: Row of the buffer that the first of them belongs to.
            at: Slot of their first column.

        Returns:
            Hidden states, [rows, width, hidden].
        """
        rows, width = ids.shape
        self.place.first, self.place.last, self.place.at = first, first + rows, at
        self.positions[first : first + rows, at : at + width] = positions
        seen = self.positions[first : first + rows, : at + width]
        output = self.model.model(
            input_ids=ids,
            attention_mask=self._masks(positions, seen, plain=at == 0),
            position_ids=positions.clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state

    def _masks(self, positions: Tensor, seen: Tensor, plain: bool) -> dict[str, Tensor | None]:
        """Give the masks of both kinds of layers; None where sdpa's own causal attention does."""
        if plain and self.attention == "sdpa" and len(positions) == 1 and positions.shape[1] <= self.window:
            return {"full_attention": None, "sliding_attention": None}
        query, key = positions[:, None, :, None], seen[:, None, None, :]
        slots = torch.arange(seen.shape[1], device=seen.device)
        itself = slots == slots[seen.shape[1] - positions.shape[1] :, None]
        padding = (query < 0) & itself  # looks at itself, since nothing to look at is not a number
        causal = ((key >= 0) & (key <= query)) | padding
        full = self._additive(causal)
        if seen.shape[1] <= self.window:
            return {"full_attention": full, "sliding_attention": full}
        near = causal & ((key > query - self.window) | padding)
        return {"full_attention": full, "sliding_attention": self._additive(near)}

    def _additive(self, seen: Tensor) -> Tensor:
        """Give the mask as numbers to add, once for all layers."""
        mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device)
        return mask.masked_fill_(~seen, float("-inf"))

    def copy_prefix(self, row: int, targets: Sequence[int], length: int) -> None:
        """Copy the first slots of a row to other rows."""
        if not length:
            return
        self.positions[list(targets), :length] = self.positions[row, :length]
        for layer in self.layers:
            for buffer in layer.stored:
                buffer[list(targets), :, :length] = buffer[row, :, :length].clone()

    def clear(self, lengths: Sequence[int]) -> None:
        """Put zeros behind the prompts, up to the longest: what lies there is masked, but must be a number."""
        longest = max(lengths)
        for layer in self.layers:
            for buffer in layer.stored:
                for row, length in enumerate(lengths):
                    buffer[row, :, length:longest] = 0

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Let the other rows go; the last ones that stay move into the places of those that leave.

        Returns:
            For each place now, the row that it held before.
        """
        order, moving = list(range(len(rows))), [row for row in rows if row >= len(rows)]
        for hole in sorted(set(order) - set(rows)):
            order[hole] = moving.pop()
            self.positions[hole] = self.positions[order[hole]]
            for layer in self.layers:
                for buffer in layer.stored:
                    buffer[hole] = buffer[order[hole]]
        return order


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that two prompts share at their start."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def read_prompts(slab: Slab, prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> Tensor:
    """Read the prompts of a batch, group by group, each shared beginning once.

    Args:
        slab: An empty buffer with a row for each prompt.
        prompts: Token ids, sorted, so that neighbours share most.
        groups: Consecutive prompt numbers that are read in one pass; single ones have no padding.

    Returns:
        The last hidden state of every prompt, [rows, hidden].
    """
    device, states = slab.positions.device, []
    for group in groups:
        first, parts = group[0], [prompts[number] for number in group]
        base = 0
        if first:
            base = min(_reusable(part, prompts[first - 1]) for part in parts)
            slab.copy_prefix(first - 1, group, base)
        shared = min(_reusable(part, parts[0]) for part in parts) if len(parts) > 1 else 0
        if shared > base:
            ids = torch.tensor([parts[0][base:shared]], device=device)
            slab.read(ids, torch.arange(base, shared, device=device)[None], first, base)
            slab.copy_prefix(first, group[1:], shared)
            base = shared
        width = max(len(part) for part in parts) - base
        ids = torch.tensor([[*part[base:], *[0] * (base + width - len(part))] for part in parts], device=device)
        lengths = torch.tensor([len(part) for part in parts], device=device)
        positions = torch.arange(base, base + width, device=device).expand(len(parts), -1)
        positions = positions.masked_fill(positions >= lengths[:, None], NO_POSITION)
        hidden = slab.read(ids, positions, first, base)
        states.append(hidden[torch.arange(len(parts), device=device), lengths - 1 - base])
    slab.clear([len(prompt) for prompt in prompts])
    return torch.cat(states)


def _reusable(prompt: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens of a prompt that need not be read after another one; never its last."""
    return min(common_length(prompt, other), len(prompt) - 1)


def choose_tokens(head: torch.nn.Linear, states: Tensor) -> list[int]:
    """Give the most likely token after each hidden state, [rows, hidden].

    On a CPU the product of a few rows with the head's matrix, which has a row for every word, is half of a step, and
    some row counts take it twice as long as more rows would (measured: 114 ms for 12 rows, 60 for 16). There the matrix
    stands at the left.
    """
    if (
        states.device.type == "cpu"
        and states.dtype == torch.float32
        and len(states) in _SLOW_ROWS
        and type(head) is torch.nn.Linear  # an adapter or a quantized head computes more than its matrix
        and head.bias is None
    ):
        return torch.mm(head.weight, states.T).argmax(0).tolist()
    return head(states).argmax(-1).tolist()


def decode_greedily(
    slab: Slab,
    prompts: Sequence[Sequence[int]],
    states: Tensor,
    stops: Collection[int],
    budgets: Sequence[int],
    choose: Callable[[Sequence[int], Tensor], list[int]] | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Write the replies of a batch, the most likely token each time.

    Args:
        slab: The buffer with the prompts.
        prompts: Token ids.
        states: As `read_prompts` gives them.
        stops: Ids that end a reply.
        budgets: Tokens each reply may take.
        choose: Called with the numbers of the prompts that go on and their logits, for a token each; None: the most
            likely one.

    Yields:
        A prompt's number and its reply's ids, the stop included, as each one ends.
    """
    device = slab.positions.device
    replies: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    at = max(len(prompt) for prompt in prompts)
    while True:
        head = slab.model.lm_head
        chosen = choose_tokens(head, states) if choose is None else choose(alive, head(states).float())
        staying = []
        for place, (number, token) in enumerate(zip(alive, chosen, strict=True)):
            replies[number].append(token)
            if token in stops or len(replies[number]) == budgets[number]:
                yield number, replies[number]
            else:
                staying.append(place)
        if not staying:
            return
        if len(staying) < len(alive):
            alive = [alive[place] for place in slab.keep(staying)]
        ids = torch.tensor([[replies[number][-1]] for number in alive], device=device)
        positions = torch.tensor([[len(prompts[number]) + len(replies[number]) - 1] for number in alive], device=device)
        states = slab.read(ids, positions, 0, at)[:, -1]
        at += 1
