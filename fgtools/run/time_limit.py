"""How long a training may take: what was asked for, or what is left of a Kaggle session.

Knows Kaggle's limit and the age of the session; not how a training stops (`train.deadline`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fgtools.files import KAGGLE_HOURS, InputError, is_on_kaggle

if TYPE_CHECKING:
    from transformers import TrainerCallback

RESERVE_SHARE, RESERVE_SECONDS = 0.1, 600
"""What is kept for choosing and saving the model and for the cells after the training: this share of the time, so many
seconds at most."""


def measure_session() -> float | None:
    """Return for how many seconds this container has run, by its first process; None where Linux does not say."""
    try:
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        after_name = Path("/proc/1/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        age = uptime - int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22: its start, in ticks since the boot
    except (OSError, ValueError, IndexError):
        return None
    return age if age >= 0 else None


def plan_time(hours: float) -> tuple[float, str] | None:
    """Return how many seconds a training that starts now may take until its model is saved, and why.

    Args:
        hours: The parameter TIME_LIMIT: hours from now; 0: on Kaggle what is left of the session, elsewhere no limit.

    Returns:
        The seconds, at least 1, and a sentence; None without a limit.

    Raises:
        InputError: The number is negative.
    """
    if hours < 0:
        raise InputError(f"TIME_LIMIT must be a number of hours, or 0 for what the place allows, got {hours}")
    if hours:
        return hours * 3600, f"{hours:g} h, as TIME_LIMIT says"
    if not is_on_kaggle():
        return None
    age = measure_session()
    if age is None:
        return KAGGLE_HOURS * 3600.0, f"{KAGGLE_HOURS} h of a Kaggle session; how much of it has gone is not known"
    left = max(1.0, KAGGLE_HOURS * 3600 - age)
    return left, f"{left / 3600:.1f} h are left of the {KAGGLE_HOURS} h of a Kaggle session"


def build_time_callbacks(hours: float, share: int = 1) -> list[TrainerCallback]:
    """Return the callback that ends a training in time, and print how long it may take; nothing without a limit.

    Args:
        hours: As for plan_time.
        share: Trainings that have to share what is left of a session, this one included.
    """
    planned = plan_time(hours)
    if planned is None:
        return []
    from fgtools.run.processes import current_process
    from fgtools.train.deadline import StopInTime

    seconds, reason = planned
    seconds /= 1 if hours else share
    reserve = min(RESERVE_SECONDS, RESERVE_SHARE * seconds)
    if not current_process()[0]:
        parts = f", shared by {share} trainings" if share > 1 and not hours else ""
        kept = f"{reserve / 60:.0f} min of them" if reserve >= 90 else f"{reserve:.0f} s of them"
        print(f"time: {reason}{parts}; {kept} are kept to choose and save the model (TIME_LIMIT)", flush=True)
    return [StopInTime(seconds, reserve)]
