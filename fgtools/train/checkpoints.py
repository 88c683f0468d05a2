"""Checkpoints of a training: whose they are, which are complete, where to go on, and how they are written.

Knows the folders that transformers' trainer writes, and one file of its own in each, written last: a checkpoint without
it was interrupted while it was written, and does not count. That file names the training by a hash of all that decides
it, so that no other training goes on from it; size and hash of every file of the checkpoint, so that a damaged one is
found; and the step whose weights were the best by then. These lie in a file beside the checkpoints (`best`), unless
they are the checkpoint's own. When one is due is decided in `saving`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xxhash  # datasets needs it, too
from accelerate import PartialState
from safetensors import SafetensorError
from transformers import TrainerCallback

from fgtools.files import DataFileError, FgtoolsError, FileError, name_file, read_json, write_text
from fgtools.models.load import fingerprint_model
from fgtools.prompts import Encoded
from fgtools.train.best import BestWeights, anywhere
from fgtools.train.saving import Saving, choose_pause, estimate_seconds, render_duration

if TYPE_CHECKING:
    from fgtools.train.restarts import RestartableTrainer

_MARK = "whole.json"
_BLOCK = 2**20
"""Bytes that are read at once."""


class CheckpointError(FgtoolsError, ValueError):
    """The checkpoints that are there are not this training's; the message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        folder: Its folder.
        step: The optimizer step it was written after.
        seconds: How long the training had taken by then.
        precision: The format it computed in, which may not be the one it began with.
        updates: The optimizer steps until then that could change the weights.
        best: The step whose weights were the best by then; 0: none were kept.
    """

    folder: Path
    step: int
    seconds: float
    precision: str
    updates: int
    best: int


def identify_training(numbers: Mapping[str, Any], sides: Sequence[Sequence[Encoded]], model: torch.nn.Module) -> str:
    """Return a hash of all that decides a training.

    Args:
        numbers: Its numbers by name, as JSON holds them.
        sides: Its training and evaluation rows.
        model: The model it starts from.
    """
    digest = hashlib.sha256(json.dumps(numbers, sort_keys=True, default=str).encode())
    for side in sides:
        for row in side:
            digest.update(repr((row.input_ids, row.n_prompt)).encode())
    digest.update(fingerprint_model(model).encode())
    return digest.hexdigest()


def find_checkpoint(folder: Path, identity: str, resume: bool) -> Checkpoint | None:
    """Find the checkpoint to go on from, and delete those that cannot be: interrupted ones, and damaged newer ones.

    Size and hash of every file are compared, from the newest checkpoint on until one is whole. What is deleted is
    printed with the reason.

    Args:
        folder: The folder of the checkpoints of one training.
        identity: What `identify_training` returns for the training that is to start.
        resume: Whether it may go on from a checkpoint of its own.

    Returns:
        The newest whole checkpoint; None: start from the beginning.

    Raises:
        CheckpointError: The folder holds another training's checkpoints, or this one's and resume is False.
    """
    marks = _read_marks(folder)
    for path, mark in marks.items():
        if mark.get("identity", identity) != identity:
            raise CheckpointError(
                f"{folder.name!r} must hold checkpoints of this training alone, but {path.name} is another's (other "
                "rows, numbers or model): give another --out, or delete that folder if it is not needed"
            )
    newest = max((mark["step"] for mark in marks.values() if mark), default=0)
    if newest and not resume:
        raise CheckpointError(
            f"{folder.name!r} holds a checkpoint of this very training, after step {newest}: pass "
            "--resume (resume=True) to go on from it, or delete that folder to start again"
        )
    PartialState().wait_for_everyone()  # every process has looked before the first one deletes
    if PartialState().is_main_process:
        _delete_broken(folder, marks)
    PartialState().wait_for_everyone()
    whole = [(path, mark) for path, mark in _read_marks(folder).items() if mark]
    if not whole:
        return None
    path, mark = max(whole, key=lambda one: one[1]["step"])
    return Checkpoint(path, *(mark[name] for name in ("step", "seconds", "precision", "updates", "best")))


def _read_marks(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return the marks of checkpoints by their folder; {} for one that has none, or none that can be read."""
    marks: dict[Path, dict[str, Any]] = {}
    for path in sorted(folder.glob("checkpoint-*")):
        try:
            marks[path] = read_json(path / _MARK) if (path / _MARK).is_file() else {}
        except DataFileError:
            marks[path] = {}
    return marks


