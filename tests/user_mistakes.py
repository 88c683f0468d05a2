"""What people type by mistake, and the sentence that each gets: `python -m tests.user_mistakes` prints the list.

A sentence says what must hold, what was got and what to do; nothing here computes on a model.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from fgtools.__main__ import main
from fgtools.offline import CHECKPOINT
from fgtools.offline.samples import build_samples

USAGE, ERROR = 2, 1
"""Exit status of words that make no sense, and of what cannot be done."""

TOOLS = '''
def set_alarm(time: str) -> None:
    """Set an alarm.

    Args:
        time: When it rings.
    """
'''

TRAIN = "train --model standin --out out --rows"
EVALUATE = "evaluate --model standin --out out --rows"
PREPARE = "prepare --out out --data"

MISTAKES = (
    ("trian --rows rows", USAGE, "did you mean 'train'?"),
    (f"{TRAIN} rows --batchsize 4", USAGE, "did you mean --batch-size?"),
    (f"{TRAIN} rows --epochs many", USAGE, "--epochs: must be a finite number, got 'many'"),
    (f"{TRAIN} rows --batch-size -4", USAGE, "--batch-size: must be a whole number of at least 1, got '-4'"),
    (f"{TRAIN} rows --batch-size 0", USAGE, "--batch-size: must be a whole number of at least 1, got '0'"),
    (f"{TRAIN} rows --processes -2", USAGE, "--processes: must be a whole number of at least 1, got '-2'"),
    (f"{TRAIN} rows --precision fp8", USAGE, "invalid choice: 'fp8' (choose from"),
    (f"{TRAIN} rows --seeds 40", ERROR, "--seeds takes two or more, got [40]: use --seed for one"),
    (f"{TRAIN} sample.jsonl", ERROR, "must be a folder that `prepare` wrote, got the file sample.jsonl"),
    (f"{TRAIN} run", ERROR, "run lacks rows.train.jsonl: make it with `python -m fgtools prepare"),
    (f"{TRAIN} nowhere", ERROR, "nowhere lacks rows.train.jsonl: make it with `python -m fgtools prepare"),
    ("run --epochs 3", USAGE, "set the notebooks' parameter with -p EPOCHS VALUE"),
    ("run --out new -p EPOCH 3", ERROR, "'EPOCH' is not a parameter of 01_setup, 02_data"),
    ("run --out new -p N_TOTAL abc", ERROR, "N_TOTAL must be a whole number, such as 20, got 'abc'"),
    ("run --out new -p N_EVAL 0", ERROR, "N_EVAL must be at least 1, got 0"),
    ("run --out new -p PROCESSES -2", ERROR, "PROCESSES must be at least 0, got -2"),
    ("run --out new -p PRECISION fp8", ERROR, "PRECISION must be one of 'auto', 'fp32', 'bf16', 'fp16', got 'fp8'"),
    ("run --out new -p TARGET_PRECISION 90", ERROR, "must be a share above 0 and at most 1, such as 0.9, got 90.0"),
    ("run --out new -p DRY_RUN maybe", ERROR, "DRY_RUN must be True or False, got 'maybe'"),
    ("run --out new --only 7", ERROR, "--only takes the stages 01_setup"),
    ("run --out a_file", ERROR, "the run folder (RUN_DIR, --out) must be a folder, got the file"),
    ("run --out a_file/sub", ERROR, "a_file is a file: give another path, or move that file away"),
    ('run --data ""', USAGE, "--data: must not be empty, got ''"),
    (f'{PREPARE} ""', USAGE, "--data: must not be empty, got ''"),
    (f"{PREPARE} nowhere.csv", ERROR, "got 'nowhere.csv', which does not exist: check the path"),
    (f"{PREPARE} notes.txt", ERROR, "must end in one of"),
    (f"{PREPARE} empty.jsonl", ERROR, "empty.jsonl"),
    (f"{PREPARE} broken.jsonl", ERROR, "broken.jsonl, line 2: must be a JSON object"),
    (f"{PREPARE} sample.jsonl --n-eval 0", USAGE, "--n-eval: must be a whole number of at least 1, got '0'"),
    (f"{PREPARE} sample.jsonl --no-call-share 30", USAGE, "a share of at most 1, such as 0.3 for 30 %"),
    (f"{PREPARE} sample.jsonl --shape xalm", USAGE, "did you mean 'xlam'?"),
    ("prepare --out a_file/sub --data sample.jsonl --n-eval 4", ERROR, "a_file is a file: give another path"),
    (f"{PREPARE} sample --tools tools.py", ERROR, "TOOLS must come with DATA of your own"),
    (f"{PREPARE} sample.jsonl --tools nowhere.py", ERROR, "nowhere.py"),
    (f"{PREPARE} sample.jsonl --tools notes.txt", ERROR, "a file of tools must end in one of"),
    (f"{PREPARE} owner/data", ERROR, "the variable HF_HUB_OFFLINE forbids to ask the hub: unset it"),
    ("audit --data sample.jsonl --model standin --max-length 20", ERROR, "so none is left to train on"),
    ("audit --data sample.jsonl --model functiongemma", ERROR, "MODEL must be 'standin', an existing folder"),
    ("audit --data sample.jsonl --model ./nowhere", ERROR, "'./nowhere' does not exist: check the path"),
    (
        "audit --data sample.jsonl --model owner/model",
        ERROR,
        "the variable HF_HUB_OFFLINE forbids to ask the hub: unset",
    ),
    ("evaluate --model run --out out --rows run/rows.eval.jsonl", ERROR, "the run's model is 'run/model'"),
    (f"{EVALUATE} run", ERROR, "run must be a file, but is a folder: name the file in it, such as rows.eval.jsonl"),
    (f"{EVALUATE} nowhere.jsonl", ERROR, "the file nowhere.jsonl must exist, but it does not: check the path"),
    (f"{EVALUATE} sample.jsonl", ERROR, "write it anew with `python -m fgtools prepare`"),
    (f"{EVALUATE} run/rows.eval.jsonl --name ../up", USAGE, "must be a part of a file's name, such as base"),
    ("score --rows run/rows.eval.jsonl --replies none.jsonl", ERROR, "every row must have a reply, but 1 have none"),
    (
        "score --rows run/rows.eval.jsonl --replies x --precision 90",
        USAGE,
        "a share above 0 and at most 1, such as 0.9",
    ),
    ("draft --tools tools.py --out a_file", ERROR, "must be a new file, but it exists and may hold what you wrote"),
    ("draft --tools tools.py --out new.csv --endpoint http://localhost:1/v1", ERROR, "--model NAME"),
    ("draft --tools tools.py --out new.csv --per-tool 0", USAGE, "--per-tool: must be a whole number of at least 1"),
    ("call --model standin wake me up", USAGE, "is one word too many: quote what has spaces"),
    ("export --model standin --out out --types q9", USAGE, "invalid choice: 'q9'"),
    ("publish --run nowhere", ERROR, "--run must be the folder of a run, with its run.json, got 'nowhere'"),
)
"""What is typed, the exit status, and a part of the sentence."""


@dataclass(frozen=True)
class Outcome:
    """What came of a mistake.

    Attributes:
        words: What was typed after `python -m fgtools`.
        status: The exit status.
        said: What was printed on standard error.
    """

    words: str
    status: int
    said: str


def fill_folder(folder: Path) -> None:
    """Write the files that the mistakes name."""
    rows = [row for row in build_samples(40, 21) if isinstance(row.get("conversations"), list)]
    row = {"row_id": "a", "source": "", "scenario": "", "group": "g", "gold": [], "reply": "", "tools": []}
    row["messages"] = [{"role": "developer", "content": "d"}, {"role": "user", "content": "Stop."}]
    texts = {
        "sample.jsonl": "".join(json.dumps(one) + "\n" for one in rows),
        "empty.jsonl": "",
        "none.jsonl": "",
        "broken.jsonl": '{"conversations": []}\n{"conversations": [\n',
        "notes.txt": "notes",
        "a_file": "text",
        "tools.py": TOOLS,
        "run/rows.eval.jsonl": json.dumps(row) + "\n",
        "run/model/config.json": (CHECKPOINT / "config.json").read_text(encoding="utf-8"),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def make_mistakes(folder: Path) -> Iterator[Outcome]:
    """Type every mistake in a folder that holds the files, offline, and yield what came of it."""
    fill_folder(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        for words, _, _ in MISTAKES:
            said = io.StringIO()
            with patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}), contextlib.redirect_stderr(said):
                try:
                    with contextlib.redirect_stdout(io.StringIO()):
                        status = main(shlex.split(words))
                except SystemExit as stopped:
                    status = int(stopped.code or 0)
            yield Outcome(words, status, said.getvalue().strip())
    finally:
        os.chdir(before)


def show() -> None:
    """Print every mistake with its exit status and its sentence."""
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(make_mistakes(Path(folder)), start=1):
            print(f"{number:>2}. fgtools {one.words}\n    [{one.status}] {one.said}".replace("\n", "\n    ").rstrip())


if __name__ == "__main__":
    show()
