"""The loss at labelled positions alone, and its gradient without the detours of a tied embedding.

Knows a Gemma-like causal model: an inner `model` that gives hidden states and an `lm_head`. In completion-only training
some 7 % of the positions carry a label while the projection to a vocabulary of 262,144 is 60 % of the forward work;
so hidden states are gathered first and projected then. Works on every transformers 5: no `logits_to_keep` is needed.

The second cost is the tied embedding: autograd writes a dense gradient of the whole vocabulary for the head, another
for the embedding, and adds them up, in every micro-batch. `in_place` writes both into the gradient that is there
already: the same numbers, a third of the memory. It goes round autograd's hooks, so it serves one process alone.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fgtools.prompts import IGNORED


class LabelSums(NamedTuple):
    """What a batch's labels say of the model.

    Attributes:
        loss: Summed negative log-likelihood of the labels, a scalar in nats.
        right: By row, the labels that were the model's first choice.
        labels: By row, the labels.
    """

    loss: Tensor
    right: Tensor
    labels: Tensor


def read_labels(model: nn.Module, in_place: bool = False) -> None:
    """Let a model's forward give LabelSums, until `restore_forward`.

    It is the forward that is changed, and not a function beside it, because distributed wrappers watch it.

    Args:
        model: A causal model, or a PEFT model around one; called with input_ids, attention_mask and labels.
        in_place: Whether head and embedding add their gradients into `.grad` directly; fp32, one process.
    """
    inner = _unwrap(model)
    embedding = inner.get_input_embeddings()
    inner.forward = MethodType(_forward_in_place if in_place else _forward, inner)
    if in_place and embedding.weight.requires_grad:
        embedding.forward = MethodType(_embed_in_place, embedding)


def restore_forward(model: nn.Module) -> None:
    """Give a model its class's forward back: takes off this module's, TRL's, and accelerate's autocast."""
    inner = _unwrap(model)
    for module in (model, inner, inner.get_input_embeddings()):
        module.__dict__.pop("forward", None)


def _unwrap(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _forward(inner: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **_: None) -> LabelSums:
    states, targets, rows = _gather(inner, input_ids, attention_mask, labels)
    logits = inner.lm_head(states).float()
    loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
    return _count(loss, logits.detach().argmax(-1) == targets, rows, len(input_ids))


def _forward_in_place(inner: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **_: None) -> LabelSums:
    if not torch.is_grad_enabled() or not inner.lm_head.weight.requires_grad:
        return _forward(inner, input_ids, attention_mask, labels)
    states, targets, rows = _gather(inner, input_ids, attention_mask, labels)
    loss, right = _HeadInPlace.apply(states, inner.lm_head.weight, targets)
    return _count(loss, right, rows, len(input_ids))


def _gather(inner: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give hidden states, targets and row numbers of the positions whose next token is labelled."""
    output = inner.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    targets = labels[:, 1:]
    rows, places = (targets != IGNORED).nonzero(as_tuple=True)
    return output.last_hidden_state[rows, places], targets[rows, places], rows


def _count(loss: Tensor, right: Tensor, rows: Tensor, n_rows: int) -> LabelSums:
    by_row = torch.zeros(2, n_rows, dtype=torch.long, device=rows.device)
    by_row.index_add_(1, rows, torch.stack([right, torch.ones_like(right)]).long())
    return LabelSums(loss, by_row[0], by_row[1])


class _HeadInPlace(torch.autograd.Function):
    """Projection and cross entropy of labelled positions; keeps softmax minus one-hot for the way back."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = states @ weight.T
        places = torch.arange(len(targets), device=targets.device)
        right = logits.argmax(-1) == targets
        logits -= torch.logsumexp(logits, -1, keepdim=True)
        loss = -logits[places, targets].sum()
        logits.exp_()
        logits[places, targets] -= 1
        ctx.save_for_backward(states, logits)
        ctx.weight = weight
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        states, residual = ctx.saved_tensors
        residual *= grad
        if ctx.weight.grad is None:
            ctx.weight.grad = residual.T @ states
        else:
            ctx.weight.grad.addmm_(residual.T, states)
        return residual @ ctx.weight, None, None


class _EmbedInPlace(torch.autograd.Function):
    """Lookup of rows of the embedding; `anchor` is there so that autograd comes back."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, weight: Tensor, input_ids: Tensor, padding: int | None) -> Tensor:
        ctx.weight, ctx.padding = weight, padding
        ctx.save_for_backward(input_ids)
        return nn.functional.embedding(input_ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, None]:
        (input_ids,) = ctx.saved_tensors
        ids, grad = input_ids.flatten(), grad.flatten(0, -2)
        if ctx.padding is not None:
            kept = ids != ctx.padding
            ids, grad = ids[kept], grad[kept]
        if ctx.weight.grad is None:  # where the head has a weight of its own
            ctx.weight.grad = torch.zeros_like(ctx.weight)
        ctx.weight.grad.index_add_(0, ids, grad)
        return None, None, None, None


def _embed_in_place(embedding: nn.Embedding, input_ids: Tensor) -> Tensor:
    anchor = torch.zeros((), device=input_ids.device, requires_grad=torch.is_grad_enabled())
    states = _EmbedInPlace.apply(anchor, embedding.weight, input_ids, embedding.padding_idx)
    scale = getattr(embedding, "embed_scale", None)
    return states if scale is None else states * scale.to(states.dtype)
