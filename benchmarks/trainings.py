"""The ways of a whole training that are compared: ours, TRL's and the tutorial's, each from a model built anew.

One pass over the rows in steps of 16 rows, optimizer, evaluations and saving included:

- ours: `fgtools.train.train` as a user calls it, encoding included
- ours, plain kernels: the same without Liger's kernels; left out where liger-kernel or a GPU is missing
- trl: SFTTrainer at its best settings: bf16 autocast, batches of 16, no checkpointing, Liger's kernels where they are
  installed; evaluations, saves and the best model at the end, as often as ours evaluates
- trl alone: the same with neither evaluations nor saves
- tutorial: its own arguments: batches of 2, 8 of them a step, checkpointing, loss on every token of rows cut at 512,
  weights as they are loaded, an evaluation every 10 steps, checkpoints as TRL writes them by default

The ways of TRL get rows that are encoded already, which is time they do not pay for. Knows how to train; not how it is
timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.records import find_version
from benchmarks.shapes import build_model, find_vocabulary, load_rows, synchronize
from fgtools.models.device import choose_device_and_dtype, detect_capability
from fgtools.prompts import Encoded, encode_rows
from fgtools.rows import Row
from fgtools.train import train, training_arguments
from fgtools.train.restarts import RestartableTrainer
from fgtools.train.trainer import LabelledPositionsTrainer

ROWS_A_STEP = 16
CUT = 512


@dataclass(frozen=True)
class Workload:
    """What every way trains on.

    Attributes:
        shape: Of the model.
        device: "cpu" or "cuda".
        rows: Row dicts to train on, and to evaluate on.
        tokenizer: Their tokenizer.
        encoded: The same rows as ids and labels.
    """

    shape: str
    device: str
    rows: tuple[Sequence[Row], Sequence[Row]]
    tokenizer: Any
    encoded: tuple[list[Encoded], list[Encoded]]

    def sides(self, number: int) -> tuple[Sequence[Row], list[Encoded]]:
        """Return the rows of one side, 0 training and 1 evaluation, as dicts and encoded."""
        return self.rows[number], self.encoded[number]

    def first(self, n_rows: int) -> Workload:
        """Return the same with the first training rows, or with all of them again and again."""
        (train_rows, eval_rows), (train_set, eval_set) = self.rows, self.encoded
        numbers = [number % len(train_rows) for number in range(n_rows)]
        rows, encoded = [train_rows[number] for number in numbers], [train_set[number] for number in numbers]
        return replace(self, rows=(rows, eval_rows), encoded=(encoded, eval_set))


def load_workload(shape: str, device: str, n_rows: int, n_eval: int, data: str, tokenizer: str) -> tuple[Workload, str]:
    """Load rows and encode them, without those that do not fit; the first `n_eval` are held out for evaluations.

    Args:
        shape: As for `shapes.build_model`.
        device: "cpu" or "cuda".
        n_rows: Rows, those held out included.
        n_eval: Rows held out.
        data: As for `shapes.load_rows`.
        tokenizer: As for `shapes.load_rows`.

    Returns:
        The workload, and where rows and tokenizer are from.
    """
    rows, tokenizer, origin = load_rows(n_rows, data, tokenizer, find_vocabulary(shape))
    encoded = encode_rows(rows, tokenizer, "native", training_arguments("native").max_length)
    too_long = {one.row_id for one in encoded.too_long}
    kept = [row for row in rows if row["row_id"] not in too_long]
    ids = list(encoded.encoded)
    work = Workload(shape, device, (kept[n_eval:], kept[:n_eval]), tokenizer, (ids[n_eval:], ids[:n_eval]))
    return work, f"{origin}, {len(rows) - len(kept)} too long"


class Clock(TrainerCallback):
    """When steps and passes ended, and the last loss."""

    def __init__(self, device: str) -> None:
        self.device, self.steps, self.all_steps, self.loss = device, 0, 0, float("nan")
        self.passes: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the beginning."""
        self._note()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step."""
        self.steps, self.all_steps = state.global_step, state.max_steps

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the end of a pass."""
        self._note()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Keep the loss."""
        self.loss = logs.get("loss", self.loss)

    def _note(self) -> None:
        synchronize(self.device)
        self.passes.append(time.perf_counter())


def has_liger(device: str) -> bool:
    """Return whether Liger's kernels can run."""
    return device == "cuda" and find_version("liger-kernel") != "not installed"


