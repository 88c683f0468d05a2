"""What happens at the trainer's events: losses are looked at, a line is printed, curves grow for people who watch.

Knows the trainer's log and the session; not rows or models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback


class NotFinite(RuntimeError):
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


class LiveCurves(TrainerCallback):
    """Loss, token accuracy, learning rate, speed and memory, drawn anew at every evaluation, in a notebook."""

    def __init__(self) -> None:
        self.handle: Any = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the history so far in place of the last drawing."""
        if state.global_step == 0 or not state.is_world_process_zero:
            return
        import matplotlib.pyplot as plt
        from IPython.display import display

        from fgtools.report.curves import plot_training

        figure = plot_training(state.log_history).figure
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        plt.close(figure)
