"""All that is measured on a GPU, in one process: whole trainings, evaluations and profiles.

`python -m benchmarks.gpu FOLDER [--shape full|small|standin] [--device cpu|cuda] [--rows N] [--epoch-of N]
[--total SECONDS] [--train-limit SECONDS] [--evaluate-limit SECONDS] [--data FILE] [--tokenizer FOLDER]`

Importing torch, transformers and TRL takes longer than a short measurement, so all parts share a process. FOLDER gets
gpu.json, which holds every figure as soon as it is known, and a log of each part. A part that exceeds its time, or
fails, is told and the next one begins. `benchmarks/gpu.sh` calls this on a machine that lacks some packages.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

os.environ.setdefault("FGTOOLS_BATCH", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks import evaluate, profile, whole
from benchmarks.limits import TimeLimit
from benchmarks.records import (
    EVALUATION_AIMS,
    TRAINING_AIMS,
    compare_aims,
    describe_machine,
    render_aims,
    write_section,
)
from benchmarks.shapes import SHAPES, SHARED, count_tokens
from benchmarks.trainings import ROWS_A_STEP, load_workload
from fgtools.run.session import quiet_libraries

SHARES = {"evaluate": 0.27, "whole": 0.62, "profile": 0.11}
"""The parts in their order, and the share of the time that each may take."""

EXACT_ROWS = 8
"""Rows that are also answered in fp32, one by one and by ours."""


class Tee:
    """Writes to two streams; what is printed is in the log at once."""

    def __init__(self, *streams: TextIO) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        """Write to both."""
        for stream in self.streams:
            stream.write(text)
            stream.flush()
        return len(text)

    def flush(self) -> None:
        """Nothing is left to write."""


def run_part(name: str, part: Callable[[], Any], folder: Path, limit: float) -> Any:
    """Run one part with a log of its own; return what it returned, None where it did not end.

    Args:
        name: Of the part, and of its log.
        part: What to run.
        folder: Where the log goes.
        limit: Seconds.
    """
    with (folder / f"{name}.log").open("w", encoding="utf-8") as log, contextlib.redirect_stdout(Tee(sys.stdout, log)):
        started = time.perf_counter()
        print(f"--- {name}, at most {limit:.0f} s")
        result = None
        try:
            with TimeLimit(limit) as within:
                result = part()
            if within.over:
                print(f"{name}: over {limit:.0f} s, ended; its figures until then are written")
        except Exception as error:  # the other parts are worth their time all the same
            print(f"{name}: failed: {type(error).__name__}: {error}")
        print(f"--- {name}: {time.perf_counter() - started:.0f} s")
    return result


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=[*SHAPES, "standin"], default="full")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--rows", type=int, default=342, help="rows to train on")
    parser.add_argument("--eval-rows", type=int, default=48, help="rows held out")
    parser.add_argument("--epoch-of", type=int, default=13_000, help="rows of the long pass; 0: none")
    parser.add_argument("--answered", type=int, default=300, help="rows to answer")
    parser.add_argument("--steps", type=int, default=4, help="training steps that are profiled")
    parser.add_argument("--train-limit", type=float, default=50, help="seconds of each way; the long pass has twice")
    parser.add_argument("--evaluate-limit", type=float, default=15, help="seconds of each way to answer")
    parser.add_argument("--total", type=float, default=500, help="seconds in all; each part may take its share")
    parser.add_argument("--data", default=str(SHARED / "dev.jsonl"), help="JSON lines; without it, the offline sample")
    parser.add_argument("--tokenizer", default=str(SHARED / "tokenizer"), help="a folder; without it, the stand-in's")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_options()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("a GPU must be visible to torch, but none is: check nvidia-smi, or give --device cpu")
    quiet_libraries()
    disable_progress_bar()
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "gpu.json"
    machine = describe_machine(options.device)
    print(json.dumps(machine))
    write_section(file, "machine", machine)
    write_section(file, "command", "python -m benchmarks.gpu " + " ".join(shorten(sys.argv[1:])))
    started = time.perf_counter()

    parts = {"evaluate": measure_evaluation, "whole": measure_whole, "profile": measure_profile}
    known = {}
    for name, share in SHARES.items():
        part = functools.partial(parts[name], options, file)
        known[name] = run_part(name, part, options.folder, share * options.total) or {}
    measured = evaluate.read_aims(known["evaluate"]) if known["evaluate"] else {}
    aims = compare_aims(TRAINING_AIMS + EVALUATION_AIMS, whole.read_aims(known["whole"]) | measured)
    write_section(file, "aims", aims)
    write_section(file, "seconds", round(time.perf_counter() - started))
    print(render_aims(aims, "an H100, FunctionGemma's shape; here " + machine["device"]))


def shorten(arguments: list[str]) -> list[str]:
    """Return arguments with the names of files and folders alone in place of their paths."""
    return [Path(one).name if os.sep in one else one for one in arguments]


def measure_whole(options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Measure whole trainings."""
    n_rows, n_eval = options.rows + options.eval_rows, options.eval_rows
    work, origin = load_workload(options.shape, options.device, n_rows, n_eval, options.data, options.tokenizer)
    print(f"{origin}; {len(work.rows[0])} rows, {count_tokens(work.encoded[0])} tokens, {n_eval} held out")
    known: dict[str, Any] = {"origin": origin}

    def keep(name: str, values: Any) -> None:
        known[name] = values
        write_section(file, "whole", known)

    return whole.run_whole(work, options.train_limit, options.epoch_of, keep)


def measure_evaluation(options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Measure evaluations in the format that fgtools chooses for the device, and a GPU's replies in fp32 too.

    In bf16 two ways may round otherwise and so write other tokens; in fp32 they must be the same.
    """
    arguments = ["--shape", options.shape, "--device", options.device, "--rows", str(options.answered)]
    arguments += ["--limit", str(options.evaluate_limit), "--repeats", "1"]
    own = evaluate.parse_options(arguments)
    result = evaluate.compare_kinds(own, lambda known: write_section(file, "evaluate", known))
    if options.device == "cuda":
        exact = [*arguments, "--dtype", "fp32", "--rows", str(EXACT_ROWS), "--ways", "ours", "loop"]
        own = evaluate.parse_options(exact)
        evaluate.compare_kinds(own, lambda known: write_section(file, "evaluate in fp32", known))
    return result


def measure_profile(options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Profile a training step and a decoding step."""
    n_rows = options.steps * ROWS_A_STEP + 4
    work, _ = load_workload(options.shape, options.device, n_rows, 4, options.data, options.tokenizer)
    known: dict[str, Any] = {}

    def keep(name: str, values: Any) -> None:
        known[name] = values
        write_section(file, "profile", known)

    return profile.run_profile(work, options.steps, keep)


if __name__ == "__main__":
    main()
