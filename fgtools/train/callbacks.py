"""What happens at the trainer's events: losses are checked, and a line is printed for each evaluation.

Knows the trainer's log; not rows, models or figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from fgtools.files import FgtoolsError
from fgtools.profiles import SKIPPED_STEPS


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
    """Evaluates and saves after the last step; older transformers do so only when it falls on the interval."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for both."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True


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


class CountSkips(TrainerCallback):
    """Counts the steps that the gradient scaler of fp16 skips, and ends a training that has too many."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator, self.skipped = accelerator, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count, and raise NotFinite at SKIPPED_STEPS."""
        self.skipped += bool(self.accelerator.optimizer_step_was_skipped)
        if self.skipped >= SKIPPED_STEPS:
            raise NotFinite(f"gradients overflowed in {self.skipped} of {state.global_step} steps")
