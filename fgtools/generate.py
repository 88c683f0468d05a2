"""Replies: greedy generation in padded batches, the same before and after training.

Knows a model, its tokenizer and rows; not scores. Rows of like length share a batch, so little is padding; padding is
on the left, where it changes no reply (equal to one row at a time in fp32). A reply ends at a stop id: FunctionGemma
writes <start_function_response> after its last call, so parallel calls are whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from fgtools.models import stop_ids
from fgtools.progress import track
from fgtools.prompts import encode_prompt


def generate_replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
) -> list[str]:
    """Generate one reply a row.

    Args:
        model: The model.
        tokenizer: Its tokenizer, with chat template.
        rows: Row dicts; only messages and tools are read.
        max_new_tokens: Budget of one reply, in tokens.
        batch_size: Rows generated at once.

    Returns:
        The replies in the order of the rows: special tokens kept, the stop token included where one was reached.

    Raises:
        ValueError: A number is not positive.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise ValueError(
            f"MAX_NEW_TOKENS and BATCH_SIZE must be at least 1, got {max_new_tokens} and {batch_size}: use 0 only in a "
            "notebook, where it means the profile's own"
        )
    prompts = [encode_prompt(row, tokenizer) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: len(prompts[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=stop_ids(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        use_cache=True,
    )
    replies = [""] * len(rows)
    was_training = model.training
    model.eval()
    try:
        for batch in track(batches, len(batches), "replies"):
            texts = _generate_batch(model, tokenizer, [prompts[index] for index in batch], config)
            for index, text in zip(batch, texts, strict=True):
                replies[index] = text
    finally:
        model.train(was_training)
    return replies


def _generate_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], config: GenerationConfig
) -> list[str]:
    width = max(len(prompt) for prompt in prompts)
    padding = [[tokenizer.pad_token_id] * (width - len(prompt)) for prompt in prompts]
    inputs = torch.tensor([pad + prompt for pad, prompt in zip(padding, prompts, strict=True)])
    mask = torch.tensor([[0] * len(pad) + [1] * len(prompt) for pad, prompt in zip(padding, prompts, strict=True)])
    with torch.inference_mode():
        output = model.generate(
            input_ids=inputs.to(model.device), attention_mask=mask.to(model.device), generation_config=config
        )
    stops = set(config.eos_token_id)
    return [
        tokenizer.decode(_until_stop(ids, stops), clean_up_tokenization_spaces=False)
        for ids in output[:, width:].tolist()
    ]


def _until_stop(ids: Sequence[int], stops: set[int]) -> Sequence[int]:
    """Give the tokens up to the first stop id, that one included; what follows in a batch is padding."""
    end = next((position for position, token in enumerate(ids) if token in stops), len(ids))
    return ids[: end + 1]
