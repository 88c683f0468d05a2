"""The run folder: where its files lie, and how they are read and written.

Knows files, JSON and hashes; not what rows, scores or models mean. Every file is written under a temporary name and
then renamed, so that a killed run never leaves half a file. Stages hand over through this folder only; on Kaggle the
files of earlier notebooks lie under /kaggle/input and are found by their names.
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
    make_folder,
    read_json,
    read_jsonl,
    sha256_of,
    write_json,
    write_jsonl,
    write_text,
)
from fgtools.run.stages import find_maker

KAGGLE_INPUT = Path("/kaggle/input")


class MissingArtifactError(FgtoolsError, FileNotFoundError):
    """A stage's input is not there; the message names the notebook that makes it."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder, and where else its inputs may lie.

    Attributes:
        root: Where this run writes.
        inputs: Folders searched by file name for what `root` does not hold.
    """

    root: Path
    inputs: tuple[Path, ...] = ()

    def find(self, name: str) -> Path:
        """Return the path of an input.

        Args:
            name: File or folder name relative to the run folder, such as "rows.train.jsonl" or "model".

        Returns:
            Its path: in the run folder, else the newest of that name under `inputs`.

        Raises:
            MissingArtifactError: It is nowhere.
        """
        own = self.root / name
        if own.exists():
            return own
        for folder in self.inputs:
            found = [path for path in folder.rglob(name) if path.is_file() or (path / "config.json").is_file()]
            if found:
                return max(found, key=lambda path: (path.stat().st_mtime, str(path)))
        where = " and ".join([f"the run folder {self.root.name!r}", *(str(folder) for folder in self.inputs)])
        maker = find_maker(name)
        remedy = f"run {maker} first" if maker else "give the path of an existing file"
        raise MissingArtifactError(f"{name} must be there for this stage, but {where} does not hold it: {remedy}.")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; raises as `find` and `read_json`."""
        return read_json(self.find(name))

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """Read a JSON-lines file; raises as `find` and `read_jsonl`."""
        return read_jsonl(self.find(name))

    def write_json(self, name: str, value: Mapping[str, Any], inputs: Iterable[str | Path] = ()) -> Path:
        """Write a JSON object whole.

        Args:
            name: File name in the run folder.
            value: The object; the key "inputs" is added.
            inputs: The files it was made from, by name in this run or by path; their sha256 stand under "inputs".

        Returns:
            The path written.
        """
        paths = [source if isinstance(source, Path) else self.find(source) for source in inputs]
        return write_json(self.root / name, value, paths)

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write a JSON-lines file whole, one row a line."""
        return write_jsonl(self.root / name, rows)

    def write_manifest(self) -> Path:
        """Write manifest.json: the sha256 of every other file of the run, executed notebooks left out."""
        files = sorted(path for path in self.root.rglob("*") if path.is_file())
        names = [path.relative_to(self.root).as_posix() for path in files]
        kept = [name for name in names if name != "manifest.json" and not name.startswith(("notebooks/", "stages"))]
        hashes = {name: sha256_of(self.root / name) for name in kept}
        return write_text(self.root / "manifest.json", json.dumps({"sha256": hashes}, indent=1) + "\n")


def open_run(run_dir: str | Path = "") -> RunFolder:
    """Open the folder of a run, and make it if it is not there.

    Args:
        run_dir: Its path. "" means: FGTOOLS_RUN_DIR when set, /kaggle/working/run on Kaggle, else runs/offline beside
            the notebooks folder.

    Returns:
        The RunFolder; on Kaggle with /kaggle/input as a place to find inputs.

    Raises:
        FileError: The path is a file, or the folder cannot be made.
    """
    on_kaggle = "KAGGLE_KERNEL_RUN_TYPE" in os.environ
    if not run_dir:
        beside = "../runs/offline" if Path.cwd().name == "notebooks" else "runs/offline"
        run_dir = os.environ.get("FGTOOLS_RUN_DIR") or ("/kaggle/working/run" if on_kaggle else beside)
    root = Path(run_dir)
    if root.exists() and not root.is_dir():
        raise FileError(f"RUN_DIR must be a folder, got the file {root}: choose another name")
    make_folder(root)
    return RunFolder(root, (KAGGLE_INPUT,) if on_kaggle and KAGGLE_INPUT.exists() else ())