def _delete_broken(folder: Path, marks: Mapping[Path, Mapping[str, Any]]) -> None:
    """Delete checkpoints without a mark, and those newer than the newest whole one; print why."""
    damaged = 0
    for path, mark in sorted(marks.items(), key=lambda one: one[1].get("step", float("inf")), reverse=True):
        if mark:
            reason = _find_damage(folder, mark)
            if not reason:
                break
            damaged += 1
            print(f"{path.name} is damaged, so it is deleted and the one before it is tried: {reason}", flush=True)
        else:
            print(f"{path.name} was not written to its end, so it is deleted", flush=True)
        shutil.rmtree(path)
    else:
        if damaged:
            print("no checkpoint is whole: the training starts from the beginning, which costs time alone", flush=True)


def _find_damage(folder: Path, mark: Mapping[str, Any]) -> str:
    """Return what is wrong with the first file of a checkpoint that is not as it was written; "" for nothing."""
    files = mark.get("files", {})
    if not files:
        return f"{_MARK} lists no files"
    for name, (size, _) in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (found := (folder / name).stat().st_size) != size:
            return f"{name} must have {size:,} bytes, but has {found:,}"
    for name, (_, digest) in files.items():
        try:
            if hash_file(folder / name) != digest:
                return f"{name} has other contents than were written"
        except FileError as error:  # such as a bad sector
            return str(error)
    return ""


def hash_file(path: Path) -> str:
    """Return the XXH3 hash (128 bits) of a file.

    It finds damage as surely as sha256, which is also safe from forgery, and is some eight times as fast: of a save of
    540 MB it takes 4 % of the processor's time, and sha256 took 25 % (measured with instructions for sha256).

    Raises:
        FileError: The file cannot be read.
    """
    digest, block = xxhash.xxh3_128(), memoryview(bytearray(_BLOCK))
    with name_file(path, "read"), path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
    return str(digest.hexdigest())


