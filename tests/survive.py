"""Kills at random moments over all stages of a small offline run (`make survive`), and whether the results are equal.

A series runs unbroken; then chains of it are killed once in every stage with a signal that no program can catch, each
resumed until done. In turn the command alone is killed, as where memory runs out, and the command with every process
that it started, as where a container ends. What must be equal is compared: rows and weights byte for byte, replies
letter by letter, confidences to 1e-4 (a resumed evaluation cuts other batches), scores as numbers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from fgtools.files import read_json, read_jsonl, sha256_of
from fgtools.run.identity import CONTENT_HASH
from fgtools.run.progress import RECORD as SECONDS
from fgtools.run.stages import STAGES

SMALL = ("-p", "N_TOTAL", "150", "-p", "N_EVAL", "20", "-p", "EPOCHS", "0.6")
OFFLINE = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "FGTOOLS_BATCH": "1", "OMP_NUM_THREADS": "1"}

SIDES = ("base", "base.unseen", "tuned", "tuned.unseen")
SAME_BYTES = ("rows.train.jsonl", "rows.eval.jsonl", "rows.unseen.jsonl", "funnel.json", "model")
SAME_VALUES = (*(f"replies.{side}.jsonl" for side in SIDES), *(f"scores.{side}.json" for side in SIDES), "compare.json")
NOT_COMPARED = {"inputs", CONTENT_HASH}
TRAINING = ("n_train", "n_eval", "steps", "updates", "saved_step", "tokens", "label_tokens", "candidates", "arguments")
CONFIDENCE_ERROR = 1e-4
ORPHANS_GONE = 3.0
"""Seconds within which what a killed command started must have ended."""


class Series:
    """`python -m fgtools run --resume` as a process of its own, whose lines are read as they come."""

    def __init__(self, out: Path) -> None:
        words = [sys.executable, "-m", "fgtools", "run", "--profile", "offline", "--out", str(out), "--resume", *SMALL]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.lines: list[str] = []
        self.job = subprocess.Popen(words, **pipes, env={**os.environ, **OFFLINE}, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.job.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def stage(self) -> str:
        """The stage that is running, as far as was said."""
        said = [line[: line.index(" ")] for line in list(self.lines) if re.match(r"\d\d_\w+  runs, since", line)]
        return said[-1] if said else ""

    def wait_for(self, stage: str) -> bool:
        """Wait until a stage, or a later one, is running; return whether one is."""
        while self.job.poll() is None:
            if self.stage >= stage:
                return True
            time.sleep(0.02)
        return False

    def kill(self, with_children: bool) -> float:
        """Kill the command, and what it started too or not; return the seconds until all of it had ended."""
        children = psutil.Process(self.job.pid).children(recursive=True)
        self.job.kill()
        for child in children if with_children else []:
            child.kill()
        began = time.monotonic()
        self.job.wait()
        _, left = psutil.wait_procs(children, timeout=20)
        for child in left:
            child.kill()
        return time.monotonic() - began


def run_to_the_end(out: Path) -> list[str]:
    """Run or resume a series; return its lines. Raises RuntimeError where it fails."""
    series = Series(out)
    series.job.wait()
    series.reader.join()
    if series.job.returncode:
        raise RuntimeError("\n".join(["the series failed:", *series.lines[-20:]]))
    return series.lines


def list_differences(one: Path, other: Path) -> Iterator[str]:
    """Yield what is not equal in two run folders and must be, in words."""
    for name in SAME_BYTES:
        if sha256_of(one / name) != sha256_of(other / name):
            yield f"{name} has other bytes"
    for name in SAME_VALUES:
        read = read_jsonl if name.endswith(".jsonl") else read_json
        sides = [read(folder / name) if (folder / name).exists() else None for folder in (one, other)]
        if not is_equal(*sides):
            yield f"{name} has other values"
    trainings = [read_json(folder / "train.json") for folder in (one, other)]
    for name in TRAINING:
        if not is_equal(*(training[name] for training in trainings)):
            yield f"train.json has another {name}"


def is_equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal, numbers with a fraction to CONFIDENCE_ERROR, hashes of inputs left out."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = [[name for name in side if name not in NOT_COMPARED] for side in (one, other)]
        return names[0] == names[1] and all(is_equal(one[name], other[name]) for name in names[0])
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CONFIDENCE_ERROR, abs_tol=CONFIDENCE_ERROR)
    return type(one) is type(other) and one == other


def kill_in_every_stage(out: Path, seconds: dict[str, float], chance: random.Random, wanted: int, done: int) -> int:
    """Kill a series once in every stage, the one after the other; return how many kills there were.

    Args:
        out: Its run folder.
        seconds: How long each stage takes unbroken.
        chance: Decides the moments.
        wanted: Kills at most.
        done: Kills before these, for the lines that are printed.
    """
    kills = 0
    for stage in list(STAGES)[:wanted]:
        series, delay, with_children = Series(out), chance.uniform(0, seconds[stage]), chance.random() < 0.5
        if series.wait_for(stage):
            time.sleep(delay)
        if series.job.poll() is not None:
            print(f"         {stage} ended before its kill, which is not counted", flush=True)
            continue
        hit = series.stage
        took, kills = series.kill(with_children), kills + 1
        who = "with all that it started" if with_children else f"alone; its kernel ended {took:.1f} s later"
        late = ", TOO LATE" if took > ORPHANS_GONE else ""
        print(f"kill {done + kills:>3}: {hit}, {delay:.1f} s after {stage} began, {who}{late}", flush=True)
    return kills


def main() -> int:
    """Run the kills; return 0 where every chain ends with equal results."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further chain after so many")
    parser.add_argument("--out", type=Path, default=Path("build/survive"))
    options = parser.parse_args()
    began, chance = time.monotonic(), random.Random(options.seed)
    shutil.rmtree(options.out, ignore_errors=True)
    whole = options.out / "whole"
    run_to_the_end(whole)
    seconds = {stage: float(read_json(whole / SECONDS)[stage]) for stage in STAGES}
    print(f"unbroken: {sum(seconds.values()):.0f} s, {json.dumps(seconds)}; seed {options.seed}", flush=True)
    kills = equal = chain = 0
    while kills < options.kills and time.monotonic() - began < options.minutes * 60:
        chain += 1
        out = options.out / f"chain-{chain}"
        more = kill_in_every_stage(out, seconds, chance, options.kills - kills, kills)
        run_to_the_end(out)
        different = list(list_differences(whole, out))
        kills, equal = kills + more, equal + (0 if different else more)
        print(f"chain {chain}: {more} kills, {'; '.join(different) or 'equal to the unbroken run'}", flush=True)
        shutil.rmtree(out)
    print(f"{equal} of {kills} kills ended in equal results ({chain} chains, {options.kills} kills asked for)")
    return 0 if equal == kills == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
