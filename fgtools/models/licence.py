"""Licence files of a saved model: what Gemma's terms of use ask of who passes a derivative of Gemma on.

Knows the terms' section 3 (terms of 2025-03-24, read on 2026-01-15): recipients get a copy of the terms, know of the
use restrictions and of what was modified, and a file NOTICE has a sentence of its own. The terms' text is not part of
this package: a copy that lies beside the base model is carried on, else the folder says where the terms are found.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fgtools.files import name_file, write_text
from fgtools.models.base import GEMMA, BaseModel, identify_base

NOTICE_FILE, LINK_FILE = "NOTICE", "GEMMA_TERMS.md"
TERMS_URL = "https://ai.google.dev/gemma/terms"
POLICY_URL = "https://ai.google.dev/gemma/prohibited_use_policy"

NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
"""The sentence that section 3.1 asks for, to the letter."""

RESTRICTIONS = (
    "Use of Gemma and of its derivatives, this model among them, is restricted by section 3.2 of the Gemma Terms of "
    f"Use: not for the uses that the Gemma Prohibited Use Policy ({POLICY_URL}) names, and not in violation of "
    "applicable laws and regulations. Whoever uses this model is bound by these restrictions, and whoever passes it or "
    "a derivative of it on must pass them on as an enforceable provision, with a copy of the terms."
)
"""The notice of the use restrictions, which every recipient must get."""

LICENCE_TEXT = f"{NOTICE}.\n\nTerms: {TERMS_URL}\n\n{RESTRICTIONS}"
"""Both, for a format that has a place of its own for the licence."""

_CARRIED = ("GEMMA_TERMS*", "LICENSE*", "LICENCE*", "PROHIBITED_USE*", "USE_POLICY*")
"""Names of files beside a base model that are carried on; beside a lone GGUF file only the first, for other files there
need not belong to it."""

_NAMED_BASE = re.compile(r"a derivative of a Gemma model, (.+), and not Google's own")
"""How NOTICE names the base."""

_MARK = b"Model Derivatives"
"""Words that the terms define; a file that holds them is taken for a copy of the terms."""

_CHANGES = {
    "config.json": "the architecture, written anew",
    "generation_config.json": "generation settings, with the tokens that end a reply",
    "tokenizer_config.json": "tokenizer settings, with how calls are read from a reply",
    "tokenizer.json": "the vocabulary, written anew from the base's",
    "chat_template.jinja": "the chat template that it was trained with",
    "tokenizer.model": "the base's vocabulary, unchanged",
}
"""Saved files -> what they are in relation to the base's; anything else is written anew."""

_WEIGHTS = "the weights, changed by fine-tuning, or converted from another format"
_GGUF = "weights, vocabulary and chat template in one file, converted to GGUF"

_LINK = f"""\
# Gemma Terms of Use

{NOTICE}.

- Terms: {TERMS_URL}
- Prohibited Use Policy: {POLICY_URL}

No copy of the terms lay beside the model that this one was made from, so this file says where they are found. The terms
(section 3.1) ask that everyone who gets the model gets a copy of them: before publishing it, save the page of the terms
beside this file as GEMMA_TERMS.html.
"""


def write_licence_files(
    folder: Path, source: str, config: Mapping[str, Any], made: Iterable[str] | None = None
) -> list[Path]:
    """Write NOTICE and the terms, or where they are found, into a saved model's folder, if its base is a Gemma model.

    Args:
        folder: The saved model.
        source: The folder or GGUF file that the base was loaded from; "" where it is not known.
        config: The model's config as a mapping.
        made: Names of the files that NOTICE lists as written anew, where these are the model of `source` in another
            format: its base, as its own NOTICE names it, is theirs. None for every file of the folder.

    Returns:
        The files written, in the order of their names; [] for another base.

    Raises:
        FileError: A file cannot be read or written.
    """
    base = identify_base(source, config)
    if base.licence != GEMMA:
        return []
    earlier = _read_notice(source)
    if made is not None and (named := _NAMED_BASE.search(earlier)):
        base = replace(base, name=named[1])
    there = {path.name for path in folder.iterdir()}
    listed = sorted(there if made is None else made)
    carried = [path for path in _find_carried(source) if path.name not in there]
    for path in carried:
        with name_file(path, "read"):
            shutil.copyfile(path, folder / path.name)
    written, terms = [path.name for path in carried], [path.name for path in _find_carried(str(folder))]
    if not find_copies(folder):
        link = write_text(folder / LINK_FILE, _LINK).name
        written, terms = [*written, link], [*terms, link]
    write_text(folder / NOTICE_FILE, render_notice(base, listed, sorted(terms), earlier))
    return [folder / name for name in sorted([NOTICE_FILE, *written])]


def find_copies(folder: Path) -> list[str]:
    """Return the names of the files in a model's folder that hold a copy of the terms, known by words they define."""
    return [path.name for path in _find_carried(str(folder)) if _MARK in path.read_bytes()]


def _find_carried(source: str) -> list[Path]:
    """Return the files on licences beside a base model, but for one that only says where the terms are found."""
    path = Path(source)
    if not source or not path.exists():
        return []
    folder, patterns = (path, _CARRIED) if path.is_dir() else (path.parent, _CARRIED[:1])
    found = {one for pattern in patterns for one in folder.glob(pattern) if one.is_file()}
    return sorted(one for one in found if one.read_bytes() != _LINK.encode())


def render_notice(base: BaseModel, saved: Sequence[str], terms: Sequence[str], earlier: str = "") -> str:
    """Return the text of NOTICE.

    Args:
        base: What the model was made from.
        saved: Names of the files that were saved.
        terms: Names of the files that hold the terms, or say where they are found.
        earlier: Text of the NOTICE that came with the base; "" for none.
    """
    of = f", {base.name}" if base.name else ""
    changes = "\n".join(f"- {name}: {_describe(name)}" for name in saved)
    parts = [
        NOTICE,
        f"USE RESTRICTIONS\n\n{RESTRICTIONS}",
        f"TERMS\n\nSee {', '.join(terms)} in this folder, and {TERMS_URL}.",
        f"MODIFICATIONS\n\nThis model is a derivative of a Gemma model{of}, and not Google's own. The files of this "
        f"folder were modified or written anew with fgtools:\n\n{changes}",
    ]
    if earlier:
        parts.append(f"NOTICE OF THE MODEL IT WAS MADE FROM\n\n{earlier.strip()}")
    return "\n\n".join(parts) + "\n"


def _describe(name: str) -> str:
    if name.endswith(".gguf"):
        return _GGUF
    return _WEIGHTS if name.endswith(".safetensors") else _CHANGES.get(name, "written anew")


def _read_notice(source: str) -> str:
    """Return the NOTICE beside a base model, bytes that are not UTF-8 replaced; "" where there is none.

    Beside a lone GGUF file it is read only if it speaks of Gemma, for it need not belong to that file.
    """
    is_file = Path(source).is_file()
    path = Path(source).parent / NOTICE_FILE if is_file else Path(source, NOTICE_FILE)
    if not source or not path.is_file():
        return ""
    with name_file(path, "read"):
        text = path.read_text(encoding="utf-8", errors="replace")
    return text if NOTICE in text or not is_file else ""
