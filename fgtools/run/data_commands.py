"""The commands that make data ready for training: `prepare` and `audit`, each with its options.

Knows the order of the calls that notebook 2 makes; the rooms below do the work.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fgtools.run.folder import open_run
from fgtools.run.options import Commands, add_data_options, parse_count

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fgtools.rows import Prepared
    from fgtools.rows.remedies import Coverage


def _prepared(options: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> tuple[Prepared, Coverage]:
    from fgtools.profiles import adapt_recipe, get_recipe
    from fgtools.prompts import probe_template
    from fgtools.rows import load_raw_rows, prepare
    from fgtools.rows.preparation import load_requests

    hub = {"split": options.split, "config": options.config, "revision": options.revision}
    raw = load_raw_rows(options.data, options.n_total or sys.maxsize, options.seed, **hub)
    coverage = probe_template(tokenizer)
    prepared = prepare(
        raw,
        adapt_recipe(get_recipe(options.recipe), options.no_call_share),
        options.n_eval,
        options.seed,
        shape=options.shape,
        coverage=coverage,
        benchmark=load_requests(options.benchmark),
        processes=options.processes,
    )
    return prepared, coverage


def add_prepare(commands: Commands) -> None:
    """Add the command `prepare`."""
    prepare = commands.add_parser("prepare", help="raw rows to rows.train.jsonl, rows.eval.jsonl and funnel.json")
    add_data_options(prepare)
    prepare.add_argument("--model", default="standin", help="whose chat template the tools are made for")
    prepare.add_argument("--out", required=True)
    prepare.set_defaults(command=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    from fgtools.models import load_tokenizer
    from fgtools.report.data_tables import build_funnel_table
    from fgtools.report.layout import render_table

    prepared, _ = _prepared(options, load_tokenizer(options.model))
    prepared.write(open_run(options.out).root)
    counts = ", ".join(f"{shape}: {count}" for shape, count in prepared.rowset.shapes.items())
    print(f"shapes of the raw rows, by their columns: {counts} (SHAPE forces one)")
    print(render_table(build_funnel_table(prepared.rowset.funnel)))
    print(prepared.describe())


def add_audit(commands: Commands) -> None:
    """Add the command `audit`."""
    audit = commands.add_parser(
        "audit", help="what template and budget would lose; status 1 if training must not start"
    )
    add_data_options(audit)
    audit.add_argument("--model", required=True, help="whose tokenizer and chat template are used")
    audit.add_argument("--chat-template", default="", help="a Jinja file, or 'standin', in place of the model's own")
    audit.add_argument(
        "--max-length", type=parse_count, default=0, help="budget of a training text, tokens; 0: the recipe's"
    )
    audit.add_argument("--out", default="", help="where audit.json and a figure of the lengths go")
    audit.set_defaults(command=_audit)


def _audit(options: argparse.Namespace) -> None:
    from fgtools.models import load_tokenizer
    from fgtools.prompts import audit_rows
    from fgtools.prompts.audit import require_clean
    from fgtools.report.data_tables import build_audit_table, build_coverage_table
    from fgtools.report.layout import render_table

    tokenizer = load_tokenizer(options.model, options.chat_template)
    prepared, coverage = _prepared(options, tokenizer)
    audit = audit_rows(
        prepared.sides(), tokenizer, options.recipe, coverage=coverage, max_length=options.max_length or None
    )
    print(render_table(build_coverage_table(coverage, prepared.rowset.remedies)))
    print(render_table(build_audit_table(audit), width=44))
    print("lengths of the training rows, in tokens:", audit.lengths.to_dict())
    if options.out:
        from fgtools.report.figures import new_axes, plot_lengths, save_figure

        out = open_run(options.out)
        out.write_json("audit.json", audit.to_dict())
        axes = plot_lengths(audit.lengths.values, audit.lengths.budget, new_axes())
        save_figure(axes, out.root / "figures" / "lengths.png")
    require_clean(audit.to_dict())
