"""Gemma 3's norms in fp32, which a training in fp16 needs.

Knows torch modules; not trainers. Under autocast to fp16 it is not the matrix products that overflow but the residual
stream: transformers' RMSNorm returns its result in the format of its input, so the large outputs of Gemma's post-norms
become infinite. A norm that returns fp32 keeps the whole stream in fp32, and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from torch import nn

from fgtools.files import InputError


@contextmanager
def widened_norms(model: nn.Module) -> Iterator[int]:
    """Let the norms of the residual stream return fp32 while the context lasts.

    The norms of queries and keys stay as they are: attention wants one format, and their outputs are small.

    Args:
        model: A Gemma 3 model whose weights are fp32.

    Yields:
        How many norms were changed.

    Raises:
        ValueError: The model has no RMSNorm that this knows.
    """
    norms = [
        module
        for name, module in model.named_modules()
        if type(module).__name__.endswith("RMSNorm") and not name.endswith(("q_norm", "k_norm"))
    ]
    if not norms or not all(hasattr(norm, "_norm") for norm in norms):
        raise InputError("fp16 needs Gemma 3's RMSNorm, whose result can be kept in fp32: train in fp32 instead")
    for norm in norms:
        norm.forward = MethodType(_normalize_in_fp32, norm)
    try:
        yield len(norms)
    finally:
        for norm in norms:
            del norm.forward


def _normalize_in_fp32(norm: nn.Module, states: torch.Tensor) -> torch.Tensor:
    return norm._norm(states.float()) * (1.0 + norm.weight.float())
