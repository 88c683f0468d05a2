"""The series as a whole: papermill over the six notebooks, in order, into one run folder.

Knows notebooks, their parameters and what a stage depends on; computes nothing that a notebook does not show.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtools.files import FgtoolsError, is_watched, sha256_of, write_text
from fgtools.run.folder import MADE_BY, STAGES, RunFolder, open_run

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

READS = {
    "01_setup": (),
    "02_data": ("run.json",),
    "03_baseline": ("run.json", "rows.eval.jsonl", "rows.unseen.jsonl"),
    "04_train": ("run.json", "rows.train.jsonl", "rows.eval.jsonl", "audit.json"),
    "05_post_eval": (
        "run.json",
        "rows.eval.jsonl",
        "rows.unseen.jsonl",
        "model",
        "replies.base.jsonl",
        "scores.base.json",
    ),
    "06_publish": (
        "run.json",
        "funnel.json",
        "train.json",
        "model",
        "scores.base.json",
        "scores.tuned.json",
        "compare.json",
    ),
}
"""What each notebook reads from the run folder."""


class PipelineError(FgtoolsError, ValueError):
    """The series cannot run as asked; the message says what to change."""


class StageError(FgtoolsError, RuntimeError):
    """A notebook failed; the message holds the cell's error and where the executed copy lies."""


@dataclass(frozen=True)
class StageOutcome:
    """What happened to one notebook.

    Attributes:
        stage: Its name, such as "02_data".
        skipped: Whether nothing had changed since the last run.
        seconds: Wall-clock time; 0 when skipped.
    """

    stage: str
    skipped: bool
    seconds: float


def select_stages(only: Sequence[str]) -> tuple[str, ...]:
    """Give the stages to run, in order.

    Args:
        only: Numbers or names ("02", "2" or "02_data"); empty: all six.

    Returns:
        The stage names.

    Raises:
        PipelineError: A stage is unknown.
    """
    by_number = {stage[:2]: stage for stage in STAGES}
    chosen = set()
    for name in only:
        stage = name if name in STAGES else by_number.get(name.zfill(2))
        if stage is None:
            raise PipelineError(f"--only takes the stages {', '.join(STAGES)} or their numbers, got {name!r}")
        chosen.add(stage)
    return tuple(stage for stage in STAGES if not only or stage in chosen)


def read_parameters(notebook: Path) -> dict[str, str]:
    """Give the parameters a notebook declares, with their defaults as written."""
    import papermill

    return {name: details["default"] for name, details in papermill.inspect_notebook(str(notebook)).items()}


def assign_parameters(
    stages: Sequence[str], parameters: Mapping[str, Any], folder: Path = NOTEBOOKS
) -> dict[str, dict[str, Any]]:
    """Give each stage the parameters it declares.

    Args:
        stages: The stages that will run.
        parameters: Values by parameter name.
        folder: Where the notebooks lie.

    Returns:
        Parameter values by stage.

    Raises:
        PipelineError: No stage that will run declares a name.
    """
    declared = {stage: read_parameters(folder / f"{stage}.ipynb") for stage in stages}
    known = sorted({name for names in declared.values() for name in names})
    for name in parameters:
        if name not in known:
            raise PipelineError(f"{name!r} is not a parameter of {', '.join(stages)}: they take {', '.join(known)}")
    return {
        stage: {name: parameters[name] for name in names if name in parameters} for stage, names in declared.items()
    }


def run_series(
    out_dir: str | Path,
    parameters: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    resume: bool = False,
    folder: Path = NOTEBOOKS,
) -> tuple[StageOutcome, ...]:
    """Execute the notebooks with papermill, each in its own kernel, and keep the executed copies.

    Args:
        out_dir: The run folder; executed copies go to its notebooks folder.
        parameters: Values by parameter name, for every notebook that declares it.
        only: Stages to run, see select_stages.
        resume: Skip a stage whose inputs, parameters and code are those of its last complete run.
        folder: Where the notebooks lie.

    Returns:
        One outcome a stage.

    Raises:
        PipelineError: A stage or parameter is unknown, or the notebooks are not there.
        StageError: A notebook failed.
    """
    if not folder.is_dir():
        raise PipelineError(f"the notebooks must lie in {folder}: run from a clone of the repository")
    stages = select_stages(only)
    run = open_run(Path(out_dir).absolute())
    assigned = assign_parameters(stages, dict(parameters or {}) | {"RUN_DIR": str(run.root)}, folder)
    outcomes = []
    for stage in stages:
        notebook = folder / f"{stage}.ipynb"
        state = _state(run, stage, notebook, assigned[stage])
        if resume and state == _recorded_states(run).get(stage) and _has_outputs(run, stage):
            print(f"{stage}  unchanged, skipped", flush=True)
            outcomes.append(StageOutcome(stage, True, 0.0))
            continue
        started = time.perf_counter()
        print(f"{stage}  running ...", flush=True)
        _execute(notebook, run, assigned[stage])
        seconds = time.perf_counter() - started
        _record_state(run, stage, _state(run, stage, notebook, assigned[stage]))
        print(f"{stage}  done in {seconds:.0f} s", flush=True)
        outcomes.append(StageOutcome(stage, False, seconds))
    return tuple(outcomes)


def _execute(notebook: Path, run: RunFolder, parameters: Mapping[str, Any]) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    copy = run.root / "notebooks" / notebook.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    environment = {"FGTOOLS_BATCH": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(copy),
            parameters=dict(parameters),
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],  # a kernel's own warnings are not about the notebook
            cwd=str(notebook.parent),
            progress_bar=before["FGTOOLS_BATCH"] is None and is_terminal(),
        )
    except PapermillExecutionError as error:
        raise StageError(
            f"{notebook.stem} failed in cell {error.exec_count}: {error.ename}: {error.evalue}\n"
            f"the notebook up to that cell: {copy}"
        ) from error
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def is_terminal() -> bool:
    """Tell whether a person watches this process in a terminal."""
    import sys

    return is_watched() and sys.stderr.isatty()


def _state(run: RunFolder, stage: str, notebook: Path, parameters: Mapping[str, Any]) -> str:
    """Hash what a stage's result depends on: its notebook, its parameters, the package's code, its inputs."""
    package = Path(__file__).parents[1]
    code = {path.relative_to(package).as_posix(): sha256_of(path) for path in sorted(package.rglob("*.py"))}
    inputs = {name: sha256_of(run.root / name) for name in READS[stage] if (run.root / name).exists()}
    parts = [sha256_of(notebook), dict(parameters), code, inputs]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _recorded_states(run: RunFolder) -> dict[str, str]:
    path = run.root / "stages.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _record_state(run: RunFolder, stage: str, state: str) -> None:
    states = {**_recorded_states(run), stage: state}
    write_text(run.root / "stages.json", json.dumps(states, indent=1) + "\n")


def _has_outputs(run: RunFolder, stage: str) -> bool:
    return all((run.root / name).exists() for name, maker in MADE_BY.items() if maker == stage)


def parse_parameters(pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Read NAME VALUE pairs of a command line; a value that is JSON (a number, true, a list) becomes that, else text.

    Args:
        pairs: The pairs.

    Returns:
        Values by parameter name.
    """
    values: dict[str, Any] = {}
    for name, text in pairs:
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values
