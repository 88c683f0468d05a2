"""Whole trainings, as the person waits for them; started by `python -m benchmarks.train --whole`.

The ways are those of `trainings`. Before anything is timed, ours and TRL's take two short steps, so that compiling
kernels counts for none of them. Every way has its own time limit; what is known is printed and written at once. Knows
clocks, limits and files.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers.models.gemma3 import modeling_gemma3
from trl import SFTTrainer

from benchmarks.limits import Stopwatch, TimeLimit
from benchmarks.shapes import count_tokens, forget_peak, read_peak, synchronize
from benchmarks.trainings import CUT, ROWS_A_STEP, Clock, Workload, list_ways, train_ours, train_trl
from fgtools.prompts import IGNORED, Encoded
from fgtools.train import training
from fgtools.train.loss import restore_forward
from fgtools.train.trainer import LabelledPositionsTrainer

PLACES = {
    "evaluation": [(LabelledPositionsTrainer, "evaluate"), (training, "choose_checkpoint")],
    "saving": [(LabelledPositionsTrainer, "_save_checkpoint"), (training, "save_model"), (SFTTrainer, "save_model")],
    "encoding": [(training, "encode_rows")],
}
"""The functions whose time is shown apart; the trainers of all ways share them."""

STEADY_ROWS = 256
"""Rows of the steady measure: one window sorts all of them, so that every pass of ours has the same steps."""

MANY_TIMES = 10.5
"""How many times as long as ours the tutorial's way may take: enough to see whether the aim of 10 is met."""

AIM_ROWS, AIM_TOKENS = 13_000, 500
"""Rows, and tokens a row, in the aim for a long pass."""


@contextmanager
def kernels_restored() -> Iterator[None]:
    """Give transformers' Gemma 3 its own functions back: Liger replaces some for the whole process."""
    before = dict(vars(modeling_gemma3))
    try:
        yield
    finally:
        vars(modeling_gemma3).update(before)


def measure_way(name: str, way: Callable[..., Any], work: Workload, limit: float) -> dict[str, Any]:
    """Run one way in a folder of its own and return its figures.

    Args:
        name: For the printed line.
        way: As in `list_ways`.
        work: The rows.
        limit: Seconds after which it is ended.

    Returns:
        The figures; "over" True where it ran out of time, with "estimated_seconds", arithmetic from the steps that it
        had taken; "failed" with a reason where it did not end otherwise.
    """
    gc.collect()
    forget_peak(work.device)
    clock, watch = Clock(work.device), Stopwatch(lambda: synchronize(work.device))
    loss, outcome = None, {}
    with tempfile.TemporaryDirectory() as folder, kernels_restored():
        started = time.perf_counter()
        try:
            with TimeLimit(limit) as within, watch.watch(PLACES):
                model = way(work, Path(folder), clock)
                synchronize(work.device)
            seconds = time.perf_counter() - started
            if within.over:
                estimate = round(seconds * clock.all_steps / clock.steps) if clock.steps else None
                outcome = {"over": True, "estimated_seconds": estimate}
            else:
                loss = measure_loss(model, work.encoded[1])
        except Exception as error:  # another library's: whatever it raises, the other ways go on
            seconds, outcome = time.perf_counter() - started, {"failed": f"{type(error).__name__}: {error}"[:300]}
    cut = CUT if name == "tutorial" else None
    tokens = sum(len(row.input_ids[:cut]) for row in work.encoded[0])
    done = not outcome
    figures = {
        **outcome,
        "seconds": round(seconds, 2),
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds) if done else None,
        "steps": clock.steps,
        "steps_per_second": round(clock.steps / seconds, 2),
        **{f"{part}_seconds": round(watch.seconds[part], 2) for part in PLACES},
        "peak_gib": round(read_peak(work.device) / 2**30, 2),
        "last_loss": None if math.isnan(clock.loss) else round(clock.loss, 4),
        "held_out_loss": None if loss is None else round(loss, 4),
    }
    print(f"{name}: {describe_way(figures)}", flush=True)
    return figures


def render_estimate(figures: dict[str, Any]) -> str:
    """Return what a way that was ended would have taken, where steps tell; else ""."""
    return f"about {figures['estimated_seconds']} s by its steps, " if figures["estimated_seconds"] else ""


