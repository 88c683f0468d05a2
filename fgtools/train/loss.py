"""The loss at labelled positions alone.

Knows a Gemma-like causal model: an inner `model` that returns hidden states, and an `lm_head`. In completion-only
training some 7 % of the positions carry a label while the projection to a vocabulary of 262,144 is 60 % of the forward
work; so hidden states are gathered first and projected afterwards. Works with every transformers 5: no
`logits_to_keep` is needed.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fgtools.prompts import IGNORED


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


def read_labels(model: nn.Module) -> None:
    """Let a model's forward return LabelSums, until `restore_forward`.

    It is the forward that is changed, and not a function beside it, because distributed wrappers watch it.

    Args:
        model: A causal model, or a PEFT model around one; called with input_ids, attention_mask and labels.
    """
    inner = _unwrap(model)
    inner.forward = MethodType(_forward, inner)


def restore_forward(model: nn.Module) -> None:
    """Give a model its class's forward back: removes this module's, TRL's, and accelerate's autocast."""
    for module in (model, _unwrap(model)):
        module.__dict__.pop("forward", None)


def _unwrap(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _forward(inner: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **_: None) -> LabelSums:
    output = inner.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    targets = labels[:, 1:]
    rows, places = (targets != IGNORED).nonzero(as_tuple=True)
    targets = targets[rows, places]
    logits = inner.lm_head(output.last_hidden_state[rows, places]).float()
    loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
    right = logits.detach().argmax(-1) == targets
    by_row = torch.zeros(2, len(input_ids), dtype=targets.dtype, device=targets.device)
    by_row.index_add_(1, rows, torch.stack([right, torch.ones_like(right)]).to(targets.dtype))
    return LabelSums(loss, by_row[0], by_row[1])
