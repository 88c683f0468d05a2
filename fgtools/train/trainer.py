"""TRL's trainer with an engine of its own: the rows of a step, the micro-batches it is cut into, the labelled loss.

A thin subclass: optimizer, schedule, clipping, logging, callbacks, checkpoints and accelerate stay transformers' own.
One batch of the data loader is one optimizer step of this process; `training_step` cuts it by tokens. The loss is the
sum over the labels divided by the labels of the whole step, over all micro-batches and processes, so how a step is cut
or shared out changes no gradient.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer

from fgtools.models.device import Precision, peak_memory_bytes
from fgtools.prompts import IGNORED
from fgtools.train.batches import plan_steps, split_by_tokens
from fgtools.train.callbacks import NotFinite
from fgtools.train.loss import LabelSums, read_labels
from fgtools.train.memory import MicroBatches

MOST_SKIPPED = 12
"""Steps the gradient scaler may skip: from 65,536 it has then halved down to 16, and gradients still overflow."""


class StepSampler(Sampler[list[int]]):
    """The rows this process trains on, by optimizer step; another order every epoch, the same on every machine."""

    def __init__(self, lengths: Sequence[int], rows_per_step: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.lengths, self.rows_per_step, self.seed, self.rank, self.world = lengths, rows_per_step, seed, rank, world
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.rows_per_step)

    def __iter__(self) -> Iterator[list[int]]:
        for rows in plan_steps(self.lengths, self.rows_per_step, self.seed, self.epoch):
            yield rows[self.rank :: self.world]  # sorted by length: every process gets long and short ones


class _Epochs(TrainerCallback):
    """Tells the sampler which epoch begins, after a resume too."""

    def __init__(self, sampler: StepSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.sampler.epoch = int(state.epoch or 0)


class _Skips(TrainerCallback):
    """Counts the steps that the gradient scaler of fp16 skips, and ends a training that has too many."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator, self.skipped = accelerator, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.skipped += bool(self.accelerator.optimizer_step_was_skipped)
        if self.skipped >= MOST_SKIPPED:
            raise NotFinite(f"gradients overflowed in {self.skipped} of {state.global_step} steps")


class _Window:
    """What happened since the last entry of the log."""

    def __init__(self) -> None:
        self.right: Tensor | int = 0
        self.labels: Tensor | int = 0
        self.tokens = self.padded = 0
        self.seconds = 0.0

    def add(self, sums: LabelSums) -> None:
        self.right = self.right + sums.right.sum()
        self.labels = self.labels + sums.labels.sum()

    def describe(self, accelerator: Any, device: torch.device) -> dict[str, float]:
        sums = [self.right, self.labels, self.tokens, self.padded, self.seconds]
        values = torch.stack([torch.as_tensor(one, dtype=torch.float64, device=device) for one in sums])
        if accelerator.num_processes > 1:
            values = accelerator.reduce(values, "sum")
        right, labels, tokens, padded, seconds = values.tolist()
        return {
            "mean_token_accuracy": right / max(1.0, labels),
            "tokens_per_second": tokens / seconds * accelerator.num_processes if seconds else 0.0,
            "padding_share": 1 - tokens / padded if padded else 0.0,
            "memory_gib": peak_memory_bytes(device) / 2**30,
        }


