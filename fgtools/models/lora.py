"""LoRA adapters through peft, trained in place of the weights and merged before a model is saved.

Knows peft and a model. All weights of FunctionGemma can be trained on a T4, so adapters are an option, not a need: they
take less memory for optimizer states, and change the model less.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from fgtools.files import InputError


def add_adapters(model: PreTrainedModel, rank: int) -> Any:
    """Return the model to train: itself, or a PEFT model around it with LoRA on every linear layer but the head.

    Args:
        model: The model.
        rank: Rank of the adapters, whose alpha is twice as much; 0 for none.

    Raises:
        InputError: There is a rank, and peft is not installed.
    """
    if not rank:
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise InputError("LORA_RANK needs the package peft, which is not installed: pip install peft") from error
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, settings)


def count_adapter_weights(model: PreTrainedModel, rank: int) -> int:
    """Return how many weights the adapters of `add_adapters` have: two matrices at every linear layer but the head."""
    head = model.get_output_embeddings()
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer is not head]
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)


def merge_adapters(model: Any) -> PreTrainedModel:
    """Return the model with its adapters merged into the weights; a model without adapters as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
