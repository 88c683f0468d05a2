"""The trainers of both engines: `build_trainer`, and TRL's trainer with the loss at labelled positions alone.

A thin subclass: optimizer, schedule, clipping, logging, callbacks, checkpoints and accelerate stay transformers' own.
One batch of the data loader is one optimizer step of this process; `training_step` cuts it by tokens. The loss is the
sum over the labels divided by the labels of the whole step, over all micro-batches and processes, so how a step is cut
or shared out changes no gradient. What is supervised was decided when the rows were encoded, in `prompts`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers import set_seed as set_every_seed
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig

from fgtools.models.attention import varied_shapes
from fgtools.models.device import Precision, casts_kept, peak_memory_bytes
from fgtools.models.load import hash_weights
from fgtools.models.lora import add_adapters
from fgtools.profiles import MEASURED_ROWS, Recipe, get_recipe
from fgtools.prompts import IGNORED, Encoded, EncodedRows
from fgtools.train.arguments import TrainingError, check_arguments, deciding_values, rows_per_step
from fgtools.train.checkpoints import Checkpoint, find_checkpoint, identify_training
from fgtools.train.estimate import choose_measured_rows, describe_estimate, is_real_size, measure_speed, plan_work
from fgtools.train.fused import fused_kernels
from fgtools.train.loss import LabelSums, patch_forward, restore_forward
from fgtools.train.plan import Plan, choose_engine, plan_steps, plan_training, saved_dtype
from fgtools.train.prefix import can_pack, count_padded, cut_rows, describe_shared, measure_shared, take_rows
from fgtools.train.restarts import CountSkips, NotFinite, RestartableTrainer, Task, TellEpoch
from fgtools.train.sides import check_side, require_readable


def build_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_set: EncodedRows | Sequence[Encoded],
    dev_set: EncodedRows | Sequence[Encoded],
    arguments: SFTConfig,
    recipe: str | Recipe = "native",
    *,
    patience: int = 0,
    lora_rank: int = 0,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> RestartableTrainer:
    """Build the trainer of a model on encoded rows; its `train` does the rest.

    Args:
        model: The model; trained in place, in fp32 where the recipe says so.
        tokenizer: Its tokenizer, with chat template.
        train_set: Rows to train on, encoded with the arguments' max_length.
        dev_set: Rows of the evaluations during training, by which the checkpoint may be chosen; never trained on.
        arguments: The numbers of the training, of which every one holds; they are not changed.
        recipe: "native", "tutorial" or a Recipe.
        patience: Evaluations without a better one after which training stops; 0: never.
        lora_rank: Rank of the LoRA adapters that are trained in place of the weights; 0: the weights are.
        resume: Whether to go on from this training's newest checkpoint in output_dir, if there is one.
        callbacks: More callbacks, such as one that draws the log.

    Returns:
        The trainer, a trl.SFTTrainer.

    Raises:
        TrainingError: A value of the arguments would not hold, no row of a side fits, or the model cannot read a row.
        CheckpointError: output_dir holds another training's checkpoints, or this one's and `resume` is False.
    """
    recipe = get_recipe(recipe)
    if min(patience, lora_rank) < 0:
        raise TrainingError(f"PATIENCE and LORA_RANK must be positive, or 0 for none, got {patience} and {lora_rank}")
    if hasattr(model, "peft_config"):
        raise TrainingError("a training must start from a plain model, but this one has adapters: load it again")
    restore_forward(model)
    engine, _ = choose_engine(recipe, model)
    arguments = check_arguments(arguments, engine)
    budget = arguments.max_length
    sides = check_side(train_set, "training", budget), check_side(dev_set, "evaluation", budget)
    require_readable(model, tokenizer, sides)
    dtype = saved_dtype(model)
    start = hash_weights(model, dtype)
    if recipe.master_weights == "fp32":
        model.float()
    world = PartialState().num_processes
    plan = plan_training(arguments, recipe, model, sides[0].rows, world, bool(patience), lora_rank)
    numbers = {**deciding_values(arguments), "engine": engine, "patience": patience, "lora_rank": lora_rank}
    numbers |= {name: getattr(recipe, name) for name in ("name", "loss", "master_weights", "warmup_from_zero")}
    identity = identify_training(numbers, [side.rows for side in sides], model)
    plan, checkpoint = _start_from(plan, Path(arguments.output_dir), identity, resume)
    set_every_seed(arguments.seed)  # the first values of adapters are random
    trained = add_adapters(model, lora_rank)
    begun = (plan, identity, checkpoint, dtype, start, recipe.warmup_from_zero)
    task = Task(trained, tokenizer, sides, arguments, *begun, patience, lora_rank, tuple(callbacks))
    return LabelledPositionsTrainer(task) if engine == "labelled" else RestartableTrainer(task)


def _start_from(plan: Plan, folder: Path, identity: str, resume: bool) -> tuple[Plan, Checkpoint | None]:
    """Find the checkpoint to go on from, in whose format it goes on, and print how the training is computed."""
    checkpoint = find_checkpoint(folder, identity, resume)
    if checkpoint is not None and checkpoint.precision != plan.precision.name:
        plan = replace(plan, precision=Precision(checkpoint.precision, "the checkpoint it goes on from was"))
    if PartialState().is_main_process:
        print(plan.describe(), flush=True)
        if checkpoint is not None:
            print(f"going on from the checkpoint after step {checkpoint.step}", flush=True)
    return plan, checkpoint


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


class _Window:
    """What happened since the last entry of the log."""

    def __init__(self) -> None:
        self.right: Tensor | int = 0
        self.labels: Tensor | int = 0
        self.tokens = self.padded = 0
        self.seconds = 0.0

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


class LabelledPositionsTrainer(RestartableTrainer):
    """SFTTrainer that trains on whole steps, cut by tokens, with logits at labelled positions alone.

    From its construction to the end of its training, the model's forward returns LabelSums: see `loss`.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        alone = self.args.world_size == 1 and self.args.device.type == "cpu" and task.plan.precision.name != "fp16"
        patch_forward(self.model, in_place=alone)  # after TRL has put its own forward there
        self.precision, self.tokens = task.plan.precision, task.plan.micro_batches.tokens
        self.packs = can_pack(task.model)
        if PartialState().is_main_process:
            ids, labels = ([getattr(row, name) for row in task.sides[0].rows] for name in ("input_ids", "labels"))
            print(describe_shared(self._measure_shared(ids, labels), list(map(len, ids))), end="", flush=True)
        self.steps = StepSampler(
            [len(ids) for ids in self.train_dataset["input_ids"]],
            rows_per_step(task.arguments),
            self.args.seed if self.args.data_seed is None else self.args.data_seed,
            self.args.process_index,
            self.args.world_size,
        )
        self.add_callback(TellEpoch(self.steps))
        self.add_callback(CountSkips(self.accelerator))
        self._window = _Window()

    def get_train_dataloader(self) -> DataLoader:
        """Return the steps of this process; not prepared by accelerate, since they are shared out already."""
        return DataLoader(self.train_dataset, batch_sampler=self.steps, collate_fn=self._collate)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return the evaluation batches of this process, cut by tokens."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        ids, labels = list(rows["input_ids"]), list(rows["labels"])
        batches = cut_rows(list(map(len, ids)), self._measure_shared(ids, labels), self.tokens)
        mine = batches[self.args.process_index :: self.args.world_size]
        return DataLoader(rows, batch_sampler=mine, collate_fn=self._collate)

    def _collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        blank = {"input_ids": [self._tokenizer.pad_token_id], "labels": [IGNORED]}  # a share of a step may be empty
        ids, labels = ([row[name] for row in rows] for name in ("input_ids", "labels"))
        return {**self.data_collator(list(rows) or [blank]), "shared": self._measure_shared(ids, labels)}

    def _measure_shared(self, ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> int:
        return measure_shared(ids, labels) if self.packs else 0

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
        if not torch.isfinite(everywhere):  # in every process at once, or the others would wait forever
            raise NotFinite(f"the loss is {everywhere.item()} at step {self.state.global_step + 1}")
        self._window.seconds += time.perf_counter() - started  # the check above has waited for the GPU
        return loss

    def _step(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        labels = (inputs["labels"][:, 1:] != IGNORED).sum().to(self.args.device)
        count = self.accelerator.reduce(labels, "sum") if self.args.world_size > 1 else labels
        lengths = inputs["attention_mask"].sum(1).tolist()
        parts = cut_rows(lengths, inputs.get("shared", 0), self.tokens)
        loss = torch.zeros((), device=self.args.device)
        with casts_kept():
            for number, rows in enumerate(parts, start=1):
                part = take_rows(inputs, rows, lengths[rows[0]])
                unsynced = number < len(parts) and self.args.world_size > 1
                with self.accelerator.no_sync(model) if unsynced else contextlib.nullcontext():
                    loss = loss + super().training_step(model, part, count)
        self._window.tokens += sum(lengths)
        self._window.padded += count_padded(lengths, parts, inputs.get("shared", 0))
        return loss

    def _fused_kernels(self) -> AbstractContextManager[str]:
        return fused_kernels(self.task.model, self.args.device, self.precision.name, self._measure_batch)

    def _measure_batch(self) -> tuple[float, float]:
        """Return the loss of a few short rows and the norm of its gradients, which are not kept."""
        return self._measure_rows(sorted(self.train_dataset, key=lambda row: len(row["input_ids"]))[:MEASURED_ROWS])

    def _measure_rows(self, rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
        """Return the loss of rows, computed as one micro-batch, and the norm of its gradients, which are not kept."""
        model = self.task.model
        model.train()
        inputs = self._prepare_inputs(self._collate(rows))
        with self.compute_loss_context_manager():
            sums = self._read(model, inputs)
        (sums.loss / sums.labels.sum().clamp(min=1)).backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        model.zero_grad(set_to_none=True)
        return sums.loss.item(), norm

    def _estimate(self) -> str:
        """Return how long a training of real size will take on this CPU; "" on a GPU and in several processes."""
        if self.args.device.type != "cpu" or self.args.world_size > 1 or not is_real_size(self.task.model):
            return ""
        rows, held = (side.rows for side in self.task.sides)
        lengths = [len(row.input_ids) for row in rows]
        shared = self._measure_shared([row.input_ids for row in rows], [row.labels for row in rows])
        batches = choose_measured_rows(lengths, self.tokens, shared)
        speed = measure_speed(
            lambda one: self._measure_rows([self.train_dataset[row] for row in one]), batches, lengths
        )
        speed *= 0.75 if self.task.plan.micro_batches.checkpointing else 1  # the forward pass is computed twice
        done = self.task.checkpoint.step if self.task.checkpoint else 0
        work = plan_work(self.task.arguments, lengths, [len(row.input_ids) for row in held], done)
        return describe_estimate(work, speed, torch.get_num_threads())

    def compute_loss_context_manager(self) -> AbstractContextManager:
        """Return the autocast of the precision that was decided."""
        return self.precision.autocast(self.args.device.type)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the summed negative log-likelihood of a micro-batch's labels over the labels of the whole step."""
        sums = self._read(model, inputs)
        count = sums.labels.sum() if num_items_in_batch is None else num_items_in_batch
        if self.model.training:
            self._window.right += sums.right.sum()
            self._window.labels += sums.labels.sum()
        loss = sums.loss / torch.as_tensor(count).clamp(min=1) * self.args.world_size  # DDP averages the gradients
        return (loss, sums) if return_outputs else loss

    def _read(self, model: Any, inputs: Mapping[str, Any]) -> LabelSums:
        tensors = {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}
        return LabelSums(*model(**tensors, shared=inputs.get("shared", 0)))

    def evaluation_loop(self, dataloader: DataLoader, metric_key_prefix: str = "eval", **_: Any) -> EvalLoopOutput:
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
            sums += self._count_right(self._prepare_inputs(inputs))
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

    def measure_held_out(self) -> dict[str, float]:
        """Return the figures of an evaluation after training, by name as in the log; raises as evaluation_loop."""
        patch_forward(self.model)
        try:
            with varied_shapes(self.args.device):
                metrics = self.evaluation_loop(self.get_eval_dataloader()).metrics
        finally:
            restore_forward(self.model)
        self.callback_handler.on_predict(self.args, self.state, self.control, metrics)  # ends a progress bar
        return metrics

    def _count_right(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return loss, right labels, labels, right rows and rows of a batch; half by half where memory runs out."""
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                read = self._read(self.model, inputs)
            rows = read.labels > 0
            whole = rows & (read.right == read.labels)
            counts = (read.loss, read.right.sum(), read.labels.sum(), whole.sum(), rows.sum())
            return torch.stack([count.double() for count in counts])
        except torch.OutOfMemoryError:
            half = len(inputs["labels"]) // 2
            if not half:
                raise
        torch.cuda.empty_cache()
        print(f"out of memory: an evaluation batch is read again in parts of {half} rows", flush=True)
        self.tokens = min(self.tokens, half * inputs["labels"].shape[1])  # later evaluations have smaller batches
        everything, width = range(len(inputs["labels"])), inputs["labels"].shape[1]
        parts = [take_rows(inputs, rows, width) for rows in (everything[:half], everything[half:])]
        return self._count_right(parts[0]) + self._count_right(parts[1])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add token accuracy, speed, padding and memory to the entries of the training loss."""
        if "loss" in logs:
            logs = {**logs, **self._window.describe(self.accelerator, self.args.device)}
            self._window = _Window()
        super().log(logs, start_time)
