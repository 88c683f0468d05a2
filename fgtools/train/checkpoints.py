"""Checkpoints of a training: whose they are, which are complete, where to go on, and which one is saved.

Knows the folders that transformers' trainer writes, and one file of its own in each, written last: a checkpoint without
it was interrupted while it was written, and does not count. That file names the training by a hash of all that decides
it, so that no other training goes on from it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase, TrainerCallback

from fgtools.files import FgtoolsError, read_json, write_text
from fgtools.generate import generate_replies
from fgtools.metrics import score
from fgtools.models.load import fingerprint_model, hash_weights
from fgtools.models.lora import merge_adapters
from fgtools.profiles import CONFIRMED_ROWS, Recipe, get_recipe
from fgtools.prompts import Encoded
from fgtools.prompts.encode import longest_completion, token_budget
from fgtools.train.arguments import TrainingError

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
    """

    folder: Path
    step: int
    seconds: float
    precision: str
    updates: int


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
        mark = path / _MARK
        if not mark.is_file():
            if PartialState().is_main_process:
                shutil.rmtree(path)
            continue
        saved = read_json(mark)
        if saved["identity"] != identity:
            raise CheckpointError(
                f"{folder.name!r} must hold checkpoints of this training alone, but {path.name} is another's (other "
                "rows, numbers or model): give another --out, or delete that folder if it is not needed"
            )
        found.append(Checkpoint(path, *(saved[name] for name in ("step", "seconds", "precision", "updates"))))
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


class MarkWhole(TrainerCallback):
    """Marks a checkpoint as complete once all of it is written.

    `clock` tells the seconds that the training has taken, `count_updates` the steps that could change the weights.
    """

    def __init__(
        self, identity: str, precision: str, clock: Callable[[], float], count_updates: Callable[[], int]
    ) -> None:
        self.identity, self.precision, self.clock, self.count_updates = identity, precision, clock, count_updates

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the mark, from one process, after all have written their parts."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            mark = {"identity": self.identity, "step": state.global_step, "seconds": self.clock()}
            mark |= {"precision": self.precision, "updates": self.count_updates()}
            write_text(Path(args.output_dir) / f"checkpoint-{state.global_step}" / _MARK, json.dumps(mark) + "\n")


@dataclass(frozen=True)
class Choice:
    """The checkpoint whose weights the model holds.

    Attributes:
        step: The optimizer step it was written after.
        candidates: The checkpoints that were compared by generating: {"step", "right", "rows"} each, `right` counting
            replies whose calls match; empty where there was no choice.
    """

    step: int
    candidates: tuple[dict[str, int], ...] = ()


def choose_checkpoint(
    trainer: RestartableTrainer,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    recipe: str | Recipe = "native",
) -> Choice:
    """Leave the better one of the best and the last checkpoint in the model, ready to be saved.

    The best one of several evaluations owes some of its lead to luck, and the last has had the whole schedule: so both
    answer some of the rows by generating, and at a tie the last one stays. Without load_best_model_at_end in the
    arguments the last one stays at once. Adapters are merged, and the weights get the format they were loaded in.

    Args:
        trainer: The trainer, after its `train`.
        tokenizer: Its tokenizer.
        rows: Row dicts that were held out; the first CONFIRMED_ROWS are answered.
        recipe: "native", "tutorial" or a Recipe.

    Returns:
        The Choice.

    Raises:
        TrainingError: The training has changed no weight; its checkpoints are deleted.
    """
    folder, last, best = Path(trainer.args.output_dir), trainer.state.global_step, trainer.state.best_global_step
    choice = Choice(last)
    if trainer.task.arguments.load_best_model_at_end and best != last and (folder / f"checkpoint-{best}").is_dir():
        rows, recipe = rows[:CONFIRMED_ROWS], get_recipe(recipe)
        budget = token_budget(longest_completion(rows, tokenizer, recipe))
        candidates = []
        for step in (last, best):
            _load_weights(trainer, step)
            replies = generate_replies(trainer.task.model, tokenizer, rows, max_new_tokens=budget)
            right = score(rows, replies, style=recipe.call_style).ast_match
            candidates.append({"step": step, "right": right.k, "rows": right.n})
        better = best if candidates[1]["right"] > candidates[0]["right"] else last
        _load_weights(trainer, better)
        choice = Choice(better, tuple(candidates))
    model = merge_adapters(trainer.task.model)
    model.zero_grad(set_to_none=True)
    model.to(trainer.task.dtype)
    if hash_weights(model, trainer.task.dtype) == trainer.task.start:
        remove_checkpoints(trainer)
        raise TrainingError(_explain_no_change(trainer))
    return choice


def _explain_no_change(trainer: RestartableTrainer) -> str:
    steps, updates = trainer.state.global_step, trainer.updates.count
    if updates:
        kind = str(trainer.task.dtype).removeprefix("torch.")
        reason = f"{updates} optimizer steps with rates up to {trainer.updates.largest_rate:.2g} left all {kind} values"
        remedy = "raise LEARNING_RATE (--learning-rate)"
    elif trainer.task.warmup_from_zero and trainer.task.arguments.learning_rate:
        reason = f"its {steps} steps had learning rate 0, with which the tutorial's warm-up begins, and left all"
        remedy = "take more rows or EPOCHS (--epochs), or the recipe native"
    else:
        reason = f"its {steps} optimizer steps had learning rate 0 and left all"
        remedy = "raise LEARNING_RATE (--learning-rate)"
    return (
        f"a training must change the weights, but {reason} as they were: {remedy}; the model was not saved, and an "
        "older one is as it was"
    )


def _load_weights(trainer: RestartableTrainer, step: int) -> None:
    """Load the weights of a checkpoint; those in the model are the last one's until another is loaded."""
    if (folder := Path(trainer.args.output_dir) / f"checkpoint-{step}").is_dir():
        trainer._load_from_checkpoint(str(folder))


def remove_checkpoints(trainer: RestartableTrainer) -> None:
    """Delete the checkpoints of a training, once its model is saved; the first of several processes does."""
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        shutil.rmtree(trainer.task.arguments.output_dir, ignore_errors=True)
    PartialState().wait_for_everyone()
