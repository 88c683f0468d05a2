"""Training: rows, a recipe and its numbers in; a tuned model and the story of its loss out.

Rows go to the trainer as ready `input_ids` and `labels`: what is supervised is decided in `prompts` and nowhere else.
How it is computed stands in `engine`. Knows nothing of profiles, run folders or commands.

The rows for evaluation serve to choose the checkpoint, so they must not be those a model is judged by: notebooks and
commands hold out some of the training rows for it (`splits.hold_out`).
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers import set_seed as set_every_seed
from trl import SFTTrainer

from fgtools.files import FgtoolsError
from fgtools.generate import generate_replies
from fgtools.metrics import score
from fgtools.models import save_model
from fgtools.models.device import Precision, peak_memory_bytes
from fgtools.models.load import require_control_tokens
from fgtools.models.lora import add_adapters, merge_adapters
from fgtools.profiles import Recipe, Training, get_recipe
from fgtools.prompts import IGNORED, Encoded, EncodedRows, encode_rows
from fgtools.prompts.encode import longest_completion, token_budget
from fgtools.train.callbacks import NotFinite
from fgtools.train.checkpoints import Checkpoint, MarkWhole, find_checkpoint, identify_training
from fgtools.train.loss import restore_forward
from fgtools.train.norms import widened_norms
from fgtools.train.plan import Plan, build_trainer, plan_training

FIRST_STEPS = 20
"""Steps within which fp16 that is not finite makes the training start again in fp32."""

CONFIRMED = 64
"""Held-out rows on which the best and the last checkpoint generate, to confirm the choice."""


class TrainingError(FgtoolsError, ValueError):
    """Training cannot start or went wrong; the message says what must hold."""


@dataclass(frozen=True)
class TrainResult:
    """What a training did.

    Attributes:
        n_train: Rows trained on.
        n_eval: Rows of the evaluation loss, by which the checkpoint is chosen.
        n_too_long: Training rows left out because they do not fit the budget.
        n_unlabelled: Training rows left out because a cut took all of their labels.
        n_without_context: Training rows that fit once the oldest turns of their context were dropped.
        n_pruned: Training rows that fit once declarations of tools they do not call were dropped.
        steps: Optimizer steps taken.
        saved_step: The step whose weights were saved: the last, or a better one.
        tokens: Tokens seen in all epochs, padding left out.
        label_tokens: Those of them that carried a label.
        seconds: Wall-clock time of the training loop, evaluations and checkpoints included, of all sittings.
        peak_memory_bytes: Largest memory in use: of the GPU's allocator, or of the process on a CPU.
        engine: "labelled" or "trl".
        precision: "fp32", "bf16" or "fp16", as it ended.
        processes: Processes it ran in.
        resumed_at: The step it went on from; 0: from the beginning.
        candidates: The checkpoints that were compared by generating: {"step", "right", "rows"} each, `right` counting
            replies whose calls match; empty where there was no choice.
        history: The trainer's log entries in order: step, epoch, loss, eval_loss, mean_token_accuracy, ... Losses are
            means over labels, with the `trl` engine over batches.
        folder: Where the tuned model was saved.
    """

    n_train: int
    n_eval: int
    n_too_long: int
    n_unlabelled: int
    n_without_context: int
    n_pruned: int
    steps: int
    saved_step: int
    tokens: int
    label_tokens: int
    seconds: float
    peak_memory_bytes: int
    engine: str
    precision: str
    processes: int
    resumed_at: int
    candidates: tuple[dict[str, int], ...]
    history: tuple[dict[str, float], ...]
    folder: Path

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of wall-clock time, padding left out."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object of train.json; the folder is left out."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "folder"}
        lists = {"history": list(self.history), "candidates": list(self.candidates)}
        return {**values, **lists, "tokens_per_second": self.tokens_per_second}


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows_train: Sequence[Mapping[str, Any]],
    rows_eval: Sequence[Mapping[str, Any]],
    config: Training,
    out_dir: str | Path,
    recipe: str | Recipe = "native",
    max_length: int | None = None,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainResult:
    """Fine-tune a model on rows and save it.

    Checkpoints lie beside `out_dir` in a folder of its name with ".checkpoints" until the model is saved, then go. In
    several processes, each calls this with the same arguments and the first one saves.

    Args:
        model: The model; trained in place. bf16 weights are trained as fp32 master weights under autocast, except in
            the `tutorial` recipe, which trains them as they are.
        tokenizer: Its tokenizer, with chat template.
        rows_train: Row dicts to train on.
        rows_eval: Row dicts for the evaluation loss and the choice of the checkpoint; never trained on.
        config: Learning rate, epochs, rows of a step, seed and how it is computed.
        out_dir: Folder of the tuned model, replaced as a whole once training is done.
        recipe: "native", "tutorial" or a Recipe.
        max_length: Budget of one row, in tokens; None: the recipe's.
        resume: Whether to go on from this training's newest checkpoint, if there is one.
        callbacks: More callbacks for the trainer, such as one that draws its log.

    Returns:
        The TrainResult.

    Raises:
        TrainingError: A split is empty or no row of it fits, a row has tokens the model does not know, or the loss is
            not finite.
        ModelError: The tokenizer splits the marks of a call.
        CheckpointError: Checkpoints of another training are in the way.
    """
    recipe, out_dir = get_recipe(recipe), Path(out_dir)
    budget = max_length or recipe.max_length
    require_control_tokens(tokenizer)
    train_set = _encode(rows_train, tokenizer, recipe, budget, "training")
    eval_set = _encode(rows_eval, tokenizer, recipe, budget, "evaluation")
    sides = (_labelled(train_set.encoded, "training"), _labelled(eval_set.encoded, "evaluation"))
    _require_vocabulary(model, tokenizer, sides)
    dtype = model.dtype
    if recipe.name != "tutorial":
        model.float()  # bf16 weights would not move: at 5e-5 about half of the updates round to nothing
    state = PartialState()
    plan = plan_training(config, recipe, model, sides[0], state.num_processes)
    numbers = {**vars(config), "recipe": recipe.name, "max_length": budget}
    identity = identify_training(numbers, sides, model)
    folder = out_dir.with_name(out_dir.name + ".checkpoints")
    checkpoint = find_checkpoint(folder, identity, resume)
    if checkpoint is not None and checkpoint.precision != plan.precision.name:
        plan = replace(plan, precision=Precision(checkpoint.precision, "the checkpoint it goes on from was"))
    if state.is_main_process:
        print(plan.describe(), flush=True)
        if checkpoint is not None:
            print(f"going on from the checkpoint after step {checkpoint.step}", flush=True)
    attempt = _Attempt(model, tokenizer, sides, config, recipe, folder, identity, checkpoint, callbacks)
    plan, trainer, seconds = attempt.run_safely(plan)
    saved_step, candidates = _choose(trainer, attempt.trained, tokenizer, rows_eval, config, recipe, folder)
    peak = peak_memory_bytes(model.device)
    model = merge_adapters(attempt.trained)
    model.zero_grad(set_to_none=True)
    model.to(dtype)
    if state.is_main_process:
        save_model(model, tokenizer, out_dir)
        shutil.rmtree(folder, ignore_errors=True)
    state.wait_for_everyone()
    passes = trainer.state.epoch or 0.0
    return TrainResult(
        n_train=len(sides[0]),
        n_eval=len(sides[1]),
        n_too_long=len(train_set.too_long),
        n_unlabelled=len(train_set.encoded) - len(sides[0]),
        n_without_context=len(train_set.without_context),
        n_pruned=len(train_set.pruned),
        steps=trainer.state.global_step,
        saved_step=saved_step,
        tokens=round(passes * sum(len(row.input_ids) for row in sides[0])),
        label_tokens=round(passes * sum(label != IGNORED for row in sides[0] for label in row.labels)),
        seconds=seconds,
        peak_memory_bytes=peak,
        engine=plan.engine,
        precision=plan.precision.name,
        processes=plan.world,
        resumed_at=checkpoint.step if checkpoint else 0,
        candidates=candidates,
        history=tuple(dict(entry) for entry in trainer.state.log_history),
        folder=out_dir,
    )


@dataclass
class _Attempt:
    """One training, in one precision and, where that fails, in fp32."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sides: tuple[Sequence[Encoded], Sequence[Encoded]]
    config: Training
    recipe: Recipe
    folder: Path
    identity: str
    checkpoint: Checkpoint | None
    callbacks: Sequence[TrainerCallback]

    def __post_init__(self) -> None:
        self.trained: Any = add_adapters(self.model, self.config)

    def run_safely(self, plan: Plan) -> tuple[Plan, SFTTrainer, float]:
        """Train as planned; in fp32 when fp16 turns out not to be finite in the first steps."""
        fragile = plan.precision.name == "fp16" and plan.engine == "labelled"
        start = {name: weight.detach().cpu().clone() for name, weight in self._weights()} if fragile else {}
        try:
            return plan, *self._run(plan)
        except NotFinite as error:
            step = self.trainer.state.global_step
            if not fragile or step > FIRST_STEPS or self.checkpoint is not None:
                raise TrainingError(
                    f"the loss must stay finite, but {error}: lower LEARNING_RATE, or set PRECISION to 'fp32'; the "
                    "model was not saved, checkpoints and an older model are as they were"
                ) from error
            reason = f"fp16 is not finite here ({error}), so training starts again"
            print(f"precision fp32: {reason}", flush=True)
        with torch.no_grad():
            for name, weight in self._weights():
                weight.copy_(start[name])
        if PartialState().is_main_process:
            shutil.rmtree(self.folder, ignore_errors=True)  # what it wrote in fp16 is not this training's
        PartialState().wait_for_everyone()
        plan = replace(plan, precision=Precision("fp32", reason))
        return plan, *self._run(plan)

    def _weights(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, weight) for name, weight in self.trained.named_parameters() if weight.requires_grad]

    def _run(self, plan: Plan) -> tuple[SFTTrainer, float]:
        set_every_seed(self.config.seed)
        earlier = self.checkpoint.seconds if self.checkpoint else 0.0
        started = time.perf_counter()

        def clock() -> float:
            return earlier + time.perf_counter() - started

        if self.model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.model.device)
        self.trainer = trainer = build_trainer(
            plan,
            self.config,
            self.recipe,
            self.trained,
            self.tokenizer,
            self.sides,
            self.folder,
            resumed=self.checkpoint is not None,
            callbacks=[MarkWhole(self.identity, plan.precision.name, clock), *self.callbacks],
        )
        widened = widened_norms(self.model) if plan.precision.name == "fp16" else nullcontext()
        with widened:
            try:
                trainer.train(resume_from_checkpoint=str(self.checkpoint.folder) if self.checkpoint else None)
            finally:
                restore_forward(self.trained)
        return trainer, clock()


