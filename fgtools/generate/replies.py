"""Replies: greedy generation of many rows at once, the same before and after training.

Knows a model, its tokenizer and rows; not scores. Decided here is the order of the work: prompts are sorted by their
ids, so that rows with the same tools are neighbours and their shared prefix is computed once, and answered batch by
batch; where memory is short, in smaller ones. A reply ends at a stop id: FunctionGemma writes
<start_function_response> after its last call, so parallel calls are whole.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fgtools.files import FgtoolsError, InputError
from fgtools.generate.batches import (
    Room,
    count_fitting,
    count_unread,
    describe_batch,
    group_prompts,
    is_out_of_memory,
    measure_room,
)
from fgtools.generate.confidence import measure_confidence
from fgtools.generate.decoding import Choose, Decoder, Ended
from fgtools.generate.graphs import Graphs
from fgtools.generate.kv_cache import KVCache, read_group
from fgtools.generate.progress import Progress, announce
from fgtools.metrics import GeneratedReply
from fgtools.models.attention import varied_shapes
from fgtools.models.load import stop_ids
from fgtools.prompts.encode import encode_prompt

EARLY_ROWS = 4
"""Prompts that are read before the first reply is written, where reading them all takes long."""

EARLY_SECONDS = 15.0
"""Seconds of reading from which on a first reply is written early. Its decoding steps are shared by EARLY_ROWS rows and
not by all: with 20 rows of Gemma 3 270M on a CPU core, read in 18 s, that cost 3 % of the whole."""


class GenerationError(FgtoolsError, RuntimeError):
    """Replies cannot be generated on this device; the message says what to lower."""


def generate_replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    *,
    max_new_tokens: int,
    batch_size: int = 0,
    constrained: bool = False,
    on_reply: Callable[[int, str], None] | None = None,
) -> list[str]:
    """Generate one reply a row, as `generate_with_confidence`, without the confidence.

    Args:
        model: The model, Gemma 3 or one built like it.
        tokenizer: Its tokenizer, with chat template.
        rows: Row dicts; only messages and tools are read.
        max_new_tokens: Budget of one reply, in tokens.
        batch_size: Rows generated at once, at most; fewer where memory is short. 0: on a GPU as many as its memory
            holds, on a CPU 64.
        constrained: Whether only declared tools, arguments and types can be written; see `constrained`.
        on_reply: Called with a row's number and its reply as each one ends, in the order in which they end.

    Returns:
        The replies in the order of the rows: special tokens kept, the stop token included where one was reached.

    Raises:
        ValueError: A number is not positive.
        ConstraintError: Replies are to be constrained, and xgrammar is not installed.
        GenerationError: A single row does not fit the memory, or a prompt the model's context.
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
    batch_size: int = 0,
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
        batch_size: As for generate_replies.
        constrained: As for generate_replies.
        on_reply: Called with a row's number and its reply as each one ends, in the order in which they end.

    Returns:
        The replies in the order of the rows.

    Raises:
        ValueError: A number is not positive.
        ConstraintError: As generate_replies.
        GenerationError: As generate_replies.
    """
    if max_new_tokens < 1 or batch_size < 0:
        raise InputError(
            f"MAX_NEW_TOKENS must be at least 1 and BATCH_SIZE at least 0, got {max_new_tokens} and {batch_size}: "
            "leave them out and they are chosen"
        )
    prompts = [encode_prompt(row, tokenizer) for row in rows]
    budgets = limit_budgets(rows, prompts, max_new_tokens, model.config.get_text_config().max_position_embeddings)
    decode, choices = _constrain(model, tokenizer, rows) if constrained else (None, None)
    decode = decode or partial(tokenizer.decode, clean_up_tokenization_spaces=False)
    replies = [GeneratedReply("")] * len(rows)

    def finish(number: int, ids: Sequence[int], log_probabilities: Sequence[float]) -> None:
        replies[number] = GeneratedReply(decode(ids), measure_confidence(ids, log_probabilities, tokenizer))
        if on_reply is not None:
            on_reply(number, replies[number])

    generate_tokens(model, prompts, stop_ids(tokenizer), budgets, finish, batch_size=batch_size, choices=choices)
    return replies


def limit_budgets(
    rows: Sequence[Mapping[str, Any]], prompts: Sequence[Sequence[int]], max_new_tokens: int, context: int
) -> list[int]:
    """Return how many tokens each reply may take: fewer than asked for where the model's context ends before.

    Args:
        rows: Row dicts.
        prompts: Their prompts as token ids.
        max_new_tokens: Budget of one reply, in tokens.
        context: Tokens that the model was made for, prompt and reply (max_position_embeddings of its config).

    Raises:
        GenerationError: A prompt fills the context.
    """
    full = [number for number, prompt in enumerate(prompts) if len(prompt) >= context]
    if full:
        shown = ", ".join(f"{rows[number].get('row_id', '')!r} ({len(prompts[number]):,})" for number in full[:3])
        raise GenerationError(
            f"a prompt must leave room for a reply in the model's context of {context:,} tokens, but those of "
            f"{len(full)} of {len(rows)} rows do not, such as {shown}: offer fewer tools, drop old turns, or "
            "leave these rows out"
        )
    budgets = [min(max_new_tokens, context - len(prompt)) for prompt in prompts]
    if short := sum(budget < max_new_tokens for budget in budgets):
        print(
            f"{short} of {len(rows)} replies have fewer than {max_new_tokens} tokens: the context ends at {context:,}"
        )
    return budgets


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
    batch_size: int = 0,
    choices: Callable[[Sequence[int]], Choose] | None = None,
) -> None:
    """Generate one reply a prompt, in batches that fit the memory, and show how far it is.

    Args:
        model: As for generate_replies.
        prompts: Token ids.
        stops: Ids that end a reply.
        budgets: Tokens each reply may take.
        on_reply: Called with a prompt's number, its reply's ids, the stop included, and their log-probabilities, as
            each one ends.
        batch_size: As for generate_replies.
        choices: Called with the numbers of a batch's prompts; returns what chooses their tokens (see
            decoding.Decoder). None: the most likely ones.

    Raises:
        ValueError: As kv_cache.KVCache.
        GenerationError: A single prompt does not fit the memory.
    """
    if not prompts:
        return
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    graphs = _decide_graphs(inner.device, is_constrained=choices is not None)
    was_training = model.training
    model.eval()
    progress = Progress(len(prompts), max(budgets), _row_cost(inner))
    try:
        _answer_all(inner, prompts, budgets, batch_size, on_reply, _Work(stops, choices, graphs, progress))
    finally:
        progress.close()
        model.train(was_training)


@dataclass(frozen=True)
class _Work:
    """What prompts are answered with: see `generate_tokens`."""

    stops: Collection[int]
    choices: Callable[[Sequence[int]], Choose] | None
    graphs: Graphs | None
    progress: Progress


def _answer_all(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[int],
    batch_size: int,
    on_reply: Callable[[int, list[int], list[float]], None],
    work: _Work,
) -> None:
    """Answer prompts batch by batch, in smaller ones where memory is short; see `generate_tokens`."""
    waiting, limit = sorted(range(len(prompts)), key=lambda number: prompts[number]), batch_size
    while waiting:
        room = measure_room(model, limit)
        batch = waiting[: count_fitting([len(prompts[number]) + budgets[number] for number in waiting], room)]
        if room.free is not None and len(waiting) == len(prompts) and limit == batch_size:
            announce(describe_batch(len(batch), len(prompts), batch_size, room))
        unread = count_unread([prompts[number] for number in waiting])
        work.progress.plan(unread, len(waiting) - len(batch), len(batch))
        parts, ends, ended = [prompts[number] for number in batch], [budgets[number] for number in batch], set()
        is_short = False
        try:
            with torch.inference_mode(), varied_shapes(model.device):
                choose = work.choices(batch) if work.choices else None
                for place, ids, log_probabilities in _answer_batch(model, parts, ends, work, room, choose):
                    on_reply(batch[place], ids, log_probabilities)
                    ended.add(batch[place])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise _too_long(error, len(parts[0]), ends[0]) from error
            limit, is_short = len(batch) // 2, True
        if is_short:  # not freed above, where the error's traceback still refers to the batch
            print(f"out of memory: {limit} rows at once from here on", flush=True)
            gc.collect()
            torch.cuda.empty_cache()
        waiting = [number for number in waiting if number not in ended]


def _decide_graphs(device: torch.device, is_constrained: bool) -> Graphs | None:
    """Return what captures decoding steps on a GPU; None on a CPU, which has no graphs."""
    if device.type != "cuda":
        return None
    return Graphs("a grammar chooses every token on the CPU" if is_constrained else "")


def _row_cost(model: PreTrainedModel) -> float:
    """Return what a row of a decoding step computes, the head included, for each token of a prompt: products alone."""
    body = sum(weight.numel() for weight in model.model.layers.parameters())
    return 1 + model.lm_head.weight.numel() / body


def _too_long(error: RuntimeError, length: int, budget: int) -> GenerationError:
    reason = str(error).partition("\n")[0]
    return GenerationError(
        f"one row alone must fit the memory, but {reason}: lower MAX_NEW_TOKENS (--max-new-tokens, now {budget}), "
        f"leave out rows with prompts of {length} tokens, or end what else uses it"
    )


def _answer_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[int],
    work: _Work,
    room: Room,
    choose: Choose | None,
) -> Iterator[Ended]:
    """Yield the replies of a batch in the order in which they end.

    Where reading all prompts takes long, the first of them are answered until one reply has ended, and the rest is read
    after that; the others then go on beside it.
    """
    cache = KVCache(model, len(prompts), max(map(len, prompts)) + max(budgets))
    decoder = Decoder(cache, prompts, work.stops, budgets, choose, work.graphs)
    states: list[torch.Tensor] = []
    for group in group_prompts(prompts, room.pass_tokens):
        states.append(read_group(cache, prompts, group))
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)  # the time that reading took is known when it has ended
        read = group[-1] + 1
        known = prompts[group[0] - 1 : read] if group[0] else prompts[:read]
        work.progress.read(count_unread(known) - (len(known[0]) if group[0] else 0), len(group))
        is_long = not work.progress.lengths and work.progress.seconds_to_read() > EARLY_SECONDS
        if is_long and not decoder.rows and EARLY_ROWS <= read < len(prompts):
            yield from _begin(decoder, states, work.progress)
            while len(decoder.open) == read:
                yield from _step(decoder, work.progress)
    yield from _begin(decoder, states, work.progress)
    while decoder.open:
        yield from _step(decoder, work.progress)


def _begin(decoder: Decoder, states: list[torch.Tensor], progress: Progress) -> list[Ended]:
    """Begin the replies to the prompts whose last hidden states are given; the list is empty afterwards."""
    begun = len(decoder.rows)
    joined = torch.cat(states)
    states.clear()
    ended = decoder.begin(range(begun, begun + len(joined)), joined)
    progress.wrote(0, len(joined), decoder.open_lengths(), [len(ids) for _, ids, _ in ended])
    return ended


def _step(decoder: Decoder, progress: Progress) -> list[Ended]:
    ended = decoder.step()
    progress.wrote(decoder.n_written, len(decoder.rows), decoder.open_lengths(), [len(ids) for _, ids, _ in ended])
    return ended