def describe_way(figures: dict[str, Any]) -> str:
    """Return the figures of a way as one line."""
    if "failed" in figures:
        return f"failed after {figures['seconds']:.1f} s: {figures['failed']}"
    if "over" in figures:
        return f"over {figures['seconds']:.0f} s, {render_estimate(figures)}ended after {figures['steps']} steps"
    return (
        f"{figures['seconds']:.1f} s, {figures['tokens_per_second']} tokens/s, {figures['steps']} steps, of it "
        f"evaluation {figures['evaluation_seconds']:.1f} s, saving {figures['saving_seconds']:.1f} s, encoding "
        f"{figures['encoding_seconds']:.1f} s; peak {figures['peak_gib']:.1f} GiB, loss {figures['last_loss']}, "
        f"held out {figures['held_out_loss']}"
    )


@torch.no_grad()
def measure_loss(model: Any, rows: Sequence[Encoded]) -> float:
    """Return the mean loss of the labels of rows, in nats, computed alike for every way."""
    restore_forward(model)
    model.eval()
    total = count = 0.0
    for row in rows:
        ids = torch.tensor([row.input_ids], device=model.device)
        targets = torch.tensor(row.labels, device=model.device)[1:]
        places = (targets != IGNORED).nonzero()[:, 0]
        with _autocast(model):
            logits = model.lm_head(model.model(input_ids=ids, use_cache=False).last_hidden_state[0, places])
        total += torch.nn.functional.cross_entropy(logits.float(), targets[places], reduction="sum").item()
        count += len(places)
    return total / count


def _autocast(model: Any) -> AbstractContextManager:
    capable = model.device.type == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
    return torch.autocast("cuda", torch.bfloat16) if capable else nullcontext()


def measure_steady(work: Workload, limit: float, passes: int = 3) -> dict[str, Any]:
    """Measure the last of several passes over the same batches, without evaluations and saves, ours and TRL's.

    Returns:
        By way: tokens a second of the last pass, and of the first one, in which every shape is new; None where it
        failed or ran out of time.
    """
    tokens, results = count_tokens(work.encoded[0]), {}
    for name, way in (("ours", train_ours), ("trl", train_trl)):
        clock, rates = Clock(work.device), [None, None]
        with tempfile.TemporaryDirectory() as folder, kernels_restored():
            gc.collect()
            try:
                with TimeLimit(limit) as within:
                    way(work, Path(folder), clock, passes, False)
                taken = [later - earlier for earlier, later in pairwise(clock.passes)]
                if taken:
                    rates = [round(tokens / taken[0]), round(tokens / taken[-1]) if len(taken) > 1 else None]
                if within.over:
                    print(f"steady, {name}: over {limit:.0f} s, ended after {len(taken)} passes", flush=True)
            except Exception as error:  # as in measure_way
                print(f"steady, {name}: failed: {type(error).__name__}: {error}"[:300], flush=True)
        results[name] = {"first_pass": rates[0], "last_pass": rates[1]}
        print(f"steady, {name}: tokens/s of the first pass {rates[0]}, of the last {rates[1]}", flush=True)
    return results


def measure_epoch(work: Workload, n_rows: int, limit: float) -> dict[str, Any]:
    """Train ours on many rows, the workload's again and again, for one pass with its evaluations.

    Returns:
        The figures of `measure_way`, and "scaled_seconds": arithmetic, the time of AIM_ROWS rows of AIM_TOKENS tokens
        at the same rate; None where it did not end, or where so few rows say nothing about it.
    """
    many = work.first(n_rows)
    figures = measure_way(f"epoch of {n_rows} rows", train_ours, many, limit)
    rate = figures["tokens_per_second"] if n_rows >= AIM_ROWS else None
    return {**figures, "rows": n_rows, "scaled_seconds": round(AIM_ROWS * AIM_TOKENS / rate, 1) if rate else None}


def warm_up(work: Workload) -> None:
    """Let ours and TRL's take two short steps each, so that kernels are compiled and libraries loaded."""
    shortest = sorted(zip(*work.sides(0), strict=True), key=lambda pair: len(pair[1].input_ids))[: 2 * ROWS_A_STEP]
    rows, encoded = [list(side) for side in zip(*shortest, strict=True)]
    few = replace(work, rows=(rows, work.rows[1][:2]), encoded=(encoded, work.encoded[1][:2]))
    for way in (train_ours, train_trl):
        with tempfile.TemporaryDirectory() as folder, kernels_restored():
            way(few, Path(folder), Clock(work.device), evaluate=False)


