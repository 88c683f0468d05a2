"""Metrics: scores of replies against gold calls, row by row, and comparisons of two models on the same rows.

Knows calls and schemas; not models, or how a reply was generated.
"""

from pathlib import Path

from fgtools.metrics.cer import CerResult, tc_cer
from fgtools.metrics.comparison import Change, Comparison, compare
from fgtools.metrics.confidence import Confidence, GeneratedReply
from fgtools.metrics.intervals import Ratio, Share
from fgtools.metrics.ladder import LADDER, RowScore, score_row
from fgtools.metrics.scores import Scores, score
from fgtools.metrics.validity import find_undeclared, find_violations, has_valid_arguments

__all__ = [
    "FUNCTION_CALLS",
    "LADDER",
    "CerResult",
    "Change",
    "Comparison",
    "Confidence",
    "GeneratedReply",
    "Ratio",
    "RowScore",
    "Scores",
    "Share",
    "behaviours",
    "breakdowns",
    "cer",
    "compare",
    "comparison",
    "confidence",
    "coverage",
    "find_undeclared",
    "find_violations",
    "groups",
    "has_valid_arguments",
    "intervals",
    "protocol",
    "score",
    "score_row",
    "scores",
    "tc_cer",
    "texts",
]

FUNCTION_CALLS = Path(__file__).with_name("function_calls.py")
"""File of the metric for the library evaluate: `evaluate.load(str(FUNCTION_CALLS))`."""
