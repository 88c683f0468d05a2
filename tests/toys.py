"""What tests share: a training small enough for them, rows that fit it, the stand-in, golden cases."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from fgtools.offline import CHECKPOINT
from fgtools.offline.samples import build_samples
from fgtools.rows import build_rows

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"


def toy_arguments(
    recipe: str = "native",
    n_rows: int = 16,
    epochs: float = 2,
    batch_size: int = 4,
    precision: str = "auto",
    **changes: Any,
) -> Any:
    """Return the arguments of a training of seconds, with other fields of SFTConfig as they are given."""
    from fgtools.train.arguments import copy_arguments, training_arguments

    steps = math.ceil(math.ceil(n_rows / batch_size) * epochs)
    if recipe == "native":  # evaluations of so short a training, which by default has hardly any
        changes = {"eval_steps": max(1, round(steps / 6)), **changes}
    numbers = {"learning_rate": 2e-3, "epochs": epochs, "batch_size": batch_size, "precision": precision}
    arguments = training_arguments(recipe, seed=1, n_rows=n_rows, **numbers)
    return copy_arguments(arguments, **{"warmup_steps": 0.1, "gradient_checkpointing": False, **changes})


MEAL_TOOLS = [
    {
        "name": "meal_log",
        "description": "Log a meal.",
        "parameters": {
            "type": "object",
            "properties": {"dish": {"type": "string"}, "type": {"type": "integer"}},
            "required": ["dish"],
        },
    }
]
"""A tool with a parameter whose name the chat template hides."""


def small_rows(n_samples: int, n_rows: int) -> tuple[dict[str, Any], ...]:
    """Give rows with three tools at most, so that a prompt is short."""
    return tuple(row for row in build_rows(build_samples(n_samples, 11)).rows if len(row["tools"]) <= 3)[:n_rows]


def call_turn(text: str) -> str:
    """Return an assistant's turn that holds one call block."""
    return f"<tool_call>\n{text}\n</tool_call>"


def conversation(*values: str) -> list[dict[str, str]]:
    """Return raw turns, of a user and an assistant in turn."""
    return [{"from": "human" if index % 2 == 0 else "gpt", "value": value} for index, value in enumerate(values)]


def fresh_model() -> Any:
    """Load the stand-in, for a test that changes it; others take the fixture `model`."""
    from fgtools.models import load_model

    return load_model("standin", device="cpu", quiet=True)


def senseless_model(tokenizer: Any) -> Any:
    """Build a model of the stand-in's shape with random weights, whose head prefers marks of calls to all words.

    Left alone it writes nothing that is in the grammar; held to the grammar it comes to the end of most calls.
    """
    import torch

    from fgtools.calls.tokens import END_CALL, ESCAPE, START_CALL, START_RESPONSE

    model = fresh_model()
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.06 if weight.dim() > 1 else 0.3)
        head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
        head.weight.copy_(model.lm_head.weight)
        head.bias.zero_()
        head.bias[tokenizer.convert_tokens_to_ids([START_CALL, END_CALL, ESCAPE, "}", ","])] = 2.0
        head.bias[tokenizer.convert_tokens_to_ids(START_RESPONSE)] = 3.0
    model.lm_head = head
    return model


def save_odd_model(folder: Path) -> Path:
    """Save a random model with the stand-in's tokenizer, whose attention is not laid out as the stand-in's.

    Scores are scaled by 8 with heads of 32, every second one of four layers attends to the whole text, and no norm is
    left at its start, so that a conversion which takes any of these from Gemma 3's defaults computes something else.

    Args:
        folder: A folder that is not there yet.

    Returns:
        The folder.
    """
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    shutil.copytree(CHECKPOINT, folder)
    config = Gemma3TextConfig.from_pretrained(CHECKPOINT).to_dict()
    layers = ["sliding_attention", "full_attention"] * 2
    sizes = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "layer_types": layers}
    torch.manual_seed(3)
    model = Gemma3ForCausalLM(Gemma3TextConfig(**{**config, **sizes, "query_pre_attn_scalar": 8}))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


def tiny_model(n_layers: int = 2) -> Any:
    """Make a model that knows the stand-in's tokens, with random weights and few layers, for tests of the trainer.

    What they show holds for any model; the stand-in has more layers, and a step of it costs more.
    """
    import torch
    from transformers import AutoConfig, Gemma3ForCausalLM, GenerationConfig

    kinds = ["sliding_attention", "full_attention"]
    sizes = {"num_hidden_layers": n_layers, "layer_types": kinds * (n_layers // 2)}
    sizes |= {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "query_pre_attn_scalar": 16}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = Gemma3ForCausalLM(AutoConfig.from_pretrained(CHECKPOINT, **sizes))
    model.generation_config = GenerationConfig.from_pretrained(CHECKPOINT)
    return model.eval()


def load_cases(path: Path) -> list[dict[str, Any]]:
    """Read the cases of one JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def load_shared(name: str) -> list[dict[str, Any]]:
    """Read the shared vectors or rows, or skip the test where they are not."""
    if not (SHARED / name).is_file():
        pytest.skip(f"needs {name}, which is not part of the repository; tests/golden holds a sample")
    return load_cases(SHARED / name)
