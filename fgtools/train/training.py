"""Training in one call, and what is recorded of it.

Knows the steps in their order: encode, build the trainer, train, choose the checkpoint, save. Notebook 4 makes the same
calls one by one. Knows no profiles, run folders or commands.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig

from fgtools.models import save_model
from fgtools.models.device import peak_memory_bytes
from fgtools.models.load import require_control_tokens
from fgtools.profiles import Recipe
from fgtools.prompts import IGNORED, encode_rows
from fgtools.train.arguments import DEFAULT_OUTPUT, describe_arguments
from fgtools.train.checkpoints import remove_checkpoints
from fgtools.train.choice import Choice, choose_checkpoint
from fgtools.train.deadline import StopInTime
from fgtools.train.restarts import RestartableTrainer
from fgtools.train.trainer import build_trainer


@dataclass(frozen=True)
class TrainResult:
    """What a training did.

    Attributes:
        n_train: Rows trained on.
        n_eval: Rows of the evaluation loss, by which the checkpoint may be chosen.
        n_too_long: Training rows left out because they do not fit the budget.
        n_unlabelled: Training rows left out because a cut took all of their labels.
        n_without_context: Training rows that fit once the oldest turns of their context were dropped.
        n_pruned: Training rows that fit once declarations of tools they do not call were dropped.
        steps: Optimizer steps taken.
        updates: Those of them that could change the weights: with a rate above 0, and not skipped by fp16's scaler.
        saved_step: The step whose weights were saved: the last, or a better one.
        tokens: Tokens seen in all epochs, padding left out.
        label_tokens: Those of them that carried a label.
        seconds: Wall-clock time of the training loop, evaluations and checkpoints included, breaks left out.
        checkpoints: Checkpoints written on the way, since a break if there was one.
        checkpoints_failed: Checkpoints that could not be written.
        checkpoint_seconds: What writing them and copying the best weights took of `seconds`.
        peak_memory_bytes: Largest memory in use: of the GPU's allocator, or of the process on a CPU.
        engine: "labelled" or "trl".
        precision: "fp32", "bf16" or "fp16", as it ended.
        processes: Processes it ran in.
        resumed_at: The step it went on from; 0: from the beginning.
        patience: Evaluations without a better one after which it would stop; 0: never.
        lora_rank: Rank of the adapters that were trained; 0: the weights were.
        candidates: As in Choice.
        stopped: Why it ended before its last step for want of time; "" where it did not.
        warning: As in Choice.
        arguments: Every value of the SFTConfig that was in force, by name.
        left_out: Ids of the training rows that do not fit the budget.
        history: The trainer's log entries in order: step, epoch, loss, eval_loss, mean_token_accuracy, ... Losses are
            means over labels, with the `trl` engine over batches.
    """

    n_train: int
    n_eval: int
    n_too_long: int
    n_unlabelled: int
    n_without_context: int
    n_pruned: int
    steps: int
    updates: int
    saved_step: int
    tokens: int
    label_tokens: int
    seconds: float
    checkpoints: int
    checkpoints_failed: int
    checkpoint_seconds: float
    peak_memory_bytes: int
    engine: str
    precision: str
    processes: int
    resumed_at: int
    patience: int
    lora_rank: int
    candidates: tuple[dict[str, int], ...]
    stopped: str
    warning: str
    arguments: dict[str, Any]
    left_out: tuple[str, ...]
    history: tuple[dict[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of train.json, with the tokens per second of wall-clock time, padding left out."""
        lists = {name: list(getattr(self, name)) for name in ("history", "candidates", "left_out")}
        return {**vars(self), **lists, "tokens_per_second": self.tokens / self.seconds if self.seconds else 0.0}