def _choose(
    trainer: SFTTrainer,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    config: Training,
    recipe: Recipe,
    folder: Path,
) -> tuple[int, tuple[dict[str, int], ...]]:
    """Leave the better one of the best and the last checkpoint in the model, by what they generate; at a tie the last.

    The best one of several evaluations owes some of its lead to luck, and the last has had the whole schedule.
    """
    last, best = trainer.state.global_step, trainer.state.best_global_step
    best_folder = folder / f"checkpoint-{best}"
    if not config.choose_best or not best or best == last or not best_folder.is_dir():
        return last, ()
    rows = rows[:CONFIRMED]
    budget = token_budget(longest_completion(rows, tokenizer, recipe))
    candidates = []
    for step, place in ((last, None), (best, best_folder)):
        if place is not None:
            trainer._load_from_checkpoint(str(place))
        replies = generate_replies(model, tokenizer, rows, max_new_tokens=budget)
        right = score(rows, replies, style=recipe.call_style).ast_match
        candidates.append({"step": step, "right": right.k, "rows": right.n})
    after_last, after_best = (one["right"] for one in candidates)
    if after_last >= after_best:
        trainer._load_from_checkpoint(str(folder / f"checkpoint-{last}"))
        return last, tuple(candidates)
    return best, tuple(candidates)


