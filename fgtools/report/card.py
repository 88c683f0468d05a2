"""The model card: what a run's own files say, as a Markdown text with the hub's metadata.

Knows the JSON objects of the run folder; computes nothing anew and knows no hub.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas

from fgtools.files import InputError
from fgtools.metrics import Comparison
from fgtools.metrics.coverage import ThresholdChoice
from fgtools.report.data_tables import build_engines_table, build_funnel_table
from fgtools.report.layout import render_markdown_table
from fgtools.report.tables import build_comparison_table

MAX_NAMES = 40
"""Replaced names that are listed."""

NEEDED = ("run", "funnel", "audit", "train", "compare")


def render_card(facts: Mapping[str, Mapping[str, Any]], repo_id: str = "", banner: str = "", usage: str = "") -> str:
    """Return the card of a tuned model.

    Args:
        facts: The run's JSON objects by name without suffix; those in NEEDED must be there.
        repo_id: "owner/name"; "" before it has one.
        banner: What every figure must be read with; "" when it needs no caveat.
        usage: A Python program that uses the model (see serve.usage); "" for none.

    Returns:
        Markdown with the hub's YAML metadata in front.

    Raises:
        ValueError: An object is missing.
    """
    missing = [name for name in NEEDED if name not in facts]
    if missing:
        raise InputError(f"a card needs {', '.join(NEEDED)}, but lacks {', '.join(missing)}: run the earlier notebooks")
    run, funnel, training = facts["run"], facts["funnel"], facts["train"]
    numbers = training["arguments"]
    comparison = Comparison.from_dict(facts["compare"])
    split = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in funnel["split"].items())
    parts = [
        _render_metadata(run["model"]),
        f"# {repo_id or 'FunctionGemma, tuned'}",
        *([f"> **{banner}**"] if banner else []),
        f"`{_public_name(run['model'])}`, fine-tuned to call the tools of `{funnel['origin']}` with the recipe "
        f"`{run['recipe']}`.",
        "## Before and after",
        f"{comparison.n} held-out rows, the same before and after, greedy replies. {comparison.verdict}",
        render_markdown_table(build_comparison_table(comparison)),
        "AST match decides; the p of the other measures are corrected for their number, as Holm does. Shares carry "
        "Wilson intervals, their differences Bonett and Price's, the rest bootstrap intervals; all of them, and the p "
        "(sign flips of whole groups), keep rows of one tool or one request together. AST match follows the rules of "
        "the Berkeley Function Calling Leaderboard, but for members of an enum, which are compared to the letter. Tool "
        "accuracy is the tutorial's. TC-CER is its error rate, but with the gold in the notation that the model was "
        "taught.",
        *_render_threshold(facts["compare"].get("coverage")),
        "## Data",
        f"{_count_raw(funnel)} from {funnel['origin']}. What became of them:",
        render_markdown_table(build_funnel_table(funnel["funnel"], funnel["rows_in"])),
        f"Split: {split}.",
        *_render_names(funnel.get("renamed", {})),
        *_render_usage(usage),
        "## Training",
        f"{training['n_train']} rows ({training['n_too_long']} were too long and left out), {training['steps']} steps, "
        f"{training['tokens']:,} tokens of which {training['label_tokens']:,} carried a label. Learning rate "
        f"{numbers['learning_rate']:g}, {numbers['num_train_epochs']:g} epochs, "
        f"{numbers['per_device_train_batch_size']} x {numbers['gradient_accumulation_steps']} rows a step, seed "
        f"{numbers['seed']}, {run['dtype']}; computed in {training['precision']}.{_render_choice(training)}",
        *_render_engines(facts["audit"]),
        "## What it is not for",
        "It was scored on one turn at a time, on tools like those of its data. It was not scored on safety, on long "
        "conversations, or on tools of other kinds. Check every call against your schema before you carry it out.",
        "## Versions",
        ", ".join(f"{name} {version}" for name, version in run["environment"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _render_choice(training: Mapping[str, Any]) -> str:
    """Return the sentence on which checkpoint was saved; "" where the last one is."""
    if not training["arguments"]["load_best_model_at_end"]:
        return ""
    return (
        f" The weights after step {training['saved_step']} were saved: {training['n_eval']} training rows, held out, "
        "chose them; the evaluation rows had no part in it."
    )


def _render_engines(audit: Mapping[str, Any]) -> list[str]:
    """Return the paragraphs on which engines read the model's calls; none for an audit that did not count them."""
    if not audit.get("engines"):
        return []
    return [
        "## Who reads its calls",
        "Engines read FunctionGemma's calls with parsers of their own. How many of the right answers of this data each "
        "reads, and what it does not; a row that holds several kinds counts for each:",
        render_markdown_table(build_engines_table(audit["engines"])),
        "`fgtools.calls.parse_reply` reads them all from the text of a reply.",
    ]


