"""Character error rate, pooled as the tutorial pools it.

Knows pairs of texts; not their notation, in which the tutorial's figure and ours differ. The corpus rate is the edits
of all pairs divided by the characters of all references, as in jiwer's and evaluate's `cer`. Texts are compared as they
are; jiwer first strips outer white space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fgtools.files import InputError
from fgtools.metrics.groups import INDEPENDENT, Design, Groups
from fgtools.metrics.intervals import Ratio, bootstrap_ratio, describe_design, to_json


@dataclass(frozen=True)
class CerResult:
    """A corpus character error rate, counts first.

    Attributes:
        n: Pairs.
        edits: Insertions, deletions and substitutions, in all pairs together.
        characters: Characters of all references together (characters, not tokens).
        low: Lower end of the 95 % bootstrap interval over groups of pairs; nan without characters.
        high: Upper end; can exceed 1; nan without characters.
        design: How the pairs are grouped; says nothing about equality.
    """

    n: int
    edits: int
    characters: int
    low: float
    high: float
    design: Design = field(default=INDEPENDENT, compare=False)

    @property
    def rate(self) -> float:
        """Edits divided by characters; can exceed 1; nan where all references are empty."""
        return self.ratio.rate

    @property
    def ratio(self) -> Ratio:
        """The same as a Ratio."""
        return Ratio(self.edits, self.characters, self.low, self.high, self.design)

    def to_dict(self) -> dict[str, float | int | None]:
        """Return n, edits, characters, low, high and rate (None for each that is nan), design effect and groups."""
        numbers = {name: to_json(getattr(self, name)) for name in ("low", "high", "rate")}
        counts = {"n": self.n, "edits": self.edits, "characters": self.characters}
        return {**counts, **numbers, **describe_design(self.design)}

    def __str__(self) -> str:
        return str(self.ratio)


def count_edits(prediction: str, reference: str) -> int:
    """Return the Levenshtein distance of two texts, in characters."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(prediction, reference)


def tc_cer(predictions: Sequence[str], references: Sequence[str], groups: Groups | None = None) -> CerResult:
    """Return the TC-CER: the corpus character error rate of predicted call blocks against gold blocks, counts first.

    Args:
        predictions: Predicted blocks; "" for none.
        references: Gold blocks, in the same order.
        groups: The groups of these rows, for the interval; None: rows are taken as independent.

    Returns:
        The CerResult; its rate is nan where the references hold no character.

    Raises:
        ValueError: The lengths differ, or an item is not text.
    """
    if len(predictions) != len(references):
        raise InputError(
            f"every prediction must have a reference, got {len(predictions)} predictions and {len(references)} "
            "references: pass the two lists of the same rows"
        )
    for label, texts in (("prediction", predictions), ("reference", references)):
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"{label} {index} must be text, got {type(text).__name__}: use '' for no block")
    edits = [count_edits(*pair) for pair in zip(predictions, references, strict=True)]
    return pool_edits(edits, [len(text) for text in references], groups)


def pool_edits(edits: Sequence[int], characters: Sequence[int], groups: Groups | None = None) -> CerResult:
    """Return the corpus error rate of pairs by their edits and the lengths of their references, in characters."""
    ratio = bootstrap_ratio(edits, characters, groups)
    return CerResult(len(edits), ratio.numerator, ratio.denominator, ratio.low, ratio.high, ratio.design)
