"""How a training is computed: the plan with its reasons, and the trainer that follows it.

Knows the numbers of a training, a model and encoded rows; translates them to TRL's and transformers' names, those that
hold from transformers 5.0 on. What the rows mean and what becomes of the model is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from fgtools.files import InputError, is_watched
from fgtools.models.device import Precision, choose_precision, detect_capability, weights_precision
from fgtools.profiles import Recipe, Training
from fgtools.prompts import IGNORED, Encoded
from fgtools.train.callbacks import LastStep, OneLine, RequireFinite
from fgtools.train.checkpoints import KEPT
from fgtools.train.memory import MicroBatches, choose_micro_batches, free_activation_bytes
from fgtools.train.trainer import LabelledPositionsTrainer

EVALUATIONS = 6
"""Evaluations, and checkpoints, during one training, spread evenly; the tutorial recipe evaluates every 10 steps."""

LOG_ENTRIES = 100
"""Entries of the log in one training, about."""


@dataclass(frozen=True)
class Plan:
    """How a training is computed.

    Attributes:
        engine: "labelled" or "trl".
        engine_reason: Why.
        precision: The format of the computation.
        micro_batches: How a step is cut; the `trl` engine takes the checkpointing alone.
        in_place: Whether head and embedding add to their gradients in place.
        world: Processes.
        log_every: Optimizer steps between entries of the log.
        evaluate_every: Optimizer steps between evaluations.
        save_every: Optimizer steps between checkpoints.
    """

    engine: str
    engine_reason: str
    precision: Precision
    micro_batches: MicroBatches
    in_place: bool
    world: int
    log_every: int
    evaluate_every: int
    save_every: int

    def describe(self) -> str:
        """Give a line for each decision, with its reason."""
        kept = "computed twice (checkpointing)" if self.micro_batches.checkpointing else "kept (no checkpointing)"
        lines = [
            f"engine {self.engine}: {self.engine_reason}",
            f"precision {self.precision.name}: {self.precision.reason}",
        ]
        if self.engine == "labelled":
            place = "one process on a CPU, where their traffic is the second cost" if self.in_place else "off"
            lines += [
                f"activations {kept}: {self.micro_batches.reason}",
                f"gradients of head and embedding in place: {place}",
            ]
        return "\n".join(lines)


def plan_training(
    config: Training, recipe: Recipe, model: PreTrainedModel, rows: Sequence[Encoded], world: int
) -> Plan:
    """Decide how a training is computed.

    Args:
        config: Its numbers.
        recipe: Says what is supervised.
        model: The model, on its device.
        rows: The training rows.
        world: Processes it runs in.

    Returns:
        The Plan.

    Raises:
        ValueError: The rows of a step cannot be shared out among the processes, or the precision is unknown.
    """
    text = model.config.get_text_config()
    capped = getattr(text, "final_logit_softcapping", None) is not None
    engine, reason = config.engine, "logits at labelled positions alone, steps cut by tokens"
    if recipe.loss != "completion":
        engine, reason = "trl", "every position carries a label, as in the tutorial"
    elif capped:
        engine, reason = "trl", "the model caps its logits, which the labelled engine does not know"
    elif engine == "trl":
        reason = "asked for by name"
    on_cpu = model.device.type == "cpu"
    precision = choose_precision(detect_capability(model.device), config.precision)
    if model.dtype != torch.float32:
        precision = Precision(weights_precision(model.dtype), "the weights themselves are, as in the tutorial")
    lengths = [len(row.input_ids) for row in rows]
    labels = sum(label != IGNORED for row in rows for label in row.labels)
    micro = choose_micro_batches(
        text, max(lengths), labels / sum(lengths), free_activation_bytes(model), config.gradient_checkpointing
    )
    if engine == "trl" and config.rows_per_step % world:
        raise InputError(
            f"the rows of a step must share out among the processes, but {config.rows_per_step} do not among {world}: "
            "change BATCH_SIZE or the number of processes"
        )
    steps = math.ceil(math.ceil(len(rows) / config.rows_per_step) * config.epochs)
    log = 10 if recipe.name == "tutorial" else max(1, steps // LOG_ENTRIES)
    evaluate = 10 if recipe.name == "tutorial" else log * max(1, round(steps / EVALUATIONS / log))
    save = evaluate * max(1, round(steps / EVALUATIONS / evaluate))
    in_place = engine == "labelled" and on_cpu and world == 1 and precision.name == "fp32"
    return Plan(engine, reason, precision, micro, in_place, world, log, evaluate, save)


def build_trainer(
    plan: Plan,
    config: Training,
    recipe: Recipe,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    sides: tuple[Sequence[Encoded], Sequence[Encoded]],
    folder: Path,
    *,
    resumed: bool,
    callbacks: Sequence[TrainerCallback],
) -> SFTTrainer:
    """Build the trainer that follows a plan.

    Args:
        plan: The plan.
        config: The numbers of the training.
        recipe: Its recipe.
        model: The model, or a PEFT model.
        tokenizer: Its tokenizer.
        sides: Training and evaluation rows.
        folder: Where checkpoints go.
        resumed: Whether it goes on from a checkpoint.
        callbacks: More callbacks.

    Returns:
        The trainer; fp16 needs `norms.widened_norms` around its `train`, and `labelled.restore_forward` comes last.
    """
    arguments = _build_arguments(plan, config, recipe, model, folder, resumed)
    watched = is_watched()
    own: list[TrainerCallback] = [LastStep(), RequireFinite(), *([] if watched else [OneLine()]), *callbacks]
    if config.patience:
        own.append(EarlyStoppingCallback(config.patience))
    options: dict[str, Any] = {
        "model": model,
        "args": arguments,
        "train_dataset": _build_dataset(sides[0]),
        "eval_dataset": _build_dataset(sides[1]),
        "processing_class": tokenizer,
        "callbacks": own,
    }
    if plan.engine == "labelled":
        trainer: SFTTrainer = LabelledPositionsTrainer(
            rows_per_step=config.rows_per_step,
            micro_batches=plan.micro_batches,
            precision=plan.precision,
            in_place=plan.in_place,
            **options,
        )
    else:
        trainer = SFTTrainer(**options)
    trainer.remove_callback(PrinterCallback)
    if not watched:
        trainer.remove_callback(ProgressCallback)
    return trainer


def _build_dataset(rows: Sequence[Encoded]) -> Dataset:
    return Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]})


def _build_arguments(
    plan: Plan, config: Training, recipe: Recipe, model: torch.nn.Module, folder: Path, resumed: bool
) -> SFTConfig:
    on_cpu = next(model.parameters()).device.type == "cpu"
    labelled = plan.engine == "labelled"
    per_step = -(-config.rows_per_step // plan.world)
    at_once = per_step if labelled else math.gcd(config.batch_size, per_step)
    names = {field.name for field in fields(SFTConfig)}
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    choice = "eval_choice" if labelled else "eval_loss"
    # The labelled engine casts by itself; fp16 on a GPU needs accelerate's gradient scaler all the same.
    precision = plan.precision.name
    return SFTConfig(
        output_dir=str(folder),
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=at_once,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=1 if labelled else per_step // at_once,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_fraction,  # below 1 it is a share of the steps; warmup_ratio is gone
        optim="adamw_torch_fused",
        logging_steps=plan.log_every,
        logging_nan_inf_filter=False,  # it would write an average in place of a loss that is not finite
        eval_strategy="steps",
        eval_steps=plan.evaluate_every,
        eval_on_start=not resumed,
        save_strategy="steps",
        save_steps=plan.save_every,
        save_total_limit=KEPT,
        metric_for_best_model=choice if config.choose_best or config.patience else None,
        greater_is_better=labelled,
        report_to="none",
        packing=False,
        max_length=None,  # fitted, or cut as the tutorial cuts, before
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=precision == "bf16" and not labelled,
        fp16=precision == "fp16" and not on_cpu,
        use_cpu=on_cpu,
        seed=config.seed,
        disable_tqdm=not is_watched(),
        ddp_find_unused_parameters=False,
        **{checkpointing: plan.micro_batches.checkpointing},
    )