def train_ours(work: Workload, folder: Path, clock: Clock, epochs: int = 1, evaluate: bool = True) -> Any:
    """Train as a user of fgtools does; return the model."""
    model = build_model(work.shape, work.device)
    model.to(choose_device_and_dtype(detect_capability(model.device)).dtype)
    numbers = {"epochs": epochs, "batch_size": ROWS_A_STEP, "n_rows": len(work.rows[0])}
    config = training_arguments("native", **numbers, output_dir=folder / "checkpoints")
    config.use_cpu = work.device == "cpu"
    if not evaluate:
        config.eval_strategy = config.save_strategy = "no"
        config.eval_on_start = config.load_best_model_at_end = False
        config.metric_for_best_model = None
    train(model, work.tokenizer, *work.rows, config, folder / "model", "native", callbacks=[clock])
    return model


def train_trl(work: Workload, folder: Path, clock: Clock, epochs: int = 1, evaluate: bool = True) -> Any:
    """Train with SFTTrainer at its best settings; return the model."""
    model = build_model(work.shape, work.device)
    ours = training_arguments("native", epochs=epochs, batch_size=ROWS_A_STEP, n_rows=len(work.rows[0]))
    watched = {name: getattr(ours, name) for name in ("eval_strategy", "eval_steps", "eval_on_start")}
    watched |= {"save_strategy": "steps", "save_steps": ours.eval_steps, "save_total_limit": 2}
    watched |= {"load_best_model_at_end": True}  # for which TRL needs a checkpoint at every evaluation
    arguments = SFTConfig(
        **_plain_arguments(work, folder, ours),
        **(watched if evaluate else {"eval_strategy": "no", "save_strategy": "no"}),
        per_device_train_batch_size=ROWS_A_STEP,
        per_device_eval_batch_size=ROWS_A_STEP,
        gradient_checkpointing=False,
        num_train_epochs=epochs,
        bf16=work.device == "cuda" and torch.cuda.get_device_capability() >= (8, 0),
        use_liger_kernel=has_liger(work.device),
    )
    return _run_trl(model, arguments, work, work.encoded, clock, same_batches=epochs > 1, save=evaluate)


def train_tutorial(work: Workload, folder: Path, clock: Clock) -> Any:
    """Train as the tutorial does; return the model."""
    model = build_model(work.shape, work.device)
    model.to(choose_device_and_dtype(detect_capability(model.device)).dtype)
    tutorial = training_arguments("tutorial", n_rows=len(work.rows[0]))
    arguments = SFTConfig(
        **_plain_arguments(work, folder, tutorial),
        **{name: getattr(tutorial, name) for name in ("eval_strategy", "eval_steps")},
        per_device_train_batch_size=tutorial.per_device_train_batch_size,
        gradient_accumulation_steps=tutorial.gradient_accumulation_steps,
        gradient_checkpointing=True,
        num_train_epochs=1,
        bf16=work.device == "cuda" and torch.cuda.get_device_capability() >= (8, 0),
    )
    sides = tuple([Encoded(row.input_ids[:CUT], row.input_ids[:CUT], 0) for row in side] for side in work.encoded)
    return _run_trl(model, arguments, work, sides, clock, same_batches=False, save=True)


def _plain_arguments(work: Workload, folder: Path, numbers: SFTConfig) -> dict[str, Any]:
    same = ("learning_rate", "lr_scheduler_type", "warmup_steps", "optim", "logging_steps", "seed", "disable_tqdm")
    return {
        **{name: getattr(numbers, name) for name in same},
        "output_dir": str(folder / "checkpoints"),
        "report_to": "none",
        "use_cpu": work.device == "cpu",
        "max_length": None,  # the rows are cut or fit
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


def _run_trl(
    model: Any, arguments: SFTConfig, work: Workload, sides: Any, clock: Clock, *, same_batches: bool, save: bool
) -> Any:
    train_set, eval_set = (
        Dataset.from_dict({"input_ids": [row.input_ids for row in side], "labels": [row.labels for row in side]})
        for side in sides
    )
    options = {"train_dataset": train_set, "eval_dataset": eval_set if arguments.eval_strategy != "no" else None}
    trainer = SFTTrainer(model, arguments, processing_class=work.tokenizer, callbacks=[clock], **options)
    if same_batches:  # in every pass, so that shapes have been seen
        trainer._get_train_sampler = lambda *_: SequentialSampler(train_set)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    if save:
        trainer.save_model(arguments.output_dir)
    return model


def list_ways(device: str) -> dict[str, Callable[[Workload, Path, Clock], Any]]:
    """Return the ways by name, ours first and the slowest last."""
    plain = {"ours, plain kernels": without_liger} if has_liger(device) else {}
    return {
        "ours": train_ours,
        "trl": train_trl,
        "trl alone": lambda *given: train_trl(*given, evaluate=False),
        **plain,
        "tutorial": train_tutorial,
    }


def without_liger(work: Workload, folder: Path, clock: Clock) -> Any:
    """Train ours with plain kernels."""
    with mock.patch.object(LabelledPositionsTrainer, "_fused_kernels", RestartableTrainer._fused_kernels):
        return train_ours(work, folder, clock)
