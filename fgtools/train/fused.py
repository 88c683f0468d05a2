"""Fused kernels for training on a GPU: Gemma 3's norms, gated MLP and rotary positions, each in one launch.

Knows the functions of the library liger-kernel and the modules of transformers' Gemma 3 that they stand in for; not
rows or steps. A plain step spends most of its time in small element-wise kernels and in launching them. What the fused
ones compute is the same up to rounding, which is checked against the plain model before the first step.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.gemma3 import modeling_gemma3

TOLERANCES = {"fp32": 1e-3, "bf16": 2e-2, "fp16": 2e-2}
"""By how much the loss of one batch and the norm of its gradients may differ, as a share of the plain ones: roundings
at other places; a wrong kernel is off by more."""


@contextmanager
def fused_kernels(
    model: nn.Module, device: torch.device, precision: str, measure: Callable[[], tuple[float, float]]
) -> Iterator[str]:
    """Let a model compute with fused kernels while the context lasts, where that is possible and gives the same.

    Args:
        model: A Gemma 3 model, or a PEFT model around one.
        device: Where it is; on a CPU nothing is changed.
        precision: "fp32", "bf16" or "fp16".
        measure: Computes one batch and returns its loss and the norm of its gradients, leaving no gradients behind.

    Yields:
        What was decided and why, a line for people; "" on a CPU.
    """
    if device.type != "cuda":
        yield ""
        return
    try:
        version = importlib.metadata.version("liger-kernel")
    except importlib.metadata.PackageNotFoundError:
        yield "plain kernels: liger-kernel is not installed (pip install 'fgtools[gpu]'), a step takes longer without"
        return
    plain, undo = measure(), _nothing
    try:
        undo = fuse(model)
        fused = measure()
        reason = describe_difference(plain, fused, TOLERANCES[precision])
    except Exception as error:  # a compiler and a library that are not ours: whatever they raise, training goes on
        model.zero_grad(set_to_none=True)
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if reason:
        undo()
        yield f"plain kernels: those of liger-kernel {version} are left off ({reason})"
        return
    try:
        yield f"fused kernels of liger-kernel {version}: loss of one batch {fused[0]:.4f}, plain {plain[0]:.4f}"
    finally:
        undo()


def describe_difference(plain: tuple[float, float], fused: tuple[float, float], tolerance: float) -> str:
    """Return what differs by more than a tolerance; "" where nothing does.

    Args:
        plain: Loss and gradient norm of a batch with plain kernels.
        fused: The same with fused ones.
        tolerance: As a share of the plain ones.
    """
    for name, before, after in zip(("loss", "gradient norm"), plain, fused, strict=True):
        if not abs(after - before) <= tolerance * abs(before):  # so that a NaN differs
            return f"their {name} of one batch is {after:.6g}, plain {before:.6g}"
    return ""


def fuse(model: nn.Module) -> Callable[[], None]:
    """Put fused kernels in place of a model's norms, gated MLPs and rotary positions.

    A module whose forward was replaced already keeps it. The function of the rotary positions
    belongs to transformers' module, and so to every Gemma 3 model of the process.

    Args:
        model: A Gemma 3 model, or a PEFT model around one.

    Returns:
        What restores the plain ones.
    """
    from liger_kernel.ops.geglu import LigerGELUMulFunction
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction
    from liger_kernel.ops.rope import LigerRopeFunction

    def normalize(norm: Any, states: Tensor) -> Tensor:
        return LigerRMSNormFunction.apply(states, norm.weight, norm.eps, 1.0, "gemma", False)

    def gate(mlp: Any, states: Tensor) -> Tensor:
        return mlp.down_proj(LigerGELUMulFunction.apply(mlp.gate_proj(states), mlp.up_proj(states)))

    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        return LigerRopeFunction.apply(q, k, cos, sin, None, unsqueeze_dim)

    changed: list[nn.Module] = []
    for module in model.modules():
        replacement = {"Gemma3RMSNorm": normalize, "Gemma3MLP": gate}.get(type(module).__name__)
        if replacement and "forward" not in vars(module):
            module.forward = MethodType(replacement, module)
            changed.append(module)
    plain_rotate = modeling_gemma3.apply_rotary_pos_emb
    modeling_gemma3.apply_rotary_pos_emb = rotate

    def undo() -> None:
        for module in changed:
            del module.forward
        modeling_gemma3.apply_rotary_pos_emb = plain_rotate

    return undo


def _nothing() -> None:
    pass
