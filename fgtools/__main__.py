"""The command line: its options. What a command does stands in `run.commands`, how it ends in `run.exits`.

`python -m fgtools run | check | draft | prepare | audit | train | evaluate | score | export | publish | call | kaggle`;
each with --help.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TypeAlias

from fgtools import __version__
from fgtools.profiles import ENGINES, GGUF_TYPES, OVER_LENGTH, PRECISIONS, PROFILES, RECIPES, TURNS
from fgtools.rows.formats import SHAPES
from fgtools.run import commands, draft_command, kaggle_commands
from fgtools.run.exits import run_to_end, use_utf8
from fgtools.run.login import log_in_for
from fgtools.run.options import (
    GUIDE,
    CommandParser,
    parse_amount,
    parse_count,
    parse_finite,
    parse_limit,
    parse_name,
    parse_positive,
    parse_share,
    parse_words,
)
from fgtools.run.processes import end_with_launcher, hide_gpus
from fgtools.run.publish import NAME_FORMS
from fgtools.run.session import hide_bars, quiet_libraries

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command adds its parser."""

ON_GPU = {"run", "check", "train", "evaluate", "call"}
"""Commands that compute on a GPU where there is one."""

FROM_HUB = {"check", "prepare", "audit", "train", "evaluate", "export", "call"}
"""Commands whose --model and --data may be the hub's; `run` leaves the login to the notebooks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after `python -m fgtools`; None: those of this process.

    Returns:
        The exit status: 0, 1 for an error with a message or a closed pipe, 2 for wrong usage, 130 after Ctrl-C, 143
        after SIGTERM.
    """
    use_utf8()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        print(GUIDE)
        return 0
    options = parse_words(_build_parser(), words)
    options.words = words[words.index(options.name_of_command) + 1 :]
    quiet_libraries()
    hide_bars()
    end_with_launcher()
    if options.name_of_command in ON_GPU and (line := hide_gpus()) and getattr(options, "processes", 1) == 1:
        print(line + ("; --processes takes more" if "processes" in options else ""), file=sys.stderr)
    return run_to_end(_run_command, options, words)


def _run_command(options: argparse.Namespace) -> None:
    if options.name_of_command in FROM_HUB:
        log_in_for(options.model, getattr(options, "data", ""))
    options.command(options)


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m fgtools", description="Fine-tune FunctionGemma on your own tools.")
    parser.add_argument("--version", action="version", version=f"fgtools {__version__}", help="show the version")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    added = parser.add_subparsers(required=True, metavar="COMMAND", dest="name_of_command")
    parts = (
        _add_run,
        _add_check,
        _add_draft,
        _add_prepare,
        _add_audit,
        _add_train,
        _add_evaluate,
        _add_score,
        _add_export,
        _add_publish,
        _add_call,
        _add_kaggle,
    )
    for add in parts:
        add(added)
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", choices=[*RECIPES], default="native")


def _add_turns(parser: argparse.ArgumentParser) -> None:
    text = "answers of a conversation that become rows: its first call, or all (default: the recipe's, first)"
    parser.add_argument("--turns", choices=TURNS, default="", help=text)


def _add_max_length(parser: argparse.ArgumentParser) -> None:
    text = "budget of a training text, tokens; 0: the recipe's"
    parser.add_argument("--max-length", type=parse_count, default=0, help=text)


