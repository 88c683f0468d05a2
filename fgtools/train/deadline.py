"""A training that must end by a time: it stops while there is still time to evaluate, choose and save.

Knows a clock and the trainer's events; not why the time is limited. After each step it asks whether another one, with
the evaluation and the checkpoint that may follow it, still fits; if not, the training ends with an evaluation of the
weights it has, from which the checkpoint is chosen and saved as after the last step.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from fgtools.files import InputError
from fgtools.train.best import anywhere
from fgtools.train.saving import estimate_seconds, render_duration

_RECENT_STEPS = 100
"""Steps of which the slowest stands for the next one."""

_FIRST_LOOK = 0.02
"""Share of the steps after which it is told that a training will not get through, 5 steps at least."""

_CHECKPOINT_COPIES = 4
"""What a checkpoint holds, in sizes of the trained weights: they, AdamW's two states and the best weights so far."""


class StopInTime(TrainerCallback):
    """Stops a training so early that its model is saved in time.

    Attributes:
        stopped: A sentence on why it ended before its last step; "" where it did not.
    """

    def __init__(self, seconds: float, reserve: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Count the time from now.

        Args:
            seconds: Until the model must be saved.
            reserve: Seconds of them kept for what follows the last evaluation: the best and the last weights answer
                rows, and the better ones are written.
            clock: Returns seconds.
        """
        if seconds <= 0 or reserve < 0:
            raise InputError(f"a training needs time, but got {seconds:.0f} s and a reserve of {reserve:.0f} s")
        self.clock, self.reserve, self.stopped = clock, reserve, ""
        self.began = self.mark = clock()
        self.deadline = self.began + seconds
        self.steps: deque[float] = deque(maxlen=_RECENT_STEPS)
        self.evaluation = self.checkpoint = 0.0
        self._told = False

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Measure from here; a training that starts again, as fp16's may, does not get its time back."""
        self.mark = self.clock()
        self.steps.clear()
        trained = [weight for weight in model.parameters() if weight.requires_grad] if model is not None else []
        n_bytes = sum(weight.numel() * weight.element_size() for weight in trained)
        self.checkpoint = max(self.checkpoint, estimate_seconds(_CHECKPOINT_COPIES * n_bytes))

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the evaluation; the slowest one counts."""
        self.evaluation = max(self.evaluation, self._pass_mark())

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the checkpoint; the slowest one counts."""
        self.checkpoint = max(self.checkpoint, self._pass_mark())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the step, and stop where the next one does not fit: all processes, where one of them says so."""
        self.steps.append(self._pass_mark())
        if state.global_step >= state.max_steps:
            return
        asked = control.should_evaluate * self.evaluation + control.should_save * self.checkpoint
        after = max(self.steps) + self.evaluation + self.reserve
        if anywhere(self.mark + asked + after > self.deadline):
            control.should_evaluate = control.should_training_stop = True
            control.should_save = False  # the model is saved right then
            self._tell_stop(args, state)
        elif not self._told:
            self._tell_pace(args, state)

    def _pass_mark(self) -> float:
        """Return the seconds since the last mark, and set the next one."""
        before, self.mark = self.mark, self.clock()
        return self.mark - before

    def _tell_stop(self, args: Any, state: Any) -> None:
        step, steps = state.global_step, state.max_steps
        fitting = args.num_train_epochs * step / steps
        self.stopped = (
            f"stopped after step {step} of {steps}, since another one might not leave the time to evaluate, choose and "
            f"save the model; the learning rate was planned for {steps} steps: {fitting:.2g} epochs would fit (EPOCHS, "
            "--epochs), or give it more time (TIME_LIMIT, --time-limit)"
        )
        if state.is_world_process_zero:
            print(f"time: {self.stopped}", flush=True)

    def _tell_pace(self, args: Any, state: Any) -> None:
        """Say early that a training will not get through, at the pace of its first steps."""
        if len(self.steps) < min(_RECENT_STEPS, max(5, _FIRST_LOOK * state.max_steps)):
            return
        self._told = True
        to_come = state.max_steps - state.global_step
        evaluations = to_come / (state.eval_steps or to_come)
        needed = to_come * statistics.median(self.steps) + evaluations * self.evaluation + self.reserve
        left = self.deadline - self.mark
        if needed > left and state.is_world_process_zero:
            print(
                f"time: the {to_come} steps to come take about {render_duration(needed)} at the pace of the first "
                f"{len(self.steps)}, and {render_duration(left)} are left: the training will be stopped before its "
                "end, and its model saved; with fewer EPOCHS its learning rate would run down as planned",
                flush=True,
            )
