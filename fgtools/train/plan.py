"""How a training is computed: the rows of every optimizer step, the micro-batches of a step, format and engine.

Knows lengths in tokens, a model's shape, free memory and the arguments of a training; not tensors or trainers. An
optimizer step has a fixed number of rows, drawn from windows that are sorted by length, so that the rows of a step are
of like length while windows and steps come in random order. A step is cut into micro-batches by tokens, padding
counted: how many fit is a matter of memory and changes neither the rows of a step nor its gradient. On a GPU the
largest micro-batch is the fastest; on a CPU a small one is, since rows of unlike length are padded to the longest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from trl import SFTConfig

from fgtools.files import InputError, is_watched
from fgtools.models.device import (
    TRAINING_SHARE,
    Precision,
    choose_cpu_precision,
    choose_precision,
    detect_capability,
    free_memory_bytes,
    weights_precision,
)
from fgtools.models.half import describe_large_norms
from fgtools.models.lora import count_adapter_weights
from fgtools.profiles import WINDOW_STEPS, Recipe
from fgtools.prompts import IGNORED, Encoded
from fgtools.train.arguments import TrainingError, copy_arguments, default_metric, rows_per_step
from fgtools.train.saving import Saving, Sizes, measure_room, plan_saving

CPU_ACTIVATIONS = 96 * 2**20
"""Bytes of activations of one micro-batch on a CPU: room for some six rows of the offline sample in the stand-in."""

CPU_TOKENS = 600
"""Tokens of one micro-batch on a CPU, where CPU_ACTIVATIONS has room for fewer. In FunctionGemma's shape every
micro-batch adds its gradients to 1 GB, so a step of 16 rows of 183 tokens takes 18.7 s and not 23.1, as row by row
(fp32, two threads; in bf16 13.7 and 18.8: docs/training.md). At 4,000 tokens the padding costs more than that."""

STATES = 3  # of the size of a trained weight, that it needs beside itself: its gradient and AdamW's two states


@dataclass(frozen=True)
class MicroBatches:
    """How an optimizer step is cut.

    Attributes:
        tokens: Tokens of one micro-batch at most, padding included.
        checkpointing: Whether activations are recomputed in the backward pass, to save memory.
        reason: Why, for people.
    """

    tokens: int
    checkpointing: bool
    reason: str


@dataclass(frozen=True)
class Plan:
    """How a training is computed.

    Attributes:
        engine: "labelled" or "trl".
        engine_reason: Why.
        precision: The format of the computation.
        micro_batches: How a step is cut; the `trl` engine takes the checkpointing alone.
        world: Processes.
        metric: The figure of an evaluation by which the best weights are known; None: none are.
        saving: When checkpoints are written.
        notes: What differs from the arguments, and why.
    """

    engine: str
    engine_reason: str
    precision: Precision
    micro_batches: MicroBatches
    world: int
    metric: str | None
    saving: Saving
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return a line for each decision, with its reason."""
        micro = self.micro_batches
        kept = "computed twice (checkpointing)" if micro.checkpointing else "kept (no checkpointing)"
        lines = [
            f"engine {self.engine}: {self.engine_reason}",
            f"precision {self.precision.name}: {self.precision.reason}",
            *([f"activations {kept}: {micro.reason}"] if self.engine == "labelled" else []),
            self.saving.reason,
            *self.notes,
        ]
        return "\n".join(lines)


