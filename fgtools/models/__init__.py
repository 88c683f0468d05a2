"""Models: load weights and tokenizer from anywhere, save them, and decide device, dtype and precision.

Knows transformers' loaders, hubs and devices; not prompts or rows.
"""

from fgtools.models.load import ModelError, load_model, load_tokenizer, save_model

__all__ = [
    "ModelError",
    "attention",
    "device",
    "load",
    "load_model",
    "load_tokenizer",
    "lora",
    "save_model",
]
