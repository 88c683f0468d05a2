"""The numbers of a training, as a plain `trl.SFTConfig`: built from a recipe, checked, written as JSON.

Knows the names of TRL's and transformers' fields, those that hold from transformers 5.0 on: which of them a trainer
here reads, and which decide the weights. Knows no models and no rows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from trl import SFTConfig

from fgtools.files import FgtoolsError, InputError, is_watched
from fgtools.models.device import choose_cpu_precision, choose_precision, detect_capability
from fgtools.profiles import (
    EVALUATION_STEPS,
    EVALUATIONS,
    FEW_ROWS_A_STEP,
    FEW_ROWS_EPOCHS,
    KEPT_CHECKPOINTS,
    LOG_ENTRIES,
    LORA_LEARNING_RATE,
    Recipe,
    fit_recipe,
    is_standin,
)

DEFAULT_OUTPUT = "trainer_output"  # transformers' name for an output_dir that was not given

SHOWN = (
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "packing"),
    *("optim", "weight_decay", "max_grad_norm", "bf16", "fp16", "gradient_checkpointing"),
    *("logging_steps", "eval_strategy", "eval_steps", "save_steps", "load_best_model_at_end"),
    *("metric_for_best_model", "report_to", "seed"),
)
"""The fields worth a look, the sixteen of the tutorial among them."""

_ROWS = "rows reach the trainer as token ids and labels, and the recipe decides these"
_BATCHES = "the labelled engine cuts batches by tokens and shuffles by data_seed or seed; the engine 'trl' reads it"
_LOSS = "the labelled engine computes its own loss; the engine 'trl' reads it"
_EVERY_ENGINE = {
    **dict.fromkeys(("packing", "eval_packing", "padding_free", "completion_only_loss", "assistant_only_loss"), _ROWS),
    **dict.fromkeys(("chat_template_path", "eos_token", "pad_token", "dataset_kwargs", "shuffle_dataset"), _ROWS),
    "model_init_kwargs": "the model is loaded before",
    "resume_from_checkpoint": "build_trainer(resume=True) finds the checkpoint",
    "save_only_model": "a training goes on from its checkpoints, which need the optimizer's states",
}
_LABELLED_ENGINE = {
    **dict.fromkeys(("train_sampling_strategy", "group_by_length", "dataloader_drop_last"), _BATCHES),
    **dict.fromkeys(("auto_find_batch_size", "batch_eval_metrics", "prediction_loss_only"), _BATCHES),
    **dict.fromkeys(("label_smoothing_factor", "loss_type", "router_aux_loss_coef", "use_liger_kernel"), _LOSS),
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval", "torch_compile", "deepspeed", "fsdp"), _LOSS),
}
"""Fields that must keep SFTConfig's own value, and why: a trainer here would not read another one."""

_DECIDE_NO_WEIGHT = frozenset(
    "output_dir run_name project report_to logging_dir disable_tqdm log_level log_level_replica log_on_each_node "
    "push_to_hub do_train do_eval do_predict local_rank save_strategy save_steps save_total_limit".split()
)


class TrainingError(FgtoolsError, ValueError):
    """Training cannot start or went wrong; the message says what must hold."""


class RunSettings(Protocol):
    """What `training_arguments` reads of the settings of a run."""

    recipe: Recipe
    model: str
    seed: int