def describe_training(trainer: RestartableTrainer, choice: Choice) -> TrainResult:
    """Return what a training did.

    Args:
        trainer: The trainer, after its `train`.
        choice: What choose_checkpoint returned.
    """
    task, state = trainer.task, trainer.state
    rows, held = task.sides
    passes = state.epoch or 0.0
    return TrainResult(
        n_train=len(rows.rows),
        n_eval=len(held.rows),
        n_too_long=len(rows.given.too_long),
        n_unlabelled=len(rows.given.encoded) - len(rows.rows),
        n_without_context=len(rows.given.without_context),
        n_pruned=len(rows.given.pruned),
        steps=state.global_step,
        updates=trainer.updates.count,
        saved_step=choice.step,
        tokens=round(passes * sum(len(row.input_ids) for row in rows.rows)),
        label_tokens=round(passes * sum(label != IGNORED for row in rows.rows for label in row.labels)),
        seconds=trainer.seconds,
        checkpoints=trainer.writer.written,
        checkpoints_failed=trainer.writer.failed,
        checkpoint_seconds=trainer.writer.seconds + trainer.keeping_seconds,
        peak_memory_bytes=peak_memory_bytes(trainer.args.device),
        engine=task.plan.engine,
        precision=task.plan.precision.name,
        processes=task.plan.world,
        resumed_at=task.checkpoint.step if task.checkpoint else 0,
        patience=task.patience,
        lora_rank=task.lora_rank,
        candidates=choice.candidates,
        stopped="".join(one.stopped for one in task.callbacks if isinstance(one, StopInTime)),
        warning=choice.warning,
        arguments={**describe_arguments(task.arguments), "output_dir": Path(task.arguments.output_dir).name},
        left_out=tuple(row.row_id for row in rows.given.too_long),
        history=tuple(dict(entry) for entry in state.log_history),
    )


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows_train: Sequence[Mapping[str, Any]],
    rows_eval: Sequence[Mapping[str, Any]],
    config: SFTConfig,
    out_dir: str | Path,
    recipe: str | Recipe = "native",
    *,
    patience: int = 0,
    lora_rank: int = 0,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainResult:
    """Fine-tune a model on rows and save it.

    In several processes, each calls this with the same arguments and the first one saves.

    Args:
        model: The model; trained in place.
        tokenizer: Its tokenizer, with chat template.
        rows_train: Row dicts to train on.
        rows_eval: Row dicts for the evaluation loss and the choice of the checkpoint; never trained on.
        config: The numbers of the training, as `training_arguments` returns them. Checkpoints lie in its output_dir,
            or beside `out_dir` where it names none, and are deleted once the model is saved.
        out_dir: Folder of the tuned model, replaced as a whole once training is done.
        recipe: "native", "tutorial" or a Recipe.
        patience: As for build_trainer.
        lora_rank: As for build_trainer.
        resume: As for build_trainer.
        callbacks: As for build_trainer.

    Returns:
        The TrainResult.

    Raises:
        TrainingError: As build_trainer, its trainer's `train`, and choose_checkpoint.
        ModelError: The tokenizer splits the marks of a call.
        CheckpointError: As build_trainer.
    """
    require_control_tokens(tokenizer)
    out_dir = Path(out_dir)
    if Path(config.output_dir).name == DEFAULT_OUTPUT:
        config = copy.copy(config)
        config.output_dir = str(out_dir.with_name(out_dir.name + ".checkpoints"))
    train_set, dev_set = (encode_rows(rows, tokenizer, recipe, config.max_length) for rows in (rows_train, rows_eval))
    options = {"patience": patience, "lora_rank": lora_rank, "resume": resume, "callbacks": callbacks}
    trainer = build_trainer(model, tokenizer, train_set, dev_set, config, recipe, **options)
    trainer.train()
    choice = choose_checkpoint(trainer, tokenizer, rows_eval, recipe)
    result = describe_training(trainer, choice)
    if PartialState().is_main_process:
        save_model(model, tokenizer, out_dir, recipe)
    remove_checkpoints(trainer)
    return result
