"""Replies: greedy generation of many rows at once, the same before and after training.

Knows a model, its tokenizer and rows; not scores. The forward passes are in `kv_cache`; decided here is which rows go
together: prompts are sorted by their ids, so that rows with the same tools are neighbours and their shared prefix is
computed once, and a batch holds as many rows as fit the memory. A reply ends at a stop id: FunctionGemma writes
<start_function_response> after its last call, so parallel calls are whole.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fgtools.files import FgtoolsError, InputError, is_watched
from fgtools.generate.confidence import measure_confidence
from fgtools.generate.kv_cache import Choose, KVCache, common_prefix_length, decode_greedily, prefill
from fgtools.metrics import GeneratedReply
from fgtools.models.attention import varied_shapes
from fgtools.models.device import CACHE_SHARE, free_memory_bytes
from fgtools.models.load import stop_ids
from fgtools.prompts.encode import encode_prompt

CPU_CACHE_BYTES = 2**30
"""Memory for keys and values of one batch on a CPU."""

GPU_TOKENS = 16_384
"""Tokens of prompts in one pass on a GPU at most, padding included; a CPU reads one prompt at a time."""

SHARED_PREFIX = 0.5
"""Prompts go through the model in one pass when this share of the shorter one is a common prefix, or when their lengths
are much the same."""


class GenerationError(FgtoolsError, RuntimeError):
    """Replies cannot be generated on this device; the message says what to lower."""


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
    """Generate one reply a row, as `generate_with_confidence`, without the confidence.

    Args:
        model: The model, Gemma 3 or one built like it.
        tokenizer: Its tokenizer, with chat template.
        rows: Row dicts; only messages and tools are read.
        max_new_tokens: Budget of one reply, in tokens.
        batch_size: Rows generated at once, at most; fewer where memory is short.
        constrained: Whether only declared tools, arguments and types can be written; see `constrained`.
        on_reply: Called with a row's number and its reply as each one ends, in the order in which they end.

    Returns:
        The replies in the order of the rows: special tokens kept, the stop token included where one was reached.

    Raises:
        ValueError: A number is not positive.
        ConstraintError: Replies are to be constrained, and xgrammar is not installed.
        GenerationError: A single row does not fit the memory.
    """
    told = None if on_reply is None else lambda number, reply: on_reply(number, reply.text)
    options = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "constrained": constrained}
    return [reply.text for reply in generate_with_confidence(model, tokenizer, rows, **options, on_reply=told)]


def generate_with_confidence(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    constrained: bool = False,
    on_reply: Callable[[int, GeneratedReply], None] | None = None,
) -> list[GeneratedReply]:
    """Generate one reply a row, and measure how sure the model was of it.

    The probabilities are the model's own, also where replies are constrained: a token that the grammar forces and the
    model would not have chosen lowers them.

    Args:
        model: As for generate_replies.
        tokenizer: As for generate_replies.
        rows: Row dicts; only messages and tools are read.
        max_new_tokens: Budget of one reply, in tokens.
        batch_size: Rows generated at once, at most.
        constrained: As for generate_replies.
        on_reply: Called with a row's number and its reply as each one ends, in the order in which they end.

    Returns:
        The replies in the order of the rows.

    Raises:
        ValueError: A number is not positive.
        ConstraintError: As generate_replies.
        GenerationError: As generate_replies.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise InputError(
            f"MAX_NEW_TOKENS and BATCH_SIZE must be at least 1, got {max_new_tokens} and {batch_size}: use 0 only in a "
            "notebook, where it means the profile's own"
        )
    prompts = [encode_prompt(row, tokenizer) for row in rows]
    decode, choices = _constrain(model, tokenizer, rows) if constrained else (None, None)
    decode = decode or partial(tokenizer.decode, clean_up_tokenization_spaces=False)
    replies = [GeneratedReply("")] * len(rows)
    with tqdm(total=len(rows), desc="replies", unit="row", disable=not is_watched()) as bar:

        def finish(number: int, ids: Sequence[int], log_probabilities: Sequence[float]) -> None:
            replies[number] = GeneratedReply(decode(ids), measure_confidence(ids, log_probabilities, tokenizer))
            bar.update()
            if on_reply is not None:
                on_reply(number, replies[number])

        stops, budgets = stop_ids(tokenizer), [max_new_tokens] * len(rows)
        generate_tokens(model, prompts, stops, budgets, finish, batch_size=batch_size, choices=choices)
    return replies