def training_arguments(
    recipe: str | Recipe | RunSettings = "native",
    *,
    model: str = "",
    seed: int = 40,
    learning_rate: float = 0,
    epochs: float = 0,
    batch_size: int = 0,
    max_length: int = 0,
    precision: str = "auto",
    lora_rank: int = 0,
    n_rows: int | None = None,
    output_dir: str | Path = DEFAULT_OUTPUT,
) -> SFTConfig:
    """Return the numbers of a training as TRL names them; any of them may be changed on the object before it is used.

    Args:
        recipe: "native", "tutorial", a Recipe, or the settings of a run, which also name model and seed.
        model: What MODEL names: the stand-in has numbers of its own.
        seed: Seed of the order of the rows.
        learning_rate: Peak learning rate; 0: the recipe's, or LORA_LEARNING_RATE for adapters.
        epochs: Passes over the training rows; 0: the recipe's, or more of them where its steps would be few.
        batch_size: Rows of an optimizer step, over all processes; 0: the recipe's, or fewer where its steps would be
            few. See fit_steps; describe_steps says what was taken.
        max_length: Budget of one training text, in tokens; 0: the recipe's.
        precision: "fp32", "bf16" or "fp16", which sets bf16 and fp16; "auto": what the GPU computes fastest in, or for
            the labelled engine the CPU (the stand-in stays in fp32, which costs it nothing).
        lora_rank: Rank of the adapters that are to be trained; 0 for the weights.
        n_rows: Training rows: they decide whether steps are few, and how far apart logs and evaluations are; None: 10.
        output_dir: Folder of the checkpoints.

    Returns:
        The SFTConfig. Rows of an optimizer step are per_device_train_batch_size x gradient_accumulation_steps, for any
        number of processes. gradient_checkpointing False means: only where the longest row does not fit otherwise;
        save_steps 0: checkpoints come at every evaluation where they are small, else by time (`saving`).

    Raises:
        ValueError: A number is negative, or a name unknown.
    """
    if not isinstance(recipe, (str, Recipe)):
        recipe, model, seed = recipe.recipe, recipe.model, recipe.seed
    given = {"LEARNING_RATE": learning_rate, "EPOCHS": epochs, "BATCH_SIZE": batch_size, "MAX_LENGTH": max_length}
    for label, value in {**given, "LORA_RANK": lora_rank}.items():
        if not 0 <= value < math.inf:
            raise InputError(f"{label} must be positive, or 0 for the recipe's own, got {value}")
    fitted = fit_recipe(recipe, model)
    rate = LORA_LEARNING_RATE if lora_rank and not is_standin(model) else fitted.learning_rate
    fitted = replace(
        fitted,
        learning_rate=learning_rate or rate,
        epochs=epochs or fitted.epochs,
        batch_size=batch_size or fitted.batch_size,
        accumulation_steps=1 if batch_size else fitted.accumulation_steps,
        max_length=max_length or fitted.max_length,
    )
    if n_rows is not None:
        fitted = fit_steps(fitted, n_rows, epochs=not epochs, batch_size=not batch_size)
    device = _choose_format(precision, model, fitted.engine)
    return parse_arguments({"output_dir": str(output_dir), "seed": seed, **device, **_translate_recipe(fitted, n_rows)})


def _choose_format(precision: str, model: str, engine: str) -> dict[str, bool]:
    """Return the number format of a training under TRL's names, and whether it runs on the CPU."""
    capability = detect_capability()
    chosen = choose_precision(capability, precision)
    if capability is None and precision == "auto" and model and not is_standin(model) and engine == "labelled":
        chosen = choose_cpu_precision()
    return {"bf16": chosen.name == "bf16", "fp16": chosen.name == "fp16", "use_cpu": capability is None}


