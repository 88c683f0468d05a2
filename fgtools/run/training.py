"""The training stage as notebooks and commands share it: rows held out, one process or several, one seed or several.

Knows a run's rows and settings; not how a gradient is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fgtools.profiles import CHOOSING_FRACTION, CHOOSING_ROWS, Recipe
from fgtools.rows import Row, load_rows
from fgtools.rows.splits import hold_out
from fgtools.run.folder import RunFolder
from fgtools.run.processes import launch
from fgtools.run.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import pandas
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

    from fgtools.train import TrainResult

ROWS = ("rows.train.jsonl", "rows.eval.jsonl")
"""The files of a run that its training reads."""

ARGUMENTS = "train.arguments.json"
"""The file of a run that tells several processes the numbers of their training."""


def hold_out_rows(
    rows_train: Sequence[Row], rows_eval: Sequence[Row], recipe: Recipe, seed: int
) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the rows to train on and the rows to choose a checkpoint by.

    A model must not be judged by the rows that chose it. So where the recipe chooses the best checkpoint, some training
    rows are held out for that and the evaluation rows stay unseen; else the evaluation rows serve for the curve, as in
    the tutorial.

    Args:
        rows_train: The training rows.
        rows_eval: The evaluation rows.
        recipe: Says whether the best checkpoint is chosen.
        seed: Seed of the draw.

    Returns:
        Rows to train on, rows for the trainer's evaluations.
    """
    if not recipe.choose_best:
        return rows_train, rows_eval
    return hold_out(rows_train, min(CHOOSING_ROWS, max(1, int(len(rows_train) * CHOOSING_FRACTION))), seed)


def train_and_write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sides: tuple[Sequence[Row], Sequence[Row]],
    arguments: SFTConfig,
    run: RunFolder,
    recipe: Recipe,
    *,
    inputs: Sequence[str | Path],
    patience: int = 0,
    lora_rank: int = 0,
    resume: bool = False,
) -> TrainResult:
    """Train, and write `model` and train.json into a run folder; the first of several processes writes.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        sides: What hold_out_rows returned.
        arguments: The numbers.
        run: The run folder.
        recipe: The recipe.
        inputs: The files the rows came from.
        patience: As for train.build_trainer.
        lora_rank: As for train.build_trainer.
        resume: Whether to go on from a checkpoint.

    Returns:
        The TrainResult.

    Raises:
        TrainingError: As `train.train`.
    """
    from accelerate import PartialState

    from fgtools.report.live import build_live_callbacks
    from fgtools.train import train

    options = {"patience": patience, "lora_rank": lora_rank, "resume": resume, "callbacks": build_live_callbacks()}
    result = train(model, tokenizer, *sides, arguments, run.root / "model", recipe, **options)
    if PartialState().is_main_process:
        run.write_json("train.json", result.to_dict(), inputs)
    return result


def run_training(
    run: RunFolder,
    settings: Settings,
    arguments: SFTConfig,
    recipe: Recipe | None = None,
    *,
    patience: int = 0,
    lora_rank: int = 0,
    processes: int = 1,
    ignore_audit: bool = False,
) -> dict[str, Any]:
    """Train the model of a run on its rows, going on from a training of the same numbers that was interrupted.

    Args:
        run: The run folder; holds rows.train.jsonl and rows.eval.jsonl.
        settings: Of the run.
        arguments: The numbers of the training, all of which hold in every process.
        recipe: The recipe, with parameters in place of its own fields; None: that of the settings.
        patience: As for train.build_trainer.
        lora_rank: As for train.build_trainer.
        processes: How many to train in; with more than one, the command line's `train` runs in each of them.
        ignore_audit: Whether to train although the audit of these rows with these numbers found errors.

    Returns:
        What train.json holds.

    Raises:
        AuditError: The audit found errors.
        TrainingError: As `train.train`.
        LaunchError: One of several processes failed.
    """
    recipe = recipe or settings.recipe
    if processes > 1:
        from fgtools.train import describe_arguments

        options = {
            **{"rows": run.find(ROWS[0]).parent, "out": run.root, "model": settings.model, "seed": settings.seed},
            **{"recipe": recipe.name, "over-length": recipe.over_length, "engine": recipe.engine},
            **{"arguments": run.write_json(ARGUMENTS, describe_arguments(arguments), ROWS)},
            **{"patience": patience, "lora-rank": lora_rank},
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        launch("train", processes, [*words, "--resume", *(["--ignore-audit"] if ignore_audit else [])])
        return run.read_json("train.json")
    from fgtools.models import load_model, load_tokenizer
    from fgtools.prompts.audit import require_clean
    from fgtools.run.audit import audit_for_training

    inputs = [run.find(name) for name in ROWS]
    rows = dict(zip(("train", "eval"), map(load_rows, inputs), strict=True))
    tokenizer = load_tokenizer(settings.model)
    require_clean(audit_for_training(run, rows, inputs, tokenizer, recipe, arguments.max_length), ignore_audit)
    sides, model = hold_out_rows(*rows.values(), recipe, settings.seed), load_model(settings.model)
    options = {"patience": patience, "lora_rank": lora_rank, "resume": True}
    train_and_write(model, tokenizer, sides, arguments, run, recipe, inputs=ROWS, **options)
    return run.read_json("train.json")


def train_seeds(seeds: Sequence[int], train_one: Callable[[int], TrainResult]) -> pandas.DataFrame:
    """Train once for each seed, and say how much of a result is luck.

    Args:
        seeds: Two or more.
        train_one: Trains with one seed, from the same start.

    Returns:
        A table: by seed the last evaluation's figures on the rows held out, then mean and standard deviation.
    """
    from fgtools.report.tables import build_seeds_table

    return build_seeds_table({seed: train_one(seed).to_dict() for seed in seeds})
