"""Whether a person is watching: progress bars for people, one clean line a stage for batch runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def is_watched() -> bool:
    """Tell whether progress bars make sense: not under papermill, nbval or a Kaggle batch run.

    Returns:
        False when FGTOOLS_BATCH is set (the command line and the tests set it), Kaggle runs the notebook unattended, or
        this is not the first of several processes.
    """
    alone = os.environ.get("RANK", "0") == "0"
    return alone and not os.environ.get("FGTOOLS_BATCH") and os.environ.get("KAGGLE_KERNEL_RUN_TYPE") != "Batch"


def track(items: Iterable[Item], total: int, label: str) -> Iterable[Item]:
    """Go through items, with a progress bar when a person is watching.

    Args:
        items: What to go through.
        total: How many there are.
        label: What the bar is called.

    Returns:
        The items, as they come.
    """
    from tqdm.auto import tqdm

    return tqdm(items, total=total, desc=label, disable=not is_watched())