class CheckpointWriter:
    """Writes the checkpoints of a training, each whole or not at all, and deletes older ones when a new one is whole.

    Attributes:
        saving: When they are due.
        written: How many were written since the training began or went on.
        failed: How many could not be written.
        seconds: How long writing took in all, failures included.
    """

    def __init__(self, folder: Path, saving: Saving, best: BestWeights, limit: int | None) -> None:
        self.folder, self.saving, self.best, self.limit = folder, saving, best, limit
        self.written = self.failed = self.last_step = 0
        self.seconds = 0.0
        self._pause = choose_pause(estimate_seconds(saving.n_bytes))
        self._since = time.perf_counter()

    def begin(self, step: int) -> None:
        """Count the time from here: the training begins, or goes on after `step`."""
        self.last_step, self._since = step, time.perf_counter()

    def is_due(self, pauses: int = 1) -> bool:
        """Return whether so many of the pauses between two checkpoints have gone by since the last one."""
        return time.perf_counter() - self._since >= pauses * self._pause

    def write(self, mark: Mapping[str, Any], write_parts: Callable[[], None]) -> None:
        """Write a checkpoint; a failure is printed, and the training goes on.

        Args:
            mark: The content of its mark: identity, step, seconds, precision, updates.
            write_parts: Writes what transformers' trainer writes, in every process its own part.
        """
        began, step = time.perf_counter(), mark["step"]
        folder, is_first = self.folder / f"checkpoint-{step}", PartialState().is_main_process
        self.make_room()
        reason = _attempt(write_parts)
        if anywhere(bool(reason)):
            reason = reason or "another process failed"
        elif is_first:
            reason = _attempt(lambda: self._finish(folder, mark))
        took = time.perf_counter() - began
        self.seconds += took
        if reason:
            self.failed += 1
            if is_first:
                shutil.rmtree(folder, ignore_errors=True)
                lost = f"after step {self.last_step}" if self.last_step else "so far"
                print(
                    f"no checkpoint after step {step}: {reason}; the training goes on, and a kill loses all that was "
                    f"done {lost}",
                    flush=True,
                )
        else:
            self.written, self.last_step, self._pause = self.written + 1, step, choose_pause(took)
            if is_first and self.written == 1 and self.saving.when == "time":
                print(
                    f"checkpoint after step {step}: took {render_duration(took)}, so one follows every "
                    f"{render_duration(self._pause)}, and a kill loses at most that",
                    flush=True,
                )
        self.tidy()
        self._since = time.perf_counter()

    def _finish(self, folder: Path, mark: Mapping[str, Any]) -> None:
        best = self.best.step
        if best not in (0, mark["step"]):
            self.best.save()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        paths += [] if best in (0, mark["step"]) else [self.best.file_of(best)]
        files = {path.relative_to(self.folder).as_posix(): (path.stat().st_size, hash_file(path)) for path in paths}
        write_text(folder / _MARK, json.dumps({**mark, "best": best, "files": files}) + "\n")

    def make_room(self) -> None:
        """Delete the oldest checkpoint where `limit` of them lie there, before another one is written; one stays."""
        if self.limit:
            self.tidy(max(1, self.limit - 1))

    def tidy(self, limit: int | None = None) -> None:
        """Delete complete checkpoints beyond a limit, oldest first, and files of best weights that none names.

        Args:
            limit: How many stay; None: as many as the training keeps.
        """
        if not PartialState().is_main_process:
            return
        marks = {path: mark for path, mark in _read_marks(self.folder).items() if mark}
        ordered = sorted(marks, key=lambda folder: marks[folder]["step"])
        kept = limit or self.limit or 0
        for folder in ordered[:-kept] if kept > 0 else []:
            shutil.rmtree(folder, ignore_errors=True)
            del marks[folder]
        needed = {self.best.file_of(mark["best"]) for mark in marks.values()} | {self.best.needed_file}
        for path in self.folder.glob("best-*"):
            if path not in needed:
                path.unlink(missing_ok=True)


def _attempt(write: Callable[[], None]) -> str:
    """Write something; return why it failed, or "". torch's and safetensors' writers have errors of their own."""
    try:
        write()
    except (OSError, RuntimeError, MemoryError, SafetensorError) as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""


class SaveWhenDue(TrainerCallback):
    """Asks for a checkpoint when one is due; where several processes train, the first one decides."""

    def __init__(self, writer: CheckpointWriter) -> None:
        self.writer = writer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the time from here."""
        self.writer.begin(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask after a step; an evaluation comes first. After the last step only save_steps asks."""
        when, last, due = self.writer.saving.when, state.global_step >= state.max_steps, False
        if when == "steps":
            due = state.global_step % state.save_steps == 0
        elif when == "evaluation":
            due = control.should_evaluate and not last
        elif when == "time":
            due = not last and self._is_time(args, state, control)
        control.should_save |= anywhere(due and state.is_world_process_zero)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask after a pass."""
        when, last = self.writer.saving.when, state.global_step >= state.max_steps
        control.should_save |= when == "epoch" or (when == "evaluation" and control.should_evaluate and not last)

    def _is_time(self, args: Any, state: Any, control: Any) -> bool:
        """Return whether a checkpoint by time is due after this step.

        It waits for a step that is logged, so that the log of a training that goes on has the entries of an unbroken
        one, but no longer than the pause once more; and never between the last step of a pass and what follows it.
        """
        if "epoch" in (args.eval_strategy.value, args.logging_strategy.value) and float(state.epoch).is_integer():
            return False
        waits = args.logging_strategy.value == "steps" and not control.should_log
        return self.writer.is_due(pauses=2 if waits else 1)


def remove_checkpoints(trainer: RestartableTrainer) -> None:
    """Delete the checkpoints of a training, once its model is saved; the first of several processes does."""
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        shutil.rmtree(trainer.task.arguments.output_dir, ignore_errors=True)
    PartialState().wait_for_everyone()
