"""The training stage as notebooks and commands share it: rows held out, one process or several, one seed or several.

Knows a run's rows and settings; not how a gradient is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtools.profiles import Recipe, Training, adapt_recipe
from fgtools.rows import Row, load_rows
from fgtools.rows.splits import hold_out
from fgtools.run.folder import RunFolder
from fgtools.run.processes import launch
from fgtools.run.settings import Settings

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from fgtools.train import TrainResult

CHOOSING_ROWS = 100
"""Training rows held out to choose the checkpoint by, at most; and never more than a tenth."""


def hold_out_rows(
    rows_train: Sequence[Row], rows_eval: Sequence[Row], recipe: Recipe, seed: int
) -> tuple[Sequence[Row], Sequence[Row]]:
    """Give the rows to train on and the rows to choose a checkpoint by.

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
    return hold_out(rows_train, min(CHOOSING_ROWS, max(1, len(rows_train) // 10)), seed)


def train_and_write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Mapping[str, Sequence[Row]],
    config: Training,
    run: RunFolder,
    recipe: Recipe,
    *,
    inputs: Sequence[str | Path],
    max_length: int | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train, and write `model` and train.json into a run folder; the first of several processes writes.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        rows: The sides "train" and "eval".
        config: The numbers.
        run: The run folder.
        recipe: The recipe.
        inputs: The files the rows came from.
        max_length: Budget of one row, in tokens; None: the recipe's.
        resume: Whether to go on from a checkpoint.

    Returns:
        The TrainResult.

    Raises:
        TrainingError: As `train.train`.
    """
    from accelerate import PartialState

    from fgtools.report.live import build_live_callbacks
    from fgtools.train import train

    train_rows, choosing = hold_out_rows(rows["train"], rows["eval"], recipe, config.seed)
    options = {"max_length": max_length, "resume": resume, "callbacks": build_live_callbacks()}
    result = train(model, tokenizer, train_rows, choosing, config, run.root / "model", recipe, **options)
    if PartialState().is_main_process:
        run.write_json("train.json", {**vars(config), **result.to_dict()}, inputs)
    return result


def run_training(
    run: RunFolder,
    settings: Settings,
    config: Training,
    *,
    max_length: int = 0,
    over_length: str = "",
    processes: int = 1,
) -> dict[str, Any]:
    """Train the model of a run on its rows, going on from a training of the same numbers that was cut short.

    Args:
        run: The run folder; holds rows.train.jsonl and rows.eval.jsonl.
        settings: Of the run.
        config: The numbers of the training.
        max_length: Budget of one row, in tokens; 0: the recipe's.
        over_length: What happens to rows over it; "" for the recipe's.
        processes: How many to train in; with more than one, the command line's `train` runs in each of them.

    Returns:
        What train.json holds.

    Raises:
        TrainingError: As `train.train`.
        LaunchError: One of several processes failed.
    """
    if processes > 1:
        options = {
            **{"rows": run.find("rows.train.jsonl").parent, "out": run.root, "model": settings.model},
            **{"profile": settings.profile.name, "recipe": settings.recipe.name, "seed": config.seed},
            **{"epochs": config.epochs, "learning-rate": config.learning_rate, "batch-size": config.rows_per_step},
            **{"max-length": max_length, "over-length": over_length, "precision": config.precision},
            **{"engine": config.engine, "patience": config.patience, "lora-rank": config.lora_rank},
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        launch("train", processes, [*words, "--resume", "--ignore-audit"])  # the notebook has looked at the audit
        return run.read_json("train.json")
    from fgtools.models import load_model, load_tokenizer

    names = ("rows.train.jsonl", "rows.eval.jsonl")
    sides = {side: load_rows(run.find(name)) for side, name in zip(("train", "eval"), names, strict=True)}
    recipe = adapt_recipe(settings.recipe, over_length=over_length)
    tokenizer, model = load_tokenizer(settings.model), load_model(settings.model)
    train_and_write(
        model, tokenizer, sides, config, run, recipe, inputs=names, max_length=max_length or None, resume=True
    )
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
