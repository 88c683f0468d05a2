"""Whether what is saved is as good as what was trained, and better than what the training began with.

Knows the log of a training, number formats and the loss on held-out rows. Weights are trained in fp32 and saved in the
format they were loaded in. A 16-bit format keeps 8 or 11 bits of a number, so that of many small updates most are
rounded away: bf16 is measured before it is trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fgtools.train.restarts import RestartableTrainer

KEPT_SHARE = 0.5
"""Share of the loss's fall that must be left in the format of the weights' file; where less is left, fp32 is saved."""


@dataclass(frozen=True)
class Confirmed:
    """What the weights of a training are saved in, and what is to be said of it.

    Attributes:
        dtype: The format to save in.
        lines: Sentences for people, without a full stop; none where there is nothing to say.
        warning: That of them that says that the start was better; "" where it was not.
    """

    dtype: torch.dtype
    lines: tuple[str, ...] = ()
    warning: str = ""


@contextmanager
def rounded(weights: Mapping[str, Tensor], dtype: torch.dtype) -> Iterator[None]:
    """Give weights the values that they will have when they are saved and loaded again, as long as the block runs.

    Args:
        weights: Weights by name; where they have the format already, nothing happens. They stay at their place in
            memory, and in their own format.
        dtype: The format that they will be saved in.
    """
    exact = {name: weight.detach().clone() for name, weight in weights.items() if weight.dtype != dtype}
    with torch.no_grad():
        for name in exact:
            weights[name].copy_(weights[name].to(dtype))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in exact.items():
                weights[name].copy_(value)


def confirm_saving(trainer: RestartableTrainer, model: torch.nn.Module, step: int) -> Confirmed:
    """Decide in which format weights are saved, and whether the start was better.

    Args:
        trainer: The trainer, after its `train`; every process must ask.
        model: The model with the chosen weights, adapters merged, in the format they were trained in.
        step: The optimizer step they are of.
    """
    dtype, history = trainer.task.dtype, trainer.state.log_history
    start, trained = find_evaluation(history, 0), find_evaluation(history, step)
    weights = dict(model.named_parameters())
    differs = any(weight.dtype != dtype for weight in weights.values())
    if not start or not trained:
        unknown = (
            f"saved in {_name(dtype)}, as it was loaded; what that loses is not known, since nothing was evaluated"
        )
        return Confirmed(dtype, (unknown,) if differs else ())
    n_rows, lines, saved = len(trainer.task.sides[1].rows), [], trained
    if differs:
        with rounded(weights, dtype):
            measured = _measure(trainer)
        kept = keeps_gain(start["eval_loss"], trained["eval_loss"], measured.get("eval_loss", trained["eval_loss"]))
        lines.append(_describe_format(dtype, kept, n_rows, (start, trained, measured)))
        dtype, saved = (dtype, measured or trained) if kept else (torch.float32, trained)
    warning = describe_worse(start, saved, n_rows)
    return Confirmed(dtype, (*lines, *([warning] if warning else [])), warning)


def _measure(trainer: RestartableTrainer) -> dict[str, float]:
    """Return the figures of the held-out rows, {} where the engine cannot; an infinite loss where it is no number."""
    from fgtools.train.restarts import NotFinite

    try:
        return trainer.measure_held_out()
    except NotFinite:
        return {"eval_loss": math.inf}


def find_evaluation(history: Sequence[Mapping[str, Any]], step: int) -> dict[str, Any]:
    """Return the last entry of an evaluation after a step from a trainer's log; {} where there is none."""
    found = [dict(entry) for entry in history if "eval_loss" in entry and entry["step"] == step]
    return found[-1] if found else {}


def keeps_gain(start: float, trained: float, saved: float) -> bool:
    """Return whether weights may be saved in another format: it leaves KEPT_SHARE of the loss's fall, if it fell.

    Args:
        start: Loss on the held-out rows before the training.
        trained: With the trained weights.
        saved: With the same weights in the other format.
    """
    return trained >= start or start - saved >= KEPT_SHARE * (start - trained)


def _describe_format(
    dtype: torch.dtype, kept: bool, n_rows: int, losses: tuple[dict[str, float], dict[str, float], dict[str, float]]
) -> str:
    kind = _name(dtype)
    start, trained, saved = losses
    if not saved:
        return f"saved in {kind}, as it was loaded; what that loses is not measured with the engine 'trl'"
    fall = f"on {n_rows} held-out rows the loss was {start['eval_loss']:.4f} and is {trained['eval_loss']:.4f}"
    if kept:
        return f"saved in {kind}, as it was loaded: {fall}, in {kind} {saved['eval_loss']:.4f}"
    return (
        f"saved in float32, a file {4 // dtype.itemsize} times as large: {fall}, but in {kind}, as it was loaded, only "
        f"{saved['eval_loss']:.4f}: its updates are too small for that format (LEARNING_RATE, --learning-rate)"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def describe_worse(start: Mapping[str, float], saved: Mapping[str, float], n_rows: int) -> str:
    """Return a sentence where a training made the model worse on the held-out rows; "" where it did not.

    Args:
        start: The figures of the evaluation before the first step: eval_loss, with the labelled engine also eval_choice
            and eval_exact_match.
        saved: The same of what is saved.
        n_rows: Rows they were measured on.
    """
    by_rows = "eval_choice" in start and "eval_choice" in saved
    is_worse = saved["eval_choice"] < start["eval_choice"] if by_rows else saved["eval_loss"] > start["eval_loss"]
    if not is_worse:
        return ""
    was, now = (
        (f"{round(one['eval_exact_match'] * n_rows)} right, " if by_rows else "") + f"loss {one['eval_loss']:.4f}"
        for one in (start, saved)
    )
    return (
        f"worse than its start: of {n_rows} held-out rows the model that is saved has {now}, and before the training "
        f"it had {was}: do not publish it; lower LEARNING_RATE (--learning-rate) or EPOCHS (--epochs) and train again"
    )