class LabelledPositionsTrainer(SFTTrainer):
    """SFTTrainer that trains on whole steps, cut by tokens, with logits at labelled positions alone.

    From its construction on, the model's forward gives LabelSums: see `labelled`.
    """

    def __init__(
        self,
        *args: Any,
        rows_per_step: int,
        micro_batches: MicroBatches,
        precision: Precision,
        in_place: bool = False,
        **options: Any,
    ) -> None:
        """Prepare as SFTTrainer does.

        Args:
            *args: As for SFTTrainer.
            rows_per_step: Rows of one optimizer step, over all processes.
            micro_batches: How a step is cut.
            precision: The format it computes in.
            in_place: Whether head and embedding add to their gradients in place; one process, fp32.
            **options: As for SFTTrainer.
        """
        super().__init__(*args, **options)
        read_labels(self.model, in_place)  # after TRL has put its own forward there
        self.precision, self.tokens = precision, micro_batches.tokens
        self.steps = StepSampler(
            [len(ids) for ids in self.train_dataset["input_ids"]],
            rows_per_step,
            self.args.seed,
            self.args.process_index,
            self.args.world_size,
        )
        self.add_callback(_Epochs(self.steps))
        self.add_callback(_Skips(self.accelerator))
        self._window = _Window()

    def get_train_dataloader(self) -> DataLoader:
        """Give the steps of this process; not prepared by accelerate, since they are shared out already."""
        return DataLoader(self.train_dataset, batch_sampler=self.steps, collate_fn=self._collate)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Give the evaluation batches of this process, cut by tokens."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        batches = split_by_tokens([len(ids) for ids in rows["input_ids"]], self.tokens)
        mine = batches[self.args.process_index :: self.args.world_size]
        return DataLoader(rows, batch_sampler=mine, collate_fn=self._collate)

    def _collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        blank = {"input_ids": [self._tokenizer.pad_token_id], "labels": [IGNORED]}  # a share of a step may be empty
        return self.data_collator(list(rows) or [blank])

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Compute one optimizer step's gradient, micro-batch by micro-batch.

        Raises:
            NotFinite: The loss is not a finite number.
            torch.OutOfMemoryError: A single row does not fit, or one of several processes ran out.
        """
        started = time.perf_counter()
        while True:
            try:
                loss = self._step(model, inputs)
                break
            except torch.OutOfMemoryError:
                longest = int(inputs["attention_mask"].sum(1).max())
                if self.args.world_size > 1 or self.tokens <= longest:
                    raise
                self.tokens = max(longest, self.tokens // 2)
                print(f"out of memory: the step is done again with micro-batches of {self.tokens} tokens", flush=True)
            model.zero_grad()
            torch.cuda.empty_cache()
        everywhere = self.accelerator.reduce(loss, "sum") if self.args.world_size > 1 else loss
        if not torch.isfinite(everywhere):  # in every process at once, or the others would wait for ever
            raise NotFinite(f"the loss is {everywhere.item()} at step {self.state.global_step + 1}")
        self._window.seconds += time.perf_counter() - started  # the check above has waited for the GPU
        return loss

    def _step(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        labels = (inputs["labels"][:, 1:] != IGNORED).sum().to(self.args.device)
        count = self.accelerator.reduce(labels, "sum") if self.args.world_size > 1 else labels
        lengths = inputs["attention_mask"].sum(1).tolist()
        parts = split_by_tokens(lengths, self.tokens)
        loss = torch.zeros((), device=self.args.device)
        for number, rows in enumerate(parts, start=1):
            part = {name: values[rows, : lengths[rows[0]]] for name, values in inputs.items()}
            unsynced = number < len(parts) and self.args.world_size > 1
            with self.accelerator.no_sync(model) if unsynced else contextlib.nullcontext():
                loss = loss + super().training_step(model, part, count)
        self._window.tokens += sum(lengths)
        self._window.padded += sum(lengths[rows[0]] * len(rows) for rows in parts)
        return loss

    def compute_loss_context_manager(self) -> AbstractContextManager:
        """Give the autocast of the precision that was decided."""
        return self.precision.autocast(self.args.device.type)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Give the summed negative log-likelihood of a micro-batch's labels over the labels of the whole step."""
        sums = self._read(model, inputs)
        count = sums.labels.sum() if num_items_in_batch is None else num_items_in_batch
        if self.model.training:
            self._window.add(LabelSums(*(one.detach() for one in sums)))
        loss = sums.loss / torch.as_tensor(count).clamp(min=1) * self.args.world_size  # DDP averages the gradients
        return (loss, sums) if return_outputs else loss

    def _read(self, model: Any, inputs: Mapping[str, Tensor]) -> LabelSums:
        return LabelSums(*model(**{name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}))

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Read every row once, without generating.

        Returns:
            Metrics over all rows and processes: `loss` over all labels; `mean_token_accuracy`; `exact_match`, the share
            of rows whose every label is the model's first choice, which is greedy generation's exact match; `choice`,
            by which checkpoints are chosen: exact_match, and at a tie the lower loss.

        Raises:
            NotFinite: The loss is not a finite number.
        """
        self.model.eval()
        self.callback_handler.eval_dataloader = dataloader
        sums = torch.zeros(5, dtype=torch.float64, device=self.args.device)
        for inputs in dataloader:
            inputs = self._prepare_inputs(inputs)
            with torch.no_grad(), self.compute_loss_context_manager():
                read = self._read(self.model, inputs)
            rows = read.labels > 0
            counts = (
                read.loss,
                read.right.sum(),
                read.labels.sum(),
                (rows & (read.right == read.labels)).sum(),
                rows.sum(),
            )
            sums += torch.stack([count.double() for count in counts])
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        if self.args.world_size > 1:
            sums = self.accelerator.reduce(sums, "sum")
        loss, right, labels, exact, rows = sums.tolist()
        loss /= max(1, labels)
        if not abs(loss) < float("inf"):
            raise NotFinite(f"the evaluation loss is {loss} at step {self.state.global_step}")
        metrics = {
            "loss": loss,
            "mean_token_accuracy": right / max(1, labels),
            "exact_match": exact / max(1, rows),
            "choice": (exact + 2.0**-loss) / max(1, rows),  # 2 ** -loss is less than one row
        }
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=named, num_samples=int(rows))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add token accuracy, speed, padding and memory to the entries of the training loss."""
        if "loss" in logs:
            logs = {**logs, **self._window.describe(self.accelerator, self.args.device)}
            self._window = _Window()
        super().log(logs, start_time)
