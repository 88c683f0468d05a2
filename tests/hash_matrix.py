"""What `run --resume` runs again: every artifact and source of a run, edited or deleted, without running a notebook.

In place of a notebook a function writes what the table of stages says, with contents made from the hashes of what it
reads. `python -m tests.hash_matrix` prints the table.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from fgtools.files import write_text
from fgtools.run import notebooks as pipeline
from fgtools.run.folder import RunFolder
from fgtools.run.record import describe_stage
from fgtools.run.stages import STAGES

MAKERS = {
    "run.json": "01_setup",
    **dict.fromkeys(
        ("rows.train.jsonl", "rows.eval.jsonl", "rows.unseen.jsonl", "funnel.json", "audit.json"), "02_data"
    ),
    **dict.fromkeys(("replies.base.jsonl", "scores.base.json", "self_check.json"), "03_baseline"),
    **dict.fromkeys(("replies.base.unseen.jsonl", "scores.base.unseen.json"), "03_baseline"),
    **dict.fromkeys(("model/config.json", "model/model.safetensors", "train.json"), "04_train"),
    **dict.fromkeys(("replies.tuned.jsonl", "scores.tuned.json", "compare.json"), "05_post_eval"),
    **dict.fromkeys(("replies.tuned.unseen.jsonl", "scores.tuned.unseen.json"), "05_post_eval"),
    **dict.fromkeys(("card.md", "manifest.json"), "06_publish"),
    **{f"figures/{stage}.png": stage for stage in ("02_data", "04_train", "05_post_eval")},
    **{f"notebooks/{stage}.ipynb": stage for stage in STAGES},
}
"""Every file that a stage leaves, with the stage that makes it."""

SOURCES = {"DATA": "rows.csv", "TOOLS": "tools.json", "MODEL": "base/model.safetensors", "BENCHMARK": "bench.jsonl"}
"""Files beside the run folder that parameters name; MODEL is a folder."""


class FakeSeries:
    """A run folder whose stages are written by a function.

    Attributes:
        root: The run folder.
        ran: The stages that ran since this was last emptied.
        round: What every content depends on; another number stands for notebooks that do not come out the same twice.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.round, self.ran = folder, folder / "run", 0, list[str]()
        self.said = ""
        self.parameters: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
        for name, file in SOURCES.items():
            write_text(folder / file, name)
        places = {name: str(folder / file) for name, file in SOURCES.items()} | {"MODEL": str(folder / "base")}
        self.parameters["01_setup"] |= {name: places[name] for name in ("DATA", "TOOLS", "MODEL")}
        self.parameters["02_data"] |= {"BENCHMARK": places["BENCHMARK"]}

    def resume(self, root: Path | None = None) -> list[str]:
        """Run the series with resume=True, and return the stages that ran."""
        run = RunFolder(root or self.root)
        run.root.mkdir(exist_ok=True)
        self.ran = []
        given = {stage: {**self.parameters[stage], "RUN_DIR": str(run.root)} for stage in STAGES}
        asked = {stage: (pipeline.NOTEBOOKS / f"{stage}.ipynb", given[stage]) for stage in STAGES}
        with contextlib.ExitStack() as stack, contextlib.redirect_stdout(io.StringIO()) as out:
            for name, value in {"_execute": self._execute, "hash_package": str, "describe_sums": str}.items():
                stack.enter_context(mock.patch.object(pipeline, name, value))
            pipeline._run_stages(run, asked, resume=True, expected={})
        self.said = out.getvalue()
        return self.ran

    def _execute(self, notebook: Path, run: RunFolder, parameters: Mapping[str, Any], _: Any) -> None:
        stage = notebook.stem
        self.ran.append(stage)
        found = describe_stage(run.root, stage, notebook, parameters, "", STAGES)
        text = json.dumps([stage, found.inputs, found.sources, self.round])
        for name in (name for name, maker in MAKERS.items() if maker == stage):
            content = {"text": text}
            if name == "run.json":
                content |= {name.lower(): parameters[name] for name in ("DATA", "TOOLS", "MODEL")}
            if name.endswith(".ipynb"):
                cell = {"cell_type": "code", "source": ["1"], "outputs": [{"output_type": "stream", "text": [text]}]}
                content = {"cells": [cell], "metadata": {}}
            write_text(run.root / name, json.dumps(content))


def damage(path: Path, how: str) -> None:
    """Delete a file, or edit it so that it has the size that it had."""
    if how == "deleted":
        path.unlink()
    else:
        data = path.read_bytes()
        place = data.rindex(b"[") if b"[" in data else 0  # inside a notebook's output; elsewhere anywhere does
        write_text(path, (data[:place] + b"{" + data[place + 1 :]).decode())


def list_dependents(maker: str) -> list[str]:
    """Return a stage and every stage that reads what it writes, and so on, by the table of stages alone."""
    stages, changed = {maker}, True
    while changed:
        written = {name for stage in stages for name in (*STAGES[stage].writes, *STAGES[stage].may_write)}
        more = {stage for stage, files in STAGES.items() if written & {*files.reads, *files.may_read}}
        more = {stage for stage in more if stage > maker} - stages
        stages, changed = stages | more, bool(more)
    return sorted(stages)


def build_matrix(folder: Path) -> Iterator[tuple[str, str, list[str], list[str], str]]:
    """Yield artifact, damage, stages that ran where they come out the same, where they do not, and the first reason."""
    for name in (*MAKERS, *SOURCES.values()):
        for how in ("edited", "deleted"):
            ran = []
            for other in (False, True):
                series = FakeSeries(folder / f"{name.replace('/', '-')}-{how}-{other}")
                series.resume()
                damage((series.root if name in MAKERS else series.folder) / name, how)
                series.round = int(other)
                ran.append(series.resume())
                first = next(line for line in series.said.splitlines() if ", since " in line)
            yield name, how, *ran, first.partition("since ")[2]


def main() -> None:
    """Print the table."""
    print("| artifact | | ran, where results come out the same | where they do not | reason |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, how, same, other, said in build_matrix(Path(folder)):
            print(f"| `{name}` | {how} | {_shorten(same)} | {_shorten(other)} | {said} |")


def _shorten(stages: list[str]) -> str:
    return ", ".join(stage[:2] for stage in stages) or "nothing"


if __name__ == "__main__":
    main()