def _render_threshold(saved: Mapping[str, Any] | None) -> list[str]:
    """Return the paragraphs on passing unsure requests on; none where the run has no confidences."""
    if saved is None:
        return []
    choice = ThresholdChoice.from_dict(saved)
    how = ""
    if not math.isnan(choice.threshold):
        how = (
            f" `load_caller(folder, threshold={choice.threshold:g})` marks answers below it as unsure. It is not for "
            "requests of other kinds, or for tools that the model was not taught."
        )
    return [
        "## Unsure answers",
        f"{choice.describe()}{how}",
    ]


def _render_metadata(model: str) -> str:
    """Return the YAML that the hub reads; a base model is named where it is one of the hub."""
    lines = ["---", "license: gemma", "library_name: transformers", "pipeline_tag: text-generation"]
    if model.lower().endswith(".gguf"):
        model = model.partition(":")[0] if ":" in model else ""  # a file of the hub has its repository's name before it
    if model.count("/") == 1 and not model.startswith((".", "/")):
        lines.append(f"base_model: {model}")
    elif model.startswith("google/functiongemma/"):
        lines.append("base_model: google/functiongemma-270m-it")
    return "\n".join([*lines, "tags: [function-calling, functiongemma]", "---"])


def _public_name(model: str) -> str:
    """Return a model's name without the folders of this machine."""
    is_local_gguf = model.lower().endswith(".gguf") and ":" not in model
    return Path(model).name if is_local_gguf or Path(model).is_absolute() or model.startswith(".") else model


def _count_raw(funnel: Mapping[str, Any]) -> str:
    n_answers = sum(funnel["funnel"].values())
    rows = f"{funnel['rows_in']} raw rows"
    return rows if n_answers == funnel["rows_in"] else f"{n_answers} answers in {rows}"


def _render_usage(usage: str) -> list[str]:
    """Return the section that says how an application uses the model."""
    if not usage:
        return []
    why = (
        "`tools.json` holds every tool as the model was taught it. The caller shows it an application's tools in the "
        "same words, and checks every call against the application's schemas:"
    )
    return ["## In an application", why, f"```python\n{usage}```"]


def _render_names(renamed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the paragraphs on names the model uses in place of the author's, which a server has to put back."""
    rows = [(new, "", old) for new, old in renamed.get("tools", {}).items()]
    for tool, names in renamed.get("parameters", {}).items():
        rows.extend((tool, new, old) for new, old in names.items())
    if not rows:
        return []
    shown = pandas.DataFrame(rows[:MAX_NAMES], columns=["tool", "parameter", "its author's name"])
    more = [f"... and {len(rows) - MAX_NAMES} more, in `funnel.json`."] if len(rows) > MAX_NAMES else []
    return [
        "The chat template drops some parameter names, and the call grammar cannot carry some tool names. The model "
        "uses others for these; `fgtools.load_caller` puts the author's back into its calls:",
        render_markdown_table(shown),
        *more,
    ]
