"""The training stage as the notebook and the command share it: rows held out, the audit, several processes.

Knows a run's rows, audit and settings; not how a gradient is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtools.files import InputError, sha256_of
from fgtools.profiles import CHOOSING_FRACTION, CHOOSING_ROWS, FEWEST_CHOOSING_ROWS, Recipe
from fgtools.rows import Row, load_rows
from fgtools.rows.splits import hold_out
from fgtools.run.folder import MissingArtifactError, RunFolder
from fgtools.run.lock import hold_folder
from fgtools.run.processes import current_process, launch
from fgtools.run.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

    from fgtools.metrics import Scores

ROWS = ("rows.train.jsonl", "rows.eval.jsonl")
"""The files of a run that its training reads."""

ARGUMENTS = "train.arguments.json"
"""The file of a run that tells several processes the numbers of their training."""


def require_prepared(folder: Path) -> None:
    """Raise InputError where a folder does not hold the rows of a training, with the command that makes them."""
    if folder.is_file():
        raise InputError(f"--rows must be a folder that `prepare` wrote, got the file {folder}: give {folder.parent}")
    if missing := [name for name in ROWS if not (folder / name).is_file()]:
        raise InputError(
            f"--rows must be a folder that `prepare` wrote, but {folder} lacks {missing[0]}: "
            f"make it with `python -m fgtools prepare --data FILE --out {folder}`"
        )


def fit_choice(recipe: Recipe, n_rows: int) -> Recipe:
    """Return a recipe that chooses no checkpoint where FEWEST_CHOOSING_ROWS rows cannot be held out for it.

    Args:
        recipe: The recipe.
        n_rows: Training rows, before any are held out.
    """
    enough = _count_choosing_rows(n_rows) >= FEWEST_CHOOSING_ROWS
    return replace(recipe, choose_best=recipe.choose_best and enough)


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
    return hold_out(rows_train, max(1, _count_choosing_rows(len(rows_train))), seed)


def _count_choosing_rows(n_rows: int) -> int:
    """Return how many of the training rows are held out to choose the checkpoint by, where there are enough of them."""
    return min(CHOOSING_ROWS, int(n_rows * CHOOSING_FRACTION))


def score_trained(run: RunFolder, rows_path: Path, recipe: str) -> Scores:
    """Return the scores of a run's trained model, and write them with its replies as notebook 5 does.

    Args:
        run: The run folder; holds `model`.
        rows_path: The rows to score it on: not those that chose its checkpoint.
        recipe: How the model was trained.
    """
    from fgtools.models import load_model, load_tokenizer
    from fgtools.run.evaluation import evaluate, list_inputs, name_files

    folder, (replies_name, scores_name) = str(run.root / "model"), name_files("tuned")
    model, tokenizer = load_model(folder, quiet=True), load_tokenizer(folder)
    part = run.root / f"{replies_name}.part"
    evaluated = evaluate(model, tokenizer, load_rows(rows_path), recipe, part=part)
    rank, _ = current_process()
    if not rank:
        evaluated.write(run, replies_name, scores_name, list_inputs(rows_path, folder))
    return evaluated.scores


def audit_for_training(
    run: RunFolder,
    sides: Mapping[str, Sequence[Row]],
    inputs: Sequence[Path],
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    max_length: int | None = None,
) -> dict[str, Any]:
    """Return the audit of the rows that will be trained on, with the recipe, template, tokenizer and budget to be used.

    Args:
        run: The run folder, whose audit.json is taken if it was made from all of these.
        sides: The rows by side, "train" and "eval".
        inputs: The files of these rows.
        tokenizer: The tokenizer of the model to be trained.
        recipe: The recipe of the training.
        max_length: Budget of a training text, in tokens; None: the recipe's.

    Returns:
        The content of audit.json; a new audit is not written.
    """
    from fgtools.prompts import audit_rows, probe_template
    from fgtools.prompts.audit import identify_audit

    try:
        saved = run.read_json("audit.json")
    except MissingArtifactError:
        saved = {}
    hashes = {path.name: sha256_of(path) for path in inputs}
    same_rows = hashes.items() <= saved.get("inputs", {}).items()
    if same_rows and saved.get("made_with") == identify_audit(tokenizer, recipe, max_length):
        return saved
    reason = "the saved audit is of other rows or settings" if saved else "there is no audit yet"
    print(f"auditing the rows: {reason}")
    return audit_rows(sides, tokenizer, recipe, coverage=probe_template(tokenizer), max_length=max_length).to_dict()


def run_training(
    run: RunFolder,
    settings: Settings,
    arguments: SFTConfig,
    recipe: Recipe,
    *,
    processes: int,
    patience: int = 0,
    lora_rank: int = 0,
    ignore_audit: bool = False,
    time_limit: float = 0.0,
) -> None:
    """Run the command `train` in several processes, going on from an interrupted training of the same numbers.

    Args:
        run: The run folder; holds rows.train.jsonl and rows.eval.jsonl. `model` and train.json are written into it.
        settings: Of the run.
        arguments: The numbers of the training, all of which hold in every process.
        recipe: The recipe, with parameters in place of its own fields.
        processes: How many.
        patience: As for train.build_trainer.
        lora_rank: As for train.build_trainer.
        ignore_audit: Whether to train although the audit of these rows with these numbers found errors.
        time_limit: As for time_limit.plan_time, in hours.

    Raises:
        LaunchError: One of the processes failed; what it printed says why.
        FolderInUseError: Another process trains into the run folder.
    """
    from fgtools.train import describe_arguments

    options = {
        **{"rows": run.find(ROWS[0]).parent, "out": run.root, "model": settings.model, "seed": settings.seed},
        **{"recipe": recipe.name, "over-length": recipe.over_length, "engine": recipe.engine},
        **{"arguments": run.write_json(ARGUMENTS, describe_arguments(arguments), ROWS)},
        **{"patience": patience, "lora-rank": lora_rank, "time-limit": time_limit},
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    with hold_folder(run.root, "train", "model"):
        launch("train", processes, [*words, "--resume", *(["--ignore-audit"] if ignore_audit else [])])
