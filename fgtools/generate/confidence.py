"""How sure a model was of a reply, from the ids of its tokens and their log-probabilities.

Knows the marks of a call and a tokenizer; not tools, and not whether a call is right. Tokens are told apart by their
ids, so a call that is spelled out in ordinary tokens counts as text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from fgtools.calls.tokens import END_CALL, START_CALL
from fgtools.metrics.confidence import Confidence

_BEFORE_NAME, _AFTER_NAME = "call:", "{"


def measure_confidence(
    ids: Sequence[int], log_probabilities: Sequence[float], tokenizer: PreTrainedTokenizerBase
) -> Confidence:
    """Return how sure a model was of a reply.

    A call goes from its start mark to its end mark; to the next start mark or the end of the reply where that is
    missing. Its name is what stands between `call:` and the first brace: a token that holds a part of it counts. Where
    no call has a name, the figure of the calls stands for both.

    Args:
        ids: The tokens of the reply.
        log_probabilities: Their natural logarithms of probabilities, in the same order.
        tokenizer: The model's tokenizer.

    Returns:
        The Confidence; not known for a reply without tokens.
    """
    calls = list(_find_calls(ids, tokenizer))
    if not calls:
        return Confidence(len(ids), _mean(log_probabilities), _mean(log_probabilities[:1]))
    inside = [log_probabilities[place] for call in calls for place in call]
    names = [log_probabilities[place] for call in calls for place in _find_name(ids, call, tokenizer)]
    return Confidence(len(inside), _mean(inside), _mean(names or inside))


def _mean(values: Sequence[float]) -> float:
    """Return a mean to six significant digits: what computes in other batches differs behind them."""
    return float(f"{math.fsum(values) / len(values):.6g}") if values else math.nan


def _find_calls(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[range]:
    """Yield the places of the tokens of every call, marks included."""
    start, end = tokenizer.convert_tokens_to_ids([START_CALL, END_CALL])
    first = None
    for place, token in enumerate(ids):
        if token == start:
            if first is not None:
                yield range(first, place)
            first = place
        elif token == end and first is not None:
            yield range(first, place + 1)
            first = None
    if first is not None:
        yield range(first, len(ids))


def _find_name(ids: Sequence[int], call: range, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the places of the tokens that hold a part of the tool's name."""
    text, ends = "", []
    for place in call[1:]:
        piece = tokenizer.decode([ids[place]], clean_up_tokenization_spaces=False)
        if piece == END_CALL:
            break
        text += piece
        ends.append(len(text))
        if _AFTER_NAME in piece:
            break
    begin = len(_BEFORE_NAME) if text.startswith(_BEFORE_NAME) else 0
    stop = text.find(_AFTER_NAME) if _AFTER_NAME in text else len(text)
    spans = zip(call[1:], [0, *ends], ends, strict=False)
    return [place for place, low, high in spans if low < stop and high > begin]
