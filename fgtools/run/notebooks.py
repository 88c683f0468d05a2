"""The series as a whole: papermill over the six notebooks, in order, into one run folder.

Knows notebooks, their parameters and what a stage depends on; computes nothing that a notebook does not show.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fgtools.files import FgtoolsError, make_folder, read_json, render_duration, write_text
from fgtools.rows.preparation import describe_sums
from fgtools.run.exits import find_shortage
from fgtools.run.folder import MANIFEST, RunFolder, open_run
from fgtools.run.identity import hash_artifact
from fgtools.run.lock import hold_folder
from fgtools.run.parameters import assign_parameters
from fgtools.run.progress import StageLine, keep_seconds, load_seconds
from fgtools.run.record import (
    FILE_PARAMETERS,
    RECORD,
    StageRecord,
    describe_stage,
    find_reason,
    hash_package,
    load_records,
    render_records,
    sign_outputs,
)
from fgtools.run.self_check import describe_records
from fgtools.run.settings import load_settings
from fgtools.run.stages import STAGES

PACKAGE = Path(__file__).parents[1]
NOTEBOOKS = PACKAGE / "notebooks" if (PACKAGE / "notebooks").is_dir() else PACKAGE.parent / "notebooks"
"""Where the notebooks are: a wheel holds them, in a clone they lie beside the package."""


_REMEDIES = {
    "disk": ": free some space on the disk",
    "memory": ": take fewer rows, or a smaller BATCH_SIZE or MAX_LENGTH",
}
_FOREIGN = ("OSError", "SafetensorError", "RuntimeError", "MemoryError", "OutOfMemoryError", "BrokenProcessPool")
"""What helps where a disk or memory is full, and the errors that do not say so by themselves: not the package's own."""


class PipelineError(FgtoolsError, ValueError):
    """The series cannot run as asked; the message says what to change."""


class StageError(FgtoolsError, RuntimeError):
    """A notebook failed; the message holds the cell's error and where the executed copy lies."""


def select_stages(only: Sequence[str]) -> tuple[str, ...]:
    """Return the stages to run, in order.

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


def run_series(
    out_dir: str | Path,
    parameters: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    resume: bool = False,
    folder: Path = NOTEBOOKS,
) -> dict[str, float]:
    """Execute the notebooks with papermill, each in its own kernel, and keep the executed copies.

    Args:
        out_dir: The run folder; executed copies go to its notebooks folder.
        parameters: Values by parameter name, for every notebook that declares it.
        only: Stages to run, see select_stages.
        resume: Skip a stage whose parameters, code, inputs and outputs are those of its last complete run, by hash.
            Why another one runs again is printed.
        folder: Where the notebooks lie.

    Returns:
        Seconds by stage; 0 for one that was skipped.

    Raises:
        PipelineError: A stage is unknown, or the notebooks are not there.
        ParameterError: As assign_parameters.
        FolderInUseError: Another process writes into the run folder.
        StageError: A notebook failed.
    """
    if not folder.is_dir():
        raise PipelineError(f"the notebooks must lie in {folder}: install the wheel, or run from a clone")
    stages = select_stages(only)
    run = open_run(Path(out_dir).absolute())
    given = {name: _find_file(name, value) for name, value in dict(parameters or {}).items()}
    assigned = assign_parameters(stages, given | {"RUN_DIR": str(run.root)}, folder)
    with hold_folder(run.root, "run"):
        asked = {stage: (folder / f"{stage}.ipynb", assigned[stage]) for stage in stages}
        return _run_stages(run, asked, resume, load_seconds(run, parameters or {}))


def _find_file(name: str, value: Any) -> Any:
    """Return a parameter's value; of a file or folder the whole path, since notebooks run in their own folder."""
    is_file = name in FILE_PARAMETERS and value and Path(str(value)).exists()
    return str(Path(value).absolute()) if is_file else value


def _run_stages(
    run: RunFolder,
    asked: Mapping[str, tuple[Path, Mapping[str, Any]]],
    resume: bool,
    expected: Mapping[str, float],
) -> dict[str, float]:
    """Run the stages that must be run, of those whose notebook and parameters are given; return the seconds of each."""
    records, seconds, code = load_records(run.root), dict.fromkeys(asked, 0.0), hash_package(PACKAGE)
    for number, (stage, (notebook, parameters)) in enumerate(asked.items(), start=1):
        now = describe_stage(run.root, stage, notebook, parameters, code, STAGES)
        reason = find_reason(records.get(stage), now)
        if resume and not reason:
            print(f"{stage}  unchanged, skipped", flush=True)
            continue
        if resume:
            print(f"{stage}  runs, since {reason}", flush=True)
        started, before = time.perf_counter(), sign_outputs(run.root, stage, STAGES)
        n_cells = len(read_json(notebook)["cells"]) + 1  # papermill adds one with the parameters
        place = f"{number} of {len(asked)}"
        _execute(notebook, run, parameters, StageLine(stage, place, expected.get(stage, 0.0), n_cells))
        seconds[stage] = time.perf_counter() - started
        records[stage] = _finish(run, stage, now, before)
        write_text(run.root / RECORD, render_records(records))
        keep_seconds(run, stage, seconds[stage])
        left = sum(expected.get(other, 0.0) for other in list(asked)[number:])
        more = f", about {render_duration(left)} left" if left else ""
        print(f"{stage}  done in {render_duration(seconds[stage])}  ({place}{more})", flush=True)
        if stage == "02_data" and (run.root / "funnel.json").exists():
            print(describe_sums(run.read_json("funnel.json")), flush=True)
    if any(seconds.values()) and not seconds.get("06_publish") and "06_publish" in records:
        _renew_manifest(run, records)
    return seconds


