"""What Kaggle's client is told of each kernel and of the data set: built from kaggle-metadata.json, the only source.

Knows the keys of kernel-metadata.json and dataset-metadata.json, and how Kaggle makes a slug of a title; reads one
file, and writes none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtools.files import FgtoolsError, read_json
from fgtools.run.stages import STAGES

METADATA = "kaggle-metadata.json"
RUN_ALL = "run_all"
"""The kernel that runs the whole series in one session."""

KERNELS = (*STAGES, RUN_ALL)
"""The kernels in their order: one for each stage, and the one that runs them all."""

_OWNER = re.compile(r"[a-z0-9][a-z0-9-]*", re.IGNORECASE)
_PLACEHOLDER = "YOUR-KAGGLE-NAME"


class KaggleError(FgtoolsError, ValueError):
    """The kernels cannot be built or run as asked; the message says what to do."""


@dataclass(frozen=True)
class KernelPlan:
    """One kernel: its name here, such as "01_setup", and its kernel-metadata.json."""

    name: str
    metadata: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Owner and slug, such as "ann/functiongemma-1-setup"."""
        return str(self.metadata["id"])


@dataclass(frozen=True)
class SeriesPlan:
    """What is built for one owner.

    Attributes:
        owner: The Kaggle user.
        kernels: In the order of KERNELS.
        data_set: The dataset-metadata.json.
        pythons: The Python versions that wheels are fetched for, such as "3.12".
        wheels: The packages that Kaggle's image lacks, as requirements without a version or with one.
        secrets: The names of the secrets that a kernel looks for.
    """

    owner: str
    kernels: tuple[KernelPlan, ...]
    data_set: Mapping[str, Any]
    pythons: tuple[str, ...]
    wheels: tuple[str, ...]
    secrets: tuple[str, ...]


def build_slug(title: str) -> str:
    """Return the slug that Kaggle makes of an English title: lower case, everything else than a-z and 0-9 a dash."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def load_series(path: Path, owner: str = "") -> SeriesPlan:
    """Read kaggle-metadata.json and return what is built from it.

    Args:
        path: The file.
        owner: The Kaggle user; "" for the one the file names.

    Returns:
        The SeriesPlan.

    Raises:
        KaggleError: No owner is named, its name cannot be one, or the kernels are not those of the series.
        FileError: The file cannot be read.
    """
    saved = read_json(path)
    owner = owner or saved["owner"]
    if owner == _PLACEHOLDER or not _OWNER.fullmatch(owner):
        raise KaggleError(
            f"the kernels need the name of a Kaggle user, such as 'ann' of kaggle.com/ann, got {owner!r}: give --user "
            f"NAME, set KAGGLE_USERNAME, or write it into {path.name} as the owner"
        )
    names = [entry["notebook"] for entry in saved["kernels"]]
    if names != [*KERNELS]:
        raise KaggleError(f"{path.name} must list the kernels {', '.join(KERNELS)}, got {', '.join(names)}")
    slugs = {entry["notebook"]: build_slug(entry["title"]) for entry in saved["kernels"]}
    bundle = dict(saved["data_set"])
    pythons, wheels = bundle.pop("python"), bundle.pop("wheels")
    data_set = {"id": f"{owner}/{build_slug(bundle['title'])}", **bundle}
    kernels = tuple(
        KernelPlan(entry["notebook"], _build_kernel_metadata(entry, saved["defaults"], owner, slugs, data_set["id"]))
        for entry in saved["kernels"]
    )
    return SeriesPlan(owner, kernels, data_set, tuple(pythons), tuple(wheels), tuple(saved["secrets"]))


def _build_kernel_metadata(
    entry: Mapping[str, Any], defaults: Mapping[str, Any], owner: str, slugs: Mapping[str, str], data_set: str
) -> dict[str, Any]:
    """Return the kernel-metadata.json of one entry: the defaults, its own values, and full names of what it reads."""
    name = entry["notebook"]
    values = {**defaults, **{key: value for key, value in entry.items() if key != "notebook"}}
    if not values["enable_gpu"]:
        values.pop("machine_shape")
    sources = [f"{owner}/{slugs[source]}" for source in values["kernel_sources"]]
    fixed = {"id": f"{owner}/{slugs[name]}", "title": values.pop("title"), "code_file": f"{name}.ipynb"}
    return {**fixed, **values, "dataset_sources": [data_set, *values["dataset_sources"]], "kernel_sources": sources}
