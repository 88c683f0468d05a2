"""A trainer that can start again: from its own checkpoint after a break, in fp32 when fp16 is not finite.

Knows TRL's trainer and its events, checkpoints and the plan of a training; not how the loss is computed. A model that
has gone through `train` computes as it did before: what trainers put in place of its forward is taken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from transformers import set_seed as set_every_seed
from transformers.trainer_utils import TrainOutput
from trl import SFTConfig, SFTTrainer

from fgtools.files import FgtoolsError, is_watched
from fgtools.models.attention import varied_shapes
from fgtools.models.device import Precision
from fgtools.profiles import FIRST_SCALE, FIRST_STEPS, SKIPPED_STEPS
from fgtools.train.arguments import TrainingError, rows_per_step
from fgtools.train.best import BestWeights
from fgtools.train.checkpoints import Checkpoint, CheckpointWriter, SaveWhenDue, find_checkpoint, remove_checkpoints
from fgtools.train.divergence import StopDiverged
from fgtools.train.estimate import TellTimeLeft, is_real_size
from fgtools.train.loss import restore_forward
from fgtools.train.plan import Plan, translate_arguments
from fgtools.train.sides import Side

if TYPE_CHECKING:
    from fgtools.train.choice import Choice


class NotFinite(FgtoolsError, RuntimeError):
    """A loss or a gradient is not a finite number; the message says which and when."""


class RequireFinite(TrainerCallback):
    """Ends a training whose loss is not finite, before such weights are saved."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:
        """Look at the losses of an entry; evaluations are logged before anything is saved."""
        for name in ("loss", "eval_loss"):
            if name in logs and not abs(logs[name]) < float("inf"):
                raise NotFinite(f"{name} is {logs[name]} at step {state.global_step}")


class LastStep(TrainerCallback):
    """Evaluates after the last step; older transformers do so only when it falls on the interval."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for it."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


class OneLine(TrainerCallback):
    """One line an evaluation, for runs that nobody watches."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **_: Any) -> None:
        """Print step, losses, token accuracy and, where they are known, whole rows right."""
        if not state.is_world_process_zero:
            return
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        parts = [
            f"step {state.global_step:>5}/{state.max_steps}",
            *([f"loss {losses[-1]:.4f}"] if losses else []),
            f"eval loss {metrics['eval_loss']:.4f}",
            f"eval token accuracy {metrics.get('eval_mean_token_accuracy', float('nan')):.3f}",
            *([f"rows right {metrics['eval_exact_match']:.3f}"] if "eval_exact_match" in metrics else []),
        ]
        print("  ".join(parts), flush=True)


class TellEpoch(TrainerCallback):
    """Tells the sampler which epoch begins, after a resume too."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the sampler's epoch."""
        self.sampler.epoch = int(state.epoch or 0)


class CountUpdates(TrainerCallback):
    """Counts the optimizer steps that could change the weights: with a rate above 0, and not skipped by fp16's scaler.

    Attributes:
        count: Those steps, the ones before a break included.
        largest_rate: The largest learning rate among the steps since then.
    """

    def __init__(self, accelerator: Any, count: int) -> None:
        self.accelerator, self.count, self.largest_rate, self._rate = accelerator, count, 0.0, 0.0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any, **_: Any) -> None:
        """Read the rate that the step is taken with."""
        self._rate = max(float(group["lr"]) for group in optimizer.param_groups)
        self.largest_rate = max(self.largest_rate, self._rate)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step."""
        self.count += self._rate > 0 and not self.accelerator.optimizer_step_was_skipped


class CountSkips(TrainerCallback):
    """Counts the steps that the gradient scaler of fp16 skips, and ends a training that has too many."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator, self.skipped = accelerator, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count, and raise NotFinite at SKIPPED_STEPS."""
        self.skipped += bool(self.accelerator.optimizer_step_was_skipped)
        if self.skipped >= SKIPPED_STEPS:
            raise NotFinite(f"gradients overflowed in {self.skipped} of {state.global_step} steps")


