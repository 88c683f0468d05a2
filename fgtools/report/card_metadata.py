"""The metadata of a model card: the YAML in front of it, by which the hub finds, filters and shows a model.

Knows huggingface_hub's ModelCardData and EvalResult, which check what they are given, and the facts of a run; asks no
server, so what the hub itself would say of the metadata is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fgtools.metrics import Comparison, Share
from fgtools.report.markup import clean_text
from fgtools.report.tables import LABELS

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

MEASURES = ("ast_match", "exact_match", "right_tool_calls", "missed_calls", "false_calls", "right_behaviour")
"""The shares in the model-index; the one that decides comes first."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+\Z")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*\Z|multilingual\Z|code\Z")

TASK = "text-generation"


def render_metadata(facts: Mapping[str, Mapping[str, Any]], model_name: str) -> str:
    """Return the YAML block that the hub reads, between its lines of three dashes.

    Args:
        facts: As for card.render_card.
        model_name: What the model-index calls the model.

    Returns:
        The block. What is not known (base, data set, languages) is left out.
    """
    from huggingface_hub import ModelCardData

    base, data = facts["base"], facts.get("data", {})
    hub_id = base["hub_id"] if _HUB_ID.match(base["hub_id"]) else ""
    data_id = find_data_id(facts)
    tags = ["function-calling", "tool-use", *(["functiongemma"] if "functiongemma" in hub_id.lower() else [])]
    tags += ["fgtools", *(["lora"] if facts["train"].get("lora_rank") else [])]
    relation = {"base_model": hub_id, "base_model_relation": "finetune"} if hub_id else {}
    metadata = ModelCardData(
        license=base["licence"] or None,
        language=[code for code in data.get("languages", ()) if _LANGUAGE.match(code)] or None,
        library_name="transformers",
        pipeline_tag=TASK,
        tags=tags,
        datasets=[data_id] if data_id else None,
        model_name=clean_text(model_name),
        eval_results=list_results(facts),
        **relation,
    )
    text = metadata.to_yaml(line_break="\n")
    return f"---\n{text}\n---"


def find_data_id(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the hub id of the data set that the rows came from; "" for a file, a folder or generated rows."""
    data = str(facts["run"].get("data", ""))
    return data if data == facts["funnel"]["origin"] and _HUB_ID.match(data) else ""


def list_results(facts: Mapping[str, Mapping[str, Any]]) -> list[EvalResult]:
    """Return the scores of the tuned model as the model-index holds them, each with k, n and its 95 % interval.

    Measures without a row to count are left out, and so are the scores of the base: they are not this model's.
    """
    found = _list_side(facts, facts["compare"], "eval", "held-out rows")
    if facts.get("unseen"):
        found += _list_side(facts, facts["unseen"], "unseen", "rows whose tools were kept out of the training")
    return found


def _list_side(
    facts: Mapping[str, Mapping[str, Any]], saved: Mapping[str, Any], split: str, what: str
) -> Sequence[EvalResult]:
    from huggingface_hub import EvalResult

    run, comparison = facts["run"], Comparison.from_dict(saved)
    data_id = find_data_id(facts)
    of = f" of its split {run['split']}" if data_id and run.get("split") else ""
    shares = {name: comparison.change(name).after for name in MEASURES}
    return [
        EvalResult(
            task_type=TASK,
            task_name="Function calling",
            dataset_type=data_id or "custom",
            dataset_name=clean_text(f"{facts['funnel']['origin']}: {comparison.n} {what}{of}"),
            dataset_config=run.get("config") or None if data_id else None,
            dataset_split=split,
            dataset_revision=run.get("revision") or None if data_id else None,
            metric_type=name,
            metric_name=f"{LABELS[name]}: {share}",
            metric_value=round(share.rate, 4),
            metric_args={"k": share.k, "n": share.n, "interval_95": [round(end, 4) for end in share.interval]},
        )
        for name, share in shares.items()
        if isinstance(share, Share) and share.n
    ]
