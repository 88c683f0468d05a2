"""How far the series is: what is shown while a notebook runs, how long it takes, and what to do afterwards.

Knows what notebooks print about their progress, the seconds of earlier runs in the same folder, and terminals; runs
nothing. A terminal shows one line, which is drawn again every second and is gone when the stage ends. Elsewhere nothing
is drawn: a stage is one line, when it is done, beside the estimates that a long training or evaluation prints itself.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from fgtools.files import is_watched, read_json, render_duration, write_text
from fgtools.profiles import STANDIN
from fgtools.run.folder import RunFolder

RECORD = "stages.seconds.json"
"""The file of a run folder that says how long each stage took when it last ran."""

OFFLINE_SECONDS = {
    "01_setup": 10,
    "02_data": 30,
    "03_baseline": 45,
    "04_train": 140,
    "05_post_eval": 60,
    "06_publish": 15,
}
"""How long the stages of the offline default take about on two CPU cores: estimates, not a measurement of one run."""

_CELL = re.compile(r"Executing Cell (\d+)-")
_STEP = re.compile(r"step +(\d+)/(\d+)")
_LEFT = re.compile(r"about ([\w ]+) left")
_ANNOUNCED = re.compile(r"estimate: |replies: |step +\d+/\d+ .* left\b")
"""How lines of a notebook begin that are shown wherever the series runs: they say how long something takes."""

CLEAR = "\r\x1b[K"
"""What takes a line of a terminal away."""


def load_seconds(run: RunFolder, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Return how long each stage takes about: as in the folder's last run, or on the offline default; {} if unknown."""
    if (run.root / RECORD).exists():
        return {stage: float(one) for stage, one in read_json(run.root / RECORD).items() if stage != "inputs"}
    given = {name for name, value in parameters.items() if value not in ("", None) and name != "RUN_DIR"}
    return {} if given & {"DATA", "MODEL", "PROFILE", "EPOCHS", "N_TOTAL"} else dict(OFFLINE_SECONDS)


def keep_seconds(run: RunFolder, stage: str, seconds: float) -> None:
    """Write down how long a stage took."""
    known = read_json(run.root / RECORD) if (run.root / RECORD).exists() else {}
    write_text(run.root / RECORD, json.dumps({**known, stage: round(seconds, 1)}, indent=1) + "\n")


def describe_plan(stages: Sequence[str], run: RunFolder, parameters: Mapping[str, Any]) -> str:
    """Return a line that says how many stages will run, where, and how long they take about.

    Args:
        stages: Those that will run.
        run: The run folder, which need not be there yet.
        parameters: Of the notebooks, as given.
    """
    seconds, how_many = load_seconds(run, parameters), f"plan: {len(stages)} stages into {run.root}"
    if missing := [stage for stage in stages if stage not in seconds]:
        why = "notebook 4 measures its training before it starts" if "04_train" in missing else "no earlier run tells"
        return f"{how_many}; how long they take is not known yet: {why}"
    whole = render_duration(sum(seconds[stage] for stage in stages))
    is_known = (run.root / RECORD).exists()
    where = "as in the last run here" if is_known else "an estimate for two CPU cores and the toy model"
    return f"{how_many}, about {whole} ({where})"


class StageLine:
    """The line of a terminal that says which stage runs, since when, where it is and what is left."""

    def __init__(
        self, stage: str, place: str, expected: float = 0.0, n_cells: int = 0, stream: TextIO | None = None
    ) -> None:
        """Keep what is shown.

        Args:
            stage: Its name.
            place: Which of how many it is, such as "4 of 6".
            expected: Seconds that it takes about; 0 where that is not known.
            n_cells: Cells of its notebook; 0 where that is not known.
            stream: Where to draw; None: standard error if a person watches a terminal there, else nowhere.
        """
        self.stage, self.place, self.expected, self.n_cells = stage, place, expected, n_cells
        watched = is_watched() and os.environ.get("TERM") != "dumb"
        self.stream = stream or (sys.stderr if watched else None)
        self.began, self.steps, self.cell = time.perf_counter(), [], ""
        self.said = ""
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._draw_on, daemon=True)

    def __enter__(self) -> StageLine:
        if self.stream is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self.stream is not None:
            self._thread.join()
            self._write(CLEAR)

    def note(self, line: str) -> None:
        """Take a line of papermill's log, which holds what the notebook prints: it is shown, or moves the live line."""
        now = time.perf_counter()
        if begun := _CELL.match(line):
            self.cell = f"cell {begun[1]} of {self.n_cells}" if self.n_cells else f"cell {begun[1]}"
        if found := _STEP.match(line):
            self.steps = [*self.steps[:1], (int(found[1]), int(found[2]), now)]
        if left := _LEFT.search(line):
            self.said = left[1]
        if _ANNOUNCED.match(line) and (self.stream is None or not found):
            self.say(f"  {line}")

    def say(self, line: str) -> None:
        """Print a line on standard output, above the line of the terminal."""
        with self._lock:
            if self.stream is not None:
                self._write(CLEAR)
            print(line, flush=True)

    def render(self, now: float) -> str:
        """Return the line: stage, place, time since it began, where it is and about how much is left."""
        parts = [f"{self.stage}  {self.place}", render_duration(now - self.began)]
        parts += [f"step {self.steps[-1][0]}/{self.steps[-1][1]}"] if self.steps else [self.cell] if self.cell else []
        left = self._find_left(now)
        return " · ".join([*parts, *([f"about {left} left"] if left else [])])

    def _find_left(self, now: float) -> str:
        """Return how much is left: by the pace of the steps, as the notebook said, or as an earlier run took."""
        if len(self.steps) == 2 and self.steps[1][0] > self.steps[0][0]:
            (first, _, start), (done, total, end) = self.steps
            left = (total - done) * (end - start) / (done - first) - (now - end)
            return render_duration(max(left, 1))
        if self.said:
            return self.said
        left = self.expected - (now - self.began)
        return render_duration(left) if left > 0 else ""

    def _draw_on(self) -> None:
        while not self._ended.wait(1.0):
            with self._lock:
                self._write(CLEAR + self.render(time.perf_counter())[: _columns(self.stream)])

    def _write(self, text: str) -> None:
        if self.stream is not None:
            self.stream.write(text)
            self.stream.flush()


def _columns(stream: TextIO | None) -> int:
    """Return how many characters a line may hold without being broken."""
    try:
        return (os.get_terminal_size(stream.fileno()).columns or 80) - 1  # 0: the terminal does not know
    except (OSError, ValueError, AttributeError):  # no terminal
        return 79


def describe_next_steps(run: RunFolder) -> str:
    """Return what to do after a run, as text; "" where it tuned no model."""
    if not (run.root / "model" / "config.json").exists() or not (run.root / "run.json").exists():
        return ""
    root, command = run.root, "python -m fgtools"
    is_toy = run.read_json("run.json").get("model") == STANDIN
    lines = ["", "next:", f"  look       {root / 'notebooks' / '05_post_eval.ipynb'}: what was learnt, what broke"]
    if is_toy:
        lines += [
            f'  your tools {command} draft --tools tools.py --out examples.csv, and README, "Your own tools"',
            f"  a GPU      {command} run --model google/functiongemma-270m-it --out runs/mine: FunctionGemma itself",
        ]
    else:
        lines += [
            f'  try it     {command} call --model {root / "model"} "what a user would say"',
            f"  pass it on {command} publish --run {root} --dry-run",
        ]
    return "\n".join(lines)
