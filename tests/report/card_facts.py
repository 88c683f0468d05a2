"""Facts of a card, as run.card_facts collects them, for a tuned model of four rows."""

import json

from fgtools.calls import ToolCall
from fgtools.calls.engines import count_unread
from fgtools.metrics import compare, score
from tests.report.four_rows import RIGHT, ROWS, WRONG

BASE = {"name": "a/b", "title": "a/b", "hub_id": "a/b", "licence": "gemma", "note": ""}
FOUND = {"copies": [], "noticed": True, "restricted": True}
LICENCE = {"notice": "Gemma is provided", "restrictions": "Not for all uses.", "url": "https://terms", **FOUND}


def as_json(value):
    """Return a value as it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def build_facts(**changes):
    """Return new facts, with others in the place of some."""
    environment = {"torch": "2.13.0"}
    run = {"model": "a/b", "data": "sample", "recipe": "native", "dtype": "torch.float32", "device": "cpu"}
    training = {name: 1 for name in ("n_train", "n_too_long", "steps", "tokens", "label_tokens")}
    training |= {"precision": "fp32", "saved_step": 77, "n_eval": 12, "seconds": 90.0, "lora_rank": 0}
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 3}
    training["arguments"] = {"learning_rate": 5e-5, "seed": 40, "load_best_model_at_end": True, **sizes}
    comparison = compare(score(ROWS, WRONG), score(ROWS, RIGHT))
    facts = {
        "run": {**run, "environment": environment},
        "funnel": {"rows_in": 4, "origin": "offline sample", "funnel": {"kept": 4}, "split": {"train": 2, "eval": 2}},
        "audit": {"engines": count_unread([[ToolCall("f.g", {"a": 1})], [ToolCall("f", {"a": "x"})]])},
        "train": training,
        "compare": comparison.to_dict(),
        "base": BASE,
        "licence": LICENCE,
    }
    return as_json({**facts, **changes})