def _add_run(added: Commands) -> None:
    run = added.add_parser("run", help="the six notebooks, in order, with papermill")
    run.add_argument("--profile", choices=["auto", *PROFILES], help="where it runs (default: auto)")
    run.add_argument("--recipe", choices=[*RECIPES], help="how data, loss and format are treated (default: native)")
    _add_turns(run)
    run.add_argument("--data", help="'sample', a JSONL/JSON/Parquet/CSV file or folder, or a hub data set id")
    tools = "tools for all rows, in place of their own: a Python file, JSON, an MCP server's list, or OpenAPI"
    run.add_argument("--tools", metavar="FILE", help=tools)
    model = "'standin', a folder or .gguf file, a hub id, a kagglehub handle, or 'real' (Gemma 3 270M, package index)"
    run.add_argument("--model", help=model)
    run.add_argument("--out", default="", help="the run folder (default: runs/offline, runs/real with --model real)")
    run.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="stages to run, such as 02 03")
    run.add_argument(
        "--resume", action="store_true", help="skip stages whose parameters, code, inputs and outputs are unchanged"
    )
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a notebook parameter")
    run.set_defaults(command=commands.run)


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where rows come from and how they are split."""
    parser.add_argument("--data", required=True, help="as for run")
    parser.add_argument("--tools", default="", metavar="FILE", help="as for run")
    parser.add_argument(
        "--shape", choices=["auto", *SHAPES], default="auto", help="shape of the rows (default: a guess)"
    )
    _add_turns(parser)
    parser.add_argument("--split", default="train", help="split of a hub data set (default: %(default)s)")
    parser.add_argument("--config", default="", help="configuration of a hub data set")
    parser.add_argument("--revision", default="", help="commit, tag or branch of a hub data set")
    _add_recipe(parser)
    parser.add_argument(
        "--n-total", type=parse_count, default=0, help="raw rows to take; 0: all of a file, 3,000 of other data"
    )
    parser.add_argument("--n-eval", type=parse_positive, default=300, help="evaluation rows (default: %(default)s)")
    parser.add_argument("--seed", type=parse_count, default=40)
    parser.add_argument(
        "--no-call-share", type=parse_limit, default=-1.0, help="of the training rows (default: the recipe's)"
    )
    parser.add_argument("--benchmark", default="", metavar="FILE", help="questions that must not be trained on")
    parser.add_argument("--processes", type=parse_count, default=0, help="that read rows (default: one a core)")


def _add_check(added: Commands) -> None:
    text = "whether a model is what it is taken for: template, tokens, a known call; status 1 if it is not"
    check = added.add_parser("check", help=text)
    check.add_argument("--model", required=True, help="as for run")
    check.set_defaults(command=commands.check)


def _add_draft(added: Commands) -> None:
    draft = added.add_parser("draft", help="a sheet of examples for your tools: calls, and requests to write for them")
    draft.add_argument("--tools", required=True, metavar="FILE", help="as for run")
    draft.add_argument("--out", required=True, metavar="FILE", help="the CSV file to write, such as examples.csv")
    draft.add_argument(
        "--per-tool", type=parse_positive, default=8, help="calls a tool, at least (default: %(default)s)"
    )
    refusals = "lines that no tool can serve (default: one for four calls, at least one a tool)"
    draft.add_argument("--refusals", type=parse_count, default=-1, metavar="N", help=refusals)
    endpoint = "an OpenAI-compatible address that writes the requests; its key: FGTOOLS_API_KEY or OPENAI_API_KEY"
    draft.add_argument("--endpoint", default="", metavar="URL", help=endpoint)
    draft.add_argument("--model", default="", metavar="NAME", help="the model behind the endpoint")
    draft.add_argument("--force", action="store_true", help="overwrite the file if it is there")
    draft.set_defaults(command=draft_command.draft)


def _add_prepare(added: Commands) -> None:
    prepare = added.add_parser("prepare", help="raw rows to rows.train.jsonl, rows.eval.jsonl and funnel.json")
    _add_data(prepare)
    prepare.add_argument("--model", default="standin", help="whose chat template the tools are made for")
    prepare.add_argument("--out", required=True)
    prepare.set_defaults(command=commands.prepare)


def _add_audit(added: Commands) -> None:
    audit = added.add_parser("audit", help="what template and budget would lose; status 1 if training must not start")
    _add_data(audit)
    audit.add_argument("--model", required=True, help="whose tokenizer and chat template are used")
    audit.add_argument("--chat-template", default="", help="a Jinja file, or 'standin', in place of the model's own")
    _add_max_length(audit)
    audit.add_argument("--out", default="", help="where audit.json and a figure of the lengths go")
    audit.set_defaults(command=commands.audit)


def _add_train(added: Commands) -> None:
    train = added.add_parser("train", help="the training stage alone, from a prepared folder")
    train.add_argument("--rows", required=True, help="a folder that `prepare` wrote")
    train.add_argument("--model", required=True)
    _add_recipe(train)
    train.add_argument("--profile", choices=["auto", *PROFILES], default="auto")
    train.add_argument("--out", required=True)
    train.add_argument("--seed", type=parse_count, default=40)
    train.add_argument(
        "--seeds", type=parse_count, nargs="+", metavar="SEED", help="train once each, scored on the same rows"
    )
    train.add_argument(
        "--arguments", default="", metavar="FILE", help="trl.SFTConfig as JSON, in place of the next five options"
    )
    train.add_argument("--epochs", type=parse_amount, default=0, help="passes; 0: the model's or the recipe's")
    train.add_argument("--learning-rate", type=parse_amount, default=0, help="peak; 0: the model's or the recipe's")
    train.add_argument(
        "--batch-size", type=parse_positive, default=0, help="rows of a step, over all processes (default: as above)"
    )
    _add_max_length(train)
    train.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="default: by the GPU")
    train.add_argument("--over-length", choices=["", *OVER_LENGTH], default="", help="rows over the budget")
    train.add_argument("--engine", choices=["", *ENGINES], default="", help="'trl' for TRL's own loss and batches")
    train.add_argument(
        "--patience", type=parse_count, default=0, help="evaluations without a better one before it stops"
    )
    train.add_argument("--lora-rank", type=parse_count, default=0, help="train adapters of this rank; 0: all weights")
    train.add_argument("--resume", action="store_true", help="go on from this training's newest checkpoint")
    train.add_argument("--processes", type=parse_positive, default=1, help="start as many, through accelerate")
    text = "hours until the model is saved: it stops in time; 0: on Kaggle what is left of the session's 12"
    train.add_argument("--time-limit", type=parse_amount, default=0, metavar="HOURS", help=text)
    train.add_argument("--ignore-audit", action="store_true", help="train although the audit of the rows found errors")
    train.set_defaults(command=commands.train)


def _add_evaluate(added: Commands) -> None:
    evaluate = added.add_parser("evaluate", help="replies and scores of a model on a rows file")
    evaluate.add_argument("--model", required=True)
    evaluate.add_argument("--rows", required=True, help="a rows.*.jsonl file")
    _add_recipe(evaluate)
    evaluate.add_argument("--out", required=True)
    evaluate.add_argument("--max-new-tokens", type=parse_count, default=0, help="0: from the longest gold")
    evaluate.add_argument(
        "--batch-size", type=parse_positive, default=0, help="rows at once (default: what a GPU holds, on a CPU 64)"
    )
    files = "of the files: replies.NAME.jsonl and scores.NAME.json; NAME.constrained with --constrain"
    evaluate.add_argument("--name", type=parse_name, default="", help=files)
    evaluate.add_argument("--constrain", action="store_true", help="allow declared tools and arguments alone")
    evaluate.add_argument("--processes", type=parse_count, default=0, help="default: one a GPU where that pays")
    evaluate.set_defaults(command=commands.evaluate)


def _add_score(added: Commands) -> None:
    score = added.add_parser("score", help="scores of a replies file, as JSON on standard output")
    score.add_argument("--rows", required=True, help="a rows.*.jsonl file")
    score.add_argument("--replies", required=True, help='a file of {"row_id", "reply"} lines, "confidence" where known')
    text = "share of answered rows that is to be right, for the threshold of unsure replies (default: %(default)s)"
    score.add_argument("--precision", type=parse_share, default=0.9, metavar="SHARE", help=text)
    _add_recipe(score)
    score.set_defaults(command=commands.score)


def _add_export(added: Commands) -> None:
    export = added.add_parser("export", help="files for llama.cpp and Ollama, scored again (needs gguf, xllamacpp)")
    export.add_argument("--model", required=True)
    files = "gguf: for llama.cpp; ollama: the same with a Modelfile each (default: %(default)s)"
    export.add_argument("--to", choices=["gguf", "ollama"], default="gguf", help=files)
    types = "number formats of the weights, a file each (default: f16 q8_0)"
    export.add_argument("--types", nargs="+", choices=GGUF_TYPES, default=["f16", "q8_0"], metavar="TYPE", help=types)
    export.add_argument("--base", default="", metavar="FILE", help="the base model's GGUF file: its vocabulary is used")
    rows = "a rows.*.jsonl file that every file answers; without it nothing is scored"
    export.add_argument("--rows", default="", metavar="FILE", help=rows)
    replies = "transformers' replies to these rows, as evaluate writes them (default: generated on the CPU)"
    export.add_argument("--replies", default="", metavar="FILE", help=replies)
    _add_recipe(export)
    export.add_argument(
        "--max-new-tokens", type=parse_count, default=0, help="0: that of the replies, or from the longest gold"
    )
    export.add_argument("--out", required=True)
    export.set_defaults(command=commands.export)


def _add_publish(added: Commands) -> None:
    publish = added.add_parser("publish", help="a run's tuned model, its card and scores, to the hub or Kaggle Models")
    publish.add_argument("--run", required=True, metavar="DIR", help="the run folder, after notebook 5")
    forms = "owner/name; for Kaggle owner/model/framework/variation; without it a dry run asks nobody what is there"
    publish.add_argument("--repo", default="", metavar="ID", help=forms)
    publish.add_argument("--to", choices=[*NAME_FORMS], default="hub", help="where to (default: %(default)s)")
    private = "whether the model is for its owner alone (default: it is); a public repository is not filled with one"
    publish.add_argument("--private", action=argparse.BooleanOptionalAction, default=True, help=private)
    languages = "of the requests, as ISO 639 codes such as en (default: those of a known data set)"
    publish.add_argument("--languages", nargs="+", default=[], metavar="CODE", help=languages)
    publish.add_argument("--replace", action="store_true", help="files that are there may be replaced or removed")
    publish.add_argument("--dry-run", action="store_true", help="only show what would happen")
    publish.set_defaults(command=commands.publish)


def _add_call(added: Commands) -> None:
    call = added.add_parser("call", help="one request to a tuned model; status 1 if the reply cannot be carried out")
    call.add_argument("request", help="what a user would say")
    call.add_argument("--model", required=True, help="the tuned model's folder, or as for run")
    tools = "a file as for run, or names of taught tools (default: all tools of the model's tools.json)"
    call.add_argument("--tools", nargs="+", default=[], metavar="FILE|NAME", help=tools)
    recipe = "how the model was trained (default: what its tools.json says, or else native)"
    call.add_argument("--recipe", choices=["", *RECIPES], default="", help=recipe)
    budget = "budget of the reply; 0: from the longest answer of the training"
    call.add_argument("--max-new-tokens", type=parse_count, default=0, help=budget)
    call.add_argument("--constrain", action="store_true", help="allow declared tools and arguments alone")
    text = "such as --threshold=-0.6: a lower confidence is marked as unsure; notebook 5 and `score` print one"
    call.add_argument("--threshold", type=parse_finite, metavar="LOGPROB", help=text)
    call.add_argument("--json", action="store_true", help="one JSON object in place of the text")
    call.add_argument("--timing", action="store_true", help="say on standard error where the seconds went")
    call.set_defaults(command=commands.call)


def _add_kaggle(added: Commands) -> None:
    """Add the command that has four actions, each with options of its own."""
    kaggle = added.add_parser("kaggle", help="the series on Kaggle: build its folders, push, status, output")
    actions = kaggle.add_subparsers(required=True, metavar="ACTION", dest="name_of_action")
    parts = {
        "build": (kaggle_commands.build, "a folder for each kernel, and a data set with package and missing wheels"),
        "push": (kaggle_commands.push, "upload the data set, then run the kernels in order, each waited for"),
        "status": (kaggle_commands.status, "what Kaggle says of each kernel"),
        "output": (kaggle_commands.output, "download what the kernels wrote, to OUT/output"),
    }
    for name, (command, text) in parts.items():
        action = actions.add_parser(name, help=text)
        action.add_argument("--out", required=True, metavar="DIR", help="the folder that `build` makes")
        action.set_defaults(command=command)
        if name == "build":
            user = "the Kaggle user (default: KAGGLE_USERNAME, or the owner in kaggle-metadata.json)"
            action.add_argument("--user", default="", metavar="NAME", help=user)
            text = "a notebook parameter, written into the kernels"
            action.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=text)
        else:
            text = "kernels, such as 02 03, or run_all for the series in one session (default: the six)"
            action.add_argument("--only", nargs="+", default=[], metavar="KERNEL", help=text)
        if name == "push":
            text = "do not upload the data set: it is on Kaggle as it was built"
            action.add_argument("--no-data-set", action="store_true", help=text)


if __name__ == "__main__":
    sys.exit(main())
