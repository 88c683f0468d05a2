"""The command line: thin, since notebooks and commands call the same functions.

`python -m fgtools run | prepare | train | evaluate | score`; each with --help.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fgtools.artifacts import RunFolder, open_run, read_jsonl
from fgtools.profiles import PROFILES, RECIPES

EXPECTED_ERRORS = (ValueError, OSError, RuntimeError)
"""What the package raises with a message for people: shown without a traceback, exit status 1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after `python -m fgtools`; None: those of this process.

    Returns:
        The exit status: 0, 1 for an error with a message, 2 for wrong usage.
    """
    options = _build_parser().parse_args(arguments)
    try:
        options.command(options)
    except EXPECTED_ERRORS as error:
        if os.environ.get("FGTOOLS_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fgtools", description="Fine-tune FunctionGemma on your own tools.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="the six notebooks, in order, with papermill")
    run.add_argument("--profile", choices=["auto", *PROFILES], help="where it runs (default: auto)")
    run.add_argument("--recipe", choices=[*RECIPES], help="how data, loss and format are treated (default: native)")
    run.add_argument("--data", help="'sample', a JSONL/JSON/Parquet file or folder, or a hub data set id")
    run.add_argument("--model", help="'standin', a folder, a hub id, or a kagglehub handle")
    run.add_argument("--out", default="runs/offline", help="the run folder (default: %(default)s)")
    run.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="stages to run, such as 02 03")
    run.add_argument(
        "--resume", action="store_true", help="skip stages whose inputs, parameters and code are unchanged"
    )
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a notebook parameter")
    run.set_defaults(command=_run)

    prepare = commands.add_parser("prepare", help="raw rows to rows.train.jsonl, rows.eval.jsonl and funnel.json")
    prepare.add_argument("--data", required=True, help="as for run")
    prepare.add_argument("--recipe", choices=[*RECIPES], default="native")
    prepare.add_argument("--out", required=True)
    prepare.add_argument("--n-total", type=int, default=None, help="raw rows to take (default: all)")
    prepare.add_argument("--n-eval", type=int, default=300, help="evaluation rows (default: %(default)s)")
    prepare.add_argument("--seed", type=int, default=40)
    prepare.set_defaults(command=_prepare)

    train = commands.add_parser("train", help="the training stage alone, from a prepared folder")
    train.add_argument("--rows", required=True, help="a folder that `prepare` wrote")
    train.add_argument("--model", required=True)
    train.add_argument("--recipe", choices=[*RECIPES], default="native")
    train.add_argument("--profile", choices=["auto", *PROFILES], default="auto")
    train.add_argument("--out", required=True)
    train.add_argument("--seed", type=int, default=40)
    train.add_argument("--epochs", type=float, default=0, help="0: the profile's or the recipe's")
    train.add_argument("--learning-rate", type=float, default=0, help="0: the profile's or the recipe's")
    train.add_argument("--batch-size", type=int, default=0, help="0: the profile's or the recipe's")
    train.set_defaults(command=_train)

    evaluate = commands.add_parser("evaluate", help="replies and scores of a model on a rows file")
    evaluate.add_argument("--model", required=True)
    evaluate.add_argument("--rows", required=True, help="a rows.*.jsonl file")
    evaluate.add_argument("--recipe", choices=[*RECIPES], default="native")
    evaluate.add_argument("--out", required=True)
    evaluate.add_argument("--max-new-tokens", type=int, default=0, help="0: from the longest gold")
    evaluate.add_argument("--batch-size", type=int, default=32)
    evaluate.set_defaults(command=_evaluate)

    score = commands.add_parser("score", help="scores of a replies file, as JSON on standard output")
    score.add_argument("--rows", required=True, help="a rows.*.jsonl file")
    score.add_argument("--replies", required=True, help='a file of {"row_id", "reply"} lines')
    score.add_argument("--recipe", choices=[*RECIPES], default="native")
    score.set_defaults(command=_score)
    return parser


def _run(options: argparse.Namespace) -> None:
    from fgtools.pipeline import parse_parameters, run_series
    from fgtools.stages import render_summary

    named = {"PROFILE": options.profile, "RECIPE": options.recipe, "DATA": options.data, "MODEL": options.model}
    given = {name: value for name, value in named.items() if value is not None}
    data = given.get("DATA", "")
    if data and Path(data).exists():
        given["DATA"] = str(Path(data).absolute())  # notebooks run in their own folder
    model = given.get("MODEL", "")
    if model and Path(model).exists():
        given["MODEL"] = str(Path(model).absolute())
    outcomes = run_series(options.out, given | parse_parameters(options.p), options.only, options.resume)
    run = open_run(options.out)
    total = sum(outcome.seconds for outcome in outcomes)
    print(f"\nstages: {len(outcomes)}, {total:.0f} s")
    print(render_summary(run))


def _prepare(options: argparse.Namespace) -> None:
    from fgtools.report import render_funnel_table
    from fgtools.sources import load_raw_rows
    from fgtools.stages import prepare

    raw = load_raw_rows(options.data, options.n_total or sys.maxsize, options.seed)
    prepared = prepare(raw, options.recipe, options.n_eval, options.seed)
    prepared.write(open_run(options.out))
    print(render_funnel_table(prepared.rowset.funnel))
    print(prepared.describe())


def _train(options: argparse.Namespace) -> None:
    from fgtools.models import load_model, load_tokenizer
    from fgtools.profiles import build_training, get_recipe, resolve_profile
    from fgtools.session import detect_capability
    from fgtools.train import train

    rows, out = RunFolder(Path(options.rows)), open_run(options.out)
    resolved = resolve_profile(options.profile, detect_capability())
    print(f"profile {resolved.profile.name}: {resolved.reason}")
    config = build_training(
        resolved.profile,
        get_recipe(options.recipe),
        seed=options.seed,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_size=options.batch_size,
    )
    names = ("rows.train.jsonl", "rows.eval.jsonl")
    train_rows, eval_rows = (rows.read_rows(name) for name in names)
    model, tokenizer = load_model(options.model), load_tokenizer(options.model)
    result = train(model, tokenizer, train_rows, eval_rows, config, out.root / "model", options.recipe)
    out.write_json("train.json", {**vars(config), **result.to_dict()}, [rows.find(name) for name in names])
    print(f"{result.steps} steps in {result.seconds:.0f} s; the model lies in {out.root / 'model'}")


def _evaluate(options: argparse.Namespace) -> None:
    from fgtools.models import load_model, load_tokenizer
    from fgtools.report import render_ladder_table
    from fgtools.stages import evaluate

    rows = read_jsonl(Path(options.rows))
    model, tokenizer = load_model(options.model), load_tokenizer(options.model)
    evaluation = evaluate(
        model, tokenizer, rows, options.recipe, max_new_tokens=options.max_new_tokens, batch_size=options.batch_size
    )
    evaluation.write(open_run(options.out), "replies.jsonl", "scores.json", [Path(options.rows)])
    print(render_ladder_table(evaluation.scores))


def _score(options: argparse.Namespace) -> None:
    from fgtools.stages import match_replies, score_rows

    rows = read_jsonl(Path(options.rows))
    replies = match_replies(rows, read_jsonl(Path(options.replies)))
    print(json.dumps(score_rows(rows, replies, options.recipe).to_dict(), ensure_ascii=False, indent=1))


if __name__ == "__main__":
    sys.exit(main())
