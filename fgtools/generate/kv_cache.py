"""One key-value cache for a batch of rows, and greedy decoding on it.

Knows token ids and a Gemma-like model; not rows, texts or tokenizers. What makes it fast:

- a prompt is read without padding, and what it shares with the one before is copied, not computed;
- all rows of a batch are decoded together, and a row that has ended leaves the batch;
- the cache has room for the whole reply, so that no step copies what is there.

The cache knows the position of the token in every slot, and attention masks are made from positions. So padding may lie
between a prompt and its reply, sliding windows stay exact, and in fp32 the tokens are those of one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from fgtools.files import InputError
from fgtools.models.half import products_dtype

SLOW_ROWS = range(7, 21)
"""Numbers of rows for which a CPU multiplies hidden states by the head slowly; see `most_likely_tokens`."""

NO_POSITION = -1
"""Position of a slot that holds no token."""

ATTENTION = ("sdpa", "eager")
"""The attention implementations of transformers that take additive masks."""


Choose = Callable[[Sequence[int], Tensor], list[int]]
"""Returns a token for each of some rows, from their numbers in the batch and their logits."""


class _CacheLayer(DynamicLayer):
    """One layer's tensors; `keys` and `values` are views of the rows and slots that the current pass attends to."""

    def __init__(self, n_rows: int, n_slots: int) -> None:
        super().__init__()
        self.n_rows, self.n_slots = n_rows, n_slots
        self.rows, self.at = slice(n_rows), 0  # what the current pass writes: these rows, from this slot on
        self.stored: tuple[Tensor, Tensor] | None = None
        self.is_initialized = True
        self.keys = self.values = torch.empty(0)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values of a pass; return all that its queries may attend to."""
        _, heads, width, size = key_states.shape
        if self.stored is None:
            shape = (self.n_rows, heads, self.n_slots, size)
            self.stored = (key_states.new_zeros(shape), value_states.new_zeros(shape))  # masked slots must hold numbers
        end = self.at + width
        for stored, states in zip(self.stored, (key_states, value_states), strict=True):
            stored[self.rows, :, self.at : end] = states
        self.keys, self.values = (stored[self.rows, :, :end] for stored in self.stored)
        return self.keys, self.values


class KVCache:
    """The keys and values of a batch of rows, and the forward passes that fill them."""

    def __init__(self, model: PreTrainedModel, n_rows: int, n_slots: int) -> None:
        """Make an empty cache.

        Args:
            model: The model.
            n_rows: Rows of the batch.
            n_slots: Tokens a row may take: prompt, padding and reply.

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
        self.model = model
        self.window = config.sliding_window or n_slots
        self.layers = [_CacheLayer(n_rows, n_slots) for _ in range(config.num_hidden_layers)]
        self.cache = Cache(layers=self.layers)
        self.positions = torch.full((n_rows, n_slots), NO_POSITION, device=model.device)

    def forward(self, ids: Tensor, positions: Tensor, first: int, at: int) -> Tensor:
        """Run tokens through the model and keep their keys and values.

        Args:
            ids: Token ids, [rows, width].
            positions: Their positions, [rows, width]; NO_POSITION for padding.
            first: Row of the cache that the first of them belongs to.
            at: Slot of their first column.

        Returns:
            Hidden states, [rows, width, hidden].
        """
        rows, end = slice(first, first + len(ids)), at + ids.shape[1]
        for layer in self.layers:
            layer.rows, layer.at = rows, at
        self.positions[rows, at:end] = positions
        seen = self.positions[rows, :end]
        output = self.model.model(
            input_ids=ids,
            attention_mask=self._masks(positions, seen, nothing_before=at == 0),
            position_ids=positions.clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state

    def _masks(self, positions: Tensor, seen: Tensor, nothing_before: bool) -> dict[str, Tensor | None]:
        """Return the masks for both kinds of layers; None where sdpa's own causal attention is the same."""
        one_row = len(positions) == 1 and positions.shape[1] <= self.window
        if nothing_before and self.attention == "sdpa" and one_row:
            return {"full_attention": None, "sliding_attention": None}
        query, key = positions[:, None, :, None], seen[:, None, None, :]
        slots = torch.arange(seen.shape[1], device=seen.device)
        itself = slots == slots[seen.shape[1] - positions.shape[1] :, None]
        padding = (query < 0) & itself  # padding attends to itself: a softmax over nothing is not a number
        causal = ((key >= 0) & (key <= query)) | padding
        full = self._additive(causal)
        if seen.shape[1] <= self.window:
            return {"full_attention": full, "sliding_attention": full}
        near = causal & ((key > query - self.window) | padding)
        return {"full_attention": full, "sliding_attention": self._additive(near)}

    def _additive(self, allowed: Tensor) -> Tensor:
        """Return a mask to add to attention scores: 0 where attention is allowed, minus infinity elsewhere."""
        mask = torch.zeros(allowed.shape, dtype=products_dtype(self.model), device=allowed.device)
        return mask.masked_fill_(~allowed, float("-inf"))

    def copy_prefix(self, row: int, targets: Sequence[int], length: int) -> None:
        """Copy the first slots of a row to other rows."""
        self.positions[list(targets), :length] = self.positions[row, :length]
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
            self.positions[hole] = self.positions[order[hole]]
            for layer in self.layers:
                for stored in layer.stored:
                    stored[hole] = stored[order[hole]]
        return order


def common_prefix_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that two prompts share at their start."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def prefill(cache: KVCache, prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> Tensor:
    """Run the prompts of a batch through the model, group by group, each shared prefix once.

    Args:
        cache: An empty cache with a row for each prompt.
        prompts: Token ids, sorted, so that neighbours share most.
        groups: Consecutive prompt numbers that go through the model in one pass; single ones have no padding.

    Returns:
        The last hidden state of every prompt, [rows, hidden].
    """
    device, states = cache.positions.device, []
    for group in groups:
        first, parts = group[0], [prompts[number] for number in group]
        base = 0
        if first:
            base = min(_reusable_length(part, prompts[first - 1]) for part in parts)
            cache.copy_prefix(first - 1, group, base)
        shared = min(_reusable_length(part, parts[0]) for part in parts) if len(parts) > 1 else 0
        if shared > base:
            ids = torch.tensor([parts[0][base:shared]], device=device)
            cache.forward(ids, torch.arange(base, shared, device=device)[None], first, base)
            cache.copy_prefix(first, group[1:], shared)
            base = shared
        width = max(len(part) for part in parts) - base
        ids = torch.tensor([[*part[base:], *[0] * (base + width - len(part))] for part in parts], device=device)
        lengths = torch.tensor([len(part) for part in parts], device=device)
        positions = torch.arange(base, base + width, device=device).expand(len(parts), -1)
        positions = positions.masked_fill(positions >= lengths[:, None], NO_POSITION)
        hidden = cache.forward(ids, positions, first, base)
        states.append(hidden[torch.arange(len(parts), device=device), lengths - 1 - base])
    return torch.cat(states)


def _reusable_length(prompt: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens of a prompt whose keys and values can be copied from another one; never its last token."""
    return min(common_prefix_length(prompt, other), len(prompt) - 1)


def most_likely_tokens(
    head: torch.nn.Linear, states: Tensor, cap: float | None = None
) -> tuple[list[int], list[float]]:
    """Return the most likely token after each hidden state, and the log-probability of each.

    On a CPU this product with the head's weight, which has one row for every token, is half of a decoding step, and
    some numbers of rows take twice as long as more rows would (measured: 114 ms for 12 rows, 60 ms for 16). For those
    the weight is the left factor.

    Args:
        head: The model's output layer.
        states: Hidden states, [rows, hidden].
        cap: As for `log_probabilities`.

    Returns:
        Token ids and log-probabilities, one of each a row.
    """
    if (
        states.device.type == "cpu"
        and states.dtype == torch.float32
        and len(states) in SLOW_ROWS
        and type(head) is torch.nn.Linear  # an adapter or a quantized head computes more than this product
        and head.bias is None
    ):
        logits, dim = torch.mm(head.weight, states.T), 0
    else:
        logits, dim = head(states), -1
    chosen = logits.argmax(dim)
    return chosen.tolist(), log_probabilities(logits, chosen, dim, cap).tolist()


def log_probabilities(logits: Tensor, tokens: Tensor, dim: int = -1, cap: float | None = None) -> Tensor:
    """Return the log-probabilities of tokens under the model's distribution, computed in fp32.

    Args:
        logits: The head's output, [rows, vocabulary], or [vocabulary, rows] for dim 0.
        tokens: A token id a row.
        dim: The dimension of the vocabulary: -1 or 0.
        cap: The model's `final_logit_softcapping`: logits are squashed into (-cap, cap). None: they are not.

    Returns:
        Natural logarithms, [rows], at most 0; nan where the logits are not numbers.
    """
    if dim == -1 and logits.device.type == "cpu" and len(logits) > 1:  # one row at a time fits a processor's cache
        pairs = zip(logits.split(1), tokens.split(1), strict=True)
        return torch.cat([log_probabilities(row, token, dim, cap) for row, token in pairs])
    logits = logits.float()
    if cap:
        logits = cap * torch.tanh(logits / cap)
    return logits.log_softmax(dim).gather(dim, tokens.unsqueeze(dim)).squeeze(dim)


def decode_greedily(
    cache: KVCache,
    prompts: Sequence[Sequence[int]],
    states: Tensor,
    stops: Collection[int],
    budgets: Sequence[int],
    choose: Choose | None = None,
) -> Iterator[tuple[int, list[int], list[float]]]:
    """Decode the replies of a batch, the most likely token each time.

    Args:
        cache: The cache after `prefill`.
        prompts: Token ids.
        states: As `prefill` returns them.
        stops: Ids that end a reply.
        budgets: Tokens each reply may take.
        choose: Called with the numbers of the prompts that go on and a copy of their logits; returns a token for each.
            None: the most likely one.

    Yields:
        A prompt's number, its reply's ids, the stop included, and their log-probabilities, as each one ends. The
        probabilities are the model's own, before `choose` rules tokens out.
    """
    device, head = cache.positions.device, cache.model.lm_head
    cap = getattr(cache.model.config.get_text_config(), "final_logit_softcapping", None)
    replies: list[list[int]] = [[] for _ in prompts]
    likelihoods: list[list[float]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    at = max(len(prompt) for prompt in prompts)
    while True:
        if choose is None:
            chosen, likely = most_likely_tokens(head, states, cap)
        else:
            logits = head(states).float()
            chosen = choose(alive, logits.clone())
            likely = log_probabilities(logits, torch.tensor(chosen, device=device), cap=cap).tolist()
        staying = []
        for place, (number, token, likelihood) in enumerate(zip(alive, chosen, likely, strict=True)):
            replies[number].append(token)
            likelihoods[number].append(likelihood)
            if token in stops or len(replies[number]) == budgets[number]:
                yield number, replies[number], likelihoods[number]
            else:
                staying.append(place)
        if not staying:
            return
        if len(staying) < len(alive):
            alive = [alive[place] for place in cache.keep_rows(staying)]
        ids = torch.tensor([[replies[number][-1]] for number in alive], device=device)
        positions = torch.tensor([[len(prompts[number]) + len(replies[number]) - 1] for number in alive], device=device)
        states = cache.forward(ids, positions, 0, at)[:, -1]
        at += 1
