"""FunctionGemma fine-tuning kit: data, training, evaluation and publishing as plain functions.

Knows where each public name lies: `import fgtools` loads nothing else, and a room is loaded when it, or one of its
names, is first asked for. `fgtools.train` is the room; its function is `fgtools.train.train`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "calls": ("Reply", "ToolCall", "parse_reply", "render_calls"),
    "schema": ("SchemaError", "load_tools", "normalize_tools", "normalize_type"),
    "metrics": ("CerResult", "Comparison", "Scores", "compare", "score", "tc_cer"),
    "gold": ("Gold", "Rejected", "extract_gold"),
    "rows": ("RowSet", "Splits", "build_rows", "load_raw_rows", "load_rows", "prepare", "split_rows"),
    "models": ("ModelError", "load_model", "load_tokenizer", "save_model"),
    "prompts": ("Encoded", "TooLong", "audit_rows", "encode_row", "encode_rows", "probe_template", "render_prompt"),
    "generate": ("generate_replies", "generate_with_confidence"),
    "train": ("TrainResult", "TrainingError", "build_trainer", "choose_checkpoint", "training_arguments"),
    "serve": ("Answer", "ToolCaller", "answer_request", "load_caller", "restore_calls", "write_taught_tools"),
}
"""The public names by room."""

_ROOM_OF = {name: room for room, names in _NAMES.items() for name in names}
_ROOMS = (*_NAMES, "files", "profiles", "report", "run", "offline")

__all__ = [*_ROOM_OF, *_ROOMS]


def __getattr__(name: str) -> Any:
    """Return a public name or a room, loading the room first (PEP 562)."""
    if name in _ROOMS:
        return import_module(f"fgtools.{name}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'fgtools' has no attribute {name!r}")
    return getattr(import_module(f"fgtools.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    """Return the names that the package offers, those not yet loaded included."""
    return sorted({*globals(), *__all__})