@dataclass(frozen=True)
class Task:
    """What a trainer is built from, once and again.

    Attributes:
        model: The model, or a PEFT model around it.
        tokenizer: Its tokenizer.
        sides: Training and evaluation rows.
        arguments: The numbers of the training, as they were given.
        plan: How it is computed.
        identity: The hash by which its checkpoints are known.
        checkpoint: Where it goes on from; None: from the beginning.
        dtype: Format in which the weights are saved.
        start: What models.load.hash_weights returns for the model it starts from, in that format.
        warmup_from_zero: As in Recipe.
        patience: Evaluations without a better one after which it stops; 0: never.
        lora_rank: Rank of the adapters that are trained; 0: the weights are.
        callbacks: The caller's.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    sides: tuple[Side, Side]
    arguments: SFTConfig
    plan: Plan
    identity: str
    checkpoint: Checkpoint | None
    dtype: torch.dtype
    start: str
    warmup_from_zero: bool
    patience: int
    lora_rank: int
    callbacks: Sequence[TrainerCallback]


class RestartableTrainer(SFTTrainer):
    """SFTTrainer with TRL's own loss and batches, and a `train` that needs no arguments."""

    def __init__(self, task: Task) -> None:
        self.task, self.started, self.seconds, self.keeping_seconds = task, False, 0.0, 0.0
        self.choice: Choice | None = None
        folder, limit = Path(task.arguments.output_dir), task.arguments.save_total_limit
        self.best = BestWeights(folder)
        self.writer = CheckpointWriter(folder, task.plan.saving, self.best, limit)
        own: list[TrainerCallback] = [LastStep(), RequireFinite(), StopDiverged()]
        own += [] if is_watched() else [OneLine()]
        own += [TellTimeLeft(rows_per_step(task.arguments))] if is_real_size(task.model) else []
        own += [SaveWhenDue(self.writer)]  # after those that ask for evaluations
        super().__init__(
            model=task.model,
            args=translate_arguments(task.arguments, task.plan, resumed=task.checkpoint is not None),
            train_dataset=task.sides[0].build_dataset(),
            eval_dataset=task.sides[1].build_dataset(),
            processing_class=task.tokenizer,
            callbacks=[*own, *task.callbacks, *([EarlyStoppingCallback(task.patience)] if task.patience else [])],
        )
        if self.accelerator.scaler is not None:  # fp16 on a GPU; the optimizer is not prepared yet
            self.accelerator.scaler = torch.amp.GradScaler(self.args.device.type, init_scale=FIRST_SCALE)
        self.remove_callback(PrinterCallback)
        self.updates = CountUpdates(self.accelerator, task.checkpoint.updates if task.checkpoint else 0)
        self.add_callback(self.updates)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        """Create the schedule of the arguments; where the recipe says so, with a warm-up that does not begin at 0."""
        is_new = self.lr_scheduler is None
        super().create_scheduler(num_training_steps, optimizer)
        if is_new and not self.task.warmup_from_zero:
            self.lr_scheduler = raise_warmup(self.lr_scheduler, self.args.get_warmup_steps(num_training_steps))
        return self.lr_scheduler

    def train(self) -> TrainOutput:
        """Train as the arguments say, from this training's newest checkpoint where it goes on from one.

        Called again after an interruption, it goes on from the newest checkpoint written before. fp16 that is not
        finite within the first FIRST_STEPS steps makes the training start again in fp32.

        Returns:
            What transformers' trainer returns.

        Raises:
            TrainingError: The loss is not finite, the memory does not hold a step, or the model has moved and there is
                no checkpoint to go on from.
        """
        if self.started:
            checkpoint = find_checkpoint(Path(self.task.arguments.output_dir), self.task.identity, resume=True)
            if checkpoint is None:
                raise TrainingError(
                    "a trainer starts from the model it was built with, but this one has trained it already and left "
                    "no checkpoint: load the model again and build another trainer"
                )
            self._build_again(checkpoint=checkpoint)
        plan = self.task.plan
        fragile = plan.precision.name == "fp16" and plan.engine == "labelled"
        start = {name: weight.detach().cpu().clone() for name, weight in self._trained()} if fragile else {}
        try:
            return self._train_once()
        except NotFinite as error:
            if not fragile or self.state.global_step > FIRST_STEPS or self.task.checkpoint is not None:
                raise TrainingError(
                    f"the loss must stay finite, but {error}: lower LEARNING_RATE, or set PRECISION to 'fp32'; the "
                    "model was not saved, checkpoints and an older model are as they were"
                ) from error
            reason = f"fp16 is not finite here ({error}), so training starts again"
        print(f"precision fp32: {reason}", flush=True)
        with torch.no_grad():
            for name, weight in self._trained():
                weight.copy_(start[name])
        remove_checkpoints(self)  # what it wrote in fp16 is not this training's
        self._build_again(plan=replace(plan, precision=Precision("fp32", reason)))
        return self._train_once()

    def _build_again(self, **changes: Any) -> None:
        """Build every part of this trainer anew: format and checkpoint are decided when it is built."""
        self.__init__(replace(self.task, **changes))  # type: ignore[misc]

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Keep the weights of an evaluation that is better than all before; after the last step they are there."""
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best:
            began, step = time.perf_counter(), self.state.global_step
            self.state.best_global_step = step
            if step >= self.state.max_steps:
                self.best.step = step
            elif self.task.arguments.load_best_model_at_end:
                if self.best.needed_file:  # they go to the disk, which need not hold more than two of everything
                    self.writer.make_room()
                self.best.keep(dict(self._trained()), step)
                self.writer.tidy()
            self.keeping_seconds += time.perf_counter() - began
            self.control.should_save |= self.task.plan.saving.when == "best"
        return is_best

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint whole or not at all, with the best weights so far; none of weights that are not finite."""
        for name, weight in self._trained():
            if not weight.sum().isfinite():  # one number that is not makes the sum so
                raise NotFinite(f"the weights {name} are not finite after step {self.state.global_step}")
        mark = {"identity": self.task.identity, "step": self.state.global_step, "seconds": self._clock()}
        mark |= {"precision": self.task.plan.precision.name, "updates": self.updates.count}
        self.writer.write(mark, lambda: super(RestartableTrainer, self)._save_checkpoint(model, trial))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights of a checkpoint, and those that were the best by then."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        checkpoint = self.task.checkpoint
        if checkpoint and checkpoint.best == checkpoint.step:
            self.best.keep(dict(self._trained()), checkpoint.step)
        elif checkpoint and checkpoint.best:
            self.best.load(checkpoint.best)

    def put_weights(self, best: bool) -> None:
        """Put the best weights into the model, or those of the last step; what was there is kept in their place."""
        if best != self.best.in_model:
            if self.best.needed_file:
                self.writer.make_room()
            self.best.exchange(dict(self._trained()))

    def _fused_kernels(self) -> AbstractContextManager[str]:
        """Return the context of faster kernels, which says what was decided; TRL's own trainer has none."""
        return nullcontext("")

    def _estimate(self) -> str:
        """Return how long the training will take where that is worth measuring; TRL's own trainer does not say."""
        return ""

    def measure_held_out(self) -> dict[str, float]:
        """Return the figures of the held-out rows after training; none: the forward of TRL is taken off by then."""
        return {}

    def saved_weights(self) -> dict[str, torch.nn.Parameter]:
        """Return the weights that are saved as they are; adapters are merged first, so they are none of them."""
        return {} if self.task.lora_rank else dict(self._trained())

    def _trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, weight) for name, weight in self.task.model.named_parameters() if weight.requires_grad]

    def _clock(self) -> float:
        """Return the seconds that this training has taken, those before a break included."""
        earlier = self.task.checkpoint.seconds if self.task.checkpoint else 0.0
        return earlier + time.perf_counter() - self.began

    def _train_once(self) -> TrainOutput:
        task, self.started, self.began = self.task, True, time.perf_counter()
        set_every_seed(task.arguments.seed)
        if self.args.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.args.device)
        try:
            with varied_shapes(self.args.device), self._fused_kernels() as line:
                for said in (line, self._estimate()):
                    if said and self.is_world_process_zero():
                        print(said, flush=True)
                return super().train(resume_from_checkpoint=str(task.checkpoint.folder) if task.checkpoint else None)
        except torch.OutOfMemoryError as error:
            reason = str(error).partition("\n")[0]
            raise TrainingError(
                f"a step of this training must fit the memory, but {reason}: lower MAX_LENGTH or BATCH_SIZE "
                "(--max-length, --batch-size), or set LORA_RANK (--lora-rank); checkpoints and an older model are "
                "as they were"
            ) from error
        finally:
            self.seconds = self._clock()
            restore_forward(task.model)


def raise_warmup(scheduler: LRScheduler, n_warmup: int) -> LRScheduler:
    """Return a schedule whose first step has a rate above 0.

    transformers gives warm-up step k of w, from 0, the share k / w of the peak. Here it is (k + 1) / (w + 1); all later
    steps are as they were. A schedule that begins above 0, or that depends on evaluations, is returned as it is.

    Args:
        scheduler: The schedule, before its first step.
        n_warmup: Its warm-up steps.
    """
    if not isinstance(scheduler, LambdaLR) or any(share(0) for share in scheduler.lr_lambdas):
        return scheduler

    def raised(share: Callable[[int], float]) -> Callable[[int], float]:
        return lambda step: (step + 1) / (n_warmup + 1) if step < n_warmup else share(step)

    return LambdaLR(scheduler.optimizer, [raised(share) for share in scheduler.lr_lambdas])
