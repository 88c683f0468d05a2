"""What a training puts in place of a model's own forward passes: the loss at labelled positions alone.

Knows a Gemma-like causal model: an inner `model` that returns hidden states, and an `lm_head`; not trainers. In
completion-only training some 7 % of the positions carry a label while the projection to a vocabulary of 262,144 is 60 %
of the forward work; so hidden states are gathered first and projected afterwards. Works with every transformers 5: no
`logits_to_keep` is needed.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fgtools.prompts import IGNORED
from fgtools.train.in_place import HeadInPlace, patch_embedding
from fgtools.train.prefix import pack_rows


class LabelSums(NamedTuple):
    """What the labels of a batch say about the model.

    Attributes:
        loss: Summed negative log-likelihood of the labels, a scalar in nats.
        right: By row, the labels that were the model's first choice.
        labels: By row, the labels.
    """

    loss: Tensor
    right: Tensor
    labels: Tensor


def patch_forward(model: nn.Module, in_place: bool = False) -> None:
    """Let a model's forward return LabelSums, until `restore_forward`.

    It is the forward that is changed, and not a function beside it, because distributed wrappers watch it.

    Args:
        model: A causal model, or a PEFT model around one; called with input_ids, attention_mask and labels.
        in_place: Whether head and embedding add their gradients to `.grad` directly; for one process in fp32 or bf16.
    """
    inner = _unwrap(model)
    embedding = inner.get_input_embeddings()
    in_place = in_place and inner.lm_head.weight.requires_grad and embedding.weight.requires_grad
    inner.forward = MethodType(_forward_in_place if in_place else _forward, inner)
    if in_place:
        patch_embedding(embedding)


def restore_forward(model: nn.Module) -> None:
    """Undo `patch_forward`, and with it the forward of TRL and the autocast of accelerate."""
    inner = _unwrap(model)
    for module in (model, inner, inner.get_input_embeddings()):
        module.__dict__.pop("forward", None)


def _unwrap(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _forward(
    inner: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, shared: int = 0, **_: None
) -> LabelSums:
    states, targets, rows = _gather(inner, input_ids, attention_mask, labels, shared)
    logits = inner.lm_head(states).float()
    loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
    return _count(loss, logits.detach().argmax(-1) == targets, rows, len(input_ids))


def _forward_in_place(
    inner: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, shared: int = 0, **_: None
) -> LabelSums:
    if not torch.is_grad_enabled():
        return _forward(inner, input_ids, attention_mask, labels, shared)
    states, targets, rows = _gather(inner, input_ids, attention_mask, labels, shared)
    loss, right = HeadInPlace.apply(states, inner.lm_head.weight, targets)
    return _count(loss, right, rows, len(input_ids))


def _gather(
    inner: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, shared: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states, targets and row numbers of the positions whose next token is labelled."""
    targets = labels[:, 1:]
    rows, places = (targets != IGNORED).nonzero(as_tuple=True)
    if shared:
        packed = pack_rows(input_ids, attention_mask, shared, inner.config.sliding_window)
        seen = {"attention_mask": packed.masks, "position_ids": packed.position_ids}
        output = inner.model(input_ids=packed.input_ids, use_cache=False, **seen)
        return output.last_hidden_state[0, packed.offsets[rows] + places], targets[rows, places], rows
    output = inner.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    return output.last_hidden_state[rows, places], targets[rows, places], rows


def _count(loss: Tensor, right: Tensor, rows: Tensor, n_rows: int) -> LabelSums:
    by_row = torch.zeros(2, n_rows, dtype=torch.long, device=rows.device)
    by_row.index_add_(1, rows, torch.stack([right, torch.ones_like(right)]).long())
    return LabelSums(loss, by_row[0], by_row[1])
