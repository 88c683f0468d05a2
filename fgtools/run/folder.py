"""The run folder: where its files lie, and how they are read and written.

Knows files, JSON and hashes; not what rows, scores or models mean. Every file is written under a temporary name and
then renamed, so that a killed run never leaves half a file. Stages hand over through this folder only; on Kaggle the
files of earlier notebooks lie in attached folders of the same run (`attached`). Files are held against the hashes in
those that were made from them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtools.files import (
    FgtoolsError,
    FileError,
    InputError,
    find_below,
    find_kaggle_inputs,
    is_on_kaggle,
    make_folder,
    read_json,
    read_jsonl,
    sha256_of,
    write_json,
    write_jsonl,
    write_parts,
    write_text,
)
from fgtools.run.attached import AttachedRun, choose_attached_run, describe_places, find_attached_runs
from fgtools.run.identity import CONTENT_HASH, RUN_FILE, hash_artifact, hash_content
from fgtools.run.stages import STAGES, find_maker

MANIFEST = "manifest.json"

SOURCES = "sources"
"""The key of run.json under which the hashes of data, tools and model stand, where they are local files or folders."""


class MissingArtifactError(FgtoolsError, FileNotFoundError):
    """A stage's input is not there; the message names the notebook that makes it."""


class MixedRunError(FgtoolsError, ValueError):
    """Files of a run do not belong together, or one was changed by hand; the message names them and the remedy."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder, and where else its inputs may lie.

    Attributes:
        root: Where this run writes.
        inputs: Attached folders of the same run, which hold what `root` does not.
    """

    root: Path
    inputs: tuple[Path, ...] = ()

    def find(self, name: str) -> Path:
        """Return the path of an input.

        Args:
            name: File or folder name relative to the run folder, such as "rows.train.jsonl" or "model".

        Returns:
            Its path: in the run folder, else in one of `inputs`.

        Raises:
            MissingArtifactError: It is nowhere.
            MixedRunError: Two of `inputs` hold unlike files of that name, or it was made from other files than those
                that are there.
        """
        path = self.locate(name)
        if path is None:
            where = " and ".join([f"the run folder {self.root.name!r}", *map(str, self.inputs)])
            maker = find_maker(name)
            remedy = f"run {maker} first" if maker else "give the path of an existing file"
            held = "does" if not self.inputs else "do"
            raise MissingArtifactError(
                f"{name} must be there for this stage, but {where} {held} not hold it: {remedy}.{_tell_others(name)}"
            )
        if path.parent != self.root:
            self._check_attached(path)
        return path

    def locate(self, name: str) -> Path | None:
        """Return where a file or folder of the run lies, unchecked; None where it is nowhere.

        Raises:
            MixedRunError: Two of `inputs` hold unlike files of that name.
        """
        own = self.root / name
        if own.exists():
            return own
        found = [path for path in (folder / name for folder in self.inputs) if _is_there(path)]
        if len(found) > 1 and len({sha256_of(path) for path in found}) > 1:
            raise MixedRunError(
                f"one attached folder must hold {name} of this run, but {len(found)} hold it with unlike contents: "
                f"{', '.join(map(str, found))}: detach the notebooks whose results are not wanted"
            )
        return found[0] if found else None

    def _check_attached(self, path: Path) -> None:
        """Hold the files of the run against the hashes of those that an attached one was made from, and so on."""
        for source, digest in self.list_made_from(path):
            if (found := hash_artifact(source)) != digest:
                raise MixedRunError(
                    f"{path} was made from {source.name} with the sha256 {digest[:12]}..., but {source} has "
                    f"{found[:12]}...: attach the outputs of one and the same run of the notebooks, or run "
                    f"{find_maker(path.name)} again"
                )
            if source.parent != self.root:
                self._check_attached(source)

    def list_made_from(self, path: Path) -> list[tuple[Path, str]]:
        """Return what a file or folder of the run was made from, of what is there, with the hashes that it had then.

        Args:
            path: A JSON file that a stage writes, or the model's folder. Others do not say.
        """
        file, stage = path / "tools.json" if path.is_dir() else path, STAGES.get(find_maker(path.name))
        if stage is None or file.suffix != ".json" or not file.is_file():
            return []
        known = {*stage.reads, *stage.may_read, *stage.writes, *stage.may_write, *stage.checks} - {path.name}
        made_from = read_json(file).get("inputs", {}).items()
        found = [(self.locate(name), digest) for name, digest in made_from if name in known]
        return [(source, digest) for source, digest in found if source is not None]

    def check_inputs(self, stage: str) -> str:
        """Check that what a notebook will read is what the earlier ones made, and that it belongs together.

        Every JSON of a run says what it was made from, so a file that was changed since, by hand or by another run of
        an earlier notebook, is found by its hash.

        Args:
            stage: The notebook's stage, such as "04_train".

        Returns:
            A line for people, which names the files that no hash is known of, such as figures.

        Raises:
            MixedRunError: Two files do not belong together, or one was changed by hand; the message names it and says
                which notebook to run again.
            DataFileError: A JSON file of the run is damaged.
        """
        files, held = STAGES[stage], set[str]()
        if self.locate(RUN_FILE):
            held |= _check_sources(self.read_json(RUN_FILE), stage)
        names = (*files.reads, *files.may_read, *files.checks)
        there = {name: path for name in names if (path := self.locate(name))}  # whoever needs another one says so
        for name, path in there.items():
            if path.suffix == ".json":
                self.read_json(name)  # as it was written
                held |= {name} if CONTENT_HASH in read_json(path) else set()
            for source, digest in self.list_made_from(path):
                if source.name in names:
                    _require_unchanged(path, source, digest)
                    held.add(source.name)
        unknown = [name for name in there if name not in held]
        told = f"inputs: {len(held)} of {len(held) + len(unknown)} unchanged since they were written, by their hashes"
        return told + (f"; no hash is known of {', '.join(unknown)}" if unknown else "")

    def check_rows(self) -> None:
        """Check that the rows are those that funnel.json describes, where the folder holds one.

        Raises:
            MixedRunError: A rows file was changed since; the message names it.
        """
        if funnel := self.locate("funnel.json"):
            for source, digest in self.list_made_from(funnel):
                if source.name.startswith("rows."):
                    _require_unchanged(funnel, source, digest)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object that a stage has written.

        Raises:
            MissingArtifactError, MixedRunError: As `find`; or the file was changed by hand.
            DataFileError: It holds no JSON object.
        """
        path = self.find(name)
        value = read_json(path)
        digest = value.pop(CONTENT_HASH, "")
        if digest and digest != hash_content(value):
            raise MixedRunError(
                f"{path} must be as it was written, but it was changed by hand: run {find_maker(name)} again"
            )
        return value

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """Read a JSON-lines file; raises as `find` and `read_jsonl`."""
        return read_jsonl(self.find(name))

    def write_json(self, name: str, value: Mapping[str, Any], inputs: Iterable[str | Path] = ()) -> Path:
        """Write a JSON object whole.

        Args:
            name: File name in the run folder.
            value: The object; the key "inputs" is added, and in a file that a stage writes a hash of the content.
            inputs: The files it was made from, by name in this run or by path; their hashes stand under "inputs".

        Returns:
            The path written.
        """
        hashes = self.hash_inputs(inputs)
        if find_maker(name):
            value = {**value, CONTENT_HASH: hash_content({**value, "inputs": hashes})}
        return write_json(self.root / name, value, hashes)

    def hash_inputs(self, inputs: Iterable[str | Path]) -> dict[str, str]:
        """Return by name the hashes of files and folders, given by name in this run or by path."""
        paths = [source if isinstance(source, Path) else self.find(source) for source in inputs]
        return {path.name: hash_artifact(path) for path in paths}

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write a JSON-lines file whole, one row a line."""
        return write_jsonl(self.root / name, rows)

    def write_manifest(self) -> Path:
        """Write manifest.json: the sha256 of every other file but executed notebooks, their record and hidden files.

        A name that lies in `root` and in one of `inputs`, or in several of them, stands for the first of these files.
        """
        files: dict[str, Path] = {}
        for folder in (self.root, *self.inputs):
            for path in folder.rglob("*"):
                if path.is_file():
                    files.setdefault(path.relative_to(folder).as_posix(), path)
        left_out = (MANIFEST, "notebooks/", "stages", ".")  # hidden: locks, files that are being written
        hashes = {name: sha256_of(path) for name, path in sorted(files.items()) if not name.startswith(left_out)}
        return write_text(self.root / MANIFEST, json.dumps({"sha256": hashes}, indent=1) + "\n")


