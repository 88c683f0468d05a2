"""Which of torch's attention kernels compute, while every batch has another shape.

Knows torch's process-wide switch of cuDNN's attention; not models, rows or trainers. torch prefers cuDNN's attention on
Hopper GPUs and later ones. cuDNN plans every new (batch, length) anew, which took 170 ms a shape on an H100 against
118 ms for a whole training step of a shape seen before. Training steps differ in length, and in decoding every token
makes the keys one longer, so nearly every shape is new.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fgtools.models.device import detect_capability
from fgtools.profiles import fastest_format


def describe_attention(implementation: str, capability: tuple[int, int] | None) -> str:
    """Return which attention computes and why, for people.

    Args:
        implementation: Its name in transformers, such as "sdpa".
        capability: CUDA compute capability of the GPU; None for a CPU.
    """
    chosen = f"attention {implementation}: what transformers chooses here"
    if implementation != "sdpa" or not _may_use_cudnn(capability):
        return chosen
    return f"{chosen}; cuDNN's kernel is off in training and generation, since it plans every new shape anew"


@contextmanager
def varied_shapes(device: torch.device) -> Iterator[None]:
    """Keep cuDNN's attention off, and restore what it was at the end.

    The switch belongs to the whole process. It is set here at every entry, so that a library that has switched it on
    meanwhile is overruled.

    Args:
        device: Where the model is; nothing is changed for a CPU or a GPU that has no cuDNN attention.
    """
    if not _may_use_cudnn(detect_capability(device)):
        yield
        return
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def _may_use_cudnn(capability: tuple[int, int] | None) -> bool:
    """Return whether torch may choose cuDNN's attention: it needs sm_80, as bf16 does."""
    return fastest_format(capability)[0] == "bf16"