def run_whole(work: Workload, limit: float, epoch_of: int, write: Callable[[str, Any], None]) -> dict[str, Any]:
    """Measure all ways, the steady step and, on request, a long pass.

    Args:
        work: The rows.
        limit: Seconds that each way may take.
        epoch_of: Rows of the long pass; 0: none.
        write: Called with a name and its figures as soon as they are known.

    Returns:
        What `write` was given, by name.
    """
    result: dict[str, Any] = {}

    def keep(name: str, values: Any) -> None:
        result[name] = values
        write(name, values)

    sizes = {"rows": len(work.rows[0]), "eval_rows": len(work.rows[1]), "tokens": count_tokens(work.encoded[0])}
    keep("sizes", {"shape": work.shape, **sizes, "rows_a_step": ROWS_A_STEP, "limit_seconds": limit})
    with TimeLimit(limit) as within:
        warm_up(work)
    if within.over:
        print(f"the first steps, in which kernels are compiled, took over {limit:.0f} s", flush=True)
    ways: dict[str, Any] = {}
    for name, way in list_ways(work.device).items():
        enough = MANY_TIMES * ways["ours"]["seconds"] if name == "tutorial" else 0.0
        ways[name] = measure_way(name, way, work, max(limit, enough))
        keep("ways", dict(ways))
        if name == "ours":
            keep("steady", measure_steady(work.first(min(len(work.rows[0]), STEADY_ROWS)), limit))
            if epoch_of:
                keep("epoch", measure_epoch(work, epoch_of, 2 * limit))
    keep("ratios", compare_ways(ways))
    print(render_whole(result), flush=True)
    return result


def compare_ways(ways: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return how many times as long as ours each way took.

    Returns:
        By way, {"ratio", "at_least"}: the ratio of the seconds, and whether it is a lower bound, the way having been
        ended. Ways that failed are left out, and all where ours did not end.
    """
    ours = ways.get("ours", {"failed": "not run"})
    if "failed" in ours or "over" in ours:
        return {}
    return {
        name: {"ratio": round(one["seconds"] / ours["seconds"], 2), "at_least": "over" in one}
        for name, one in ways.items()
        if name != "ours" and "failed" not in one
    }


def read_aims(result: dict[str, Any]) -> dict[str, float | None]:
    """Return the figures that the aims of whole trainings are compared with; None where they are not known.

    The ratio to a way that was ended is a lower bound: it shows that an aim is met, never that it is missed.
    """
    bounds = {"trl": 3, "trl alone": 3, "tutorial": 10}
    ratios = {
        name: one["ratio"]
        for name, one in result.get("ratios", {}).items()
        if not one["at_least"] or one["ratio"] >= bounds.get(name, 0)
    }
    steady = result.get("steady", {}).get("ours", {}).get("last_pass")
    return {
        "whole_over_trl": ratios.get("trl"),
        "whole_over_trl_alone": ratios.get("trl alone"),
        "whole_over_tutorial": ratios.get("tutorial"),
        "steady_tokens_per_second": steady,
        "epoch_seconds": result.get("epoch", {}).get("scaled_seconds"),
    }


def render_whole(result: dict[str, Any]) -> str:
    """Write the Markdown table of whole trainings."""
    lines = [
        "| way | s | tokens/s | steps/s | evaluation, s | saving, s | peak memory | loss on held-out rows | ours is |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in result["ways"].items():
        if "failed" in one:
            lines.append(f"| {name} | failed: {one['failed']} |" + " |" * 7)
            continue
        ended = "over" not in one
        ratio = result.get("ratios", {}).get(name)
        cells = [
            f"{one['seconds']:.1f}" if ended else f"over {one['seconds']:.0f}, {render_estimate(one)}".rstrip(", "),
            f"{one['tokens_per_second']:,}" if ended else "",
            f"{one['steps_per_second']:.2f}",
            f"{one['evaluation_seconds']:.1f}",
            f"{one['saving_seconds']:.1f}",
            f"{one['peak_gib']:.1f} GiB",
            f"{one['held_out_loss']:.3f}" if one["held_out_loss"] is not None else "",
            f"{'over ' if ratio['at_least'] else ''}{ratio['ratio']:.2f}x" if ratio else "",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