def plan_training(
    arguments: SFTConfig,
    recipe: Recipe,
    model: PreTrainedModel,
    rows: Sequence[Encoded],
    world: int,
    patience: bool,
    lora_rank: int = 0,
) -> Plan:
    """Return how a training is computed.

    Args:
        arguments: Its numbers.
        recipe: Says what is supervised, and by which engine.
        model: The model, on its device.
        rows: The training rows.
        world: Processes it runs in.
        patience: Whether it stops where its evaluations get no better.
        lora_rank: Rank of the adapters that are trained; 0: the weights are.

    Raises:
        TrainingError: The rows of a step cannot be shared out among the processes, the GPU's memory does not hold what
            training needs beside the model, or the disk does not hold the tuned model.
    """
    engine, reason = choose_engine(recipe, model)
    notes = []
    n_rows = rows_per_step(arguments)
    if engine == "trl" and n_rows % world:
        raise TrainingError(
            f"the rows of a step must share out among the processes, but {n_rows} do not among {world}: change "
            "BATCH_SIZE or the number of processes"
        )
    sizes = measure_sizes(model, lora_rank)
    saving = plan_saving(arguments, sizes, *measure_room(Path(arguments.output_dir)))
    lengths = [len(row.input_ids) for row in rows]
    labels = sum(label != IGNORED for row in rows for label in row.labels)
    micro = choose_micro_batches(
        model.config.get_text_config(),
        max(lengths),
        labels / sum(lengths),
        free_activation_bytes(model.device, sizes.trained),
        arguments.gradient_checkpointing or None,
    )
    context, longest = model.config.get_text_config().max_position_embeddings, max(lengths)
    if (arguments.max_length or 0) > context:
        beyond = f"above the model's context of {context:,} tokens, which all rows fit: the longest has {longest:,}"
        notes.append(f"MAX_LENGTH {arguments.max_length:,}: {beyond}")
    size, share = arguments.per_device_train_batch_size, n_rows // world
    if engine == "trl" and math.gcd(size, share) != size:
        notes.append(f"batches of {math.gcd(size, share)} rows, not {size}: a process has {share} rows of a step")
    compared = arguments.load_best_model_at_end or patience or saving.when == "best"
    metric = (arguments.metric_for_best_model or default_metric(engine)) if compared else None
    if engine == "trl" and metric in ("eval_choice", "eval_exact_match", "choice", "exact_match"):
        metric = default_metric(engine)
        notes.append(f"metric_for_best_model {metric}: the engine 'trl' does not count whole rows")
    if arguments.load_best_model_at_end and not recipe.choose_best:
        notes.append("load_best_model_at_end: the evaluation rows choose the checkpoint, so they flatter its scores")
    return Plan(engine, reason, plan_precision(arguments, model), micro, world, metric, saving, tuple(notes))


def plan_precision(arguments: SFTConfig, model: PreTrainedModel) -> Precision:
    """Return the format that a training computes in: the arguments', unless the weights themselves decide it."""
    capability = detect_capability(model.device)
    precision = choose_precision(capability)
    asked = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32"
    if model.dtype != torch.float32:
        precision = Precision(weights_precision(model.dtype), "the weights themselves are, as in the tutorial")
    elif asked != precision.name:
        fast = choose_cpu_precision()
        precision = fast if capability is None and asked == fast.name else Precision(asked, "asked for by name")
    if precision.name == "fp16" and model.dtype == torch.float32 and (beyond := describe_large_norms(model)):
        precision = Precision("fp32", beyond)
    return precision


def choose_engine(recipe: Recipe, model: PreTrainedModel) -> tuple[str, str]:
    """Return the engine that computes a training, and why."""
    if getattr(model.config.get_text_config(), "final_logit_softcapping", None) is not None:
        return "trl", "the model caps its logits, which the labelled engine does not know"
    if recipe.engine == "labelled":
        return "labelled", "logits at labelled positions alone, steps cut by tokens"
    return "trl", "every position carries a label, as in the tutorial" if recipe.loss == "all" else "asked for by name"


