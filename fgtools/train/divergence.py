"""Whether the loss of a training has left its start upwards for good, as it does where the learning rate is too high.

Knows the log of a training and its number of steps; not models or trainers. The rule, in the order of its parts:

- Two series are looked at, each against a start of its own: the losses of the log, whose start is the largest of the
  first three and of the first evaluation (a step of few rows may begin with easy ones), and the losses of the
  evaluations, whose start is the first one.
- A loss has left its start where it is higher by more than 0.5 nats a label, or by more than a quarter of the start
  where that is more.
- The training has diverged when a series has stayed there for a tenth of the training's steps, 10 steps at least:
  from the first loss that had left it to the newest one, without one in between that had come back.

So a jump that comes back passes, and so does a training of 10 steps or less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from fgtools.profiles import DIVERGED_FEWEST_STEPS, DIVERGED_NATS, DIVERGED_SHARE, DIVERGED_STEPS
from fgtools.train.arguments import TrainingError

_FIRST_ENTRIES = 3


def find_divergence(history: Sequence[Mapping[str, Any]], max_steps: int) -> str:
    """Return a clause that says how the loss of a training left its start for good; "" where it did not.

    Args:
        history: The trainer's log entries in order: `step`, and `loss` or `eval_loss`, in nats a label.
        max_steps: Optimizer steps of the whole training.
    """
    losses, evaluations = (
        [(int(entry["step"]), float(entry[name])) for entry in history if name in entry]
        for name in ("loss", "eval_loss")
    )
    firsts = [loss for _, loss in (*losses[:_FIRST_ENTRIES], *evaluations[:1])]
    for name, series, start in (("loss", losses, firsts), ("evaluation loss", evaluations, firsts[-1:])):
        if found := _describe_rise(name, series, max(start, default=0.0), max_steps):
            return found
    return ""


def _describe_rise(name: str, series: Sequence[tuple[int, float]], start: float, max_steps: int) -> str:
    limit = start + max(DIVERGED_NATS, DIVERGED_SHARE * start)
    left = len(series)
    while left and series[left - 1][1] > limit:
        left -= 1
    if left == len(series):
        return ""
    since, now = series[left][0], series[-1]
    if now[0] - since < max(DIVERGED_FEWEST_STEPS, DIVERGED_STEPS * max_steps):
        return ""
    rise = f"{limit:.2f} since step {since} and is {now[1]:.2f} at step {now[0]}"
    return f"the {name}, whose first values were {start:.2f} at most, has been above {rise}"


class StopDiverged(TrainerCallback):
    """Ends a training whose loss has left its start for good, before more time is spent on it."""

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the log so far; raises TrainingError, and the checkpoints stay as they are."""
        if found := find_divergence(state.log_history, state.max_steps):
            raise TrainingError(
                f"a loss that rises must come back within a tenth of the steps, but {found}: the weights are being "
                f"destroyed, most often by a rate that is too high; lower LEARNING_RATE ({args.learning_rate:g}) and "
                "train again; the model was not saved, checkpoints and an older model are as they were"
            )
