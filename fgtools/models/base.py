"""The base of a tuned model: what it was made from, and under which licence.

Knows the names under which Gemma models are found (hub ids, kagglehub handles and the folders of both), the folder
that `fgtools run --model real` builds, and a model's config; loads no weights and asks no hub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgtools.profiles import REAL_MARK, STANDIN_SHAPE, is_standin

GEMMA, APACHE = "gemma", "apache-2.0"
"""Licences as the hub's metadata names them."""

TITLES = {
    "google/functiongemma-270m-it": "FunctionGemma 270M",
    "google/gemma-3-270m": "Gemma 3 270M",
    "google/gemma-3-270m-it": "Gemma 3 270M IT",
}
"""Hub ids of Google's models of this shape -> what a title calls them."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+\Z")
_HUB_GGUF = re.compile(r"([\w-][\w.-]*/[\w.-]+):[^:]+\.gguf\Z", re.IGNORECASE)
_HUB_FOLDER = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/")
_KAGGLE = re.compile(r"(?:\A|/)google/[\w-]+/[\w-]+/([\w.-]+?)(?:/\d+)?/?\Z")


@dataclass(frozen=True)
class BaseModel:
    """What a tuned model was made from.

    Attributes:
        name: Its name without the folders of a machine: a hub id, a kagglehub handle, or a folder's or file's own name.
        title: What a title calls it, such as "Gemma 3 270M".
        hub_id: Its repository on the hub; "" where none is known.
        licence: GEMMA or APACHE; "" where it is not known.
        note: What has to be said of its weights; "" for nothing.
    """

    name: str
    title: str
    hub_id: str
    licence: str
    note: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the fields as a JSON object."""
        return asdict(self)


def identify_base(name: str, config: Mapping[str, Any]) -> BaseModel:
    """Return what a model was made from.

    Args:
        name: What MODEL named, or the folder or file that it was loaded from.
        config: The config.json of the tuned model, whose architecture is its base's.

    Returns:
        The BaseModel. A local folder or file has no hub id, unless its path says which download it is.
    """
    licence, public = find_licence(config), _public_name(name)
    if is_standin(name) or licence == APACHE:
        note = "It was pretrained by this project on made-up tools, some 280 times smaller than FunctionGemma."
        return BaseModel(public, "Offline stand-in (a toy model)", "", APACHE, note)
    if (Path(name) / REAL_MARK).is_file():
        note = (
            "Its weights were rounded to 4 to 8 bits and turned back into fp32 before the training; it is a base "
            "model, not FunctionGemma, and knew no calls."
        )
        return BaseModel("google/gemma-3-270m", TITLES["google/gemma-3-270m"], "google/gemma-3-270m", GEMMA, note)
    hub_id = _find_hub_id(name)
    if hub_id in TITLES:
        return BaseModel(public, TITLES[hub_id], hub_id, GEMMA)
    return BaseModel(hub_id or public, hub_id or _describe_local(public, licence), hub_id, licence)


def find_licence(config: Mapping[str, Any]) -> str:
    """Return the licence that a model's architecture tells: GEMMA of Gemma's, APACHE of the stand-in; else "".

    Only the stand-in has its shape, and its weights were made from nothing of Gemma's. Any other model of a Gemma
    architecture is taken for a derivative of Gemma: to publish one without Gemma's terms would be the worse mistake.
    """
    if all(config.get(name) == value for name, value in STANDIN_SHAPE.items()):
        return APACHE
    return GEMMA if "gemma" in str(config.get("model_type", "")) else ""


def _describe_local(public: str, licence: str) -> str:
    """Return the title of a model that is known by its folder's or file's name alone."""
    if not public:
        return "A Gemma model" if licence == GEMMA else "A model"
    return f"{public} (a Gemma model)" if licence == GEMMA else public


def _find_hub_id(name: str) -> str:
    """Return the hub repository that a name, handle or download's path stands for; "" where it tells none."""
    if found := _HUB_FOLDER.search(name):
        return "/".join(found.groups())
    if found := _KAGGLE.search(name):
        hub_id = f"google/{found[1]}"
        return hub_id if hub_id in TITLES else ""
    if found := _HUB_GGUF.match(name):
        return found[1]
    is_local = Path(name).exists() or name.lower().endswith(".gguf")
    return name if _HUB_ID.match(name) and not is_local else ""


def _public_name(name: str) -> str:
    """Return a model's name without the folders of this machine."""
    path = Path(name)
    is_local_gguf = name.lower().endswith(".gguf") and ":" not in name
    if is_local_gguf or path.is_absolute() or name.startswith((".", "~")) or path.exists():
        return path.name or name
    return name
