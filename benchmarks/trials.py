"""One training of real size with the numbers of a trial, and its scores on held-out rows; a trial is run only once.

Knows rows, a start model and the numbers of a trial; not which trials there are, which stands in `real`. What a trial
gave lies in a JSON file of its name, beside its replies, so that a long series can be killed and goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fgtools.files import DataFileError, read_json, sha256_of, write_json, write_jsonl
from fgtools.models import load_model, load_tokenizer
from fgtools.profiles import Recipe, adapt_recipe, get_recipe
from fgtools.prompts import encode_rows
from fgtools.rows import Row
from fgtools.run.evaluation import evaluate
from fgtools.train import build_trainer, train, training_arguments
from fgtools.train.arguments import count_steps, rows_per_step

CURVE_ROWS = 12  # held-out rows whose loss is read during a trial; none is chosen by, the last weights are scored


@dataclass(frozen=True)
class Trial:
    """The numbers of one training.

    Attributes:
        name: Of the files it leaves.
        recipe: "native" or "tutorial".
        learning_rate: Peak learning rate; 0: the recipe's.
        epochs: Passes over the rows; 0: the recipe's, more where rows are few.
        rows_a_step: Rows of an optimizer step; 0: the recipe's, fewer where its steps would be few.
        steps: Optimizer steps; 0: as many as the passes have.
        lora_rank: Rank of adapters; 0: all weights are trained.
        keep: Whether the tuned model is kept.
    """

    name: str
    recipe: str = "native"
    learning_rate: float = 0
    epochs: float = 0
    rows_a_step: int = 0
    steps: int = 0
    lora_rank: int = 0
    keep: bool = False


def run_trial(trial: Trial, start: str, rows: Sequence[Row], sides: Mapping[str, Sequence[Row]], out: Path) -> dict:
    """Return what a trial gave: read from its file where the same numbers, rows and model made it, else trained now.

    Args:
        trial: The numbers.
        start: Folder of the model that it begins from.
        rows: Training rows, all of which are trained on.
        sides: Held-out rows by side, to be answered and scored.
        out: Folder of the trials' files.
    """
    asked = {**asdict(trial), "start": sha256_of(Path(start, "model.safetensors")), "rows": [r["row_id"] for r in rows]}
    file = out / f"{trial.name}.json"
    try:
        saved = read_json(file)
    except DataFileError:
        saved = {}
    if saved.get("asked") == asked:
        return saved
    recipe = replace(adapt_recipe(get_recipe(trial.recipe), engine="labelled"), choose_best=False)
    folder = out / f"{trial.name}.model"
    trained = _train(trial, recipe, start, rows, next(iter(sides.values()))[:CURVE_ROWS], folder)
    result = {"asked": asked, **trained, **_answer(str(folder), sides, recipe, file)}
    if not trial.keep:
        shutil.rmtree(folder)
    write_json(file, result)
    return read_json(file)


def score_model(model: str, sides: Mapping[str, Sequence[Row]], file: Path) -> dict:
    """Return the scores of a model that no trial trains, from their file where it is there."""
    if not file.exists():
        write_json(file, _answer(model, sides, get_recipe("native"), file))
    return read_json(file)


def _answer(folder: str, sides: Mapping[str, Sequence[Row]], recipe: Recipe, file: Path) -> dict[str, Any]:
    """Return the scores of a model by side, and the seconds; its replies are written beside the file."""
    began, scores = time.perf_counter(), {}
    model, tokenizer = load_model(folder, quiet=True), load_tokenizer(folder)
    for side, held in sides.items():
        done = evaluate(model, tokenizer, held, recipe)
        pairs = zip(held, done.replies, strict=True)
        replies = [{"row_id": row["row_id"], "reply": text} for row, text in pairs]
        write_jsonl(file.with_name(f"{file.stem}.{side}.jsonl"), replies)
        scores[side] = done.scores.to_dict()
    return {"sides": scores, "evaluation_seconds": round(time.perf_counter() - began, 1)}


def _train(
    trial: Trial, recipe: Recipe, start: str, rows: Sequence[Row], curve: Sequence[Row], folder: Path
) -> dict[str, Any]:
    model, tokenizer = load_model(start, quiet=True), load_tokenizer(start)
    options = {"learning_rate": trial.learning_rate, "epochs": trial.epochs, "lora_rank": trial.lora_rank}
    options["batch_size"] = trial.rows_a_step
    arguments = training_arguments(recipe, model=start, n_rows=len(rows), output_dir=f"{folder}.checkpoints", **options)
    arguments.save_strategy = "no"
    if trial.steps:
        arguments.max_steps = trial.steps
    if recipe.name == "tutorial":
        arguments.bf16 = training_arguments("native", model=start).bf16  # the format of the other side's products
        arguments.gradient_checkpointing = False  # the same gradients in less time
    done = train(model, tokenizer, rows, curve, arguments, folder, recipe, lora_rank=trial.lora_rank)
    return {
        "n_rows": len(rows),
        "rows_a_step": rows_per_step(arguments),
        "steps": done.steps,
        "planned_steps": count_steps(len(rows), rows_per_step(arguments), arguments.num_train_epochs),
        "learning_rate": arguments.learning_rate,
        "epochs": arguments.num_train_epochs,
        "precision": done.precision,
        "tokens": done.tokens,
        "label_tokens": done.label_tokens,
        "training_seconds": round(done.seconds, 1),
        "losses": [[entry["step"], round(entry["eval_loss"], 4)] for entry in done.history if "eval_loss" in entry],
    }


def measure_steps(start: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the seconds of one optimizer step's gradient, computed in several ways one after the other.

    Args:
        start: Folder of the model.
        rows: Rows of the step.
    """
    tokenizer, found = load_tokenizer(start), []
    encoded = encode_rows(rows, tokenizer).encoded
    columns = [{"input_ids": row.input_ids, "labels": row.labels} for row in encoded]
    for precision in ("fp32", "bf16"):
        arguments = training_arguments("native", model=start, n_rows=len(rows), batch_size=len(rows))
        arguments.bf16, arguments.save_strategy, arguments.load_best_model_at_end = precision == "bf16", "no", False
        trainer = build_trainer(load_model(start, quiet=True), tokenizer, encoded, encoded, arguments)
        whole = trainer.tokens
        for tokens, packs in ((1, False), (whole, False), (whole, True)):
            trainer.tokens, trainer.packs = tokens, packs
            inputs = trainer._prepare_inputs(trainer._collate(columns))
            if packs and not inputs["shared"]:
                continue
            trainer.model.zero_grad()
            trainer._step(trainer.model, trainer._prepare_inputs(trainer._collate(columns[:2])))  # warms up
            trainer.model.zero_grad()
            began = time.perf_counter()
            trainer._step(trainer.model, inputs)
            seconds = round(time.perf_counter() - began, 2)
            found.append({"precision": precision, "at_once": tokens, "shared": inputs["shared"], "seconds": seconds})
            print(found[-1], flush=True)
    return [{**one, "tokens": sum(len(row["input_ids"]) for row in columns), "rows": len(rows)} for one in found]
