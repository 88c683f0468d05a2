"""The command line: thin, since notebooks and commands call the same functions.

`python -m fgtools run | prepare | audit | train | evaluate | score`; each with --help.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fgtools import __version__
from fgtools.files import FgtoolsError, read_jsonl
from fgtools.profiles import PROFILES, RECIPES
from fgtools.rows import load_rows
from fgtools.run.data_commands import add_audit, add_prepare
from fgtools.run.folder import open_run
from fgtools.run.options import Commands, parse_count
from fgtools.run.session import quiet_libraries
from fgtools.run.train_command import add_train

if TYPE_CHECKING:
    pass

RESUMABLE = {"run", "train"}
"""Commands that have --resume; `evaluate` goes on by itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after `python -m fgtools`; None: those of this process.

    Returns:
        The exit status: 0, 1 for an error with a message or a closed pipe, 2 for wrong usage, 130 after Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = _build_parser().parse_args(words)
    options.words = words[words.index(options.name_of_command) + 1 :]
    quiet_libraries()
    try:
        options.command(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        resume = " with --resume" if options.name_of_command in RESUMABLE else ""
        print(f"\nstopped: to go on, run the same command{resume}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read the output, such as `head`, has seen enough
        _close_output()
        return 1
    except (FgtoolsError, OSError) as error:
        if options.debug or not (isinstance(error, FgtoolsError) or error.filename):
            raise
        message = error if isinstance(error, FgtoolsError) else f"{error.filename}: {error.strerror}"
        print(f"error: {message}", file=sys.stderr)
        return 1
    return 0


def _close_output() -> None:
    """Send what is still to be written to nowhere, or Python would complain of the closed pipe when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fgtools", description="Fine-tune FunctionGemma on your own tools.")
    parser.add_argument("--version", action="version", version=f"fgtools {__version__}", help="show the version")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="name_of_command")
    for add in (_add_run, add_prepare, add_audit, add_train, _add_evaluate, _add_score):
        add(commands)
    return parser


def _add_run(commands: Commands) -> None:
    run = commands.add_parser("run", help="the six notebooks, in order, with papermill")
    run.add_argument("--profile", choices=["auto", *PROFILES], help="where it runs (default: auto)")
    run.add_argument("--recipe", choices=[*RECIPES], help="how data, loss and format are treated (default: native)")
    run.add_argument("--data", help="'sample', a JSONL/JSON/Parquet/CSV file or folder, or a hub data set id")
    run.add_argument("--model", help="'standin', a folder, a hub id, or a kagglehub handle")
    run.add_argument("--out", default="runs/offline", help="the run folder (default: %(default)s)")
    run.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="stages to run, such as 02 03")
    run.add_argument(
        "--resume", action="store_true", help="skip stages whose inputs, parameters and code are unchanged"
    )
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a notebook parameter")
    run.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> None:
    from fgtools.run.notebooks import render_summary, run_series

    named = {"PROFILE": options.profile, "RECIPE": options.recipe, "DATA": options.data, "MODEL": options.model}
    given = {name: value for name, value in named.items() if value is not None}
    data = given.get("DATA", "")
    if data and Path(data).exists():
        given["DATA"] = str(Path(data).absolute())  # notebooks run in their own folder
    model = given.get("MODEL", "")
    if model and Path(model).exists():
        given["MODEL"] = str(Path(model).absolute())
    outcomes = run_series(options.out, given | dict(options.p), options.only, options.resume)
    run = open_run(options.out)
    total = sum(outcome.seconds for outcome in outcomes)
    print(f"\nstages: {len(outcomes)}, {total:.0f} s")
    print(render_summary(run))


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser("evaluate", help="replies and scores of a model on a rows file")
    evaluate.add_argument("--model", required=True)
    evaluate.add_argument("--rows", required=True, help="a rows.*.jsonl file")
    evaluate.add_argument("--recipe", choices=[*RECIPES], default="native")
    evaluate.add_argument("--out", required=True)
    evaluate.add_argument("--max-new-tokens", type=parse_count, default=0, help="0: from the longest gold")
    evaluate.add_argument("--batch-size", type=parse_count, default=64, help="rows at once, at most")
    evaluate.add_argument(
        "--name",
        default="",
        help="of the files: replies.NAME.jsonl and scores.NAME.json; NAME.constrained with --constrain",
    )
    evaluate.add_argument("--constrain", action="store_true", help="allow declared tools and arguments alone")
    evaluate.add_argument("--processes", type=parse_count, default=0, help="default: one a GPU where that pays")
    evaluate.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from accelerate import PartialState

    from fgtools.models import load_model, load_tokenizer
    from fgtools.models.device import detect_capability
    from fgtools.report.layout import render_table
    from fgtools.report.tables import build_ladder_table
    from fgtools.run.evaluation import evaluate, list_inputs, name_files
    from fgtools.run.processes import LAUNCHED, choose_processes, launch

    rows = load_rows(Path(options.rows))
    processes, reason = choose_processes(len(rows), options.processes)
    launched = LAUNCHED in os.environ
    if processes > 1 and not launched:  # those that are launched read the same words
        print(f"processes: {processes}, {reason}", flush=True)
        launch("evaluate", processes, options.words)
        return
    state = PartialState(cpu=detect_capability() is None, timeout=timedelta(hours=3)) if launched else None
    first = state is None or state.is_main_process
    model, tokenizer = load_model(options.model, quiet=not first), load_tokenizer(options.model)
    out, names = open_run(options.out), name_files(options.name, options.constrain)
    limits = {"max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size}
    evaluation = evaluate(
        model,
        tokenizer,
        rows,
        options.recipe,
        **limits,
        constrained=options.constrain,
        part=out.root / f"{names[0]}.part",
    )
    if first:
        evaluation.write(out, *names, list_inputs(Path(options.rows), options.model))
        print(render_table(build_ladder_table(evaluation.scores)))


def _add_score(commands: Commands) -> None:
    score = commands.add_parser("score", help="scores of a replies file, as JSON on standard output")
    score.add_argument("--rows", required=True, help="a rows.*.jsonl file")
    score.add_argument("--replies", required=True, help='a file of {"row_id", "reply"} lines')
    score.add_argument("--recipe", choices=[*RECIPES], default="native")
    score.set_defaults(command=_score)


def _score(options: argparse.Namespace) -> None:
    from fgtools.run.evaluation import match_replies, score_rows

    rows = load_rows(Path(options.rows))
    replies = match_replies(rows, read_jsonl(Path(options.replies)))
    print(json.dumps(score_rows(rows, replies, options.recipe).to_dict(), ensure_ascii=False, indent=1))


if __name__ == "__main__":
    sys.exit(main())
