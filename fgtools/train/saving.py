"""When the checkpoints of a training are written, and whether the disk has room for them.

Knows the arguments of a training, bytes, seconds and a disk's free room; not tensors or trainers. A checkpoint serves
one purpose, to go on after a kill: the best weights are kept apart (`best`). So small checkpoints are written at every
evaluation, and large ones by time: the next one is due when the training has gone on for as long since the last one as
keeps writing within CHECKPOINT_SHARE of it. None is written after the last step, since the model is saved right then.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from trl import SFTConfig

from fgtools.files import render_duration
from fgtools.profiles import CHEAP_CHECKPOINT_BYTES, CHECKPOINT_PAUSE, CHECKPOINT_SHARE, DISK_BYTES_PER_SECOND
from fgtools.train.arguments import TrainingError


@dataclass(frozen=True)
class Saving:
    """When checkpoints are written.

    Attributes:
        when: "evaluation", "time", "steps" (every save_steps steps), "epoch", "best" (at an evaluation better than all
            before) or "never".
        n_bytes: What one of them writes, the best weights included.
        reason: A line for people: how often, why, and how much a kill loses.
    """

    when: str
    n_bytes: int
    reason: str


@dataclass(frozen=True)
class Sizes:
    """What a training writes, in bytes.

    Attributes:
        model: The tuned model.
        weights: The weights that a checkpoint holds: all, or the adapters alone.
        trained: Those of them that are trained.
    """

    model: int
    weights: int
    trained: int


def plan_saving(arguments: SFTConfig, sizes: Sizes, free_bytes: int, held_bytes: int = 0) -> Saving:
    """Decide when checkpoints are written.

    Args:
        arguments: The numbers of the training. Any save_steps but 0 and any save_strategy but "steps" hold as they are.
        sizes: What it writes.
        free_bytes: Free room of the disk it writes to, in bytes.
        held_bytes: Bytes of its own checkpoints that lie there already.

    Raises:
        TrainingError: The disk has no room for the tuned model, or save_steps is below 0.
    """
    if free_bytes < sizes.model:
        raise TrainingError(
            f"the disk of {Path(arguments.output_dir).name!r} must have room for the tuned model, "
            f"{render_bytes(sizes.model)}, but only {render_bytes(free_bytes)} are free: delete files there, or "
            "write to another disk (RUN_DIR, --out)"
        )
    if arguments.save_steps < 0:
        raise TrainingError(
            f"save_steps must be a number of steps, or 0 to let the trainer decide, got {arguments.save_steps}"
        )
    best = sizes.trained if arguments.load_best_model_at_end else 0
    n_bytes = sizes.weights + 2 * sizes.trained + best  # AdamW has two states
    saving = _choose_times(arguments, n_bytes)
    if saving.when != "never" and free_bytes + held_bytes < 2 * n_bytes:
        reason = (
            f"no checkpoints: two of {render_bytes(n_bytes)} must fit the disk, the newest and the one before "
            f"it, but only {render_bytes(free_bytes)} are free; a kill loses the whole training"
        )
        return Saving("never", n_bytes, reason)
    return saving


def _choose_times(arguments: SFTConfig, n_bytes: int) -> Saving:
    strategy, size = arguments.save_strategy.value, render_bytes(n_bytes)
    steps, between = arguments.save_steps, arguments.eval_steps
    if strategy == "no":
        return Saving("never", n_bytes, "no checkpoints, as save_strategy says: a kill loses the whole training")
    if strategy in ("epoch", "best"):
        when = "after every pass" if strategy == "epoch" else "at every evaluation that is the best so far"
        return Saving(strategy, n_bytes, f"a checkpoint of {size} {when}, as save_strategy says")
    if steps:
        often = _describe_steps(steps)
        reason = f"a checkpoint of {size} every {often}, as save_steps says: a kill loses at most {often}"
        return Saving("steps", n_bytes, reason)
    evaluated = arguments.eval_strategy.value
    if n_bytes <= CHEAP_CHECKPOINT_BYTES and evaluated != "no":
        lost = _describe_steps(between) if evaluated == "steps" else "one pass"
        reason = f"a checkpoint of {size} at every evaluation, since it is small: a kill loses at most {lost}"
        return Saving("evaluation", n_bytes, reason)
    seconds = estimate_seconds(n_bytes)
    pause = render_duration(choose_pause(seconds))
    reason = (
        f"checkpoints by time: one of {size} takes {render_duration(seconds)} at an assumed "
        f"{DISK_BYTES_PER_SECOND / 1e6:.0f} MB/s, and writing may take {CHECKPOINT_SHARE:.0%} of a training, so the "
        f"first comes after {pause} and the next ones as the first one's time allows; a kill before it loses all, a "
        "later one what came since the last checkpoint"
    )
    return Saving("time", n_bytes, reason)


def estimate_seconds(n_bytes: int) -> float:
    """Return how long writing takes on a modest disk, for the time before any has been measured."""
    return n_bytes / DISK_BYTES_PER_SECOND


def choose_pause(seconds: float) -> float:
    """Return the seconds from one checkpoint to the next where writing one takes `seconds`."""
    return max(CHECKPOINT_PAUSE, seconds / CHECKPOINT_SHARE)


def measure_room(folder: Path) -> tuple[int, int]:
    """Return the free room of the disk that a folder lies on or will lie on, and what the folder holds, in bytes."""
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    folder = folder.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free, held


def render_bytes(n_bytes: int) -> str:
    """Return a number of bytes in MB or GB, for people."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _describe_steps(steps: float) -> str:
    """Return a number of steps in words; below 1 it is a share of all steps, as in transformers."""
    return f"{steps:.0%} of the steps" if steps < 1 else "1 step" if steps == 1 else f"{steps:g} steps"
