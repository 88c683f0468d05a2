"""What rows, template and budget would lose, found before training: an error here is a wrong model later.

Knows rows, a tokenizer and a recipe; it looks at the very ids and labels that training will use. An error means that
the recipe's own promise is broken and training should not start; a warning, that something is worth a look; a note
counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from fgtools.files import FgtoolsError
from fgtools.profiles import Recipe, get_recipe
from fgtools.prompts.batch import encode_rows
from fgtools.prompts.checks import ERROR, Check, leak_checks, length_check, schema_checks, token_checks
from fgtools.rows.remedies import Coverage

NO_LIMIT = 10**9
"""Budget in tokens under which no row is cut or left out."""


class AuditError(FgtoolsError, RuntimeError):
    """The audit found errors, and nobody said to train all the same."""


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
        """Give the length that a share of the rows does not exceed (nearest rank); 0 without rows."""
        ordered = sorted(self.values)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0

    def to_dict(self) -> dict[str, Any]:
        """Give the summary as it stands in audit.json."""
        ranks = {f"p{round(100 * share)}": self.percentile(share) for share in (0.5, 0.9, 0.99)}
        longest = max(self.values, default=0)
        counts = {"n": len(self.values), "over": self.over, "wholly_beyond": self.beyond}
        return {"budget": self.budget, **counts, **ranks, "longest": longest}


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        recipe: Name of the recipe.
        checks: Everything that was looked at.
        lengths: Of the training rows.
        coverage: What the chat template hides.
    """

    recipe: str
    checks: tuple[Check, ...]
    lengths: Lengths
    coverage: Coverage

    @property
    def errors(self) -> tuple[Check, ...]:
        """The checks that failed so that training should not start."""
        return tuple(check for check in self.checks if check.is_error)

    def to_dict(self) -> dict[str, Any]:
        """Give the content of audit.json."""
        facts: dict[str, list[str]] = {}
        for kind, word in sorted(self.coverage.hidden_facts):
            facts.setdefault(word, []).append(kind)
        return {
            "recipe": self.recipe,
            "errors": [check.name for check in self.errors],
            "checks": [{**vars(check), "examples": list(check.examples)} for check in self.checks],
            "lengths": self.lengths.to_dict(),
            "template_hides": {"names": sorted(self.coverage.hidden_names), "facts": facts},
        }


def require_clean(audit: Mapping[str, Any], ignore: bool = False) -> None:
    """Stop where an audit found errors.

    Args:
        audit: The content of audit.json.
        ignore: Whether to go on all the same; the errors are printed then.

    Raises:
        AuditError: There are errors; each is named with its count, its examples and its remedy.
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
    print(f"the audit's errors are ignored: {message}")


def audit_rows(
    sides: Mapping[str, Sequence[Mapping[str, Any]]],
    tokenizer: PreTrainedTokenizerBase,
    recipe: str | Recipe = "native",
    *,
    coverage: Coverage,
    max_length: int | None = None,
) -> Audit:
    """Look at rows as training and evaluation will read them.

    Args:
        sides: Row dicts by side; "train" is what is trained on, the others are held out.
        tokenizer: The model's tokenizer, with its chat template.
        recipe: "native", "tutorial" or a Recipe.
        coverage: What the template hides, as `coverage.probe_template` finds it.
        max_length: Budget of a training text, in tokens; None: the recipe's.

    Returns:
        The Audit.
    """
    recipe = get_recipe(recipe)
    rows = [row for side in sides.values() for row in side]
    n_train = len(sides.get("train", ()))
    budget = max_length or recipe.max_length
    encoded = encode_rows(rows, tokenizer, recipe, NO_LIMIT).encoded
    lengths = [len(one.input_ids) for one in encoded[:n_train]]
    beyond = sum(one.n_prompt >= budget for one in encoded[:n_train])
    checks = [
        *token_checks(rows, encoded, tokenizer, recipe),
        *schema_checks(rows, tokenizer, recipe, coverage),
        length_check(rows[:n_train], lengths, budget, recipe),
        *leak_checks(sides, recipe),
    ]
    return Audit(recipe.name, tuple(checks), Lengths(budget, tuple(lengths), beyond), coverage)
