"""Which checkpoint is saved: the best one of the evaluations or the last, confirmed by what they generate.

Knows a trained trainer and rows that were held out; the model leaves as it is to be saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from fgtools.generate import generate_replies
from fgtools.metrics import score
from fgtools.models.lora import merge_adapters
from fgtools.profiles import CONFIRMED_ROWS, Recipe, get_recipe
from fgtools.prompts.encode import longest_completion, token_budget
from fgtools.train.restarts import RestartableTrainer


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
    """
    folder, last, best = Path(trainer.args.output_dir), trainer.state.global_step, trainer.state.best_global_step
    wanted = trainer.task.arguments.load_best_model_at_end
    choice = Choice(last)
    if wanted and best and best != last and (folder / f"checkpoint-{best}").is_dir():
        choice = _confirm(trainer, tokenizer, rows[:CONFIRMED_ROWS], get_recipe(recipe), (last, best))
    model = merge_adapters(trainer.task.model)
    model.zero_grad(set_to_none=True)
    model.to(trainer.task.dtype)
    return choice


def _confirm(
    trainer: RestartableTrainer,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    recipe: Recipe,
    steps: tuple[int, int],
) -> Choice:
    """Let the last and the best checkpoint answer rows, and leave the weights of the better one in the model."""
    budget = token_budget(longest_completion(rows, tokenizer, recipe))
    candidates = []
    for step in steps:
        _load(trainer, step)
        replies = generate_replies(trainer.task.model, tokenizer, rows, max_new_tokens=budget)
        right = score(rows, replies, style=recipe.call_style).ast_match
        candidates.append({"step": step, "right": right.k, "rows": right.n})
    last, best = candidates
    if last["right"] >= best["right"]:
        _load(trainer, last["step"])
        return Choice(last["step"], (last, best))
    return Choice(best["step"], (last, best))


def _load(trainer: RestartableTrainer, step: int) -> None:
    """Load the weights of a checkpoint; those in the model are the last one's until another is loaded."""
    if (folder := Path(trainer.args.output_dir) / f"checkpoint-{step}").is_dir():
        trainer._load_from_checkpoint(str(folder))