def fit_steps(recipe: Recipe, n_rows: int, *, epochs: bool = True, batch_size: bool = True) -> Recipe:
    """Return a recipe with more passes, and if need be fewer rows a step, where its optimizer steps would be few.

    Passes are added first, up to FEW_ROWS_EPOCHS, until there are `fewest_steps` steps. Where that is not enough, the
    rows of a step are halved, down to FEW_ROWS_A_STEP, and there are only as many passes as the smaller steps need:
    a hundred rows of own tools overfit at eight (docs/training.md).

    Args:
        recipe: The recipe, with the numbers of the model.
        n_rows: Training rows.
        epochs: Whether the passes may be changed.
        batch_size: Whether the rows of a step may be changed.
    """
    rows = recipe.batch_size * recipe.accumulation_steps
    if count_steps(n_rows, rows, recipe.epochs) >= recipe.fewest_steps or n_rows < 1:
        return recipe

    def choose_passes() -> float:
        enough = math.ceil(recipe.fewest_steps / math.ceil(n_rows / rows))
        return max(recipe.epochs, min(FEW_ROWS_EPOCHS, enough)) if epochs else recipe.epochs

    while batch_size and rows > FEW_ROWS_A_STEP and count_steps(n_rows, rows, choose_passes()) < recipe.fewest_steps:
        rows = max(FEW_ROWS_A_STEP, rows // 2)
    passes = choose_passes()
    at_once = min(recipe.batch_size, rows)
    return replace(recipe, epochs=passes, batch_size=at_once, accumulation_steps=rows // at_once)


def count_steps(n_rows: int, rows_per_step: int, epochs: float) -> int:
    """Return the optimizer steps of a training; the last step of a pass may have fewer rows than the others."""
    return math.ceil(math.ceil(n_rows / rows_per_step) * epochs)


def _translate_recipe(recipe: Recipe, n_rows: int | None) -> dict[str, Any]:
    """Return what a recipe says of a training, under TRL's names."""
    rows_of_step = recipe.batch_size * recipe.accumulation_steps
    steps = 0 if n_rows is None else count_steps(n_rows, rows_of_step, recipe.epochs)
    log = recipe.log_steps or (max(1, steps // LOG_ENTRIES) if steps else 10)
    evaluate = recipe.eval_steps or max(EVALUATION_STEPS, log * max(1, round(steps / EVALUATIONS / log)))
    return {
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.scheduler,
        "warmup_steps": recipe.warmup_fraction,  # below 1 it is a share of the steps; warmup_ratio is gone
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.accumulation_steps,
        "max_length": recipe.max_length,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "logging_steps": log,
        "logging_nan_inf_filter": False,  # it would write an average in place of a loss that is not finite
        "eval_strategy": "steps",
        "eval_steps": evaluate,
        "eval_on_start": True,
        "save_strategy": "steps",
        "save_steps": 0,  # the trainer decides: see `saving`
        "save_total_limit": KEPT_CHECKPOINTS,
        "load_best_model_at_end": recipe.choose_best,
        "metric_for_best_model": default_metric(recipe.engine) if recipe.choose_best else None,
        "greater_is_better": recipe.engine == "labelled",
        "report_to": "none",
        "disable_tqdm": not is_watched(),
    }


def default_metric(engine: str) -> str:
    """Return the figure of an evaluation by which an engine's best checkpoint is chosen by default."""
    return "eval_choice" if engine == "labelled" else "eval_loss"


def parse_arguments(values: Mapping[str, Any]) -> SFTConfig:
    """Build an SFTConfig from its fields by name, as `describe_arguments` returns them.

    Raises:
        TrainingError: A name is not one of its fields, or SFTConfig refuses a value.
    """
    unknown = set(values) - {field.name for field in fields(SFTConfig) if field.init}
    if unknown:
        raise TrainingError(
            f"the arguments of a training must be fields of trl.SFTConfig, but {min(unknown)!r} is none: check its "
            "spelling, or write the file with the installed version of TRL"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # gradient_checkpointing, whose new name older versions lack
        try:
            arguments = SFTConfig(**values)
        except (ValueError, TypeError) as error:
            raise TrainingError(f"the arguments of a training must hold together, but TRL says: {error}") from error
    if hasattr(arguments, "activation_checkpointing"):  # the new name mirrors the old one: one of them is enough
        arguments.gradient_checkpointing, arguments.activation_checkpointing = _checkpointing(arguments), None
    return arguments


def _checkpointing(arguments: SFTConfig) -> bool:
    """Return whether activations are recomputed; transformers 5.23 has two names for it, which must not differ."""
    old, new = arguments.gradient_checkpointing, getattr(arguments, "activation_checkpointing", None)
    if new is not None and bool(new) != bool(old):
        raise TrainingError(
            f"gradient_checkpointing and activation_checkpointing must be the same, got {old} and {new}: set both"
        )
    return bool(old)


def describe_arguments(arguments: SFTConfig) -> dict[str, Any]:
    """Return every value of an SFTConfig that it can be built from again, as JSON holds it; tokens are left out."""
    names = [field.name for field in fields(arguments) if field.init and not field.name.endswith("_token")]
    return {name: _plain(getattr(arguments, name)) for name in names}


def summarize_arguments(arguments: SFTConfig) -> dict[str, Any]:
    """Return the values worth a look, by name, as JSON holds them."""
    return {name: _plain(getattr(arguments, name)) for name in SHOWN}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def deciding_values(arguments: SFTConfig) -> dict[str, Any]:
    """Return the values that decide the weights: all but names, places, logging targets and the hub's fields."""
    return {
        name: value
        for name, value in describe_arguments(arguments).items()
        if name not in _DECIDE_NO_WEIGHT and not name.startswith(("hub_", "trackio_"))
    }


def copy_arguments(arguments: SFTConfig, **changes: Any) -> SFTConfig:
    """Return a copy with some values changed; SFTConfig checks its values together, and raises as parse_arguments."""
    values = {**describe_arguments(arguments), "gradient_checkpointing": _checkpointing(arguments), **changes}
    values.pop("activation_checkpointing", None)
    copy = parse_arguments(values)
    copy.hub_token = arguments.hub_token
    return copy


def check_arguments(arguments: SFTConfig, engine: str) -> SFTConfig:
    """Return a copy of what a trainer is given, after a check that it reads every value that was changed.

    Args:
        arguments: The arguments, as `training_arguments` or a user made and changed them.
        engine: "labelled" or "trl".

    Raises:
        TrainingError: A name is not a field, SFTConfig refuses a value, or a value would not be read.
    """
    copy = copy_arguments(arguments)
    unknown = [name for name in vars(arguments) if not name.startswith("_") and not hasattr(copy, name)]
    if unknown:
        raise TrainingError(f"the arguments of a training have no field {unknown[0]!r}: check its spelling")
    plain = parse_arguments({"output_dir": copy.output_dir, "use_cpu": copy.use_cpu, "bf16": False})
    unread = {**_EVERY_ENGINE, **(_LABELLED_ENGINE if engine == "labelled" else {})}
    for name, reason in unread.items():
        got, wanted = getattr(arguments, name, None), getattr(plain, name, None)
        if got != wanted:
            raise TrainingError(f"{name} must stay {wanted!r}, got {got!r}: {reason}")
    if str(copy.metric_for_best_model).endswith("loss") and copy.greater_is_better:
        raise TrainingError(
            f"greater_is_better must be False for {copy.metric_for_best_model!r}, got True: a loss falls"
        )
    return copy


def rows_per_step(arguments: SFTConfig) -> int:
    """Return the rows of an optimizer step, over all processes."""
    return arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps


def describe_steps(arguments: SFTConfig, recipe: str | Recipe, model: str, n_rows: int) -> str:
    """Return a line with the optimizer steps of a training, and a second one where they are few.

    Args:
        arguments: The numbers of the training.
        recipe: "native", "tutorial" or a Recipe: the one that the arguments were made from.
        model: What MODEL names.
        n_rows: Training rows.
    """
    usual = fit_recipe(recipe, model)
    default = fit_steps(usual, n_rows)

    def say(rows: int, passes: float) -> str:
        return f"{passes:g} passes with {rows} rows a step are {count_steps(n_rows, rows, passes)} optimizer steps"

    now, was, would_be = (
        (rows_per_step(arguments), arguments.num_train_epochs),
        *((one.batch_size * one.accumulation_steps, one.epochs) for one in (usual, default)),
    )
    if arguments.max_steps > 0:
        return f"{n_rows} rows: {arguments.max_steps} optimizer steps with {now[0]} rows each (max_steps)"
    line = f"{n_rows} rows: {say(*now)}"
    if now == would_be != was:
        done = "passes were added" if now[0] == was[0] else "passes were added and steps made smaller"
        return (
            f"{line}\nfew rows: {say(*was)}, as the recipe has them, and fewer than {usual.fewest_steps} teach little, "
            f"so {done} (docs/training.md); EPOCHS and BATCH_SIZE set other numbers"
        )
    if count_steps(n_rows, *now) < usual.fewest_steps:
        return f"{line}\nfew steps: fewer than {usual.fewest_steps} teach little; by default, {say(*would_be)}"
    return line
