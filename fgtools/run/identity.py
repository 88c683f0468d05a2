"""What makes a file of a run the same one: its bytes, and for two kinds of files only what matters in them.

Knows run.json, executed notebooks and hashes; not which stage wrote a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgtools.files import sha256_of

RUN_FILE = "run.json"
CONTENT_HASH = "content_sha256"
"""The key under which a JSON file of the run holds the hash of everything else in it."""

_NO_SETTINGS = frozenset({"environment", "device", "dtype", "reason", "written", "model_asked", "inputs", CONTENT_HASH})
"""What run.json says about the machine and the time, which no other file of the run depends on."""


def hash_artifact(path: Path) -> str:
    """Return the hash by which a file or folder of a run is known.

    That is the sha256 of its contents, with two exceptions. Of run.json the settings count and the hashes of data and
    model, not the machine or the time: running notebook 1 again with the same settings changes nothing. Of an
    executed notebook the cells and their outputs count: opening and saving it in an editor changes nothing.
    """
    if path.name == RUN_FILE or path.suffix == ".ipynb":
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            kept = _select_cells(value) if path.suffix == ".ipynb" else _select_settings(value)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return sha256_of(path)  # none that can be read, so every byte counts
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    return sha256_of(path)


def hash_content(value: Mapping[str, Any]) -> str:
    """Return the hash of a JSON object without the one that it holds of itself; the same before and after a file."""
    rest = json.loads(json.dumps({name: one for name, one in value.items() if name != CONTENT_HASH}))
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _select_settings(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name not in _NO_SETTINGS}


def _select_cells(value: Mapping[str, Any]) -> list[Any]:
    """Return kind, source and outputs of every cell; texts may be one string or a list of lines."""
    return [
        (cell["cell_type"], _join(cell["source"]), [_select_output(one) for one in cell.get("outputs", ())])
        for cell in value["cells"]
    ]


def _select_output(output: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: _join(one) for name, one in output.items() if name not in ("metadata", "execution_count", "data")}
    return kept | {"data": {kind: _join(one) for kind, one in output.get("data", {}).items()}}


def _join(text: Any) -> Any:
    return "".join(text) if isinstance(text, list) and all(isinstance(line, str) for line in text) else text
