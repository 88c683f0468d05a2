"""Checkpoints of a training: whose they are, which are complete, where to go on, and how they are written.

Knows the folders that transformers' trainer writes, and one file of its own in each, written last: a checkpoint without
it was interrupted while it was written, and does not count. That file names the training by a hash of all that decides
it, so that no other training goes on from it, and the step whose weights were the best by then; these lie in a file
beside the checkpoints (`best`), unless they are the checkpoint's own. When one is due is decided in `saving`.
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
from accelerate import PartialState
from safetensors import SafetensorError
from transformers import TrainerCallback

from fgtools.files import FgtoolsError, read_json, write_text
from fgtools.models.load import fingerprint_model
from fgtools.prompts import Encoded
from fgtools.train.best import BestWeights, anywhere
from fgtools.train.saving import Saving, choose_pause, estimate_seconds, render_duration

if TYPE_CHECKING:
    from fgtools.train.restarts import RestartableTrainer

_MARK = "whole.json"


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
    """Find the checkpoint to go on from, and delete those that are not complete.

    Args:
        folder: The folder of the checkpoints of one training.
        identity: What `identify_training` returns for the training that is to start.
        resume: Whether it may go on from a checkpoint of its own.

    Returns:
        The newest complete checkpoint; None: start from the beginning.

    Raises:
        CheckpointError: The folder holds another training's checkpoints, or this one's and resume is False.
    """
    found = []
    for path in sorted(folder.glob("checkpoint-*")):
        saved = read_json(path / _MARK) if (path / _MARK).is_file() else {}
        if saved and saved["identity"] != identity:
            raise CheckpointError(
                f"{folder.name!r} must hold checkpoints of this training alone, but {path.name} is another's (other "
                "rows, numbers or model): give another --out, or delete that folder if it is not needed"
            )
        if not saved or not _has_best(folder, saved):
            if PartialState().is_main_process:
                shutil.rmtree(path)
            continue
        found.append(Checkpoint(path, *(saved[name] for name in ("step", "seconds", "precision", "updates", "best"))))
    PartialState().wait_for_everyone()
    if not found:
        return None
    newest = max(found, key=lambda one: one.step)
    if not resume:
        raise CheckpointError(
            f"{folder.name!r} holds a checkpoint of this very training, after step {newest.step}: pass "
            "--resume (resume=True) to go on from it, or delete that folder to start again"
        )
    return newest


def _has_best(folder: Path, saved: Mapping[str, Any]) -> bool:
    """Return whether the best weights that a mark names are there."""
    return saved["best"] in (0, saved["step"]) or BestWeights(folder).file_of(saved["best"]).is_file()


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
        write_text(folder / _MARK, json.dumps({**mark, "best": best}) + "\n")

    def tidy(self) -> None:
        """Delete complete checkpoints beyond `limit`, oldest first, and files of best weights that none names."""
        if not PartialState().is_main_process:
            return
        marks = {path.parent: read_json(path) for path in self.folder.glob(f"checkpoint-*/{_MARK}")}
        ordered = sorted(marks, key=lambda folder: marks[folder]["step"])
        for folder in ordered[: -self.limit] if self.limit and self.limit > 0 else []:
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
