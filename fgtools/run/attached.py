"""The runs that are attached to a Kaggle notebook: which belong together, and which one the notebook goes on with.

Knows run.json and folders; not what the other files of a run mean. The output of a notebook holds what its stage wrote,
so a run lies in several folders. They are known by their run.json: notebook 1 writes it with the time, every later
notebook copies it beside its own files, and folders whose run.json is the same, byte for byte, are one run. A file
whose folder has no run.json, or another one, is never taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fgtools.files import InputError, find_below, sha256_of
from fgtools.run.identity import RUN_FILE

_MARKS = ("recipe", "data", "model", "seed")
"""What run.json always holds; a file of that name without them is somebody else's."""


@dataclass(frozen=True)
class AttachedRun:
    """One run, in one or more attached folders.

    Attributes:
        identity: The sha256 of its run.json.
        written: When notebook 1 wrote it, in UTC as ISO 8601; the file's own time where it does not say.
        settings: The content of run.json.
        folders: The folders that hold it, sorted.
    """

    identity: str
    written: str
    settings: Mapping[str, Any]
    folders: tuple[Path, ...]

    def __str__(self) -> str:
        names = {"written": self.written, **{name: self.settings[name] for name in ("recipe", "data", "model")}}
        return ", ".join(f"{name} {value}" for name, value in names.items())


def find_attached_runs(mount: Path) -> list[AttachedRun]:
    """Return the runs below a folder, the newest first.

    Args:
        mount: Where inputs are mounted, in any layout.
    """
    found: dict[str, list[Path]] = {}
    for path in find_below(mount, RUN_FILE):
        if _read_settings(path):
            found.setdefault(sha256_of(path), []).append(path)
    runs = []
    for identity, paths in found.items():
        settings = _read_settings(paths[0])
        time = min(path.stat().st_mtime for path in paths)
        written = settings.get("written") or datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
        runs.append(AttachedRun(identity, written, settings, tuple(path.parent for path in paths)))
    return sorted(runs, key=lambda run: (run.written, run.identity), reverse=True)


def _read_settings(path: Path) -> dict[str, Any]:
    """Return the content of a run.json; {} where it is no run's."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) and all(name in settings for name in _MARKS) else {}


def choose_attached_run(runs: Sequence[AttachedRun], asked: str) -> AttachedRun:
    """Return the run that is asked for, else the newest.

    Args:
        runs: The attached runs, the newest first; at least one.
        asked: A part of the path of one of its folders; "" for the newest.

    Raises:
        InputError: No run, or more than one, has a folder of that name.
    """
    named = [run for run in runs if any(asked in str(folder) for folder in run.folders)]
    if len(named) == 1 or not asked:
        return named[0]
    listed = "".join(f"\n  {folder}: {run}" for run in runs for folder in run.folders)
    raise InputError(
        f"INPUT_RUN must be a part of the path of one attached run, but {asked!r} fits {len(named)} of {len(runs)}:"
        f"{listed}\ngive a longer part, or detach what is not needed"
    )


def describe_places(run: AttachedRun, others: Sequence[AttachedRun]) -> str:
    """Return for people which run is gone on with, what lies in each of its folders, and which runs are left alone.

    Args:
        run: The run.
        others: The other attached runs.
    """
    lines = [f"attached run: {run}"]
    for folder in run.folders:
        names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if path.name != "notebooks")
        lines.append(f"  {folder}: {', '.join(names)}")
    for other in others:
        lines.append(f"not used, another run ({other}): {', '.join(map(str, other.folders))}; INPUT_RUN chooses")
    return "\n".join(lines)
