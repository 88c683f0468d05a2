"""The record of a run: what each stage was made from and what it left, by hash, and why one must run again.

Knows the table of stages, files and hashes; runs nothing. The record lies in stages.json of the run folder. It names
files relative to that folder, so that a folder that was renamed, moved or linked is still the same run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fgtools.files import read_text, sha256_of
from fgtools.run.identity import RUN_FILE, hash_artifact
from fgtools.run.stages import STAGES, Stage

RECORD = "stages.json"
PLACES = ("RUN_DIR",)
"""Parameters that say where a run lies, and not what it is."""

FILE_PARAMETERS = ("DATA", "TOOLS", "MODEL", "BENCHMARK")
"""Parameters that may name a file or folder."""

Signature = tuple[int, int, int]


@dataclass(frozen=True)
class StageRecord:
    """What a complete run of a stage was made from, and what it left.

    Attributes:
        code: Hash of the package's files.
        notebook: Hash of its notebook.
        parameters: Those that were given, without the place of the run folder.
        sources: Hashes of the files and folders that parameters or run.json name, by parameter.
        inputs: Hashes of what it reads from the run folder, by name.
        outputs: Hashes of the files that it wrote, by their path in the run folder.
    """

    code: str
    notebook: str
    parameters: Mapping[str, Any]
    sources: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def load_records(root: Path) -> dict[str, StageRecord]:
    """Return the records of a run by stage; a stage whose record is missing or cannot be read has none."""
    if not (root / RECORD).is_file():
        return {}
    try:
        saved = json.loads(read_text(root / RECORD))
    except ValueError:
        return {}
    names = {field.name for field in fields(StageRecord)}
    whole = {stage: one for stage, one in saved.items() if isinstance(one, dict) and set(one) == names}
    return {stage: StageRecord(**one) for stage, one in whole.items()}


def render_records(records: Mapping[str, StageRecord]) -> str:
    """Return the text of stages.json."""
    return json.dumps({stage: asdict(record) for stage, record in records.items()}, indent=1) + "\n"


def describe_stage(
    root: Path,
    stage: str,
    notebook: Path,
    parameters: Mapping[str, Any],
    code: str,
    table: Mapping[str, Stage] = STAGES,
) -> StageRecord:
    """Return what a stage would be made from now, and what it left as it lies there now.

    Args:
        root: The run folder.
        stage: Its name.
        notebook: Its notebook; relative paths of parameters are relative to the folder of it.
        parameters: Its parameters by name.
        code: Hash of the package, as `hash_package` returns it.
        table: The stages.
    """
    files = table[stage]
    named = {name: str(parameters[name]) for name in FILE_PARAMETERS if parameters.get(name)}
    named = _name_sources(root / RUN_FILE, files.uses) | named
    paths = {name: notebook.parent / value for name, value in named.items()}
    inputs = [name for name in (*files.reads, *files.may_read) if (root / name).exists()]
    return StageRecord(
        code=code,
        notebook=hash_artifact(notebook),
        parameters={name: value for name, value in parameters.items() if name not in PLACES},
        sources={name: sha256_of(path) for name, path in paths.items() if path.exists()},
        inputs={name: hash_artifact(root / name) for name in inputs},
        outputs={name: hash_artifact(path) for name, path in list_outputs(root, stage, table)},
    )


def _name_sources(run_file: Path, uses: tuple[str, ...]) -> dict[str, str]:
    """Return which data, tools and model run.json names; {} where there is no such file."""
    try:
        saved = json.loads(run_file.read_text(encoding="utf-8"))
        return {name: saved[name.lower()] for name in uses if saved.get(name.lower())}
    except (OSError, ValueError, AttributeError):
        return {}


def hash_package(package: Path) -> str:
    """Return a hash of the files of a package: programs, and what it brings along, such as the stand-in's weights.

    Notebooks are left out, since each counts for its own stage, and so is what Python compiled.
    """
    kept = [
        path
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".ipynb"
    ]
    listing = [(path.relative_to(package).as_posix(), sha256_of(path)) for path in kept]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def list_outputs(root: Path, stage: str, table: Mapping[str, Stage] = STAGES) -> Iterator[tuple[str, Path]]:
    """Yield path in the run folder and file, of all files that a stage may have written."""
    for name in (*table[stage].writes, *table[stage].may_write, f"notebooks/{stage}.ipynb"):
        path = root / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                yield file.relative_to(root).as_posix(), file


def sign_outputs(root: Path, stage: str, table: Mapping[str, Stage] = STAGES) -> dict[str, Signature]:
    """Return by path what changes whenever a file is written anew: its inode and its times.

    Several stages write into one folder of figures; comparing this before and after tells whose a file is.
    """
    signatures = {}
    for name, path in list_outputs(root, stage, table):
        about = os.stat(path)
        signatures[name] = (about.st_ino, about.st_mtime_ns, about.st_ctime_ns)
    return signatures


def find_reason(saved: StageRecord | None, now: StageRecord) -> str:
    """Return why a stage must run again, in a few words; "" where nothing has changed.

    Args:
        saved: The record of its last complete run; None where there is none.
        now: What `describe_stage` returns.
    """
    if saved is None:
        return "it was not completed before"
    if saved.code != now.code:
        return "the package has changed"
    if saved.notebook != now.notebook:
        return "its notebook has changed"
    for name in sorted({*saved.parameters, *now.parameters}):
        before, after = (one.parameters.get(name, "not given") for one in (saved, now))
        if before != after:
            return f"{name} was {before!r} and is {after!r}"
    left = {name: digest for name, digest in now.outputs.items() if name in saved.outputs}  # others are other stages'
    return (
        _name_change(saved.sources, now.sources, "what {} names")
        or _name_change(saved.outputs, left, "its output {}")
        or _name_change(saved.inputs, now.inputs, "its input {}")
    )


def _name_change(before: Mapping[str, str], after: Mapping[str, str], form: str) -> str:
    """Return what became of the first file that is not as it was, and how many more there are; "" for none."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not changed:
        return ""
    first, more = changed[0], f", and {len(changed) - 1} more" if len(changed) > 1 else ""
    verb = "is gone" if first not in after else "is new" if first not in before else "has changed"
    return f"{form.format(first)} {verb}{more}"
