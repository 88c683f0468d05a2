"""The command `train`: the training stage alone, from a prepared folder, in one process or several.

Knows the order of the calls that notebook 4 makes; the rooms below do the work.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fgtools.files import InputError, read_json
from fgtools.profiles import ENGINES, OVER_LENGTH, PRECISIONS, PROFILES, RECIPES
from fgtools.rows import load_rows
from fgtools.run.folder import RunFolder, open_run
from fgtools.run.options import Commands, parse_amount, parse_count
from fgtools.run.processes import LAUNCHED, launch

if TYPE_CHECKING:
    from trl import SFTConfig

    from fgtools.profiles import Recipe
    from fgtools.train import TrainResult


def add_train(commands: Commands) -> None:
    """Add the command `train`."""
    train = commands.add_parser("train", help="the training stage alone, from a prepared folder")
    train.add_argument("--rows", required=True, help="a folder that `prepare` wrote")
    train.add_argument("--model", required=True)
    train.add_argument("--recipe", choices=[*RECIPES], default="native")
    train.add_argument("--profile", choices=["auto", *PROFILES], default="auto")
    train.add_argument("--out", required=True)
    train.add_argument("--seed", type=parse_count, default=40)
    train.add_argument(
        "--seeds", type=parse_count, nargs="+", metavar="SEED", help="train once each, with mean and spread"
    )
    train.add_argument(
        "--arguments", default="", metavar="FILE", help="trl.SFTConfig as JSON, in place of the next five options"
    )
    train.add_argument("--epochs", type=parse_amount, default=0, help="passes; 0: the model's or the recipe's")
    train.add_argument("--learning-rate", type=parse_amount, default=0, help="peak; 0: the model's or the recipe's")
    train.add_argument(
        "--batch-size", type=parse_count, default=0, help="rows of a step, over all processes; 0: as above"
    )
    train.add_argument(
        "--max-length", type=parse_count, default=0, help="budget of a training text, tokens; 0: the recipe's"
    )
    train.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="default: by the GPU")
    train.add_argument("--over-length", choices=["", *OVER_LENGTH], default="", help="rows over the budget")
    train.add_argument("--engine", choices=["", *ENGINES], default="", help="'trl' for TRL's own loss and batches")
    train.add_argument(
        "--patience", type=parse_count, default=0, help="evaluations without a better one before it stops"
    )
    train.add_argument("--lora-rank", type=parse_count, default=0, help="train adapters of this rank; 0: all weights")
    train.add_argument("--resume", action="store_true", help="go on from this training's newest checkpoint")
    train.add_argument("--processes", type=parse_count, default=1, help="start as many, through accelerate")
    train.add_argument("--ignore-audit", action="store_true", help="train although the audit of the rows found errors")
    train.set_defaults(command=_train)


def _train(options: argparse.Namespace) -> None:
    from fgtools.report.layout import render_table
    from fgtools.run.training import train_seeds

    if options.processes > 1 and LAUNCHED not in os.environ:  # those that are launched read the same words
        launch("train", options.processes, options.words)
        return
    if not options.seeds:
        _train_one(options, options.seed, open_run(options.out))
        return
    if len(options.seeds) < 2:
        raise InputError(f"--seeds takes two or more, got {options.seeds}: use --seed for one")
    root = open_run(options.out).root
    table = train_seeds(options.seeds, lambda seed: _train_one(options, seed, open_run(root / f"seed-{seed}")))
    print(render_table(table))


def _train_one(options: argparse.Namespace, seed: int, out: RunFolder) -> TrainResult:
    from accelerate import PartialState

    from fgtools.models import load_model, load_tokenizer
    from fgtools.models.device import detect_capability
    from fgtools.profiles import adapt_recipe, get_recipe, resolve_profile
    from fgtools.prompts.audit import require_clean
    from fgtools.run.audit import audit_for_training
    from fgtools.run.training import ROWS, hold_out_rows, train_and_write

    capability = detect_capability()
    state = PartialState(cpu=capability is None)
    resolved = resolve_profile(options.profile, capability)
    recipe = adapt_recipe(get_recipe(options.recipe), over_length=options.over_length, engine=options.engine)
    inputs = [RunFolder(Path(options.rows)).find(name) for name in ROWS]
    sides = [load_rows(path) for path in inputs]
    held_out = hold_out_rows(*sides, recipe, seed)
    arguments = _train_arguments(options, recipe, seed, len(held_out[0]), out)
    tokenizer = load_tokenizer(options.model)
    if state.is_main_process:
        print(f"profile {resolved.profile.name}: {resolved.reason}")
        named = dict(zip(("train", "eval"), sides, strict=True))
        audit = audit_for_training(out, named, inputs, tokenizer, recipe, arguments.max_length)
        if "inputs" not in audit:  # a new one
            out.write_json("audit.json", audit, inputs)
        require_clean(audit, options.ignore_audit)
    state.wait_for_everyone()
    model = load_model(options.model, quiet=not state.is_main_process)
    extras = {name: getattr(options, name) for name in ("patience", "lora_rank", "resume")}
    result = train_and_write(model, tokenizer, held_out, arguments, out, recipe, inputs=inputs, **extras)
    if state.is_main_process:
        print(f"{result.steps} steps in {result.seconds:.0f} s; the model lies in {out.root / 'model'}")
    return result


def _train_arguments(options: argparse.Namespace, recipe: Recipe, seed: int, n_rows: int, out: RunFolder) -> SFTConfig:
    """Return the numbers of a training: those of --arguments, or those of the other options."""
    from fgtools.train import parse_arguments, training_arguments

    names = ("learning_rate", "epochs", "batch_size", "max_length", "precision")
    given = {name: getattr(options, name) for name in names if getattr(options, name) not in (0, "auto")}
    if not options.arguments:
        numbers = {**given, "model": options.model, "seed": seed, "n_rows": n_rows}
        return training_arguments(recipe, **numbers, output_dir=out.root / "model.checkpoints")
    if given or options.seeds:
        other = (*given, "seeds")[0].replace("_", "-")
        raise InputError(
            f"--arguments holds every number of a training, so --{other} must not be given: change the file"
        )
    return parse_arguments(
        {name: value for name, value in read_json(Path(options.arguments)).items() if name != "inputs"}
    )
