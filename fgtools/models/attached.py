"""Models attached to a Kaggle notebook: where they are mounted, without asking Kaggle's server.

Knows kagglehub's handles and the layouts of Kaggle's mounts; not how a model is loaded. Beneath the mount a model lies
in `models/OWNER/MODEL/FRAMEWORK/VARIATION/VERSION`, in the older layout without `models/OWNER`.
"""

from __future__ import annotations

import re
from pathlib import Path

from fgtools.files import find_kaggle_inputs

KAGGLE_HANDLE = re.compile(r"[\w-]+(/[\w.-]+){3,4}\Z")
"""owner/model/framework/variation, with or without /version."""


def find_attached_model(handle: str) -> Path | None:
    """Return the folder of an attached model.

    Args:
        handle: As kagglehub writes it: owner/model/framework/variation, or with a version, which then must fit.

    Returns:
        The folder, of several versions that of the highest; None where none is attached that holds config.json.
    """
    mount = find_kaggle_inputs()
    if mount is None:
        return None
    owner, model, framework, variation, *version = handle.split("/")
    found = []
    for above in (mount / "models" / owner / model, mount / model):
        for folder in above.glob(f"*/{variation}/{version[0] if version else '*'}"):
            # the framework is written Transformers on the page and transformers in the handle
            same = folder.parent.parent.name.lower() == framework.lower() and folder.name.isdigit()
            found += [folder] if same and (folder / "config.json").is_file() else []
    return max(found, key=lambda folder: int(folder.name), default=None)


def name_attached_model(path: str | Path) -> str:
    """Return the handle of a folder of an attached model, by which it is known elsewhere too; "" for another folder."""
    mount = find_kaggle_inputs()
    if mount is None or not Path(path).is_relative_to(mount / "models"):
        return ""
    handle = Path(path).relative_to(mount / "models").as_posix()
    return handle if KAGGLE_HANDLE.match(handle) and handle.count("/") == 4 else ""
