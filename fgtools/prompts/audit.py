"""The audit before training: what rows, chat template and budget would lose, and what was audited with what.

Knows rows, a tokenizer and a recipe; it checks the same ids and labels that training will use. An error means that the
recipe's own promise is broken and training should not start; a warning, that something is worth a look; a note counts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from fgtools.calls import row_calls
from fgtools.calls.engines import count_unread
from fgtools.files import FgtoolsError
from fgtools.profiles import Recipe, get_recipe
from fgtools.prompts.batch import encode_rows
from fgtools.prompts.checks import ERROR, Check, leak_checks, length_check, mention_check, schema_checks, token_checks
from fgtools.prompts.encode import find_special_tokens, neutralize_calls
from fgtools.rows.remedies import Coverage

NO_LIMIT = 10**9
"""A budget in tokens that no row exceeds."""


class AuditError(FgtoolsError, RuntimeError):
    """The audit found errors; the message says what to do."""


@dataclass(frozen=True)
class Lengths:
    """How long the training texts are, in tokens.

    Attributes:
        budget: The longest text that is trained on whole.
        values: One length a row, prompt and completion.
        beyond: Rows whose completion would begin after the budget: a cut would leave nothing of it.
    """

    budget: int
    values: tuple[int, ...]
    beyond: int

    @property
    def over(self) -> int:
        """Rows longer than the budget."""
        return sum(value > self.budget for value in self.values)

    def percentile(self, share: float) -> int:
        """Return the length that a share of the rows, in [0, 1], does not exceed (nearest rank); 0 without rows."""
        ordered = sorted(self.values)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the summary that audit.json holds."""
        ranks = {f"p{round(100 * share)}": self.percentile(share) for share in (0.5, 0.9, 0.99)}
        longest = max(self.values, default=0)
        counts = {"n": len(self.values), "over": self.over, "wholly_beyond": self.beyond}
        return {"budget": self.budget, **counts, **ranks, "longest": longest}


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        made_with: Recipe, template, tokenizer and budget, as `identify_audit` returns them.
        checks: Everything that was looked at.
        lengths: Of the training rows.
        coverage: What the chat template hides.
        engines: What each serving engine reads of the golds, as `calls.engines.count_unread` returns it.
    """

    made_with: Mapping[str, str | int]
    checks: tuple[Check, ...]
    lengths: Lengths
    coverage: Coverage
    engines: tuple[Mapping[str, Any], ...] = ()

    @property
    def errors(self) -> tuple[Check, ...]:
        """The checks that must not fail and did."""
        return tuple(check for check in self.checks if check.severity == ERROR and check.count)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of audit.json."""
        facts: dict[str, list[str]] = {}
        for kind, word in sorted(self.coverage.hidden_facts):
            facts.setdefault(word, []).append(kind)
        return {
            "recipe": self.made_with["recipe"],
            "made_with": dict(self.made_with),
            "errors": [check.name for check in self.errors],
            "checks": [{**vars(check), "examples": list(check.examples)} for check in self.checks],
            "lengths": self.lengths.to_dict(),
            "engines": [dict(one) for one in self.engines],
            "template_hides": {"names": sorted(self.coverage.hidden_names), "facts": facts},
        }


def identify_audit(
    tokenizer: PreTrainedTokenizerBase, recipe: str | Recipe, max_length: int | None = None
) -> dict[str, str | int]:
    """Return what an audit depends on beside its rows.

    Args:
        tokenizer: The model's tokenizer, with its chat template.
        recipe: "native", "tutorial" or a Recipe.
        max_length: Budget of a training text, in tokens; None: the recipe's.

    Returns:
        Name of the recipe, SHA-256 of the chat template's text and of the tokenizer's vocabulary with its ids, the
        budget in tokens, and what happens to rows over it.
    """
    recipe = get_recipe(recipe)
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return {
        "recipe": recipe.name,
        "chat_template": hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest(),
        "tokenizer": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "max_length": max_length or recipe.max_length,
        "over_length": recipe.over_length,
    }


def require_clean(audit: Mapping[str, Any], ignore: bool = False) -> None:
    """Raise an error if an audit found errors.

    Args:
        audit: The content of audit.json.
        ignore: Whether to go on all the same; what would have been raised is printed then.

    Raises:
        AuditError: There are errors, each named with its count, its examples and its remedy.
    """
    failed = [check for check in audit["checks"] if check["severity"] == ERROR and check["count"]]
    if not failed:
        return
    lines = [
        f"\n  {check['name']}: {check['count']} of {check['n']} {check['what']} (e.g. {', '.join(check['examples'])}): "
        f"{check['remedy']}"
        for check in failed
    ]
    message = f"training needs an audit without errors, got {len(failed)}:{''.join(lines)}"
    if not ignore:
        raise AuditError(
            f"{message}\nMend the data, or say IGNORE_AUDIT = True (--ignore-audit) to train all the same."
        )
    print(f"the audit is ignored: {message}")


def audit_rows(
    sides: Mapping[str, Sequence[Mapping[str, Any]]],
    tokenizer: PreTrainedTokenizerBase,
    recipe: str | Recipe = "native",
    *,
    coverage: Coverage,
    max_length: int | None = None,
) -> Audit:
    """Return the audit of rows, which are checked as training and evaluation will read them.

    Args:
        sides: Row dicts by side; "train" is what is trained on, the others are held out.
        tokenizer: The model's tokenizer, with its chat template.
        recipe: "native", "tutorial" or a Recipe.
        coverage: What the template hides, as `probe_template` returns it.
        max_length: Budget of a training text, in tokens; None: the recipe's.
    """
    recipe = get_recipe(recipe)
    rows = [row for side in sides.values() for row in side]
    n_train = len(sides.get("train", ()))
    made_with = identify_audit(tokenizer, recipe, max_length)
    budget = made_with["max_length"]
    encoded = encode_rows(rows, tokenizer, recipe, NO_LIMIT).encoded
    lengths = [len(one.input_ids) for one in encoded[:n_train]]
    beyond = sum(one.n_prompt >= budget for one in encoded[:n_train])
    fits = min(lengths, default=0) <= budget or bool(encode_rows(rows[:n_train], tokenizer, recipe, budget).encoded)
    checks = [
        *token_checks(rows, encoded, tokenizer, recipe),
        *schema_checks(rows, tokenizer, recipe, coverage),
        length_check(rows[:n_train], lengths, budget, recipe, fits),
        mention_check(rows),
        *leak_checks(sides, recipe),
    ]
    special = find_special_tokens(tokenizer)
    written = [neutralize_calls(row_calls(row), special) for row in rows]
    engines = tuple(count_unread(written, recipe.call_style))
    return Audit(made_with, tuple(checks), Lengths(budget, tuple(lengths), beyond), coverage, engines)
