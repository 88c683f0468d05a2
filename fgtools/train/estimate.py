"""How long a training will take on this machine, said before it starts, and how much is left once it runs.

Knows the rows, the steps and the speed of two micro-batches; not how a gradient is computed. Only trainings of real
size on a CPU are measured beforehand: the stand-in is done in a minute, and a GPU's first steps say little about later
ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback
from trl import SFTConfig

from fgtools.profiles import REAL_PARAMETERS
from fgtools.train.arguments import count_steps, rows_per_step
from fgtools.train.prefix import cut_rows
from fgtools.train.saving import render_duration

_FORWARD_SHARE = 1 / 3
"""Work of reading a row without a gradient, in parts of a training step's: the backward pass costs two forward ones."""

_REPORT_SECONDS = 120
"""Seconds between two lines of TellTimeLeft, after its first one."""


@dataclass(frozen=True)
class Work:
    """What a training has still to compute.

    Attributes:
        steps: Optimizer steps.
        rows: Rows that they train on, over all passes.
        tokens: Tokens of these rows.
        evaluations: Evaluations during the training.
        evaluated: Tokens that they read in all.
    """

    steps: int
    rows: int
    tokens: int
    evaluations: int
    evaluated: int


def plan_work(arguments: SFTConfig, lengths: Sequence[int], held: Sequence[int], done: int = 0) -> Work:
    """Return what a training has still to compute.

    Args:
        arguments: Its numbers.
        lengths: Tokens of each training row.
        held: Tokens of each row of its evaluations.
        done: Optimizer steps that were taken before a break.
    """
    rows, passes = rows_per_step(arguments), arguments.num_train_epochs
    total = count_steps(len(lengths), rows, passes)
    if arguments.max_steps > 0:
        total, passes = arguments.max_steps, arguments.max_steps * rows / len(lengths)
    steps = max(0, total - done)
    seen = round(len(lengths) * passes * steps / max(1, total))
    every = arguments.eval_steps or total
    every = every if every >= 1 else max(1, math.ceil(total * every))  # below 1 it is a share of the steps
    evaluations = math.ceil(steps / every) + bool(arguments.eval_on_start and not done)
    tokens = round(seen * sum(lengths) / len(lengths))
    return Work(steps, seen, tokens, evaluations, evaluations * sum(held))


def is_real_size(model: torch.nn.Module) -> bool:
    """Return whether a model is large enough for its training to take minutes or hours."""
    return sum(weight.numel() for weight in model.parameters()) >= REAL_PARAMETERS


def choose_measured_rows(lengths: Sequence[int], budget: int, shared: int = 0) -> list[list[int]]:
    """Return two micro-batches of rows of middle length, by which the speed of a training is measured.

    Args:
        lengths: Tokens of each training row.
        budget: Tokens of a micro-batch, padding included.
        shared: Tokens of the rows' common beginning that a micro-batch reads once; 0: none.

    Returns:
        Row numbers by micro-batch; one micro-batch where there is one row alone.
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    middle = lengths[order[len(order) // 2]]
    n_rows = 2 * max(1, (budget - shared) // max(1, middle - shared))
    first = max(0, (len(order) - n_rows) // 2)
    chosen = order[first : first + n_rows]
    cut = cut_rows([lengths[row] for row in chosen], shared, budget)
    return [[chosen[place] for place in places] for places in cut[:2]]


def measure_speed(
    compute: Callable[[Sequence[int]], None], batches: Sequence[Sequence[int]], lengths: Sequence[int]
) -> float:
    """Return the tokens a second of the last micro-batch; the first one warms up and is not counted.

    Random numbers that a computation draws are given back, so that a training begins as if nothing had been measured.

    Args:
        compute: Computes the gradient of rows, by their numbers, and throws it away.
        batches: Row numbers by micro-batch.
        lengths: Tokens of each row.
    """
    seconds = 0.0
    with torch.random.fork_rng():
        for rows in batches:
            started = time.perf_counter()
            compute(rows)
            seconds = time.perf_counter() - started
    return sum(lengths[row] for row in batches[-1]) / max(seconds, 1e-9)


def describe_estimate(work: Work, tokens_per_second: float, cores: int) -> str:
    """Return how long a training will take, and what would make it shorter.

    Args:
        work: What it has to compute.
        tokens_per_second: The speed of its gradients.
        cores: Threads that compute them.
    """
    seconds = (work.tokens + _FORWARD_SHARE * work.evaluated) / tokens_per_second
    rows_per_second = tokens_per_second * work.rows / max(1, work.tokens)
    return (
        f"estimate: about {render_duration(seconds)} on this machine: {work.rows:,} rows ({work.tokens:,} tokens) in "
        f"{work.steps:,} steps and {work.evaluations} evaluations, at {tokens_per_second:.0f} tokens/s = "
        f"{rows_per_second:.2f} rows/s, measured on two micro-batches with {cores} threads; "
        "checkpoints and the choice among them come on top\n"
        "shorter with fewer or shorter rows (N_TOTAL, MAX_LENGTH), fewer passes (EPOCHS), adapters in place of all "
        "weights (LORA_RANK), or on a GPU"
    )


class TellTimeLeft(TrainerCallback):
    """Says rows a second and the time left after the first step, and then every two minutes."""

    def __init__(self, rows_per_step: int) -> None:
        self.rows_per_step, self.began, self.told, self.start = rows_per_step, 0.0, 0.0, 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock at the first step; what came before, such as the first evaluation, does not count."""
        if not self.began:
            self.began, self.start = time.perf_counter(), state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Print the line where it is due."""
        now, done = time.perf_counter(), state.global_step - self.start
        if not state.is_world_process_zero or (self.told and now - self.told < _REPORT_SECONDS):
            return
        self.told = now
        each = (now - self.began) / done
        print(
            f"step {state.global_step:>5}/{state.max_steps}  {self.rows_per_step / each:.2f} rows/s, about "
            f"{render_duration(each * (state.max_steps - state.global_step))} left",
            flush=True,
        )
