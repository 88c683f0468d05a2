"""The generation settings of a model: what a tuned model keeps of its base's, and what it does not.

Knows transformers' GenerationConfig; not how replies are decoded here, which is greedy whatever these settings say. A
tuned model keeps whether and how its base samples by default, as FunctionGemma does. Anything else, such as penalties,
forced or suppressed tokens, lengths and assistants, was chosen for other uses and would change what was scored.
"""

from __future__ import annotations

from textwrap import shorten
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

_SAMPLING = ("temperature", "top_k", "top_p")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_WITHOUT_EFFECT = ("use_cache", "transformers_version", "_from_model_config")


def reduce_settings(settings: GenerationConfig) -> tuple[GenerationConfig, dict[str, Any]]:
    """Return generation settings with ids and sampling alone, and what was left out.

    Args:
        settings: Those of a model; not changed.

    Returns:
        Settings that transformers saves whatever the others were, and the values left out by name. Sampling settings of
        a model that does not sample are left out too: transformers refuses to save them.
    """
    said = {name: value for name, value in settings.to_diff_dict().items() if value is not None}
    is_sampling = settings.do_sample is True
    kept = {name: said[name] for name in (*_IDS, *(_SAMPLING if is_sampling else ())) if name in said}
    reduced = GenerationConfig(**kept, do_sample=is_sampling, use_cache=True)
    if not _is_valid(reduced):
        kept = {name: said[name] for name in _IDS if name in said}
        reduced = GenerationConfig(**kept, do_sample=False, use_cache=True)
    ignored = {*kept, *_WITHOUT_EFFECT, *(["do_sample"] if said.get("do_sample") == reduced.do_sample else [])}
    return reduced, {name: value for name, value in said.items() if name not in ignored}


def _is_valid(settings: GenerationConfig) -> bool:
    """Return whether transformers would save settings."""
    try:
        settings.validate(strict=True)
    except ValueError:
        return False
    return True


def keep_plain_settings(model: PreTrainedModel) -> str:
    """Reduce a loaded model's generation settings as `reduce_settings` does; return a line for people, or "".

    Args:
        model: The model; its `generation_config` is replaced.
    """
    if model.generation_config is None:
        model.generation_config = GenerationConfig()
    model.generation_config, left_out = reduce_settings(model.generation_config)
    if not left_out:
        return ""
    names = ", ".join(f"{name} {shorten(str(value), 40, placeholder=' ...')}" for name, value in left_out.items())
    return f"generation settings of the model that are neither used here nor saved on: {names}"