def _constrain(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]]
) -> tuple[Callable[[Sequence[int]], str], Callable[[Sequence[int]], Choose]]:
    """Return what decodes constrained replies to rows, and what chooses their tokens; see `generate_tokens`."""
    from fgtools.generate.constrained import Constraints

    constraints = Constraints(tokenizer, model.config.get_text_config().vocab_size)
    grammars = constraints.render_grammars(rows)
    return constraints.decode, lambda batch: constraints.build_choice([grammars[number] for number in batch])


def generate_tokens(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stops: Collection[int],
    budgets: Sequence[int],
    on_reply: Callable[[int, list[int], list[float]], None],
    *,
    batch_size: int = 64,
    choices: Callable[[Sequence[int]], Choose] | None = None,
) -> None:
    """Generate one reply a prompt, in batches that fit the memory.

    Args:
        model: As for generate_replies.
        prompts: Token ids.
        stops: Ids that end a reply.
        budgets: Tokens each reply may take.
        on_reply: Called with a prompt's number, its reply's ids, the stop included, and their log-probabilities, as
            each one ends.
        batch_size: Prompts answered at once, at most.
        choices: Called with the numbers of a batch's prompts; returns what chooses their tokens (see
            kv_cache.decode_greedily). None: the most likely ones.

    Raises:
        ValueError: As kv_cache.KVCache.
        GenerationError: A single prompt does not fit the memory.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    waiting, limit = sorted(range(len(prompts)), key=lambda number: prompts[number]), batch_size
    was_training = model.training
    model.eval()
    try:
        while waiting:
            ahead = waiting[:limit]
            sizes = [len(prompts[number]) + budgets[number] for number in ahead]
            batch, ended = ahead[: _count_fitting(sizes, inner)], set()
            parts, ends = [prompts[number] for number in batch], [budgets[number] for number in batch]
            try:
                with torch.inference_mode(), varied_shapes(inner.device):
                    choose = choices(batch) if choices else None
                    for place, ids, log_probabilities in _generate_batch(inner, parts, stops, ends, choose):
                        on_reply(batch[place], ids, log_probabilities)
                        ended.add(batch[place])
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    reason = str(error).partition("\n")[0]
                    raise GenerationError(
                        f"one row alone must fit the memory, but {reason}: lower MAX_NEW_TOKENS (--max-new-tokens, now "
                        f"{ends[0]}), leave out rows with prompts of {len(parts[0])} tokens, or end what else uses it"
                    ) from error
                limit = len(batch) // 2
            if limit < len(batch):  # not freed above, where the error's traceback still refers to the batch
                print(f"out of memory: {limit} rows at once from here on", flush=True)
                gc.collect()
                torch.cuda.empty_cache()
            waiting = [number for number in waiting if number not in ended]
    finally:
        model.train(was_training)


def _is_out_of_memory(error: RuntimeError) -> bool:
    from accelerate.utils.memory import should_reduce_batch_size

    known = isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)
    return known or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)


def _generate_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stops: Collection[int],
    budgets: Sequence[int],
    choose: Choose | None = None,
) -> Iterator[tuple[int, list[int], list[float]]]:
    """Return an iterator over a batch's places, replies and log-probabilities, in the order in which replies end."""
    cache = KVCache(model, len(prompts), max(map(len, prompts)) + max(budgets))
    states = prefill(cache, prompts, group_prompts(prompts, 1 if model.device.type == "cpu" else GPU_TOKENS))
    return decode_greedily(cache, prompts, states, stops, budgets, choose)


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


def _count_fitting(sizes: Sequence[int], model: PreTrainedModel) -> int:
    """Count the rows, from the first on, whose keys and values fit the memory together; one at least."""
    config = model.config.get_text_config()
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
    on_gpu = free_memory_bytes(model.device)
    free = CPU_CACHE_BYTES if on_gpu is None else int(CACHE_SHARE * on_gpu)
    for count, longest in enumerate(accumulate(sizes, max), start=1):
        if count * longest * per_token > free:
            return max(1, count - 1)
    return len(sizes)
