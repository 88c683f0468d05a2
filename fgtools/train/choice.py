"""Which weights are saved after a training: those after its last step, or the best of its evaluations.

Knows generation, scores and the trainer; not how weights are kept (`best`) or when checkpoints are written (`saving`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from fgtools.generate import generate_replies
from fgtools.metrics import score
from fgtools.models.load import hash_weights
from fgtools.models.lora import merge_adapters
from fgtools.profiles import CONFIRMED_ROWS, Recipe, get_recipe
from fgtools.prompts.encode import longest_completion, token_budget
from fgtools.train.arguments import TrainingError
from fgtools.train.best import anywhere
from fgtools.train.checkpoints import remove_checkpoints
from fgtools.train.confirm import confirm_saving, rounded

if TYPE_CHECKING:
    from fgtools.train.restarts import RestartableTrainer


@dataclass(frozen=True)
class Choice:
    """The step whose weights the model holds.

    Attributes:
        step: The optimizer step they are of.
        candidates: The steps whose weights were compared by generating: {"step", "right", "rows"} each, `right`
            counting replies whose calls match; empty where there was no choice.
        warning: That the model was better before its training, and what to do; "" where it was not.
    """

    step: int
    candidates: tuple[dict[str, int], ...] = ()
    warning: str = ""


def choose_checkpoint(
    trainer: RestartableTrainer,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    recipe: str | Recipe = "native",
) -> Choice:
    """Leave the better ones of the best and the last weights in the model, ready to be saved.

    The best one of several evaluations owes some of its lead to luck, and the last has had the whole schedule: so both
    answer some of the rows by generating, with their values as they will be saved, and at a tie the last one stays.
    Without load_best_model_at_end in the arguments the last one stays at once. Adapters are merged, and the weights get
    the format they were loaded in, or fp32 where that would lose what was learned (`confirm`). Called again, it returns
    the choice that was made.

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
    if trainer.choice is not None:
        return trainer.choice
    last, best = trainer.state.global_step, trainer.best.step
    chosen, candidates = last, []
    trainer.task.model.zero_grad(set_to_none=True)
    if best not in (0, last):
        rows, recipe = rows[:CONFIRMED_ROWS], get_recipe(recipe)
        budget = token_budget(longest_completion(rows, tokenizer, recipe))
        for step in (last, best):
            trainer.put_weights(best=step == best)
            with rounded(trainer.saved_weights(), trainer.task.dtype):
                replies = generate_replies(trainer.task.model, tokenizer, rows, max_new_tokens=budget)
            right = score(rows, replies, style=recipe.call_style).ast_match
            candidates.append({"step": step, "right": right.k, "rows": right.n})
        is_first, rose = PartialState().is_main_process, candidates[1]["right"] > candidates[0]["right"]
        chosen = best if anywhere(is_first and rose) else last
        trainer.put_weights(best=chosen == best)
    trainer.best.release()
    model = merge_adapters(trainer.task.model)
    if hash_weights(model, trainer.task.dtype) == trainer.task.start:
        remove_checkpoints(trainer)
        raise TrainingError(_explain_no_change(trainer))
    confirmed = confirm_saving(trainer, model, chosen)
    if PartialState().is_main_process and confirmed.lines:
        print(*confirmed.lines, sep="\n", flush=True)
    model.to(confirmed.dtype)
    trainer.choice = Choice(chosen, tuple(candidates), confirmed.warning)
    return trainer.choice


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
