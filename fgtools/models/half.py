"""fp16 matrix products over an fp32 residual stream, for GPUs whose tensor cores know fp16 alone.

Knows the modules of transformers' Gemma 3; not rows, tokenizers or how replies are decoded. Gemma 3's residual stream
exceeds 65,504, the largest number of fp16, so a model that is wholly in fp16 gives no numbers. The factors and results
of its matrix products are small.

- Training: under autocast, fp32 weights and an fp32 embedding keep the residual stream in fp32. What is added to it in
  fp16 are the results of norms, and how large these can become is known from their weights alone.
- Generation: the linear layers hold fp16 weights, the norms before them return fp16, the norms after them return fp32,
  and embedding and residual stream stay fp32. The result is compared with fp32 on some prompts before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fgtools.models.device import Precision, choose_generation_precision, detect_capability

BEFORE_PRODUCTS = ("input_layernorm", "pre_feedforward_layernorm", "norm")
"""Gemma 3's names of the norms whose results enter linear layers."""

AFTER_PRODUCTS = ("post_attention_layernorm", "post_feedforward_layernorm")
"""Gemma 3's names of the norms whose results are added to the residual stream."""

CHECKED_PROMPTS, CHECKED_TOKENS = 4, 32
"""How many prompts are computed in both formats before fp16 is used, and at how many of their last tokens the
probabilities are compared."""

FP16_MAX = torch.finfo(torch.float16).max

LARGEST_DIFFERENCE = 0.1
"""In nats: how far the log-probability of fp32's most likely token may be off in fp16, at every token that is compared.
Measured with `benchmarks/precision.py`: docs/training.md."""


@contextmanager
def generation_precision(model: Any, prompts: Sequence[Sequence[int]]) -> Iterator[Precision]:
    """Let a model generate, while the context lasts, in the format that `choose_generation_precision` names.

    Where that is fp16, some prompts are first computed in both formats, and fp32 is kept if they differ.

    Args:
        model: A Gemma 3 model, or a PEFT model around one.
        prompts: The prompts to be answered, as token ids; the first ones are compared.

    Yields:
        The format and why; the reason is "" where there was nothing to decide.
    """
    precision = choose_generation_precision(detect_capability(model.device), model.dtype)
    if precision.name != "fp16" or not prompts:
        yield precision
        return
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if reason := find_difference(inner, prompts[:CHECKED_PROMPTS]):
        yield Precision("fp32", f"fp16 products are left off, since {reason}")
        return
    with fp16_products(inner):
        yield precision


@contextmanager
def fp16_products(model: nn.Module) -> Iterator[None]:
    """Let a model compute its matrix products in fp16 while the context lasts; for inference.

    Its weights stay as they are: the linear layers hold fp16 copies meanwhile, 0.54 GB for FunctionGemma.

    Args:
        model: A Gemma 3 model whose weights are fp32.
    """
    with ExitStack() as undo:
        for name, module in model.named_modules():
            own = name.rpartition(".")[2]
            if isinstance(module, nn.Linear):
                weight = module._parameters["weight"]
                undo.callback(module._parameters.__setitem__, "weight", weight)
                module._parameters["weight"] = nn.Parameter(weight.detach().half(), requires_grad=False)
            elif own in BEFORE_PRODUCTS or type(module).__name__.endswith("RotaryEmbedding"):
                undo.callback(module.register_forward_hook(_halve_result).remove)
            elif own in AFTER_PRODUCTS:
                undo.callback(module.register_forward_pre_hook(_widen_input).remove)
        yield


def bound_norms(model: nn.Module) -> dict[str, float]:
    """Return what no result of a model's norms can exceed, whatever enters them.

    The mean square of n normalized numbers is 1 at most, so the largest of them is sqrt(n) at most. The norm multiplies
    it by its gain, 1 + weight.

    Args:
        model: A Gemma 3 model, or a PEFT model around one.

    Returns:
        The largest bound of each kind of norm, by Gemma 3's names, such as "post_feedforward_layernorm".
    """
    bounds: dict[str, float] = {}
    for name, norm in model.named_modules():
        if type(norm).__name__ == "Gemma3RMSNorm":
            kind, gain = name.rpartition(".")[2], (1 + norm.weight.detach().float()).abs().max().item()
            bounds[kind] = max(bounds.get(kind, 0.0), math.sqrt(norm.weight.numel()) * gain)
    return bounds


def describe_large_norms(model: nn.Module) -> str:
    """Return why a model cannot be trained under fp16 autocast; "" where no result of a norm can exceed fp16.

    Args:
        model: The model.
    """
    bounds = bound_norms(model)
    if not bounds:
        return "fp16 was left, since it needs Gemma 3's norms, whose largest result is known from their weights"
    kind = max(bounds, key=bounds.__getitem__)
    if bounds[kind] < FP16_MAX:
        return ""
    return f"fp16 was left, since the weights of a {kind} allow {bounds[kind]:,.0f} and fp16 ends at {FP16_MAX:,.0f}"


def products_dtype(model: Any) -> torch.dtype:
    """Return the dtype in which a causal model multiplies matrices now; in `fp16_products` not that of its weights."""
    return model.lm_head.weight.dtype


def find_difference(model: Any, prompts: Sequence[Sequence[int]]) -> str:
    """Return why a model's fp16 products cannot stand for fp32; "" where they can.

    Args:
        model: A causal model whose weights are fp32.
        prompts: Some prompts, as token ids.
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := {*BEFORE_PRODUCTS, *AFTER_PRODUCTS} - names:
        return f"the model has no {min(missing)}, as Gemma 3 has"
    try:
        differences = [measure_difference(model, prompt) for prompt in prompts]
    except torch.OutOfMemoryError:
        return "the memory does not hold the weights in both formats"
    for difference in differences:
        if not difference <= LARGEST_DIFFERENCE:  # so that a NaN is a difference
            return f"a log-probability differs by {difference:.3g} nats from fp32's, more than {LARGEST_DIFFERENCE}"
    return ""


def measure_difference(model: Any, prompt: Sequence[int]) -> float:
    """Return how far fp16 products change the log-probability of fp32's most likely token.

    Args:
        model: A causal model of Gemma 3's kind whose weights are fp32.
        prompt: Token ids.

    Returns:
        The largest difference over the last CHECKED_TOKENS tokens, in nats; nan where fp16 gives no number.
    """
    exact = _predict(model, prompt)
    with fp16_products(model):
        rounded = _predict(model, prompt)
    first = exact.argmax(-1, keepdim=True)
    return (rounded.gather(-1, first) - exact.gather(-1, first)).abs().max().item()


def _predict(model: Any, prompt: Sequence[int]) -> Tensor:
    """Return the log-probabilities of the next token at the last tokens of a prompt, [1, tokens, vocabulary]."""
    with torch.inference_mode():
        output = model.model(input_ids=torch.tensor([list(prompt)], device=model.device), use_cache=False)
        return model.lm_head(output.last_hidden_state[:, -CHECKED_TOKENS:]).float().log_softmax(-1)


def _halve_result(_module: nn.Module, _inputs: Any, result: Any) -> Any:
    return tuple(one.half() for one in result) if isinstance(result, tuple) else result.half()


def _widen_input(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].float(), *inputs[1:])
