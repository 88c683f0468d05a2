"""The audit that a training rests on: the saved one if it is of the same rows and settings, otherwise a new one.

Knows where an audit is saved and what it was made from; not what it looks at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtools.files import sha256_of
from fgtools.rows import Row
from fgtools.run.folder import MissingArtifactError, RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fgtools.profiles import Recipe


def audit_for_training(
    run: RunFolder,
    sides: Mapping[str, Sequence[Row]],
    inputs: Sequence[Path],
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    max_length: int | None = None,
) -> dict[str, Any]:
    """Return the audit of the rows that will be trained on, with the recipe, template, tokenizer and budget to be used.

    Args:
        run: The run folder, whose audit.json is taken if it was made from all of these.
        sides: The rows by side, "train" and "eval".
        inputs: The files of these rows.
        tokenizer: The tokenizer of the model to be trained.
        recipe: The recipe of the training.
        max_length: Budget of a training text, in tokens; None: the recipe's.

    Returns:
        The content of audit.json; a new audit is not written.
    """
    from fgtools.prompts import audit_rows, probe_template
    from fgtools.prompts.audit import identify_audit

    try:
        saved = run.read_json("audit.json")
    except MissingArtifactError:
        saved = {}
    hashes = {path.name: sha256_of(path) for path in inputs}
    same_rows = hashes.items() <= saved.get("inputs", {}).items()
    if same_rows and saved.get("made_with") == identify_audit(tokenizer, recipe, max_length):
        return saved
    reason = "the saved audit is of other rows or settings" if saved else "there is no audit yet"
    print(f"auditing the rows: {reason}")
    return audit_rows(sides, tokenizer, recipe, coverage=probe_template(tokenizer), max_length=max_length).to_dict()
