"""The tutorial's evaluation on our replies: its two figures, and how much of them is notation.

Knows the tutorial's protocol: only rows with a call, 128 tokens before training and 64 after, the first name found
anywhere, character errors of the first block against the gold in the tutorial's own notation. That notation wraps the
arguments as JSON text in one parameter `args`, which no model writes before training: most of the tutorial's error
before training, and most of its gain, is notation. So the same replies are also scored by their content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgtools.calls import parse_reply, parse_tutorial_prediction, render_calls, row_calls
from fgtools.files import InputError
from fgtools.metrics.cer import CerResult, tc_cer
from fgtools.metrics.intervals import Share
from fgtools.metrics.ladder import render_first
from fgtools.metrics.scores import score
from fgtools.profiles import PROTOCOL_ROWS, get_recipe

_TUTORIAL = get_recipe("tutorial")
TOKENS_BEFORE, TOKENS_AFTER = _TUTORIAL.tokens_before, _TUTORIAL.tokens_after
"""Token budgets of a reply in the tutorial's evaluations before and after training."""


@dataclass(frozen=True)
class Protocol:
    """The tutorial's figures of some replies, and their parts.

    Attributes:
        tool_accuracy: Rows whose first name found anywhere is the gold's.
        cer: Its TC-CER: the first block as it stands against the gold in the tutorial's notation.
        cer_native: The first block as it stands against the gold in FunctionGemma's own grammar.
        cer_content: The first call, parsed and rendered in FunctionGemma's grammar, which sorts arguments, against the
            gold in the same grammar: content without notation.
        ast_match: Rows whose calls mean the same as the gold, in any notation.
    """

    tool_accuracy: Share
    cer: CerResult
    cer_native: CerResult
    cer_content: CerResult
    ast_match: Share


def score_protocol(rows: Sequence[Mapping[str, Any]], replies: Sequence[str], style: str = "native") -> Protocol:
    """Score replies as the tutorial does, and split its error rate into notation and content.

    Args:
        rows: Row dicts that need a call.
        replies: One reply a row.
        style: Notation the replies are in, for the AST match.

    Returns:
        The Protocol.

    Raises:
        ValueError: A row needs no call, or as metrics.score.
    """
    odd = [row["row_id"] for row in rows if not row["gold"]]
    if odd:
        raise InputError(f"the tutorial scores rows with a call alone, but row {odd[0]!r} needs none: leave it out")
    scores = score(rows, replies, style)
    first = [row_calls(row)[:1] for row in rows]
    blocks = [parse_tutorial_prediction(text).block for text in replies]
    golds = {notation: [render_calls(calls, notation) for calls in first] for notation in ("native", "tutorial")}
    calls = [parse_reply(text, style).calls for text in replies]
    content = [render_first(*pair) for pair in zip(calls, blocks, strict=True)]
    return Protocol(
        scores.tool_accuracy,
        tc_cer(blocks, golds["tutorial"], scores.groups),
        tc_cer(blocks, golds["native"], scores.groups),
        tc_cer(content, golds["native"], scores.groups),
        scores.ast_match,
    )


def select_protocol_rows(rows: Sequence[Mapping[str, Any]], limit: int = PROTOCOL_ROWS) -> list[Mapping[str, Any]]:
    """Return the rows of the tutorial's evaluation: the first ones with a gold call, `limit` at most."""
    return [row for row in rows if row["gold"]][:limit]