def _require_unchanged(path: Path, source: Path, digest: str) -> None:
    """Raise MixedRunError unless a file still has the hash that it had when another one was made from it."""
    if hash_artifact(source) == digest:
        return
    maker, reader = find_maker(source.name), find_maker(path.name)
    again = maker if maker == reader else f"{maker} again if {source.name} was changed by hand, else {reader}"
    optional = f", or delete {path.name} if it is left from earlier rows" if ".unseen." in path.name else ""
    meant = ""
    if path.name in ("funnel.json", "audit.json") and source.name.startswith("rows."):
        meant = "; if the change is meant, delete funnel.json and audit.json, which describe other rows"
    raise MixedRunError(
        f"{source} must be the one that {path.name} was made from, but it has changed since then (sha256 "
        f"{digest[:12]}... then): run {again} again{optional}{meant}"
    )


def _check_sources(saved: Mapping[str, Any], stage: str) -> set[str]:
    """Hold data, tools and model of a run against the hashes in run.json; return the parameters that were looked at."""
    held = set()
    for name in STAGES[stage].uses:
        digest, path = saved.get(SOURCES, {}).get(name.lower()), Path(saved.get(name.lower()) or "")
        if not digest or not path.exists():
            continue
        if sha256_of(path) != digest:
            raise MixedRunError(
                f"{name} {path} must be as it was when run.json was written, but it has changed since then: run "
                "01_setup again, and the notebooks after it"
            )
        held.add(name)
    return held


