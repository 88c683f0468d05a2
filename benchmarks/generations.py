"""The ways of answering many prompts that are compared: the tutorial's loop, transformers' own batches, and ours.

Every way is called with a model, prompts as token ids, the tokens of each reply, and a function that it calls with a
number and the reply's ids as soon as a user of that way would see them. Knows how to generate; not how it is timed.

- loop: one row after the other through `generate`, that stops at the end of its reply
- batched: `generate` on batches of 64 rows with left padding, in the order of the rows; what each writes beyond its own
  end is cut off
- continuous: transformers' continuous batching, as it sizes itself on a GPU
- ours: fgtools.generate
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from benchmarks.shapes import LENGTHS
from fgtools.generate.replies import generate_tokens

SHARED_PART = 0.75
TOGETHER = 3
BATCH = 64
PAGE = 256
"""Tokens of a page in continuous batching's cache; transformers' default."""

OnReply = Callable[[int, list[int]], None]
Way = Callable[[Any, Sequence[Sequence[int]], Sequence[int], OnReply], None]


class NotStopped(Exception):
    """A background thread could not be ended, and disturbs what is measured after it."""


def draw_prompts(n_rows: int, vocabulary: int, shared: bool) -> tuple[list[list[int]], list[int]]:
    """Draw prompts of real lengths and the lengths of their replies."""
    draw = random.Random(7)
    prompts = []
    for number in range(n_rows):
        tokens, labels = LENGTHS[(number // TOGETHER if shared else number) * 3 % len(LENGTHS)]
        length = tokens - labels
        stem = draw.randrange(10**9) if not shared else number // TOGETHER
        start = random.Random(f"stem {stem}").choices(range(110, vocabulary), k=int(length * SHARED_PART))
        prompts.append([2, *start, *draw.choices(range(110, vocabulary), k=length - len(start) - 1)])
    return prompts, [draw.randint(20, 60) for _ in prompts]


def run_loop(model: Any, prompts: Sequence[Sequence[int]], budgets: Sequence[int], on_reply: OnReply) -> None:
    """Generate row by row."""
    for number, (prompt, budget) in enumerate(zip(prompts, budgets, strict=True)):
        ids = torch.tensor([prompt], device=model.device)
        output = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=_greedy(max_new_tokens=budget)
        )
        on_reply(number, output[0, len(prompt) :].tolist())


def run_batched(model: Any, prompts: Sequence[Sequence[int]], budgets: Sequence[int], on_reply: OnReply) -> None:
    """Generate in batches with left padding."""
    for first in range(0, len(prompts), BATCH):
        part, ends = prompts[first : first + BATCH], budgets[first : first + BATCH]
        width = max(map(len, part))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in part], device=model.device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in part], device=model.device)
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=_greedy(max_new_tokens=max(ends)))
        for place, (reply, budget) in enumerate(zip(output[:, width:].tolist(), ends, strict=True)):
            on_reply(first + place, reply[:budget])


def _greedy(**options: Any) -> GenerationConfig:
    return GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0, **options)


def run_continuous(model: Any, prompts: Sequence[Sequence[int]], budgets: Sequence[int], on_reply: OnReply) -> None:
    """Generate with continuous batching.

    Raises:
        RuntimeError: A request failed, or the thread that generates has ended.
        NotStopped: That thread goes on after it was told to stop.
    """
    sizes = {}
    if model.device.type == "cpu":  # it sizes itself by a GPU's memory
        pages = sum(-(-(len(prompt) + budget) // PAGE) + 1 for prompt, budget in zip(prompts, budgets, strict=True))
        sizes = {"num_blocks": 2 * pages, "max_batch_tokens": 1024}
    config = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=max(budgets))
    manager = model.init_continuous_batching(
        generation_config=config, continuous_batching_config=ContinuousBatchingConfig(**sizes)
    )
    manager.start()
    thread = manager._generation_thread
    try:
        numbers = {
            manager.add_request(list(prompt), max_new_tokens=budget): number
            for number, (prompt, budget) in enumerate(zip(prompts, budgets, strict=True))
        }
        while numbers:
            result = manager.get_result(timeout=1)
            if result is None and not manager.is_running():
                raise RuntimeError("the thread that generates has ended")
            if result is None or not result.is_finished():
                continue
            if result.error is not None:
                raise RuntimeError(result.error)
            on_reply(numbers.pop(result.request_id), list(result.generated_tokens))
    finally:
        at_once = {"hard_stop": True} if "hard_stop" in inspect.signature(manager.stop).parameters else {}
        manager.stop(block=True, timeout=8, **at_once)
        if thread.is_alive():
            raise NotStopped("continuous batching goes on in the background, and slows down what is measured later")


def run_ours(model: Any, prompts: Sequence[Sequence[int]], budgets: Sequence[int], on_reply: OnReply) -> None:
    """Generate as `generate_replies` does, with a length for every reply."""
    generate_tokens(model, prompts, (), budgets, lambda number, ids, _: on_reply(number, list(ids)))


WAYS: dict[str, Way] = {
    "ours": run_ours,
    "batched": run_batched,
    "loop": run_loop,
    "continuous": run_continuous,  # the last one, since a thread of it may be left
}
