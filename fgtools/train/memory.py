"""How many tokens a micro-batch may hold, and whether activations are kept or computed twice.

Knows a model's shape and a device's free memory; an estimate on paper, with room to spare, which the trainer corrects
by halving when memory runs out all the same. On a GPU the largest micro-batch is the fastest; on a CPU a small one is,
since rows of unlike length are padded to the longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fgtools.models.device import TRAINING_SHARE, free_memory_bytes

CPU_ACTIVATIONS = 96 * 2**20
"""Bytes of activations of one micro-batch on a CPU: room for some 16 rows of the stand-in, and for less than one row of
FunctionGemma's shape, which gains nothing from a second row and loses its padding."""

STATE_BYTES = 12
"""Bytes a trained parameter needs beside its weight: an fp32 gradient and AdamW's two states."""


@dataclass(frozen=True)
class MicroBatches:
    """How an optimizer step is cut.

    Attributes:
        tokens: Tokens of one micro-batch at most, padding included.
        checkpointing: Whether activations are computed again on the way back, to save memory.
        reason: Why, for people.
    """

    tokens: int
    checkpointing: bool
    reason: str


def estimate_activation_bytes(config: Any, label_share: float, checkpointing: bool = False) -> int:
    """Estimate the memory that one token's activations take in training, in bytes.

    Counted from what Gemma 3's layers keep for the way back, in fp32: norms 12 times the hidden width, queries, keys
    and values three times, the gated MLP four times its width. A labelled position adds its logits three times.

    Args:
        config: A Gemma 3 text config.
        label_share: Share of the positions that carry a label, in [0, 1].
        checkpointing: Whether only the layers' inputs are kept.

    Returns:
        Bytes a token.
    """
    attention = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    one_layer = 4 * (12 * config.hidden_size + 3 * attention + 4 * config.intermediate_size)
    kept = 4 * config.hidden_size * config.num_hidden_layers + one_layer
    layers = kept if checkpointing else one_layer * config.num_hidden_layers
    return layers + round(12 * config.vocab_size * label_share)


def choose_micro_batches(
    config: Any, longest: int, label_share: float, free_bytes: int | None, checkpointing: bool | None = None
) -> MicroBatches:
    """Decide how an optimizer step is cut into micro-batches.

    Args:
        config: A Gemma 3 text config.
        longest: Tokens of the longest row.
        label_share: Share of the positions that carry a label, in [0, 1].
        free_bytes: A GPU's memory that is free for activations; None on a CPU.
        checkpointing: Whether to checkpoint; None: only when the longest row does not fit without.

    Returns:
        The MicroBatches; a row longer than their tokens is computed alone.
    """
    per_token = estimate_activation_bytes(config, label_share, bool(checkpointing))
    if free_bytes is None:
        tokens = max(1, CPU_ACTIVATIONS // per_token)
        return MicroBatches(
            tokens, bool(checkpointing), f"a CPU is fastest with little padding; {tokens} tokens at once"
        )
    tokens = int(TRAINING_SHARE * free_bytes / per_token)
    if checkpointing is None and tokens < longest:
        smaller = choose_micro_batches(config, longest, label_share, free_bytes, checkpointing=True)
        return MicroBatches(smaller.tokens, True, f"the longest row, {longest} tokens, does not fit without")
    return MicroBatches(
        max(1, tokens),
        bool(checkpointing),
        f"{tokens} tokens of about {per_token / 2**20:.1f} MiB fit the {free_bytes / 2**30:.1f} GiB left for them",
    )


def free_activation_bytes(model: torch.nn.Module) -> int | None:
    """Return the memory of a model's GPU that training leaves for activations, in bytes; None on a CPU."""
    free = free_memory_bytes(next(model.parameters()).device)
    if free is None:
        return None
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return max(0, free - STATE_BYTES * trained)
