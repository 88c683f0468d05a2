"""In which number format a training computes, why, and what Gemma 3 needs for fp16.

Knows torch and compute capabilities; not trainers. Weights, gradients and optimizer states are fp32 in every format
here: autocast computes the matrix products in the smaller one.

In fp16 it is not the products that overflow but the residual stream: transformers' RMSNorm gives its result in the
format it was called with, so under autocast the large outputs of Gemma's post-norms become infinite. A norm that
returns fp32 keeps the whole stream in fp32, and changes nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import MethodType

import torch
from torch import nn

from fgtools.profiles import PRECISIONS

FORMATS = dict(zip(PRECISIONS, (None, torch.bfloat16, torch.float16), strict=True))
"""What PRECISION may be besides "auto", and the format autocast computes in."""


@dataclass(frozen=True)
class Precision:
    """In which format a training computes.

    Attributes:
        name: "fp32", "bf16" or "fp16".
        reason: Why, for people.
    """

    name: str
    reason: str

    def autocast(self, device_type: str) -> AbstractContextManager:
        """Give the context that computes in this format; for fp32 one that does nothing."""
        dtype = FORMATS[self.name]
        return contextlib.nullcontext() if dtype is None else torch.autocast(device_type, dtype=dtype)


def choose_precision(capability: tuple[int, int] | None, precision: str = "auto") -> Precision:
    """Decide in which format a training computes.

    Args:
        capability: CUDA compute capability, such as (7, 5) for a T4; None without a GPU. It decides, and not
            torch.cuda.is_bf16_supported(), which says yes on a T4 that only emulates bf16.
        precision: "auto", or one of FORMATS to overrule.

    Returns:
        The Precision.

    Raises:
        ValueError: The name is unknown.
    """
    if precision != "auto":
        if precision not in FORMATS:
            raise ValueError(f"PRECISION must be 'auto' or one of {sorted(FORMATS)}, got {precision!r}")
        return Precision(precision, "asked for by name")
    if capability is None:
        return Precision("fp32", "no GPU is visible, and a CPU is exact in fp32")
    sm = f"sm_{capability[0]}{capability[1]}"
    if capability >= (8, 0):
        return Precision("bf16", f"{sm} computes in bf16, over fp32 weights")
    if capability >= (7, 0):
        return Precision("fp16", f"{sm} has tensor cores for fp16 and none for bf16; norms and residuals stay in fp32")
    return Precision("fp32", f"{sm} has no tensor cores")


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
        raise ValueError("fp16 needs Gemma 3's RMSNorm, whose result can be kept in fp32: train in fp32 instead")
    for norm in norms:
        norm.forward = MethodType(_normalize_in_fp32, norm)
    try:
        yield len(norms)
    finally:
        for norm in norms:
            del norm.forward


def _normalize_in_fp32(norm: nn.Module, states: torch.Tensor) -> torch.Tensor:
    return norm._norm(states.float()) * (1.0 + norm.weight.float())