def _renew_manifest(run: RunFolder, records: dict[str, StageRecord]) -> None:
    """Write the manifest anew where a stage ran whose results notebook 6 does not read: it lists every file."""
    if not (run.root / MANIFEST).is_file():
        return
    digest, publish = hash_artifact(run.write_manifest()), records["06_publish"]
    records["06_publish"] = replace(publish, outputs={**publish.outputs, MANIFEST: digest})
    write_text(run.root / RECORD, render_records(records))


def _finish(run: RunFolder, stage: str, began: StageRecord, before: Mapping[str, Any]) -> StageRecord:
    """Return the record of a stage that is complete, and delete what an earlier run of it left and this one did not.

    Args:
        run: The run folder.
        stage: The stage.
        began: What `describe_stage` returned before it ran: what changed meanwhile is a change for the next run.
        before: What `sign_outputs` returned before it ran.
    """
    own = {name for name, one in sign_outputs(run.root, stage, STAGES).items() if before.get(name) != one}
    for name in STAGES[stage].may_write:
        if name not in own and (run.root / name).is_file():
            (run.root / name).unlink()
            print(f"{stage}  {name} deleted: an earlier run left it, and this one has none", flush=True)
    left = {name: hash_artifact(run.root / name) for name in sorted(own)}
    return replace(began, outputs=left)


class _ShowProgress(logging.Handler):
    """Hands the output of a running notebook, all of which papermill writes to its log, to the stage's line."""

    def __init__(self, shown: StageLine) -> None:
        super().__init__()
        self.shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the lines on."""
        for line in record.getMessage().splitlines():
            self.shown.note(line)


@contextmanager
def _progress_shown(shown: StageLine) -> Iterator[None]:
    """Show the progress of a notebook that papermill executes; its log is as it was afterwards."""
    log, handler = logging.getLogger("papermill"), _ShowProgress(shown)
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        with shown:
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


def _execute(notebook: Path, run: RunFolder, parameters: Mapping[str, Any], shown: StageLine) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from fgtools.run.kernels import OwnKernelManager

    copy = run.root / "notebooks" / notebook.name
    make_folder(copy.parent)
    environment = {"FGTOOLS_BATCH": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with _progress_shown(shown):
            papermill.execute_notebook(
                str(notebook),
                str(copy),
                parameters=dict(parameters),
                kernel_name="python3",  # a name alone: OwnKernelManager looks for no kernelspec
                kernel_manager_class=OwnKernelManager,
                extra_arguments=["--log-level=CRITICAL"],  # a kernel's own warnings are not about the notebook
                cwd=str(notebook.parent),
                start_timeout=600,
                iopub_timeout=600,  # papermill's 60 and 4 seconds are too few on a busy machine
                progress_bar=False,
                log_output=True,
            )
    except PapermillExecutionError as error:
        remedy = _REMEDIES.get(find_shortage(error), "") if error.ename in _FOREIGN else ""
        raise StageError(
            f"{notebook.stem} failed in cell {error.exec_count}: {error.ename}: {error.evalue}{remedy}\n"
            f"the notebook up to that cell: {copy}"
        ) from error
    except DeadKernelError as error:
        raise StageError(
            f"{notebook.stem} failed, since its kernel was ended from outside, most often for want of memory: take "
            f"fewer rows, or a smaller BATCH_SIZE\nthe notebook up to that cell: {copy}"
        ) from error
    except KeyboardInterrupt:
        # the cell that was broken off fails, too, and nobody is left to hear of it
        logging.getLogger("asyncio").addFilter(lambda record: "was never retrieved" not in record.getMessage())
        raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def render_summary(run: RunFolder) -> str:
    """Return what a run came to, as text: the before/after table, the paths of figures and executed notebooks."""
    from fgtools.metrics import Comparison
    from fgtools.report.layout import measure_terminal, render_table, wrap_text
    from fgtools.report.tables import DECIDES_NOTE, build_comparison_table, build_summary_table

    lines = []
    if (run.root / "compare.json").exists():
        comparison = Comparison.from_dict(run.read_json("compare.json"))
        banner = load_settings(run).banner
        if width := measure_terminal():  # where lines have an end, what one looks at first
            table = render_table(build_summary_table(comparison), total=width)
            said = [f"{DECIDES_NOTE} All measures: notebook 5.", comparison.verdict]
        else:
            table, said = render_table(build_comparison_table(comparison)), [DECIDES_NOTE, comparison.verdict]
        lines += [*([banner] if banner else []), table, *(wrap_text(text, width or 10**6) for text in said), ""]
    if (run.root / "self_check.json").exists():
        lines += [f"self-check  {line}" for line in describe_records(run.read_json("self_check.json"))]
    for name, pattern in (("figures", "*.png"), ("notebooks", "*.ipynb")):
        if found := len(list((run.root / name).glob(pattern))):
            lines.append(f"{name:<10}  {found} in {run.root / name}")
    return "\n".join(lines)
