"""Requests with the same tools in one sequence: the prompt is read once, and every request attends to it and to itself.

Declarations are most of a prompt, so twelve requests on them have the tokens of some three rows. Loss and gradients are
those of the rows one by one where no row is longer than the model's sliding window, which is not applied here. Knows
token ids and attention; not what the rows are about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from fgtools.calls import render_calls, row_calls
from fgtools.calls.tokens import BOS, END_TURN, START_RESPONSE, START_TURN


@dataclass(frozen=True)
class Prompt:
    """Token ids of what requests have in common, and by request the ids and labels of the rest."""

    ids: list[int]
    requests: list[tuple[list[int], list[int]]]


@dataclass(frozen=True)
class Batch:
    """Prompts of P tokens, each with N requests of L tokens, in sequences of P + N * L tokens.

    A request attends to its prompt and to itself, so declarations, most of a prompt, are read once.

    Attributes:
        ids, positions, labels: Prompts x tokens; a request's positions begin behind its prompt's last token.
        mask: Which of P + L tokens each token of a request attends to, (prompts * N) x 1 x L x (P + L).
        prompt: P.
        requests: N.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    prompt: int
    requests: int


def encode(rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerFast, template: str) -> Prompt:
    """Return the token ids of rows with the same tools, what they begin with once."""
    texts, _ = render_jinja_template(
        conversations=[row["messages"] for row in rows],
        tools=rows[0]["tools"],
        chat_template=template,
        add_generation_prompt=True,
        bos_token=BOS,
    )

    def split(text: str) -> list[int]:
        return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    requests = []
    for row, text in zip(rows, texts, strict=True):
        asked = split(text[text.index(f"{START_TURN}user") :])
        answer = split(render_calls(row_calls(row)) + START_RESPONSE if row["gold"] else row["reply"] + END_TURN)
        requests.append((asked + answer, [-100] * len(asked) + answer))
    return Prompt(split(texts[0][: texts[0].index(f"{START_TURN}user")]), requests)


def build_batch(prompts: Sequence[Prompt]) -> Batch:
    """Put prompts with equally many requests into one batch."""
    shared = max(len(prompt.ids) for prompt in prompts)
    n = len(prompts[0].requests)
    length = max(len(ids) for prompt in prompts for ids, _ in prompt.requests)
    shape = len(prompts), shared + n * length
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, -100)
    mask = torch.ones(length, shared + length, dtype=torch.bool).tril(shared).repeat(len(prompts), n, 1, 1)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
        positions[row, :shared] = torch.arange(shared)
        mask[row, :, :, len(prompt.ids) : shared] = False
        for index, (one, wanted) in enumerate(prompt.requests):
            start = shared + index * length
            positions[row, start : start + length] = torch.arange(length) + len(prompt.ids)
            ids[row, start : start + len(one)] = torch.tensor(one)
            labels[row, start : start + len(one)] = torch.tensor(wanted)
    return Batch(ids, positions, labels, mask.view(len(prompts) * n, 1, length, -1), shared, n)


def attend_to_prompt(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """Compute attention within a Batch, in the form in which transformers calls it; the batch is the mask."""
    prompts, heads = query.shape[:2]
    shared, n = batch.prompt, batch.requests
    attend = partial(torch.nn.functional.scaled_dot_product_attention, scale=options["scaling"])
    keys, values = (one.expand(-1, heads, -1, -1) for one in (key, value))
    before = attend(query[:, :, :shared], keys[:, :, :shared], values[:, :, :shared], is_causal=True)

    def fold(one: torch.Tensor) -> torch.Tensor:  # prompts x heads x (N * L) -> (prompts * N) x heads x L
        return one.unflatten(2, (n, -1)).transpose(1, 2).flatten(0, 1)

    def join(one: torch.Tensor) -> torch.Tensor:
        common = one[:, None, :, :shared].expand(-1, n, -1, -1, -1).flatten(0, 1)
        return torch.cat([common, fold(one[:, :, shared:])], 2).expand(-1, heads, -1, -1)

    own = attend(fold(query[:, :, shared:]), join(key), join(value), attn_mask=batch.mask)
    own = own.unflatten(0, (prompts, n)).transpose(1, 2).flatten(2, 3)
    return torch.cat([before, own], 2).transpose(1, 2), None
