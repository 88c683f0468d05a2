"""The model card: what a run's own files say, as a Markdown text with the hub's metadata.

Knows the JSON objects of the run folder and what was found out about base, data and files; computes nothing anew and
knows no hub. Names that come from rows, tools and files are shown letter by letter (`markup`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fgtools import __version__
from fgtools.files import InputError
from fgtools.metrics import Comparison
from fgtools.metrics.coverage import ThresholdChoice
from fgtools.profiles import get_recipe
from fgtools.report.card_data import render_data
from fgtools.report.card_failures import render_failures
from fgtools.report.card_licence import render_files, render_licence
from fgtools.report.card_metadata import render_metadata
from fgtools.report.data_tables import build_engines_table
from fgtools.report.layout import render_markdown_table
from fgtools.report.markup import escape_text, render_code, render_program
from fgtools.report.tables import build_comparison_table

NEEDED = ("run", "funnel", "audit", "train", "compare", "base")
"""Facts that must be there; `unseen`, `data`, `files` and `tools` are shown where they are."""

MEASURES_NOTE = (
    "AST match decides; the p of the other measures are corrected for their number, as Holm does. Shares carry "
    "Wilson intervals, their differences Bonett and Price's, the rest bootstrap intervals; all of them, and the p "
    "(sign flips of whole groups), keep rows of one tool or one request together. AST match follows the rules of "
    "the Berkeley Function Calling Leaderboard, but for members of an enum, which are compared to the letter. Tool "
    "accuracy is the tutorial's. TC-CER is its error rate, but with the gold in the notation that the model was "
    "taught."
)
"""What the tables of a comparison are read with."""


def render_card(facts: Mapping[str, Mapping[str, Any]], repo_id: str = "", banner: str = "", usage: str = "") -> str:
    """Return the card of a tuned model.

    Args:
        facts: What run.card_facts.collect_facts returns: the run's JSON objects by name without suffix, and base
            (models.base.BaseModel as a mapping), unseen (a comparison as in compare.json, of the rows whose tools were
            kept apart), data (licence, languages and a note on the rows), files (sha256 by name) and tools (right
            rows and rows, by the tool they need). Those in NEEDED must be there.
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
    title = f"{facts['base']['title']}, tuned to call tools"
    parts = [
        render_metadata(facts, repo_id.rpartition("/")[2] or title),
        f"# {escape_text(title)}",
        *([f"> **{banner}**"] if banner else []),
        _describe_model(facts, repo_id),
        *_render_usage(usage, facts["run"]["recipe"]),
        *_render_evidence(facts),
        *_render_threshold(facts["compare"].get("coverage")),
        *render_failures(facts),
        *_render_engines(facts["audit"]),
        *render_data(facts),
        "## Training",
        _describe_training(facts),
        *render_licence(facts),
        *render_files(facts.get("files", {})),
        "## Versions",
        ", ".join(f"{escape_text(name)} {escape_text(str(one))}" for name, one in facts["run"]["environment"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def render_preview(card: str) -> str:
    """Return a card as Markdown for a notebook: the hub's metadata, which the hub does not show, folded at its top."""
    metadata, _, text = card.removeprefix("---\n").partition("\n---\n")
    return (
        f"<details><summary>Metadata for the hub</summary>\n\n```yaml\n{metadata}\n```\n\n</details>\n\n{text.lstrip()}"
    )


def show_card(card: str) -> Any:
    """Return a card as a notebook displays it: rendered, with the hub's metadata folded."""
    from IPython.display import Markdown

    return Markdown(render_preview(card))


def _describe_model(facts: Mapping[str, Mapping[str, Any]], repo_id: str) -> str:
    """Return the sentences that say what the model is."""
    base, run, origin = facts["base"], facts["run"], facts["funnel"]["origin"]
    what = render_code(repo_id) if repo_id else "This"
    tuned = f"{render_code(base['name'])}, fine-tuned to call the tools of {render_code(origin)}"
    note = f" {base['note']}" if base["note"] else ""
    return f"{what} is {tuned} with the recipe `{run['recipe']}`.{note}"


def _render_usage(usage: str, recipe: str) -> list[str]:
    """Return the section that says how an application uses the model."""
    if not usage:
        return []
    why = (
        f"With the package `fgtools` (this card was written with {__version__}). `tools.json` holds every tool as the "
        "model was taught it. The caller shows it an application's tools in the same words, and checks every call "
        "against the application's schemas:"
    )
    grammar = {
        "native": "Calls are written in FunctionGemma's grammar, and a reply ends with `<start_function_response>`.",
        "tutorial": "Calls hold all their arguments as JSON in one text named `args`, as the tutorial's do; engines "
        "that parse FunctionGemma's grammar see that one text.",
    }
    plain = "Without it, plain transformers loads the model; prompts come from its chat template, with the sentence of "
    plain += f"the developer's turn that it was trained with. {grammar.get(recipe, '')}"
    return ["## In an application", why, render_program(usage), plain.rstrip()]


def _render_evidence(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the sections that compare base and tuned model, on held-out rows and on tools that were kept apart."""
    comparison = Comparison.from_dict(facts["compare"])
    parts = [
        "## Before and after",
        f"Held-out rows: {comparison.n}, the same before and after, with greedy replies. {comparison.verdict}",
        render_markdown_table(build_comparison_table(comparison)),
        MEASURES_NOTE,
        "### Tools it never saw",
    ]
    if not facts.get("unseen"):
        return [*parts, "No tools were kept out of the training, so nothing is known of others."]
    unseen = Comparison.from_dict(facts["unseen"])
    said = f"Rows whose tools no training row declares: {unseen.n}. {unseen.verdict}"
    return [*parts, said, render_markdown_table(build_comparison_table(unseen))]


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
    return ["## Unsure answers", f"{choice.describe()}{how}"]


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


def _describe_training(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the sentences on rows, steps, rates and precision of the training, and on which weights were saved."""
    run, training = facts["run"], facts["train"]
    numbers, rank = training["arguments"], training.get("lora_rank", 0)
    adapters = f"LoRA adapters of rank {rank} were trained and then merged into the weights"
    loss = get_recipe(run["recipe"]).loss
    learnt = {"completion": "the right answers alone", "all": "prompts and right answers"}[loss]
    n_processes = training.get("processes", 1)
    beside = f" in {n_processes} processes" if n_processes > 1 else ""
    what = adapters if rank else "All weights were trained"
    return (
        f"{what}, on {learnt}. Rows: {training['n_train']} ({training['n_too_long']} were too long and left out); "
        f"steps: {training['steps']}; tokens: {training['tokens']:,}, of which {training['label_tokens']:,} carried a "
        f"label. Learning rate {numbers['learning_rate']:g}, passes {numbers['num_train_epochs']:g}, "
        f"{numbers['per_device_train_batch_size']} x {numbers['gradient_accumulation_steps']} rows a step, seed "
        f"{numbers['seed']}, {escape_text(run['dtype'])}; computed in {training['precision']} on "
        f"{escape_text(run['device'])}{beside}, in {training['seconds'] / 60:.1f} minutes.{_describe_choice(training)}"
    )


def _describe_choice(training: Mapping[str, Any]) -> str:
    """Return the sentence on which checkpoint was saved; "" where the last one is."""
    if not training["arguments"]["load_best_model_at_end"]:
        return ""
    return (
        f" The weights after step {training['saved_step']} were saved: {training['n_eval']} training rows, held out, "
        "chose them; the evaluation rows had no part in it."
    )