def _is_there(path: Path) -> bool:
    return path.is_file() or (path / "config.json").is_file()  # of folders, only models are inputs


def _tell_others(name: str) -> str:
    """Return a sentence about attached files of that name which are not this run's; "" where there are none."""
    mount = find_kaggle_inputs()
    others = [path for path in find_below(mount, name) if path.is_file()] if mount else []
    if not others:
        return ""
    return (
        f" {len(others)} attached of that name are not taken, since the run.json beside them is missing or another "
        f"run's: {', '.join(map(str, others[:3]))}"
    )


def open_run(run_dir: str | Path = "", input_run: str | None = None) -> RunFolder:
    """Open the folder of a run, and make it if it is not there.

    On Kaggle a notebook that goes on with a run gets the attached folders of that run as inputs: of the run whose
    run.json lies in the folder already, else of the one that `input_run` chooses, whose run.json is copied into it.
    Which run that is, and where its files lie, is printed.

    Args:
        run_dir: Its path. "" means: FGTOOLS_RUN_DIR when set, /kaggle/working/run on Kaggle, else runs/offline beside
            the notebooks folder.
        input_run: Which attached run to go on with: a part of the path of one of its folders; "" for the newest; None
            to begin a run, or where the folder holds all that is needed.

    Returns:
        The RunFolder.

    Raises:
        FileError: The path is a file, or the folder cannot be made.
        InputError: `input_run` fits no attached run, or several, or another one than that of the folder.
    """
    if not run_dir:
        beside = "../runs/offline" if Path.cwd().name == "notebooks" else "runs/offline"
        run_dir = os.environ.get("FGTOOLS_RUN_DIR") or ("/kaggle/working/run" if is_on_kaggle() else beside)
    root = Path(run_dir)
    if root.exists() and not root.is_dir():
        raise FileError(f"the run folder (RUN_DIR, --out) must be a folder, got the file {root}: choose another name")
    make_folder(root)
    mount = find_kaggle_inputs()
    runs = [run for run in find_attached_runs(mount) if root not in run.folders] if mount else []
    if input_run and not runs:
        raise InputError(
            f"INPUT_RUN chooses among runs attached on Kaggle, but none is, got {input_run!r}: use RUN_DIR"
        )
    run = _choose_run(root, runs, input_run) if runs else None
    if run is None:
        return RunFolder(root)
    if not (root / RUN_FILE).exists():
        write_parts(root / RUN_FILE, [(run.folders[0] / RUN_FILE).read_bytes()])
    if input_run is not None:
        print(describe_places(run, [other for other in runs if other is not run]), flush=True)
    return RunFolder(root, run.folders)


def _choose_run(root: Path, runs: list[AttachedRun], input_run: str | None) -> AttachedRun | None:
    """Return the attached run to go on with; None for none."""
    own = root / RUN_FILE
    if not own.exists():
        return None if input_run is None else choose_attached_run(runs, input_run)
    identity = sha256_of(own)
    if input_run and choose_attached_run(runs, input_run).identity != identity:
        raise InputError(
            f"INPUT_RUN must name the run that {root} holds already, but {input_run!r} is another one: delete {root} "
            "to go on with that, or give another RUN_DIR"
        )
    same = next((run for run in runs if run.identity == identity), None)
    if input_run is not None and same is not runs[0]:
        print(f"run: the one in {root}; delete that folder to go on with a newer one that is attached: {runs[0]}")
    return same
