"""A stand-in tuned on the tools of docs/examples, one of which has a parameter that the template hides.

Its rows are conversations that go on to the words after a result, so that a loop can come to its end.
"""

import itertools
import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from fgtools.__main__ import main
from fgtools.files import write_jsonl
from fgtools.gold import normalize_result
from fgtools.rows import build_rows
from fgtools.schema import load_tools

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

TIMES = ("06:10", "06:30", "07:15", "08:00", "09:45", "10:20", "11:05", "12:30", "17:40", "18:25", "21:00", "22:50")
ROOMS = ("kitchen", "bedroom", "hall", "office", "garden")


def build_steps():
    """Yield a request, the tool and arguments that are right, the result, and what is said then."""
    for number, (time, (words, kind)) in enumerate(itertools.product(TIMES, (("", "once"), ("every day ", "daily")))):
        start = ("wake me", "set an alarm")[number // 2 % 2]
        arguments, result = {"time": time, "type": kind}, {"alarm": number % 3 + 1, "time": time}
        yield f"{start} {words}at {time}", "set_alarm", arguments, result, f"The alarm is set for {time}."
    for room, level in itertools.product(ROOMS, (0, 15, 40, 60, 75)):
        light = {"room": room, "level": level}
        yield f"set the light in the {room} to {level}", "set_light", light, light, f"The light in the {room} is on."
    asks = ("which alarms are set", "list my alarms", "show me the alarms", "what alarms do i have")
    for request in (*asks, "list the alarms", "tell me my alarms", "which alarms do i have", "show me my alarms"):
        yield request, "list_alarms", {}, [], "No alarm is set."


def build_said_row(row, result, text):
    """Return the row that teaches what is said after a result; no raw row gives one, since it teaches no call."""
    functions = [{"type": "function", "function": call} for call in row["gold"]]
    calling = {"role": "assistant", "content": "", "tool_calls": functions}
    answered = {"role": "tool", "name": row["gold"][0]["name"], "content": normalize_result(result)}
    messages = [*row["messages"], calling, answered]
    return {**row, "row_id": f"{row['row_id']}/said", "messages": messages, "gold": [], "reply": text}


@pytest.fixture(scope="session")
def tuned(tmp_path_factory, coverage):
    """The folder of the tuned stand-in, made by the command that a user runs; once for all processes of the tests."""
    place = tmp_path_factory.getbasetemp()
    folder = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "tuned"
    with FileLock(f"{folder}.lock"):
        if not (folder / "model").is_dir():
            folder.mkdir(exist_ok=True)
            train_on_home_tools(folder, coverage)
    return folder / "model"


def train_on_home_tools(folder, coverage):
    """Write the rows, which are too much alike for a split, and train on them."""
    tools = load_tools(EXAMPLES / "home_tools.py")
    steps = list(build_steps())
    raws = [
        {"query": step[0], "answers": json.dumps([{"name": step[1], "arguments": step[2]}]), "tools": tools}
        for step in steps
    ]
    rows = build_rows(raws, coverage=coverage).rows
    assert len(rows) == len(steps)
    rows = [one for row, step in zip(rows, steps, strict=True) for one in (row, build_said_row(row, *step[3:]))]
    write_jsonl(folder / "rows.train.jsonl", [row for number, row in enumerate(rows) if number % 9])
    write_jsonl(folder / "rows.eval.jsonl", rows[::9])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGTOOLS_BATCH", "1")
        words = ["train", "--rows", str(folder), "--model", "standin", "--profile", "offline", "--out", str(folder)]
        assert main([*words, "--epochs", "14", "--batch-size", "8", "--ignore-audit"]) == 0
