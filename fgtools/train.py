"""Training: rows, a recipe and its numbers in; a tuned model and the story of its loss out.

A thin layer over TRL's SFTTrainer, which is given ready `input_ids` and `labels`: what is supervised is decided in
`prompts` and nowhere else. Knows nothing of profiles, run folders or scores.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, TrainerCallback
from transformers import set_seed as set_every_seed
from trl import SFTConfig, SFTTrainer

from fgtools.encoder import EncodedRows, encode_rows
from fgtools.models import save_model
from fgtools.profiles import Recipe, Training, get_recipe
from fgtools.progress import is_watched
from fgtools.prompts import IGNORED

EVALUATIONS = 10
"""Evaluations during one training, spread evenly; the tutorial recipe evaluates every 10 steps instead."""


class TrainingError(ValueError):
    """Training cannot start or went wrong; the message says what must hold."""


@dataclass(frozen=True)
class TrainResult:
    """What a training did.

    Attributes:
        n_train: Rows trained on.
        n_eval: Rows of the evaluation loss.
        n_too_long: Training rows left out because they do not fit the budget.
        n_without_context: Training rows that fit once the oldest turns of their context were dropped.
        n_pruned: Training rows that fit once declarations of tools they do not call were dropped.
        steps: Optimizer steps.
        tokens: Tokens seen in all epochs, padding left out.
        label_tokens: Those of them that carried a label.
        seconds: Wall-clock time of the training loop, its evaluations included.
        peak_memory_bytes: Largest memory in use: of the GPU's allocator, or of the process on a CPU.
        history: The trainer's log entries in order: step, epoch, loss, eval_loss, mean_token_accuracy, ... An eval_loss
            is the mean over batches of each batch's mean over its labels, so it moves a little with the batch size.
        folder: Where the tuned model was saved.
    """

    n_train: int
    n_eval: int
    n_too_long: int
    n_without_context: int
    n_pruned: int
    steps: int
    tokens: int
    label_tokens: int
    seconds: float
    peak_memory_bytes: int
    history: tuple[dict[str, float], ...]
    folder: Path

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of wall-clock time, padding left out."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object of train.json; the folder is left out."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "folder"}
        return {**values, "history": list(self.history), "tokens_per_second": self.tokens_per_second}


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows_train: Sequence[Mapping[str, Any]],
    rows_eval: Sequence[Mapping[str, Any]],
    config: Training,
    out_dir: str | Path,
    recipe: str | Recipe = "native",
    max_length: int | None = None,
) -> TrainResult:
    """Fine-tune a model on rows and save it.

    Args:
        model: The model; trained in place. bf16 weights are trained as fp32 master weights under bf16 autocast,
            except in the `tutorial` recipe, which trains them as they are.
        tokenizer: Its tokenizer, with chat template.
        rows_train: Row dicts to train on.
        rows_eval: Row dicts for the evaluation loss; never trained on.
        config: Learning rate, epochs, batch and seed.
        out_dir: Folder of the tuned model, replaced as a whole once training is done.
        recipe: "native", "tutorial" or a Recipe.
        max_length: Budget of one row, in tokens; None: the recipe's.

    Returns:
        The TrainResult.

    Raises:
        TrainingError: A split is empty or no row of it fits, or the loss is not finite.
    """
    recipe = get_recipe(recipe)
    budget = max_length or recipe.max_length
    set_every_seed(config.seed)
    train_set = _encode(rows_train, tokenizer, recipe, budget, "training")
    eval_set = _encode(rows_eval, tokenizer, recipe, budget, "evaluation")
    autocast = model.dtype == torch.bfloat16 and recipe.name != "tutorial"
    if autocast:
        model.float()  # at 5e-5 about half of all bf16 weights would never move
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = _build_arguments(config, recipe, model, autocast, len(train_set.encoded), scratch)
        trainer = _choose_trainer(model, recipe)(
            model=model,
            args=arguments,
            train_dataset=_build_dataset(train_set),
            eval_dataset=_build_dataset(eval_set),
            processing_class=tokenizer,
            callbacks=[] if is_watched() else [_OneLine()],
        )
        trainer.remove_callback(PrinterCallback)
        if not is_watched():
            trainer.remove_callback(ProgressCallback)
        started = time.perf_counter()
        outcome = trainer.train()
        seconds = time.perf_counter() - started
    history = tuple(dict(entry) for entry in trainer.state.log_history)
    _check_finite(history)
    if autocast:
        model.to(torch.bfloat16)
    folder = save_model(model, tokenizer, Path(out_dir))
    return TrainResult(
        n_train=len(train_set.encoded),
        n_eval=len(eval_set.encoded),
        n_too_long=len(train_set.too_long),
        n_without_context=len(train_set.without_context),
        n_pruned=len(train_set.pruned),
        steps=outcome.global_step,
        tokens=round(config.epochs * sum(len(row.input_ids) for row in train_set.encoded)),
        label_tokens=round(config.epochs * sum(label != -100 for row in train_set.encoded for label in row.labels)),
        seconds=seconds,
        peak_memory_bytes=_peak_memory(model),
        history=history,
        folder=folder,
    )


def _encode(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, budget: int, side: str
) -> EncodedRows:
    if not rows:
        raise TrainingError(f"the {side} split must hold rows, but it is empty: run 02_data with more rows")
    encoded = encode_rows(rows, tokenizer, recipe, budget)
    if not encoded.encoded:
        raise TrainingError(
            f"a {side} row must fit {budget} tokens, but all {len(rows)} are longer: raise MAX_LENGTH or offer fewer "
            "tools a row"
        )
    return encoded


def _build_dataset(rows: EncodedRows) -> Dataset:
    return Dataset.from_dict(
        {"input_ids": [row.input_ids for row in rows.encoded], "labels": [row.labels for row in rows.encoded]}
    )


def _build_arguments(
    config: Training, recipe: Recipe, model: PreTrainedModel, autocast: bool, n_rows: int, scratch: str
) -> SFTConfig:
    """Translate the numbers to TRL's names, those that hold from transformers 5.0 on."""
    per_step = config.batch_size * config.accumulation_steps
    steps = max(1, -(-n_rows // per_step) * config.epochs)
    on_cpu = model.device.type == "cpu"
    names = {field.name for field in dataclasses.fields(SFTConfig)}
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    by_length = recipe.name != "tutorial"  # rows of like length share a batch: less padding, the same rows
    sampling = (
        {"train_sampling_strategy": "group_by_length"}
        if "train_sampling_strategy" in names
        else {"group_by_length": True}
    )
    return SFTConfig(
        output_dir=scratch,
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation_steps,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_fraction,  # below 1 it is a share of the steps; warmup_ratio is gone
        optim="adamw_torch_fused",
        logging_steps=10,
        eval_strategy="steps",
        eval_steps=10 if recipe.name == "tutorial" else max(1, int(steps // EVALUATIONS)),
        eval_on_start=True,
        save_strategy="no",
        report_to="none",
        packing=False,
        max_length=None,  # fitted, or cut as the tutorial cuts, before
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=autocast or (model.dtype == torch.bfloat16 and not on_cpu),
        fp16=model.dtype == torch.float16,
        use_cpu=on_cpu,
        seed=config.seed,
        disable_tqdm=not is_watched(),
        **{checkpointing: config.gradient_checkpointing},
        **(sampling if by_length else {}),
    )


class LabelledPositionsTrainer(SFTTrainer):
    """SFTTrainer whose LM head reads the labelled positions alone: the same loss, a fraction of the work.

    In a completion-only recipe most positions carry no label, and the projection to the vocabulary is the largest part
    of a small model's work. One process; TRL's own loss serves several.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Give the summed negative log-likelihood of the labels divided by their number in the optimizer step."""
        inner = self.accelerator.unwrap_model(model)
        states = inner.model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        ).last_hidden_state[:, :-1]
        targets = inputs["labels"][:, 1:]
        labelled = targets != IGNORED
        logits, targets = inner.lm_head(states[labelled]).float(), targets[labelled]
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        count = torch.as_tensor(len(targets) if num_items_in_batch is None else num_items_in_batch).clamp(min=1)
        right = (logits.detach().argmax(-1) == targets).float().mean().item()
        self._metrics["train" if self.model.training else "eval"]["mean_token_accuracy"].append(right)
        return loss / count.to(loss.device)


def _choose_trainer(model: PreTrainedModel, recipe: Recipe) -> type[SFTTrainer]:
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    plain = getattr(model.config, "final_logit_softcapping", None) is None
    return LabelledPositionsTrainer if recipe.loss == "completion" and alone and plain else SFTTrainer


class _OneLine(TrainerCallback):
    """One line an evaluation, for runs that nobody watches."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **_: Any) -> None:
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        trained = f"loss {losses[-1]:.4f}  " if losses else ""
        accuracy = metrics.get("eval_mean_token_accuracy", float("nan"))
        print(
            f"step {state.global_step:>5}/{state.max_steps}  {trained}eval loss {metrics['eval_loss']:.4f}  "
            f"eval token accuracy {accuracy:.3f}",
            flush=True,
        )


def _check_finite(history: Sequence[Mapping[str, float]]) -> None:
    for entry in history:
        for key in ("loss", "eval_loss"):
            if key in entry and not abs(entry[key]) < float("inf"):
                raise TrainingError(
                    f"the loss must stay finite, but {key} is {entry[key]} at step {entry.get('step')}: lower "
                    "LEARNING_RATE, or train in fp32; the model was not saved"
                )


def _peak_memory(model: PreTrainedModel) -> int:
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    import resource  # not on Windows, where training without a GPU is not supported

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
