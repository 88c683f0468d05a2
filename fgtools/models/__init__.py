"""Models: load weights and tokenizer from anywhere, save them, and decide device, dtype and precision.

Knows transformers' loaders, hubs and devices; not prompts or rows.
"""

from fgtools.models.errors import ModelError
from fgtools.models.load import load_model, load_tokenizer
from fgtools.models.response import response_template
from fgtools.models.save import save_model

__all__ = [
    "ModelError",
    "attached",
    "attention",
    "base",
    "device",
    "half",
    "licence",
    "load",
    "load_model",
    "load_tokenizer",
    "lora",
    "open_folder",
    "response_template",
    "save_model",
    "template",
]
