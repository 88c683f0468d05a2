"""Greedy decoding of a batch: the tokens of its replies, and where each ends.

Knows a cache, token ids and the model's head; not texts, tokenizers, or how many rows fit the memory. In fp32 the
tokens are those of one row at a time. Rows need not be equally far: some can join while others are in the midst of
their replies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from fgtools.generate.choice import log_probabilities, logits_cap, most_likely_tokens
from fgtools.generate.graphs import PAYS_FROM, STEPS, Graphs, Steps
from fgtools.generate.kv_cache import KVCache

Choose = Callable[[Sequence[int], Tensor], list[int]]
"""Returns a token for each of some rows, from their numbers in the batch and their logits."""

Ended = tuple[int, list[int], list[float]]
"""A prompt's number in the batch, the ids of its reply, the stop included, and their log-probabilities."""


class Decoder:
    """The replies of a batch while they are written."""

    def __init__(
        self,
        cache: KVCache,
        prompts: Sequence[Sequence[int]],
        stops: Collection[int],
        budgets: Sequence[int],
        choose: Choose | None = None,
        graphs: Graphs | None = None,
    ) -> None:
        """Begin without a reply.

        Args:
            cache: The cache; `read_group` fills it.
            prompts: Token ids.
            stops: Ids that end a reply.
            budgets: Tokens each reply may take.
            choose: Called with the numbers of prompts and a copy of their logits; returns a token for each. The
                log-probabilities are the model's own, before it rules tokens out. None: the most likely token.
            graphs: What captures steps as CUDA graphs; None: every step is a plain one. Not used with `choose`, which
                needs the logits of every step.
        """
        self.cache, self.prompts, self.stops, self.budgets = cache, prompts, stops, budgets
        self.choose, self.graphs = choose, None if choose else graphs
        self.cap = logits_cap(cache.model)
        self.replies: list[list[int]] = [[] for _ in prompts]
        self.likelihoods: list[list[float]] = [[] for _ in prompts]
        self.rows: list[int] = []  # the prompt of every row of the cache; an ended one stays until its row is dropped
        self.open: set[int] = set()
        self.steps: Steps | None = None
        self.n_written = 0  # tokens that the last step wrote in every row

    def open_lengths(self) -> list[int]:
        """Return the tokens so far of the replies that go on."""
        return [len(self.replies[number]) for number in self.open]

    def begin(self, numbers: Sequence[int], states: Tensor) -> list[Ended]:
        """Write the first token of replies.

        Args:
            numbers: Prompts that were read, those after the ones that began before.
            states: Their last hidden states, [rows, hidden].

        Returns:
            The replies that ended with this token.
        """
        self.rows += numbers
        self.open.update(numbers)
        self.steps = None
        return self._append(numbers, *self._next_tokens(numbers, states))

    def step(self) -> list[Ended]:
        """Write one more token of every reply, or STEPS of them where a graph writes them.

        Returns:
            The replies that ended.
        """
        self.steps = self._find_steps()
        if self.steps is not None:
            return self._append(self.rows, *self.steps.run())
        self._drop_ended()
        ids, positions = self._last_tokens()
        device = self.cache.model.device
        written = (torch.tensor(one, device=device)[:, None] for one in (ids, positions))
        return self._append(self.rows, *self._next_tokens(self.rows, self.cache.write(*written, max(positions) + 1)))

    def _next_tokens(self, numbers: Sequence[int], states: Tensor) -> tuple[list[list[int]], list[list[float]]]:
        """Return the token after each hidden state and its log-probability, each in a list of its own."""
        head = self.cache.model.lm_head
        if self.choose is None:
            chosen, likely = most_likely_tokens(head, states, self.cap)
        else:
            logits = head(states).float()
            chosen = self.choose(numbers, logits.clone())
            likely = log_probabilities(logits, torch.tensor(chosen, device=logits.device), cap=self.cap).tolist()
        return [[token] for token in chosen], [[one] for one in likely]

    def _append(
        self, numbers: Sequence[int], tokens: Sequence[Sequence[int]], likely: Sequence[Sequence[float]]
    ) -> list[Ended]:
        """Add tokens to replies that are open, up to their ends, and return those that ended."""
        ended: list[Ended] = []
        for number, *found in zip(numbers, tokens, likely, strict=True):
            self.n_written = len(found[0])
            if number not in self.open:
                continue
            for token, likelihood in zip(*found, strict=True):
                self.replies[number].append(token)
                self.likelihoods[number].append(likelihood)
                if token in self.stops or len(self.replies[number]) == self.budgets[number]:
                    self.open.discard(number)
                    ended.append((number, self.replies[number], self.likelihoods[number]))
                    break
        return ended

    def _drop_ended(self) -> None:
        """Give up the rows of replies that have ended."""
        staying = [place for place, number in enumerate(self.rows) if number in self.open]
        if len(staying) < len(self.rows):
            self.rows = [self.rows[place] for place in self.cache.keep_rows(staying)]

    def _last_tokens(self) -> tuple[list[int], list[int]]:
        """Return the last token of every row and its position: its keys and values are not yet in the cache."""
        ids = [self.replies[number][-1] for number in self.rows]
        return ids, [len(self.prompts[number]) + len(self.replies[number]) - 1 for number in self.rows]

    def _find_steps(self) -> Steps | None:
        """Return the steps to run, captured anew where slots are missing or a smaller batch pays; None: plain ones."""
        if self.graphs is None:
            return None
        left = max(self.budgets[number] - len(self.replies[number]) for number in self.open)
        needed = max(len(self.prompts[number]) + len(self.replies[number]) for number in self.open) + STEPS - 1
        if self.steps is not None and min(needed, self.cache.n_slots) <= self.steps.n_seen:
            # with half the rows a step takes half the time at best, and by arithmetic half of `left` is still to come
            saved = left / 2 * self.steps.step_seconds / 2
            is_half = 2 * len(self.open) <= len(self.rows)
            if not is_half or left < PAYS_FROM or saved < self.steps.capture_seconds:
                return self.steps
        self.steps = None  # its memory is free before another one is captured
        self._drop_ended()
        return self.graphs.build_steps(self.cache, *self._last_tokens(), left)
