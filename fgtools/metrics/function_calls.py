"""The measures of `fgtools.metrics.score` as a metric of the library evaluate, which loads this file by its path.

    metric = evaluate.load(str(fgtools.metrics.FUNCTION_CALLS))
    values = metric.compute(predictions=replies, references=lines)

Here `lines` are the lines of a rows file. Knows evaluate's interface; no module of the package imports this one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from fgtools.files import InputError
from fgtools.metrics import score
from fgtools.rows.store import find_row_problem

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_REQUEST = [{"role": "user", "content": ""}]

DESCRIPTION = """Tool calls of FunctionGemma against gold calls: the share of replies on each rung of a ladder from "in
the grammar" to "exact match", BFCL's error codes, and the tutorial's tool accuracy and character error rate."""

INPUTS = """
Args:
    predictions: Replies as generated, special tokens kept.
    references: JSON texts, one a reply, of an object with `tools` (declarations as transformers takes them) and `gold`
        (a list of {"name", "arguments"}; empty where no call is right). `row_id` and `messages` may be there: a line of
        a rows file is a reference as it stands.

Returns:
    n; for every share its rate with _k, _n, _low and _high (Wilson, 95 %); for every error rate (can exceed 1) and
    argument score its value with its counts, _low and _high (bootstrap, 95 %); with each of them _groups and
    _design_effect, since intervals keep rows of one tool or one request together; chance; errors and behaviours as
    counts of rows. A rate of nothing is None.
"""


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class FunctionCalls(evaluate.Metric):
    """FunctionGemma's calls against gold; the configuration "tutorial" reads the tutorial's notation."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "native", "tutorial"):
            raise InputError(f"the configuration must be 'native' or 'tutorial', got {self.config_name!r}")
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://gorilla.cs.berkeley.edu/leaderboard.html"],
        )

    def add(self, *, prediction: str | None = None, reference: str | None = None, **inputs: Any) -> None:
        """Add a reply and its reference; a lone surrogate, which evaluate cannot store, is replaced."""
        super().add(prediction=_replace_surrogates(prediction), reference=reference, **inputs)

    def add_batch(
        self, *, predictions: Sequence[str] | None = None, references: Sequence[str] | None = None, **inputs: Any
    ) -> None:
        """Add replies and their references; a lone surrogate, which evaluate cannot store, is replaced."""
        predictions = None if predictions is None else [_replace_surrogates(text) for text in predictions]
        super().add_batch(predictions=predictions, references=references, **inputs)

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        rows = [_parse_reference(number, text) for number, text in enumerate(references)]
        saved = score(rows, predictions, "tutorial" if self.config_name == "tutorial" else "native").to_dict()
        del saved["rows"]
        values: dict[str, Any] = {}
        for name, value in saved.items():
            if isinstance(value, dict) and "rate" in value:
                values[name] = value.pop("rate")
                values |= {f"{name}_{key}": count for key, count in value.items()}
            else:
                values[name] = value
        return values


def _replace_surrogates(text: Any) -> Any:
    return _LONE_SURROGATE.sub("\ufffd", text) if isinstance(text, str) else text


def _parse_reference(number: int, text: str) -> dict[str, Any]:
    try:
        reference = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"reference {number} must be JSON text, but {error}: {text[:60]!r}") from error
    if not isinstance(reference, dict):
        raise InputError(f"reference {number} must be a JSON object with tools and gold, got {text[:60]!r}")
    row = {"row_id": str(number), "messages": _NO_REQUEST, **reference}
    problem = find_row_problem(row)
    if problem:
        raise InputError(f"reference {number}: {problem}")
    return row
