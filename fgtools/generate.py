"""Replies: greedy generation of many rows at once, the same before and after training.

Knows a model, its tokenizer and rows; not scores. The work is done in `slab`; decided here is which rows go together:
prompts are sorted by their ids, so that rows with the same tools are neighbours and what they share is read once, and
a batch holds what fits the memory. A reply ends at a stop id: FunctionGemma writes <start_function_response> after its
last call, so parallel calls are whole. In fp32 the replies are those of one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fgtools.models import stop_ids
from fgtools.progress import is_watched
from fgtools.prompts import encode_prompt
from fgtools.slab import Slab, common_length, decode_greedily, read_prompts

CPU_BYTES = 2**30
"""Memory for keys and values of one batch on a CPU."""

GPU_SHARE = 0.5
"""Share of a GPU's free memory for keys and values of one batch; the passes need the rest."""

GPU_TOKENS = 16_384
"""Tokens of prompts that a GPU reads in one pass, padding included; a CPU reads one prompt at a time."""

NEIGHBOURS = 0.5
"""Prompts are read in one pass when they share this much of the shorter one, or differ little in length."""


def generate_replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    constrained: bool = False,
    on_reply: Callable[[int, str], None] | None = None,
) -> list[str]:
    """Generate one reply a row.

    Args:
        model: The model, Gemma 3 or one built like it.
        tokenizer: Its tokenizer, with chat template.
        rows: Row dicts; only messages and tools are read.
        max_new_tokens: Budget of one reply, in tokens.
        batch_size: Rows generated at once, at most; fewer where memory is short.
        constrained: Whether declared tools, arguments and types are all that can be written; see `constraint`.
        on_reply: Called with a row's number and its reply as each one ends, in the order in which they end.

    Returns:
        The replies in the order of the rows: special tokens kept, the stop token included where one was reached.

    Raises:
        ValueError: A number is not positive.
        ConstraintError: It is to be constrained, and xgrammar is not installed.
        torch.OutOfMemoryError: A single row does not fit the memory.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise ValueError(
            f"MAX_NEW_TOKENS and BATCH_SIZE must be at least 1, got {max_new_tokens} and {batch_size}: use 0 only in a "
            "notebook, where it means the profile's own"
        )
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    prompts = [encode_prompt(row, tokenizer) for row in rows]
    order = sorted(range(len(rows)), key=lambda number: prompts[number])
    replies = [""] * len(rows)
    stops = set(stop_ids(tokenizer))
    constraints = None
    if constrained:
        from fgtools.constraint import Constraints

        constraints = Constraints(tokenizer, inner.config.get_text_config().vocab_size)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), tqdm(total=len(rows), desc="replies", unit="row", disable=not is_watched()) as bar:

            def finish(number: int, ids: Sequence[int]) -> None:
                replies[number] = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
                bar.update()
                if on_reply is not None:
                    on_reply(number, replies[number])

            waiting, limit = order, batch_size
            while waiting:
                fitting = _count_fitting([prompts[number] for number in waiting[:limit]], inner, max_new_tokens)
                batch, ended = waiting[:fitting], set()
                parts = [prompts[number] for number in batch]
                try:
                    choose = constraints.choose([rows[number]["tools"] for number in batch]) if constraints else None
                    for place, ids in _generate_batch(inner, parts, stops, max_new_tokens, choose):
                        finish(batch[place], ids)
                        ended.add(batch[place])
                except torch.OutOfMemoryError:
                    if len(batch) == 1:
                        raise
                    limit = len(batch) // 2
                    print(f"out of memory: {limit} rows at once from here on", flush=True)
                    torch.cuda.empty_cache()
                waiting = [number for number in waiting if number not in ended]
    finally:
        model.train(was_training)
    return replies


def _generate_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stops: set[int],
    max_new_tokens: int,
    choose: Callable[[Sequence[int], torch.Tensor], list[int]] | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Give the places and replies of a batch, in the order in which they end."""
    slab = Slab(model, len(prompts), max(map(len, prompts)) + max_new_tokens)
    states = read_prompts(slab, prompts, group_prompts(prompts, 1 if model.device.type == "cpu" else GPU_TOKENS))
    return decode_greedily(slab, prompts, states, stops, [max_new_tokens] * len(prompts), choose)


def group_prompts(prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Say which neighbouring prompts are read in one pass.

    Args:
        prompts: Token ids, sorted.
        tokens: Tokens of one pass at most, padding included.

    Returns:
        Prompt numbers by pass.
    """
    groups: list[list[int]] = []
    for number, prompt in enumerate(prompts):
        if groups:
            first = prompts[groups[-1][0]]
            widest = max(len(prompt), *(len(prompts[one]) for one in groups[-1]))
            alike = common_length(first, prompt) >= NEIGHBOURS * min(len(first), len(prompt))
            alike = alike or min(len(first), len(prompt)) >= 0.8 * widest
            if alike and widest * (len(groups[-1]) + 1) <= tokens:
                groups[-1].append(number)
                continue
        groups.append([number])
    return groups


def _count_fitting(prompts: Sequence[Sequence[int]], model: PreTrainedModel, max_new_tokens: int) -> int:
    """Count the prompts, from the first on, whose keys and values fit the memory together; one at least."""
    config = model.config.get_text_config()
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
    free = CPU_BYTES if model.device.type == "cpu" else int(GPU_SHARE * torch.cuda.mem_get_info(model.device)[0])
    longest = 0
    for count, prompt in enumerate(prompts, start=1):
        longest = max(longest, len(prompt))
        if count * (longest + max_new_tokens) * per_token > free:
            return max(1, count - 1)
    return len(prompts)