def _encode(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, budget: int, side: str
) -> EncodedRows:
    if not rows:
        raise TrainingError(f"the {side} split must hold rows, but it is empty: run 02_data with more rows")
    encoded = encode_rows(rows, tokenizer, recipe, budget)
    if not encoded.encoded:
        raise TrainingError(
            f"a {side} row must fit {budget} tokens, but all {len(rows)} are longer: raise MAX_LENGTH or offer fewer "
            "tools a row"
        )
    return encoded


def _labelled(rows: Sequence[Encoded], side: str) -> tuple[Encoded, ...]:
    kept = tuple(row for row in rows if any(label != IGNORED for label in row.labels[1:]))
    if not kept:
        raise TrainingError(
            f"a {side} row must carry labels, but none of {len(rows)} does: their completions lie beyond the budget: "
            "raise MAX_LENGTH, or set OVER_LENGTH to 'reject' or 'prune' in place of 'cut'"
        )
    return kept


def _require_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sides: Sequence[Sequence[Encoded]]
) -> None:
    """Tell whether the model knows every token; a tokenizer may hold more, as FunctionGemma's does by two."""
    known = model.get_input_embeddings().num_embeddings
    largest = max(max(row.input_ids) for side in sides for row in side)
    if largest >= known:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise TrainingError(
            f"every token of the rows must be among the model's {known}, but {token!r} has the id {largest}: the "
            "tokenizer belongs to another model; load both from one folder"
        )
