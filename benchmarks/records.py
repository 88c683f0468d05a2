"""What a benchmark writes while it runs: a JSON file section by section, the machine, and aims with what was measured.

Knows files and version numbers; not models.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fgtools.files import write_text

PACKAGES = ("torch", "transformers", "trl", "accelerate", "liger-kernel")


def write_section(file: Path | None, name: str, values: Any) -> None:
    """Put values under a name into a JSON file, beside what it holds; the file is there whole at any moment.

    Args:
        file: The file; None: nothing is written.
        name: The section, replaced where it is there.
        values: What JSON holds.
    """
    if file is None:
        return
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    write_text(file, json.dumps({**kept, name: values}, indent=1) + "\n")


def describe_machine(device: str) -> dict[str, Any]:
    """Return what runs: card, driver, memory and versions."""
    facts: dict[str, Any] = {"device": "CPU", "threads": torch.get_num_threads()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts = {"device": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        facts |= {"capability": f"{properties.major}.{properties.minor}", "driver": read_driver()}
        facts |= {"cuda": torch.version.cuda}
    return {**facts, "python": platform.python_version(), **{name: find_version(name) for name in PACKAGES}}


def read_driver() -> str:
    """Return the version of NVIDIA's driver; "unknown" where nvidia-smi does not say it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return outcome.stdout.split()[0] if outcome.stdout.split() else "unknown"


def find_version(package: str) -> str:
    """Return an installed package's version; "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class Aim:
    """What a benchmark should show.

    Attributes:
        name: The key of the figure.
        words: What is measured, for people.
        wanted: The least, or the most, that it should be.
        at_most: Whether `wanted` is the most.
        unit: Written after a figure, such as "x" or " s".
    """

    name: str
    words: str
    wanted: float
    at_most: bool = False
    unit: str = "x"


TRAINING_AIMS = (
    Aim("whole_over_trl", "whole training over TRL's best settings that evaluate and save too", 3),
    Aim("whole_over_trl_alone", "whole training over TRL's best settings that do neither", 3),
    Aim("whole_over_tutorial", "whole training over the tutorial's way", 10),
    Aim("steady_tokens_per_second", "tokens/s of a steady step of 16 rows", 200_000, unit=""),
    Aim("epoch_seconds", "one epoch of 13,000 rows of 500 tokens", 90, at_most=True, unit=" s"),
)
EVALUATION_AIMS = (
    Aim("evaluation_seconds", "evaluation of 300 rows", 8, at_most=True, unit=" s"),
    Aim("evaluation_over_loop", "evaluation over the loop", 20),
    Aim("evaluation_over_batched", "evaluation over batched generate with left padding", 2),
)
"""Both for an H100 and FunctionGemma's shape, all measured in one run."""

CPU_AIMS = (
    Aim("step_over_tutorial", "a training step over the tutorial's way, whole rows", 4.2),
    Aim("evaluation_shared", "evaluation over the loop, tool lists shared by three rows", 3.2),
    Aim("evaluation_unshared", "evaluation over the loop, none shared", 2.5),
)
"""For FunctionGemma's shape in fp32: what it was before, so that nothing gets slower."""


def compare_aims(aims: tuple[Aim, ...], measured: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Return each aim with what was measured and whether it is met.

    Args:
        aims: The aims.
        measured: Figures by the names of the aims; a name that is missing, or None, was not measured.

    Returns:
        {"aim", "name", "wanted", "measured", "met"} each; the last two None where nothing was measured.
    """
    rows = []
    for aim in aims:
        value = measured.get(aim.name)
        met = None if value is None else (value <= aim.wanted if aim.at_most else value >= aim.wanted)
        sign = "at most" if aim.at_most else "at least"
        wanted = f"{sign} {aim.wanted:,.10g}{aim.unit}"
        shown = None if value is None else float(f"{value:.4g}")
        rows.append({"aim": aim.words, "name": aim.name, "wanted": wanted, "measured": shown, "met": met})
    return rows


def render_aims(rows: list[dict[str, Any]], what_for: str) -> str:
    """Return aims as lines for people, under a line that says what they are for."""
    lines = [f"aims ({what_for}):"]
    for row in rows:
        verdict = {None: "not measured", True: "yes", False: "no"}[row["met"]]
        figure = "" if row["measured"] is None else f"{row['measured']:,.10g}: "
        lines.append(f"  {row['aim']}, {row['wanted']}: {figure}{verdict}")
    return "\n".join(lines)