def translate_arguments(arguments: SFTConfig, plan: Plan, resumed: bool) -> SFTConfig:
    """Return the arguments that transformers' trainer is given in one process, so that it does what the given ones say.

    Args:
        arguments: The arguments; they are not changed.
        plan: The plan.
        resumed: Whether the training goes on from a checkpoint.
    """
    labelled = plan.engine == "labelled"
    share = -(-rows_per_step(arguments) // plan.world)
    at_once = share if labelled else math.gcd(arguments.per_device_train_batch_size, share)
    asked = arguments.metric_for_best_model
    changes = {
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": 1 if labelled else share // at_once,
        "gradient_checkpointing": plan.micro_batches.checkpointing,
        "bf16": plan.precision.name == "bf16" and not labelled,  # the labelled engine casts by itself
        "fp16": plan.precision.name == "fp16" and not arguments.use_cpu,  # on a GPU it needs accelerate's scaler
        "max_length": None,  # the rows fit
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "load_best_model_at_end": False,  # choose_checkpoint does it
        "save_strategy": "no",  # SaveWhenDue asks for checkpoints
        "save_total_limit": None,  # CheckpointWriter deletes older ones, once a new one is complete
        "metric_for_best_model": plan.metric,
        "greater_is_better": arguments.greater_is_better if plan.metric == asked else labelled,
        "eval_on_start": arguments.eval_on_start and not resumed,
        "disable_tqdm": arguments.disable_tqdm or not is_watched(),
        "ddp_find_unused_parameters": bool(arguments.ddp_find_unused_parameters),
    }
    inner = copy_arguments(arguments, **changes)
    if hasattr(inner, "activation_checkpointing"):  # the name that transformers reads from 5.23 on
        inner.activation_checkpointing = plan.micro_batches.checkpointing
    return inner


def estimate_activation_bytes(config: Any, label_share: float, checkpointing: bool = False) -> int:
    """Return an estimate of the memory that one token's activations take in training, in bytes.

    Counted from what Gemma 3's layers keep for the backward pass, in fp32: norms 12 times the hidden width, queries,
    keys and values three times, the gated MLP four times its width. A labelled position adds its logits three times.

    Args:
        config: A Gemma 3 text config.
        label_share: Share of the positions that carry a label, in [0, 1].
        checkpointing: Whether only the layers' inputs are kept.
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
        tokens = max(CPU_TOKENS, CPU_ACTIVATIONS // per_token)
        reason = f"a CPU is fastest with little padding; {tokens} tokens at once"
        return MicroBatches(tokens, bool(checkpointing), reason)
    tokens = int(TRAINING_SHARE * free_bytes / per_token)
    if checkpointing is None and tokens < longest:
        smaller = choose_micro_batches(config, longest, label_share, free_bytes, checkpointing=True)
        reason = f"the longest row, {longest} tokens, does not fit without"
        if smaller.tokens < longest:
            reason += ", and by the estimate not even so: lower MAX_LENGTH or set LORA_RANK if a step fails"
        return MicroBatches(smaller.tokens, True, reason)
    reason = f"{tokens} tokens of about {per_token / 2**20:.1f} MiB fit the {free_bytes / 2**30:.1f} GiB left for them"
    return MicroBatches(max(1, tokens), bool(checkpointing), reason)


def saved_dtype(model: PreTrainedModel) -> torch.dtype:
    """Return the format that a model is saved in: the one it was loaded in, though training may have widened it."""
    loaded = getattr(model.config, "dtype", None)
    return loaded if model.dtype == torch.float32 and isinstance(loaded, torch.dtype) else model.dtype


def measure_sizes(model: PreTrainedModel, lora_rank: int) -> Sizes:
    """Return what a training of a model writes, and how much of it is trained.

    Args:
        model: The model, without adapters.
        lora_rank: Rank of the adapters that are to be trained; 0: the weights are.
    """
    n_weights = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    written = sum(weight.nbytes for weight in model.parameters())
    if lora_rank:
        written = trained = torch.float32.itemsize * count_adapter_weights(model, lora_rank)
    return Sizes(n_weights * saved_dtype(model).itemsize, written, trained)


def free_activation_bytes(device: torch.device, trained_bytes: int) -> int | None:
    """Return the memory of a GPU that training leaves for activations, in bytes; None on a CPU.

    Args:
        device: Where the model is.
        trained_bytes: Size of the weights that are trained.

    Raises:
        TrainingError: It does not even hold gradients and AdamW's states.
    """
    free, needed = free_memory_bytes(device), STATES * trained_bytes
    if free is not None and free < needed:
        raise TrainingError(
            "the GPU's memory must hold gradients and AdamW's states of the trained weights beside the model, "
            f"{needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free: set LORA_RANK (--lora-rank), such as 16, "
            "or end other programs on the GPU"
        )
    return None if free is None else free - needed


def plan_steps(lengths: Sequence[int], rows_per_step: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the rows that each optimizer step of an epoch trains on.

    Args:
        lengths: Tokens of each row.
        rows_per_step: Rows of one step, over all processes; the last one drawn may have fewer.
        seed: Seed of the order.
        epoch: Pass over the rows, from 0; another one has another order.

    Returns:
        Row numbers by step; every row is in exactly one step, longest rows first within it.

    Raises:
        ValueError: rows_per_step is not positive.
    """
    if rows_per_step < 1:
        raise InputError(f"rows_per_step must be at least 1, got {rows_per_step}")
    draw = random.Random(f"{seed}:{epoch}")
    order = list(range(len(lengths)))
    draw.shuffle(order)
    window = rows_per_step * WINDOW_STEPS
    steps = []
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window], key=lambda row: -lengths[row])
        steps += [rows[first : first + rows_per_step] for first in range(0, len(rows), rows_per_step)]
    draw.shuffle(steps)
    return steps


def split_by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut rows into micro-batches whose tokens, padding included, stay within a budget.

    Args:
        lengths: Tokens of each row.
        budget: Tokens of one micro-batch: its rows times its longest row. A row longer than that is alone.

    Returns:
        Row numbers by micro-batch, longest rows first, so that a budget too large for the memory shows at once.
    """
    batches: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
            longest = lengths[row]
    return batches
