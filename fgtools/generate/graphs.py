"""Decoding steps of one fixed shape, which a GPU repeats as a CUDA graph.

Knows a cache, the model's head and torch's CUDA graphs; not stops, budgets or when a reply ends. A decoding step starts
about 1,200 kernels, and on a GPU starting them takes longer than computing them. A graph starts them all at once, but
every run of it has the same shapes and the same places in memory. So a graph belongs to a number of rows and a number
of slots, and ids, positions and chosen tokens are tensors that each step updates by itself, without waiting for the
CPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from fgtools.generate.choice import log_probabilities, logits_cap
from fgtools.generate.kv_cache import KVCache
from fgtools.generate.progress import announce
from fgtools.models.half import products_dtype

STEPS = 4
"""Steps between two looks at the chosen tokens. A look lets the GPU wait for the CPU; steps after the last token of the
last row are for nothing."""

SLOTS = 128
"""The slots of a graph are a multiple of this, so that replies of usual length need one graph or two."""

HEADROOM = 32
"""A graph has room for this many tokens at least when it is captured."""

PAYS_FROM = 16
"""Tokens of the longest budget left from which on a graph is captured. Capturing takes about as long as four plain
steps (one to warm up, one to capture, two for the check), and a run of the graph saves most of a plain step: by
arithmetic it has paid for itself after five or six tokens, and a reply often ends before its budget."""

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.02, torch.float16: 0.02}
"""How far a graph may differ from plain steps of the same shapes, by dtype: hidden states relative to their norm,
log-probabilities as they are. A wrong slot, position or token changes hidden states by a large part of their norm."""


class Steps:
    """Decoding steps of one shape, and the tensors that they read and write."""

    def __init__(self, cache: KVCache, ids: Sequence[int], positions: Sequence[int], n_seen: int) -> None:
        """Make the tensors; nothing is computed.

        Args:
            cache: The cache; its first rows are those of `ids`.
            ids: The last token of every row.
            positions: Their positions.
            n_seen: Slots to attend to: more than any position that still counts.
        """
        device, n_rows = cache.model.device, len(ids)
        self.cache, self.n_seen, self.cap = cache, n_seen, logits_cap(cache.model)
        self.ids = torch.tensor(ids, device=device)[:, None]
        self.positions = torch.tensor(positions, device=device)[:, None]
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        self.tokens = torch.zeros(n_rows, STEPS, dtype=torch.long, device=device)
        self.likely = torch.zeros(n_rows, STEPS, device=device)
        self.hidden = torch.empty(0)  # of the last step
        self.graph: torch.cuda.CUDAGraph | None = None
        self.capture_seconds = self.step_seconds = 0.0

    def step(self) -> None:
        """Decode one token of every row, without waiting for the GPU."""
        hidden = self.cache.write(self.ids, self.positions, self.n_seen)
        logits = self.cache.model.lm_head(hidden)
        chosen = logits.argmax(-1)
        likely = log_probabilities(logits, chosen, cap=self.cap)
        self.hidden = hidden  # a graph writes every run's into the tensor of its capture
        self.tokens.index_copy_(1, self.column, chosen[:, None])
        self.likely.index_copy_(1, self.column, likely[:, None])
        self.ids.copy_(chosen[:, None])
        self.positions.add_(1).clamp_(max=self.cache.n_slots - 1)  # a row that has ended goes on in its last slot
        self.column.add_(1)

    def capture(self) -> None:
        """Capture a step as a CUDA graph; what the steps read and write is then as it was before."""
        ids, positions, graph = self.ids.clone(), self.positions.clone(), torch.cuda.CUDAGraph()
        with torch.cuda.device(self.ids.device):
            stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
            stream.wait_stream(current)
            with torch.cuda.stream(stream):  # at first use libraries choose and load kernels, which no graph can hold
                self.step()
            current.wait_stream(stream)
            self._restore(ids, positions)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.step()
        self.graph = graph

    def _restore(self, ids: Tensor, positions: Tensor) -> None:
        self.ids.copy_(ids)
        self.positions.copy_(positions)
        self.column.zero_()

    def run(self, count: int = STEPS) -> tuple[list[list[int]], list[list[float]]]:
        """Decode some tokens of every row.

        Args:
            count: How many, STEPS at most.

        Returns:
            Token ids and log-probabilities, a list of `count` a row.
        """
        start = time.perf_counter()
        self.column.zero_()
        for _ in range(count):
            if self.graph is None:
                self.step()
            else:
                self.graph.replay()
        found = self.tokens[:, :count].tolist(), self.likely[:, :count].tolist()  # waits for the GPU
        self.step_seconds = (time.perf_counter() - start) / count
        return found

    def measure_difference(self) -> float:
        """Run two steps, and the same two without a graph; then ids and positions are as before.

        Returns:
            The largest difference after the second step: of a row's hidden state, relative to its norm, or of the
            log-probability of its token, from the one that the graph gave or from the most likely one's; nan where one
            of them is not a number.
        """
        ids, positions = self.ids.clone(), self.positions.clone()
        self.run(2)
        first, second = self.tokens[:, :1].clone(), self.tokens[:, 1].clone()
        self.cache.write(ids, positions, self.n_seen)
        plain = self.cache.write(first, positions + 1, self.n_seen)
        logits = self.cache.model.lm_head(self.hidden)
        best = log_probabilities(logits, logits.argmax(-1), cap=self.cap)
        differences = (
            (self.hidden - plain).float().norm(dim=-1) / plain.float().norm(dim=-1),
            (self.likely[:, 1] - best).abs(),
            (log_probabilities(logits, second, cap=self.cap) - best).abs(),
        )
        self._restore(ids, positions)
        return float(torch.stack(differences).max())


class Graphs:
    """Whether the decoding steps of one evaluation run as graphs; what is decided is printed when it is."""

    def __init__(self, off: str = "") -> None:
        """Begin without a graph.

        Args:
            off: Why there are to be none, for people; "" where graphs are wanted.
        """
        self.is_on, self.is_checked, self.told = not off, False, ""
        if off:
            self._tell(f"plain steps, since {off}")

    def build_steps(self, cache: KVCache, ids: Sequence[int], positions: Sequence[int], left: int) -> Steps | None:
        """Return captured steps, the first ones checked; None where steps are to be plain ones.

        Args:
            cache: As for Steps.
            ids: As for Steps.
            positions: As for Steps.
            left: Tokens that the reply with the longest budget may still take.
        """
        if not self.is_on:
            return None
        if left < PAYS_FROM:
            if not self.told:
                self._tell(f"plain steps, since a CUDA graph pays from {PAYS_FROM} tokens on and at most {left} follow")
            return None
        found = self._capture(cache, ids, positions)
        if isinstance(found, Steps):
            return found
        self.is_on = False
        self._tell(f"plain steps, since no CUDA graph can be used here: {found}")
        if cache.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _capture(self, cache: KVCache, ids: Sequence[int], positions: Sequence[int]) -> Steps | str:
        """Return captured steps, or why there are none; what a failure leaves in memory is free when this returns."""
        try:
            start = time.perf_counter()
            steps = Steps(cache, ids, positions, count_slots(max(positions) + 1, cache.n_slots))
            steps.capture()
            steps.capture_seconds = time.perf_counter() - start
            return self._find_fault(steps) or steps
        except RuntimeError as error:  # torch's errors of CUDA and of memory are RuntimeErrors
            return str(error).partition("\n")[0] or type(error).__name__

    def _find_fault(self, steps: Steps) -> str:
        """Return what is wrong with the first steps, "" if nothing is; later ones are not checked."""
        if self.is_checked:
            return ""
        difference, allowed = steps.measure_difference(), TOLERANCE.get(products_dtype(steps.cache.model), 0.02)
        if not difference <= allowed:  # nan neither
            return f"it differs from plain steps by {difference:.2g}, {allowed:g} is allowed"
        self.is_checked = True
        self._tell(f"CUDA graphs; the first differs from plain steps by {difference:.2g}, {allowed:g} is allowed")
        return ""

    def _tell(self, decision: str) -> None:
        self.told = decision
        announce(f"decoding: {decision}")


def count_slots(longest: int, n_slots: int) -> int:
    """Return the slots that a graph attends to: a multiple of SLOTS with HEADROOM, or all.

    Args:
        longest: Slots that the longest row needs for its next token.
        n_slots: Slots of the cache.
    """
    return min(n_slots, -(-(longest + HEADROOM) // SLOTS) * SLOTS)
