"""The gradient of a tied head and embedding, added to the one that is there.

Knows the two weights of the vocabulary's size. Autograd writes a dense gradient of the whole vocabulary for the head,
another for the embedding, and adds them up, in every micro-batch: for FunctionGemma's 262,144 tokens 0.7 GB each time.
Here both are added to `.grad` directly: the same numbers with less memory and time. This bypasses autograd's hooks, on
which distributed wrappers and gradient scalers rely, so it serves one process in fp32 or bf16 alone.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

CHUNK = 8192
"""Words of the vocabulary whose gradient is computed at once under autocast: 20 MB for FunctionGemma, which the C
library takes from memory that it holds. Whole, 0.7 GB would be asked from the system in every micro-batch."""


class HeadInPlace(torch.autograd.Function):
    """Project hidden states and sum their cross entropy; backward adds the head's gradient to `.grad`.

    Takes states (labels x hidden), the head's weight and the targets; returns the loss, a scalar in nats, and for each
    label whether it is the first choice. The residual that is kept for backward is softmax minus one-hot. Under
    autocast the products are computed in its format, the loss in fp32.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss, and keep what backward needs."""
        product = states @ weight.T
        ctx.format = product.dtype  # autocast's, or that of states and weight
        logits = product if product.dtype == weight.dtype else product.float()
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
        """Add the weight's gradient to `.grad`, and return that of the states."""
        states, residual = ctx.saved_tensors
        residual *= grad  # each is used once
        if ctx.format != ctx.weight.dtype:
            return _backward_in_chunks(states, residual, ctx.weight, ctx.format), None, None
        if ctx.weight.grad is None:
            ctx.weight.grad = residual.T @ states
        else:
            ctx.weight.grad.addmm_(residual.T, states)
        return residual @ ctx.weight, None, None


def _backward_in_chunks(states: Tensor, residual: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Add the weight's gradient to `.grad`, and return that of the states, with products in a 16-bit format."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    low, gradient = states.to(dtype), torch.zeros_like(states)
    for start in range(0, len(weight), CHUNK):
        part = residual[:, start : start + CHUNK].to(dtype)
        weight.grad[start : start + CHUNK] += part.T @ low
        gradient += part @ weight[start : start + CHUNK].to(dtype)
    return gradient


class EmbeddingInPlace(torch.autograd.Function):
    """Look up rows of the embedding; backward adds their gradients to `.grad`.

    The weight is no differentiable input here, so `anchor`, a scalar that requires a gradient, makes autograd call
    backward.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, weight: Tensor, input_ids: Tensor, padding: int | None) -> Tensor:
        """Return the rows of the weight."""
        ctx.weight, ctx.padding = weight, padding
        ctx.save_for_backward(input_ids)
        return nn.functional.embedding(input_ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, None]:
        """Add the gradients of all rows but the padding's to `.grad`."""
        (input_ids,) = ctx.saved_tensors
        ids, grad = input_ids.flatten(), grad.flatten(0, -2)
        if ctx.padding is not None:
            kept = ids != ctx.padding
            ids, grad = ids[kept], grad[kept]
        if ctx.weight.grad is None:  # where the head has a weight of its own
            ctx.weight.grad = torch.zeros_like(ctx.weight)
        ctx.weight.grad.index_add_(0, ids, grad)
        return None, None, None, None


def patch_embedding(embedding: nn.Embedding) -> None:
    """Let an embedding add its gradient in place, until its `forward` is removed from the instance."""
    embedding.forward = MethodType(_embed, embedding)


def _embed(embedding: nn.Embedding, input_ids: Tensor) -> Tensor:
    anchor = torch.zeros((), device=input_ids.device, requires_grad=torch.is_grad_enabled())
    states = EmbeddingInPlace.apply(anchor, embedding.weight, input_ids, embedding.padding_idx)
    scale = getattr(embedding, "embed_scale", None)
    return states if scale is None else states * scale.to(states.dtype)
