"""How sure a model was of a reply: two figures from the probabilities of the tokens it chose.

Knows numbers and texts; not tokens, or whether a reply is right. How often a sure reply is right is measured in
`coverage`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgtools.files import InputError

MEASURES = ("total", "call", "name", "lower")
"""What replies can be ordered by, see Confidence; the first is what a threshold is held against."""


@dataclass(frozen=True)
class Confidence:
    """How sure a model was of a reply, from the natural logarithms of the probabilities of its tokens.

    All figures are at most 0, which is certainty; a mean of -0.1 is a probability of 90 % a token. nan: not known, as
    for replies that an older version or another program wrote.

    Attributes:
        n_tokens: Tokens of all its calls, marks included; of a reply without a call all tokens, the stop included.
        call: Mean over these tokens.
        name: Mean over the tokens of the names of the tools it calls; of a reply without a call that of the first
            token, with which the model decides against one.
    """

    n_tokens: int = 0
    call: float = math.nan
    name: float = math.nan

    @property
    def is_known(self) -> bool:
        """Whether the figures are finite numbers."""
        return math.isfinite(self.call + self.name)

    @property
    def total(self) -> float:
        """Sum over the tokens that `call` is the mean of: the logarithm of the probability of these very calls."""
        return self.n_tokens * self.call

    @property
    def lower(self) -> float:
        """The lower of `call` and `name`; nan where one is."""
        return min(self.call, self.name) if self.is_known else math.nan

    def to_dict(self) -> dict[str, float | int]:
        """Return the JSON object of a replies file."""
        return {"n_tokens": self.n_tokens, "call": self.call, "name": self.name}

    @classmethod
    def from_dict(cls, saved: Any) -> Confidence:
        """Return the Confidence that to_dict made a JSON object of; an unknown one for None.

        Raises:
            ValueError: It is something else: a field is missing, no number, or out of range.
        """
        if saved is None:
            return cls()
        if isinstance(saved, Mapping):
            n_tokens, *figures = (saved.get(name) for name in ("n_tokens", "call", "name"))
            if type(n_tokens) is int and n_tokens > 0 and all(map(_is_log_probability, figures)):
                return cls(n_tokens, *figures)
        raise InputError(
            'confidence must be {"n_tokens", "call", "name"}, a count of at least 1 and two mean log-probabilities of '
            f"at most 0, but got {saved!r:.80}: generate the replies again, or leave the field out"
        )


UNKNOWN = Confidence()
"""The confidence of a reply of which nothing but its text is known."""


@dataclass(frozen=True)
class GeneratedReply:
    """A reply and how sure the model was of it.

    Attributes:
        text: The reply: special tokens kept, the stop token included where one was reached.
        confidence: Its figures; not known for a reply that was kept without them.
    """

    text: str
    confidence: Confidence = UNKNOWN


def _is_log_probability(figure: Any) -> bool:
    return type(figure) in (int, float) and -math.inf < figure <= 0
