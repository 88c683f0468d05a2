"""What each command does with its options: the calls of the notebooks, in their order.

Knows which rooms a command needs, and loads them only then; not how options are declared.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtools.files import InputError, is_watched, read_json, read_jsonl, render_duration
from fgtools.metrics import score as score_replies
from fgtools.metrics.groups import describe_few_tools
from fgtools.metrics.intervals import describe_few_rows
from fgtools.profiles import REAL, adapt_recipe, get_recipe, resolve_profile
from fgtools.rows import Prepared, RawRows, Row, load_raw_rows, load_rows
from fgtools.rows import prepare as prepare_rows
from fgtools.rows.preparation import describe_sums, load_requests
from fgtools.run.folder import RunFolder, open_run
from fgtools.run.lock import hold_folder
from fgtools.run.processes import LAUNCHED, choose_processes, count_gpus, current_process, launch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

    from fgtools.metrics import Scores
    from fgtools.profiles import Recipe
    from fgtools.rows.remedies import Coverage
    from fgtools.train import TrainResult


def run(options: Namespace) -> None:
    """Run the notebooks, then print the before/after table and where figures and notebooks lie."""
    from fgtools.run.notebooks import render_summary, run_series, select_stages
    from fgtools.run.progress import describe_next_steps, describe_plan

    named = {"PROFILE": options.profile, "RECIPE": options.recipe, "DATA": options.data, "MODEL": options.model}
    named.update({"TURNS": options.turns or None, "TOOLS": options.tools})
    given = {name: value for name, value in named.items() if value is not None}
    parameters, is_real = given | dict(options.p), options.model == REAL
    if is_real:
        from fgtools.run.real import prepare_real_run

        parameters = prepare_real_run(parameters, options.only)
    out = options.out or ("runs/real" if is_real else "runs/offline")
    if not is_real:  # which says itself what it plans
        print(describe_plan(select_stages(options.only), RunFolder(Path(out)), parameters), flush=True)
    seconds = run_series(out, parameters, options.only, options.resume)
    print(f"\nstages: {len(seconds)}, {render_duration(sum(seconds.values()))}")
    print(*filter(None, [render_summary(open_run(out)), describe_next_steps(RunFolder(Path(out)))]), sep="\n")


def check(options: Namespace) -> None:
    """Print what the self-check of a model finds; raises SelfCheckError if a check does not hold."""
    from fgtools.models import load_model, load_tokenizer
    from fgtools.report.layout import print_table
    from fgtools.run.self_check import build_self_check_table, check_model, require_known_model

    tokenizer = load_tokenizer(options.model)
    findings = check_model(load_model(options.model), tokenizer)
    print_table(build_self_check_table(findings))
    require_known_model(findings)


def _load_raw(options: Namespace) -> RawRows:
    """Open the data; done before the tokenizer is loaded, so that a wrong path is told at once."""
    hub = {"split": options.split, "config": options.config, "revision": options.revision}
    return load_raw_rows(options.data, options.n_total, options.seed, **hub, tools=options.tools)


def _prepare(options: Namespace, raw: RawRows, tokenizer: PreTrainedTokenizerBase) -> tuple[Prepared, Coverage]:
    from fgtools.prompts import probe_template

    coverage = probe_template(tokenizer)
    prepared = prepare_rows(
        raw,
        adapt_recipe(get_recipe(options.recipe), options.no_call_share, turns=options.turns),
        options.n_eval,
        options.seed,
        shape=options.shape,
        coverage=coverage,
        benchmark=load_requests(options.benchmark),
        processes=options.processes,
    )
    if replaced := prepared.rowset.problems.get("tools_replaced"):
        print(f"{replaced} of the rows kept had tools of their own, which those of {options.tools} replace")
    return prepared, coverage


def prepare(options: Namespace) -> None:
    """Write rows.*.jsonl and funnel.json, as notebook 2 does."""
    from fgtools.models import load_tokenizer
    from fgtools.report.data_tables import build_funnel_table
    from fgtools.report.layout import print_table

    raw = _load_raw(options)
    prepared, _ = _prepare(options, raw, load_tokenizer(options.model))
    out = open_run(options.out).root
    with hold_folder(out, "prepare", "rows"):
        prepared.write(out)
    counts = ", ".join(f"{shape}: {count}" for shape, count in prepared.rowset.shapes.items())
    print(f"shapes of the raw rows, by their columns: {counts} (--shape forces one)")
    print_table(build_funnel_table(prepared.rowset.funnel, prepared.rowset.n_raw))
    print(prepared.describe())
    print(describe_sums(prepared.to_funnel()))


def audit(options: Namespace) -> None:
    """Print what template and budget would lose; raises AuditError if training must not start."""
    from fgtools.models import load_tokenizer
    from fgtools.prompts import audit_rows
    from fgtools.prompts.audit import require_clean
    from fgtools.report.data_tables import build_audit_table, build_coverage_table, build_engines_table
    from fgtools.report.layout import print_table

    raw = _load_raw(options)
    tokenizer = load_tokenizer(options.model, options.chat_template)
    prepared, coverage = _prepare(options, raw, tokenizer)
    budget = options.max_length or None
    found = audit_rows(prepared.sides(), tokenizer, options.recipe, coverage=coverage, max_length=budget)
    print(describe_sums(prepared.to_funnel()))
    print_table(build_coverage_table(coverage, prepared.rowset.remedies))
    print_table(build_audit_table(found), width=44)
    print("\nwho reads these calls:")
    print_table(build_engines_table(found.engines), width=36)
    print("lengths of the training rows, in tokens:", found.lengths.to_dict())
    if options.out:
        from fgtools.report.figures import new_axes, plot_lengths, save_figure

        out = open_run(options.out)
        out.write_json("audit.json", found.to_dict())
        axes = plot_lengths(found.lengths.values, found.lengths.budget, new_axes())
        save_figure(axes, out.root / "figures" / "lengths.png")
    require_clean(found.to_dict())


def train(options: Namespace) -> None:
    """Train from a prepared folder, in one process or several, with one seed or several."""
    if options.seeds and len(options.seeds) < 2:
        raise InputError(f"--seeds takes two or more, got {options.seeds}: use --seed for one")
    out = open_run(options.out)
    holds = LAUNCHED not in os.environ and os.environ.get("LOCAL_RANK", "0") == "0"  # of a launch, the first for all
    with hold_folder(out.root, "train", "model") if holds else nullcontext():
        if options.processes > 1 and LAUNCHED not in os.environ:  # those that are launched read the same words
            launch("train", options.processes, options.words, options.debug)
        elif options.seeds:
            _train_seeds(options, out.root)
        else:
            _train_once(options, options.seed, out)


def _train_seeds(options: Namespace, root: Path) -> None:
    """Train once with each seed and score every model on the same evaluation rows, which chose no checkpoint."""
    from fgtools.report.layout import print_table
    from fgtools.report.tables import build_seeds_table
    from fgtools.run.training import ROWS, score_trained

    rows_eval = RunFolder(Path(options.rows)).find(ROWS[1])
    trainings, scores = {}, {}
    for done, seed in enumerate(options.seeds):
        out = open_run(root / f"seed-{seed}")
        trainings[seed] = _train_once(options, seed, out, len(options.seeds) - done).to_dict()
        scores[seed] = score_trained(out, rows_eval, options.recipe)
    rank, _ = current_process()
    if not rank:
        n = len(scores[seed].rows)
        print(f"every seed is scored on the same {n} rows of {rows_eval}, none of which chose a checkpoint")
        print_table(build_seeds_table(trainings, scores))


def _train_once(options: Namespace, seed: int, out: RunFolder, share: int = 1) -> TrainResult:
    from accelerate import PartialState

    from fgtools.models import load_model, load_tokenizer
    from fgtools.models.device import detect_capability
    from fgtools.prompts.audit import require_clean
    from fgtools.run.time_limit import build_time_callbacks
    from fgtools.run.training import ROWS, audit_for_training, fit_choice, hold_out_rows, require_prepared
    from fgtools.serve import write_taught_tools
    from fgtools.train import describe_steps
    from fgtools.train import train as train_rows

    require_prepared(Path(options.rows))
    capability = detect_capability()
    state = PartialState(cpu=capability is None)
    resolved = resolve_profile(options.profile, capability)
    recipe = adapt_recipe(get_recipe(options.recipe), over_length=options.over_length, engine=options.engine)
    given = RunFolder(Path(options.rows))
    given.check_rows()
    inputs = [given.find(name) for name in ROWS]
    sides = dict(zip(("train", "eval"), map(load_rows, inputs), strict=True))
    recipe = fit_choice(recipe, len(sides["train"]))
    rows_train, rows_dev = hold_out_rows(*sides.values(), recipe, seed)
    arguments = _build_arguments(options, recipe, seed, len(rows_train), out)
    tokenizer = load_tokenizer(options.model)
    if state.is_main_process:
        print(f"profile {resolved.profile.name}: {resolved.reason}")
        print(describe_steps(arguments, recipe, options.model, len(rows_train)))
        audited = audit_for_training(out, sides, inputs, tokenizer, recipe, arguments.max_length)
        if "inputs" not in audited:  # a new one
            out.write_json("audit.json", audited, inputs)
        require_clean(audited, options.ignore_audit)
    state.wait_for_everyone()
    model = load_model(options.model, quiet=not state.is_main_process)
    extras = {name: getattr(options, name) for name in ("patience", "lora_rank", "resume")}
    extras["callbacks"] = build_time_callbacks(options.time_limit, share)
    result = train_rows(model, tokenizer, rows_train, rows_dev, arguments, out.root / "model", recipe, **extras)
    if state.is_main_process:
        write_taught_tools(out.root / "model", rows_train, tokenizer, recipe, result.left_out, inputs)
        out.write_json("train.json", result.to_dict(), [*inputs, out.root / "model"])
        moved = "all" if result.updates == result.steps else result.updates
        taken = f"{result.steps} steps in {result.seconds:.0f} s, {moved} of which moved the weights"
        print(f"{taken}; the model lies in {out.root / 'model'}")
    return result


def _build_arguments(options: Namespace, recipe: Recipe, seed: int, n_rows: int, out: RunFolder) -> SFTConfig:
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
    numbers = read_json(Path(options.arguments))
    return parse_arguments({name: value for name, value in numbers.items() if name != "inputs"})


def evaluate(options: Namespace) -> None:
    """Write replies and scores of a model on a rows file, and print the table of the scores."""
    from fgtools.run.evaluation import name_files

    rows = load_rows(Path(options.rows))
    processes, reason = choose_processes(len(rows), options.processes)
    out, names = open_run(options.out), name_files(options.name, options.constrain)
    if LAUNCHED in os.environ:
        _evaluate(options, rows, out, names)
        return
    if count_gpus() > 1:
        print(f"processes: {processes}, {reason}", flush=True)
    with hold_folder(out.root, "evaluate", names[0]):
        if processes > 1:  # those that are launched read the same words
            launch("evaluate", processes, options.words, options.debug)
        else:
            _evaluate(options, rows, out, names)


def _evaluate(options: Namespace, rows: Sequence[Row], out: RunFolder, names: tuple[str, str]) -> None:
    """Do what `evaluate` does, in this process."""
    from accelerate import PartialState

    from fgtools.models import load_model, load_tokenizer
    from fgtools.models.device import detect_capability
    from fgtools.report.layout import print_table
    from fgtools.report.tables import build_ladder_table
    from fgtools.run import evaluation

    launched = LAUNCHED in os.environ
    state = PartialState(cpu=detect_capability() is None, timeout=timedelta(hours=3)) if launched else None
    first = state is None or state.is_main_process
    model, tokenizer = load_model(options.model, quiet=not first), load_tokenizer(options.model)
    limits = {"max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size}
    how = {**limits, "constrained": options.constrain, "part": out.root / f"{names[0]}.part"}
    evaluated = evaluation.evaluate(model, tokenizer, rows, options.recipe, **how)
    if first:
        evaluated.write(out, *names, evaluation.list_inputs(Path(options.rows), options.model))
        print_table(build_ladder_table(evaluated.scores))
        for few in filter(None, _describe_few(evaluated.scores)):
            print(few)


def call(options: Namespace) -> None:
    """Print what a tuned model answers to one request; raises ReplyError if the reply cannot be carried out."""
    began = time.perf_counter()
    from fgtools.serve import load_caller
    from fgtools.serve.answer import describe_answer, render_answer, require_usable

    if not is_watched():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    loaded = time.perf_counter()
    tools: Any = options.tools or None
    if len(options.tools) == 1 and Path(options.tools[0]).suffix:
        tools = Path(options.tools[0])
    how = {"max_new_tokens": options.max_new_tokens, "constrained": options.constrain, "threshold": options.threshold}
    caller = load_caller(options.model, tools, recipe=options.recipe, **how, quiet=True)
    ready = time.perf_counter()
    for note in caller.notes:
        print(f"{note.kind}: {note.detail}", file=sys.stderr)
    answer = caller.call(options.request)
    if options.timing:
        parts = {"libraries": loaded - began, "model": ready - loaded, "reply": time.perf_counter() - ready}
        print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items()), file=sys.stderr)
    if options.json:
        told = {"request": options.request, **describe_answer(answer), "untaught": list(caller.untaught)}
        print(json.dumps(told, ensure_ascii=False, indent=1))
    else:
        print(render_answer(answer))
    require_usable(answer)


def score(options: Namespace) -> None:
    """Print the scores of a replies file as JSON; with what a threshold is worth where the file holds confidences."""
    from fgtools.metrics.coverage import build_outcomes, choose_threshold, compare_measures
    from fgtools.metrics.intervals import to_json
    from fgtools.run.evaluation import match_replies

    rows = load_rows(Path(options.rows))
    replies = match_replies(rows, read_jsonl(Path(options.replies)))
    scores = score_replies(rows, [reply.text for reply in replies], style=get_recipe(options.recipe).call_style)
    values = scores.to_dict()
    if any(reply.confidence.is_known for reply in replies):
        choice = choose_threshold(build_outcomes(rows, scores, replies), options.precision)
        auroc = {name: to_json(share) for name, share in compare_measures(rows, scores, replies).items()}
        values |= {"coverage": choice.to_dict(), "threshold": choice.describe(), "auroc": auroc}
    print(json.dumps(values, ensure_ascii=False, indent=1))
    for few in filter(None, _describe_few(scores)):
        print(few, file=sys.stderr)  # standard output holds JSON alone


def _describe_few(scores: Scores) -> tuple[str, str]:
    """Return a sentence where there are few rows, and one where they are of few tools; "" for each that is not so."""
    return describe_few_rows(len(scores.rows)), describe_few_tools(scores.groups.n_tools)


def publish(options: Namespace) -> None:
    """Publish a run's model, or show what that would mean; print the table of its files."""
    from fgtools.report.layout import print_table
    from fgtools.run.login import log_in
    from fgtools.run.publish import build_card, publish_model
    from fgtools.run.publish_plan import build_publish_table

    if not Path(options.run, "run.json").is_file():
        raise InputError(f"--run must be the folder of a run, with its run.json, got {options.run!r}: check the path")
    if options.to == "hub" and options.repo:
        print(log_in().message)
    run, how = open_run(options.run), (options.dry_run, options.private, options.replace)
    print(run.check_inputs("06_publish"))
    plan = publish_model(run, build_card(run, options.repo, options.languages), options.repo, options.to, *how)
    print_table(build_publish_table(plan))
    print(plan.describe())


def export(options: Namespace) -> None:
    """Write files for llama.cpp or Ollama, score them where there are rows, and print the table; a loss is an error."""
    from fgtools.report.layout import print_table
    from fgtools.run.export import build_export_table, export_model, require_kept

    out = open_run(options.out)
    how = {"to": options.to, "base": options.base, "rows_path": options.rows, "replies_path": options.replies}
    limits = {"recipe": options.recipe, "max_new_tokens": options.max_new_tokens}
    exported = export_model(options.model, out, options.types, **how, **limits)
    if exported["rows"]:
        print_table(build_export_table(exported))
    for file in exported["variants"]:
        print(f"{out.root / file['file']}: {file['verdict']}")
    require_kept(exported)
