"""The card's sections on licence and files: on which terms the model may be used, what was modified, and the hashes.

Knows what was found out about base, licence and files; the terms themselves are known to `models.licence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas

from fgtools.report.layout import render_markdown_table
from fgtools.report.markup import render_code


def render_licence(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the paragraphs of the section on the licence.

    Args:
        facts: As for card.render_card.
    """
    base, licence = facts["base"], facts.get("licence", {})
    if base["licence"] == "apache-2.0":
        said = "The weights were made by the project that this package comes from, under its licence, Apache-2.0."
        return ["## Licence", said]
    if base["licence"] != "gemma":
        return ["## Licence", f"The licence of the base, {render_code(base['name'])}, is not known to this card."]
    terms = [render_code(name) for name in licence["copies"]]
    files = " `NOTICE` lists the files that were modified or written anew." if licence["noticed"] else ""
    copy = f"A copy of the terms: {', '.join(terms)}." if terms else "No copy of the terms lies beside the model."
    return [
        "## Licence",
        f"{licence['notice']}.",
        licence["restrictions"],
        f"{copy} They are found at <{licence['url']}>.",
        f"Modifications: this model is a derivative of {render_code(base['name'])}, a Gemma model, and not Google's "
        f"own. {_describe_method(facts['train'])}{files}",
    ]


def build_licence_table(facts: Mapping[str, Mapping[str, Any]]) -> pandas.DataFrame:
    """Return what the terms of the base ask of who passes the model on, and whether and where it is met.

    Args:
        facts: As for card.render_card.

    Returns:
        One row a demand of section 3.1 of Gemma's terms; none for a base that is not a Gemma model.
    """
    columns = ["Gemma's terms, section 3.1, ask for", "where it is met", "met"]
    if facts["base"]["licence"] != "gemma":
        return pandas.DataFrame(columns=columns)
    found = facts["licence"]
    again = "nowhere: the folder has no such NOTICE; save the model with this version, or write one by hand"
    notice, stated = "NOTICE" if found["noticed"] else again, "NOTICE" if found["restricted"] else again
    link = f"only a link: save the page {found['url']} as GEMMA_TERMS.html in the model's folder before publishing"
    rows = [
        ("the use restrictions of section 3.2, binding for whoever gets it", f"card, {stated}", found["restricted"]),
        ("a copy of the terms for every recipient", ", ".join(found["copies"]) or link, bool(found["copies"])),
        ("prominent notices that files were modified", f"card, {notice}", found["noticed"]),
        ("a Notice file with the sentence that they give", notice, found["noticed"]),
    ]
    return pandas.DataFrame([(asked, where, "yes" if met else "NO") for asked, where, met in rows], columns=columns)


def _describe_method(training: Mapping[str, Any]) -> str:
    rank = training.get("lora_rank", 0)
    how = f"by LoRA adapters of rank {rank}" if rank else "by fine-tuning"
    return f"Its weights were changed {how}; steps: {training['steps']}, rows: {training['n_train']}."


def render_files(files: Mapping[str, str]) -> list[str]:
    """Return the section with the sha256 of files.

    Args:
        files: sha256 by name; {} for no section.
    """
    if not files:
        return []
    rows = [(render_code(name), f"`{digest}`") for name, digest in files.items()]
    return [
        "## Files",
        "The model's files, and those of the run that this card was written from; who has the run can compare them:",
        render_markdown_table(pandas.DataFrame(rows, columns=["file", "sha256"])),
    ]
