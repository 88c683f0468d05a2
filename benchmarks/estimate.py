"""What a training on a T4 should take: arithmetic from an H100's profile and from the bytes that a layer moves.

`python -m benchmarks.estimate [--rows N] [--epochs N]`

Nothing is measured on a T4. The GPU time of a step is split into matrix products, attention and element-wise kernels,
and each part of an H100's profile is scaled by what limits it: products and attention by the rate of 16-bit products,
element-wise kernels by memory bandwidth. Their bytes are counted: one layer of FunctionGemma's shape goes forward and
backward on the CPU under fp16 autocast, and the operands and results of every operation are added up. What fused
kernels move instead follows from what they must read and write. To be read as within a factor of two. The last line is
one JSON object; docs/training.md shows the table.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer, Gemma3RMSNorm, apply_rotary_pos_emb

from benchmarks.tensor_cores import PRODUCTS, TensorCores
from fgtools.files import write_text

# A training step of an H100, measured with torch 2.11: 16 rows, bf16 autocast, plain kernels, a shape seen before.
H100 = {"tokens": 10_300, "elementwise": 0.085, "attention": 0.013, "products": 0.012, "launches": 4552}
H100_BANDWIDTH, T4_BANDWIDTH = 3.35e12, 0.30e12  # bytes/s; data sheets: 3.35e12 and 0.32e12
H100_RATE, T4_RATE = 989e12, 65e12  # 16-bit operations/s, dense; data sheets
T4_LAUNCH = 25e-6  # s of the CPU a launch; assumed, 15e-6 were measured beside the H100 and Kaggle's cores are slower
FUSED_LAUNCHES = 0.4  # of the plain ones; assumed: a fused norm is 1 launch of some 10 forward, 2 of 20 backward
T4_MICRO_BATCH = 5000  # tokens; what fgtools/train/plan.py estimates for 16 GB

ROW_TOKENS, STEP_ROWS = 515, 16  # mean length of real rows under FunctionGemma's tokenizer; rows of a step
EVALUATIONS, CHOOSING_ROWS = 7, 100  # in one training, and the rows of each
SAVED = 1.07e9  # bytes of the tuned model
CHECKPOINT_SHARE = 0.05  # of a training at most, for checkpoints to go on from after a break
OLD_CHECKPOINTS, CHECKPOINT_BYTES, DISK = 7, 3.2e9, 0.2e9  # as it was: one an evaluation; bytes/s of a disk, assumed
EXCHANGED, PCIE = 1.07e9, 6e9  # bytes of fp32 gradients that two GPUs exchange a step; bytes/s, assumed

HIDDEN, INNER, HEADS, HEAD_SIZE, LAYERS = 640, 2048, 4, 256, 18
BODY, HEAD = 100.3e6, 167.8e6  # parameters of the layers, and of the embedding, which is the output layer too

FUSED_NORM, FUSED_GATE, FUSED_ROTATION = 5, 8, 4
"""Numbers that a fused kernel reads and writes, forward and backward, for each that enters it: a norm x, y; dy, x, dx;
a gated product (of two) a, b, c; dc, a, b, da, db; a rotation x, y; dy, dx."""


class CountBytes(TorchDispatchMode):
    """Adds up the bytes of operands and results; products, attention, views and allocations count nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute one operation."""
        result = func(*args, **(kwargs or {}))
        operands = [one for one in args if isinstance(one, Tensor)]
        results = [one for one in (result if isinstance(result, tuple) else (result,)) if isinstance(one, Tensor)]
        places = {one.untyped_storage().data_ptr() for one in operands}
        is_view = all(one.untyped_storage().data_ptr() in places for one in results) and not func._schema.is_mutable
        if func.overloadpacket not in PRODUCTS and not is_view and "empty" not in func.overloadpacket.__name__:
            self.total += sum(min(one.nbytes, one.untyped_storage().nbytes()) for one in (*operands, *results))
        return result


def count_bytes_a_token(compute: Callable[..., Any], *sizes: tuple[int, int, torch.dtype]) -> float:
    """Return the element-wise bytes of one token, forward and backward, without those of the weights.

    Args:
        compute: Computes tokens forward, from a tensor for each of the sizes.
        sizes: Of each tensor: heads, or 0 for a tensor without them; numbers of a head or a token; dtype.
    """
    totals = []
    for n_tokens in (32, 64):
        shapes = [(1, heads, n_tokens, size) if heads else (1, n_tokens, size) for heads, size, _ in sizes]
        given = [torch.randn(shape, dtype=one[2]) for shape, one in zip(shapes, sizes, strict=True)]
        for tensor in given:
            tensor.requires_grad_()
        for _ in range(2):  # the second time, gradients of weights are there and are added to
            with torch.autocast("cpu", dtype=torch.float16), TensorCores(), CountBytes() as count:
                results = compute(*given)
            results = results if isinstance(results, tuple) else (results,)
            seeds = [torch.ones_like(one) for one in results]
            for tensor in given:
                tensor.grad = None
            with TensorCores(), count:
                torch.autograd.backward(results, seeds)
        totals.append(count.total)
    return (totals[1] - totals[0]) / 32


def count_layer() -> dict[str, Any]:
    """Return the element-wise bytes a token and layer, with plain and with fused kernels, and those of its pieces."""
    config = Gemma3TextConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=HEAD_SIZE,
        num_hidden_layers=1,
        layer_types=["sliding_attention"],
        vocab_size=8,
        attn_implementation="sdpa",
    )
    layer, wide, narrow = Gemma3DecoderLayer(config, 0), Gemma3RMSNorm(HIDDEN), Gemma3RMSNorm(HEAD_SIZE)
    half, single = torch.float16, torch.float32

    def angles(n_tokens: int) -> tuple[Tensor, Tensor]:
        return torch.ones(1, n_tokens, HEAD_SIZE), torch.ones(1, n_tokens, HEAD_SIZE)

    def run_layer(states: Tensor) -> Tensor:
        result = layer(states, position_embeddings=angles(states.shape[1]), attention_mask=None)
        return result[0] if isinstance(result, tuple) else result

    def rotate(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return apply_rotary_pos_emb(q, k, *angles(q.shape[2]))

    def gate(one: Tensor, other: Tensor) -> Tensor:
        return nn.functional.gelu(one, approximate="tanh") * other

    both = HEADS + 1  # of the queries, and the one of the keys
    pieces = {  # how often in a layer, bytes with plain kernels, bytes with a fused one
        "norm of fp32": (2, count_bytes_a_token(wide, (0, HIDDEN, single)), HIDDEN * 4 * FUSED_NORM),
        "norm of fp16": (2, count_bytes_a_token(wide, (0, HIDDEN, half)), HIDDEN * 2 * FUSED_NORM),
        "norm of a head": (both, count_bytes_a_token(narrow, (1, HEAD_SIZE, half)), HEAD_SIZE * 2 * FUSED_NORM),
        "gated product": (1, count_bytes_a_token(gate, *[(0, INNER, half)] * 2), INNER * 2 * FUSED_GATE),
        "rotation": (
            1,
            count_bytes_a_token(rotate, (HEADS, HEAD_SIZE, half), (1, HEAD_SIZE, half)),
            both * HEAD_SIZE * 2 * FUSED_ROTATION,
        ),
    }
    plain = count_bytes_a_token(run_layer, (0, HIDDEN, single))
    saved = sum(times * (one - fused) for times, one, fused in pieces.values())
    return {"plain": plain, "fused": plain - saved, "pieces": pieces}


def count_weights() -> dict[str, float]:
    """Return the element-wise bytes of the weights of a whole model, for each micro-batch and for each step.

    A micro-batch adds its fp16 gradients to those that are there: read 2, write 4, read 8, write 4 bytes a weight; and
    the embedding's once more in fp32: write 4 (zeros), read 8, write 4. A step casts the weights to fp16 (6 bytes),
    divides the gradients by the scale, measures and clips them (20), lets AdamW read four numbers of each weight and
    write three (28), and sets the gradients to zero (4).
    """
    return {"micro_batch": (BODY + HEAD) * 18 + HEAD * 16, "step": (BODY + HEAD) * (6 + 20 + 28 + 4)}


def estimate_step(layer: dict[str, Any], n_tokens: float, fused: bool) -> dict[str, float]:
    """Return the seconds of a training step on one T4, by what takes them.

    Args:
        layer: What count_layer returned.
        n_tokens: Tokens of the step.
        fused: Whether fused kernels compute norms, gated products and rotations.
    """
    weights, share = count_weights(), n_tokens / H100["tokens"]
    profiled = LAYERS * layer["plain"] * H100["tokens"] + weights["micro_batch"] + weights["step"]
    efficiency = profiled / (H100["elementwise"] * H100_BANDWIDTH)  # of the H100's bandwidth, by the profile
    micro_batches = math.ceil(n_tokens / T4_MICRO_BATCH)
    moved = LAYERS * layer["fused" if fused else "plain"] * n_tokens
    moved += weights["micro_batch"] * micro_batches + weights["step"]
    launches = H100["launches"] * micro_batches * (FUSED_LAUNCHES if fused else 1)
    parts = {
        "products": H100["products"] * share * H100_RATE / T4_RATE,
        "attention": H100["attention"] * share * H100_RATE / T4_RATE,
        "elementwise": moved / (T4_BANDWIDTH * efficiency),
    }
    return {**parts, "launches": launches * T4_LAUNCH, "step": max(sum(parts.values()), launches * T4_LAUNCH)}


def estimate_training(layer: dict[str, Any], n_rows: int, n_epochs: float) -> dict[str, Any]:
    """Return the seconds of a step and of a whole training, by kernels and number of T4s."""
    steps, results = math.ceil(n_rows / STEP_ROWS) * n_epochs, {}
    evaluated = EVALUATIONS * CHOOSING_ROWS / STEP_ROWS / 3  # in steps: a forward pass is a third of one
    for kernels in ("plain", "fused"):
        for gpus in (1, 2):
            step = estimate_step(layer, STEP_ROWS * ROW_TOKENS / gpus, kernels == "fused")
            step["exchange"] = EXCHANGED / PCIE if gpus > 1 else 0.0
            seconds = (step["step"] + step["exchange"]) * steps + step["step"] * evaluated
            whole = seconds * (1 + CHECKPOINT_SHARE) + SAVED / DISK
            results[f"{kernels} kernels, {gpus} x T4"] = {**step, "training": whole}
    return results


def render_estimate(result: dict[str, Any]) -> str:
    """Write the Markdown table of docs/training.md."""
    names = ("products", "attention", "elementwise", "launches", "exchange")
    lines = [
        "| seconds of a step | products | attention | element-wise | launches | exchange | step | whole training |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for way, one in result["ways"].items():
        cells = [f"{one[name]:.2f}" for name in names] + [f"{one['step'] + one['exchange']:.2f}"]
        lines.append(f"| {way} | " + " | ".join(cells) + f" | {one['training'] / 60:.1f} min |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--out", default="", help="also write the JSON object there: results/estimate.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    layer = count_layer()
    for name, (times, plain, fused) in layer["pieces"].items():
        print(f"{name}: {times} x {plain / 1e3:.1f} kB a token and layer, fused {times} x {fused / 1e3:.1f} kB")
    print(f"all element-wise: {layer['plain'] / 1e3:.0f} kB a token and layer, {layer['fused'] / 1e3:.0f} kB fused")
    ways = estimate_training(layer, options.rows, options.epochs)
    result = {"benchmark": "estimate", "rows": options.rows, "epochs": options.epochs, "layer": layer, "ways": ways}
    result["checkpoints_as_they_were"] = OLD_CHECKPOINTS * CHECKPOINT_BYTES / DISK
    print(render_estimate(result))
    print(f"seven checkpoints of 3.2 GB, as it was: {result['checkpoints_as_they_were']:.0f} s more")
    if options.out:
        write_text(Path(options.out), json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
