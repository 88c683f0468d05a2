"""Which token is the most likely one after a hidden state, and how likely it is.

Knows the model's head; not caches, replies or grammars.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

SLOW_ROWS = range(7, 21)
"""Numbers of rows for which a CPU multiplies hidden states by the head slowly; see `most_likely_tokens`."""


def logits_cap(model: PreTrainedModel) -> float | None:
    """Return the model's `final_logit_softcapping`; None where logits are not squashed."""
    return getattr(model.config.get_text_config(), "final_logit_softcapping", None)


def most_likely_tokens(
    head: torch.nn.Linear, states: Tensor, cap: float | None = None
) -> tuple[list[int], list[float]]:
    """Return the most likely token after each hidden state, and the log-probability of each.

    On a CPU this product with the head's weight, which has one row for every token, is half of a decoding step, and
    some numbers of rows take twice as long as more rows would (measured: 114 ms for 12 rows, 60 ms for 16). For those
    the weight is the left factor.

    Args:
        head: The model's output layer.
        states: Hidden states, [rows, hidden].
        cap: As for `log_probabilities`.

    Returns:
        Token ids and log-probabilities, one of each a row.
    """
    if (
        states.device.type == "cpu"
        and states.dtype == torch.float32
        and len(states) in SLOW_ROWS
        and type(head) is torch.nn.Linear  # an adapter or a quantized head computes more than this product
        and head.bias is None
    ):
        logits, dim = torch.mm(head.weight, states.T), 0
    else:
        logits, dim = head(states), -1
    chosen = logits.argmax(dim)
    return chosen.tolist(), log_probabilities(logits, chosen, dim, cap).tolist()


def log_probabilities(logits: Tensor, tokens: Tensor, dim: int = -1, cap: float | None = None) -> Tensor:
    """Return the log-probabilities of tokens under the model's distribution, computed in fp32.

    Args:
        logits: The head's output, [rows, vocabulary], or [vocabulary, rows] for dim 0.
        tokens: A token id a row.
        dim: The dimension of the vocabulary: -1 or 0.
        cap: The model's `final_logit_softcapping`: logits are squashed into (-cap, cap). None: they are not.

    Returns:
        Natural logarithms, [rows], at most 0; nan where the logits are not numbers.
    """
    if dim == -1 and logits.device.type == "cpu" and len(logits) > 1:  # one row at a time fits a processor's cache
        pairs = zip(logits.split(1), tokens.split(1), strict=True)
        return torch.cat([log_probabilities(row, token, dim, cap) for row, token in pairs])
    logits = logits.float()
    if cap:
        logits = cap * torch.tanh(logits / cap)
    return logits.log_softmax(dim).gather(dim, tokens.unsqueeze(dim)).squeeze(dim)
