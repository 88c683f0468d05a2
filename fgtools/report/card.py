"""The model card: what a run's own files say, as a Markdown text with the hub's metadata.

Knows the JSON objects of the run folder; computes nothing anew, and never touches the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas

from fgtools.files import InputError
from fgtools.metrics import Comparison
from fgtools.report.data_tables import build_funnel_table
from fgtools.report.layout import render_markdown_table
from fgtools.report.tables import LABELS, build_comparison_table

MAX_NAMES = 40
"""Replaced names that are listed at most."""

NEEDED = ("run", "funnel", "train", "compare")
"""The run's JSON objects that a card is written from."""

INDEXED = ("ast_match", "tool_accuracy", "cer")
"""Measures that stand in the hub's index of models, by their names in Scores."""


def render_card(facts: Mapping[str, Mapping[str, Any]], repo_id: str = "", banner: str = "") -> str:
    """Write the card of a tuned model.

    Args:
        facts: The run's JSON objects by name without suffix; those in NEEDED must be there.
        repo_id: "owner/name"; "" before it has one.
        banner: The caveat that belongs to every figure; "" for none.

    Returns:
        Markdown with the hub's YAML metadata in front.

    Raises:
        InputError: An object is missing.
    """
    missing = [name for name in NEEDED if name not in facts]
    if missing:
        raise InputError(f"a card needs {', '.join(NEEDED)}, but lacks {', '.join(missing)}: run the earlier notebooks")
    run, funnel, training = facts["run"], facts["funnel"], facts["train"]
    comparison = Comparison.from_dict(facts["compare"])
    title = repo_id or "FunctionGemma, tuned"
    parts = [
        _render_metadata(run, funnel["origin"], title, comparison),
        f"# {title}",
        *([f"> **{banner}**"] if banner else []),
        f"`{_public_name(run['model'])}`, fine-tuned to call the tools of `{funnel['origin']}` with the recipe "
        f"`{run['recipe']}`.",
        "## Before and after",
        f"{comparison.n} held-out rows, the same before and after, greedy replies. {comparison.verdict}",
        render_markdown_table(build_comparison_table(comparison)),
        "Shares carry Wilson intervals, their differences Bonett and Price's, the rest bootstrap intervals over rows. "
        "AST match follows the rules of the Berkeley Function Calling Leaderboard. Tool accuracy is the tutorial's. "
        "TC-CER is its error rate, but with the gold in the notation that the model was taught.",
        "## Data",
        f"{funnel['rows_in']} raw rows from {funnel['origin']}. What became of them:",
        render_markdown_table(build_funnel_table(funnel["funnel"])),
        _render_split(funnel["split"]),
        *_render_names(funnel.get("renamed", {})),
        "## Training",
        f"{training['n_train']} rows ({training['n_too_long']} were too long and left out), {training['steps']} steps, "
        f"{training['tokens']:,} tokens of which {training['label_tokens']:,} carried a label. Learning rate "
        f"{training['learning_rate']:g}, {training['epochs']:g} epochs, {training['batch_size']} x "
        f"{training['accumulation_steps']} rows a step, seed {training['seed']}, {run['dtype']}; computed in "
        f"{training['precision']}.{_render_choice(training)}",
        "## What it is not for",
        "It was scored on one turn at a time, on tools like those of its data. It was not scored on safety, on long "
        "conversations, or on tools of other kinds. Check every call against your schema before you carry it out.",
        "## Versions",
        ", ".join(f"{name} {version}" for name, version in run["environment"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _render_choice(training: Mapping[str, Any]) -> str:
    if not training["choose_best"]:
        return ""
    return (
        f" The weights after step {training['saved_step']} were saved: {training['n_eval']} training rows, held out, "
        "chose them; the evaluation rows had no part in it."
    )


def _render_metadata(run: Mapping[str, Any], origin: str, title: str, comparison: Comparison) -> str:
    """Write the YAML block that the hub reads: licence, base model, tags, and the scores after training."""
    from huggingface_hub import EvalResult, ModelCardData

    after = {name: comparison.change(name).after.rate for name in INDEXED}
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=origin,
            dataset_name=f"{origin}, {comparison.n} held-out rows",
            metric_type=name,
            metric_name=LABELS[name],
            metric_value=round(rate, 4),
        )
        for name, rate in after.items()
        if not math.isnan(rate)
    ]
    metadata = ModelCardData(
        license="gemma",
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=_find_base_model(run["model"]),
        tags=["function-calling", "functiongemma"],
        model_name=title,
        eval_results=results or None,
    )
    return f"---\n{metadata.to_yaml()}\n---"


def _find_base_model(model: str) -> str | None:
    """Return the hub id of the model that was tuned; None where it has none that is known."""
    if model.startswith("google/functiongemma/"):  # a kagglehub handle
        return "google/functiongemma-270m-it"
    return model if model.count("/") == 1 and not model.startswith((".", "/")) else None


def _public_name(model: str) -> str:
    """Return a model's name without the folders of this machine."""
    return Path(model).name if Path(model).is_absolute() or model.startswith(".") else model


def _render_names(renamed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write which names the model uses in place of the author's, since an application has to restore them."""
    tools = [(new, "", old) for new, old in renamed.get("tools", {}).items()]
    named = renamed.get("parameters", {})
    rows = tools + [(tool, new, old) for tool, names in named.items() for new, old in names.items()]
    if not rows:
        return []
    shown = pandas.DataFrame(rows[:MAX_NAMES], columns=["tool", "parameter", "its author's name"])
    more = [f"... and {len(rows) - MAX_NAMES} more, in `funnel.json`."] if len(rows) > MAX_NAMES else []
    return [
        "The chat template drops some parameter names, and the call grammar cannot carry some tool names. The model "
        "uses others for these; `fgtools.serve.restore_calls` puts the author's back:",
        render_markdown_table(shown),
        *more,
    ]


def _render_split(split: Mapping[str, Any]) -> str:
    return "Split: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in split.items()) + "."
