"""The folders that Kaggle's client takes: one for each kernel, and a data set with the package and missing wheels.

Knows pip and where a clone keeps its files; what the metadata say stands in `kaggle_metadata`, what a kernel's notebook
holds in `kaggle_notebooks`. Nothing is uploaded here.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgtools import __version__
from fgtools.files import make_folder, read_json, replace_folder, sha256_of, write_text
from fgtools.run.kaggle_metadata import METADATA, KaggleError, SeriesPlan, load_series
from fgtools.run.kaggle_notebooks import build_kernel_notebook, select_files
from fgtools.run.notebooks import PACKAGE
from fgtools.run.parameters import assign_parameters
from fgtools.run.stages import STAGES

BUILD = "build.json"
"""The file that says what a folder holds; a folder without it is never replaced."""

DATA_SET = "data_set"

_SOURCES = ("fgtools", "notebooks", "pyproject.toml", "setup.py", "README.md", "LICENSE")
"""What the wheel is built from."""

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
"""What Kaggle's image can install: Linux on 64 bits with glibc 2.28 or newer."""


@dataclass(frozen=True)
class MissingWheel:
    """A wheel that could not be fetched: the requirement, the Python version, and pip's reason."""

    requirement: str
    python: str
    reason: str


@dataclass(frozen=True)
class Build:
    """What a folder holds, as its build.json says.

    Attributes:
        owner: The Kaggle user.
        version: Of fgtools.
        data_set: The data set's id.
        kernels: The kernels' ids by their names, in order.
        parameters: The values that were written into the notebooks.
        missing: Wheels that could not be fetched.
        secrets: The names of the secrets that a kernel looks for.
        sha256: Hashes of the data set's files by name.
    """

    owner: str
    version: str
    data_set: str
    kernels: Mapping[str, str]
    parameters: Mapping[str, Any]
    missing: tuple[MissingWheel, ...]
    secrets: tuple[str, ...]
    sha256: Mapping[str, str]


def build_kaggle(
    out: Path, owner: str = "", parameters: Mapping[str, Any] | None = None, root: Path = PACKAGE.parent
) -> Build:
    """Write the folders of all kernels and of the data set.

    Args:
        out: The folder to make; one that an earlier build made is replaced.
        owner: The Kaggle user; "" for KAGGLE_USERNAME, else the owner in kaggle-metadata.json.
        parameters: Values by parameter name, written into the notebooks that declare them. DATA, TOOLS and BENCHMARK
            may name files of this machine: they are put into the data set.
        root: The clone.

    Returns:
        The Build. Its missing wheels could not be fetched; all else is there.

    Raises:
        KaggleError: No clone is there, `out` holds something else, no owner is named, a parameter names what cannot be
            put into the data set, or the package's own wheel cannot be built.
        ParameterError: As assign_parameters.
    """
    absent = [name for name in (*_SOURCES, METADATA, "constraints.txt") if not (root / name).exists()]
    if absent:
        raise KaggleError(f"the build needs a clone of the repository, but {', '.join(absent)} is not there: make one")
    if out.exists() and not (out / BUILD).is_file() and (out.is_file() or any(out.iterdir())):
        raise KaggleError(f"--out must be a new folder or one of an earlier build, got {out}: choose another name")
    plan = load_series(root / METADATA, owner or os.environ.get("KAGGLE_USERNAME", ""))
    files = select_files(parameters or {})
    given = dict(parameters or {}) | {name: file.name for name, file in files.items()}
    assigned = assign_parameters([*STAGES], given, root / "notebooks")
    make_folder(out.parent)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / "build"
        for kernel in plan.kernels:
            values = assigned.get(kernel.name, given)
            notebook = build_kernel_notebook(root / "notebooks", kernel.name, values, files, plan.data_set["id"])
            _write_object(folder / kernel.name / "kernel-metadata.json", kernel.metadata)
            _write_object(folder / kernel.name / f"{kernel.name}.ipynb", notebook)
        missing = _build_data_set(folder / DATA_SET, plan, root)
        for file in files.values():
            if (folder / DATA_SET / file.name).exists():
                raise KaggleError(f"the data set has a file {file.name!r} of its own: give {file} another name")
            shutil.copyfile(file, folder / DATA_SET / file.name)
        hashes = {path.name: sha256_of(path) for path in sorted((folder / DATA_SET).iterdir())}
        ids = {kernel.name: kernel.id for kernel in plan.kernels}
        written = {name: value for values in assigned.values() for name, value in values.items()}
        build = Build(plan.owner, __version__, plan.data_set["id"], ids, written, missing, plan.secrets, hashes)
        _write_object(folder / BUILD, asdict(build))
        replace_folder(folder, out)
    return build


def load_build(out: Path) -> Build:
    """Read what a folder holds; raises KaggleError where `build` has not made it."""
    if not (out / BUILD).is_file():
        raise KaggleError(f"{out} must be a folder that `kaggle build` made, but it holds no {BUILD}: build it first")
    saved = read_json(out / BUILD)
    try:
        missing = tuple(MissingWheel(**one) for one in saved.pop("missing"))
        return Build(**{**saved, "missing": missing, "secrets": tuple(saved["secrets"])})
    except (KeyError, TypeError) as error:
        raise KaggleError(f"{out / BUILD} must be written by this version of fgtools: build anew") from error


def _write_object(path: Path, value: Mapping[str, Any]) -> Path:
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _build_data_set(folder: Path, plan: SeriesPlan, root: Path) -> tuple[MissingWheel, ...]:
    """Write metadata, notebooks, the package's wheel and those the image lacks; return what is missing."""
    _write_object(folder / "dataset-metadata.json", plan.data_set)
    for stage in STAGES:
        shutil.copyfile(root / "notebooks" / f"{stage}.ipynb", folder / f"{stage}.ipynb")
    build_wheel(root, folder)
    return fetch_wheels(_pin(plan.wheels, root / "constraints.txt"), plan.pythons, folder)


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the package's wheel from a clone.

    Args:
        root: The clone. Its files are copied first: setuptools keeps files of earlier builds beside them.
        folder: Where the wheel goes.

    Returns:
        The wheel's path.

    Raises:
        KaggleError: pip fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name in _SOURCES:
            if (root / name).is_dir():
                shutil.copytree(root / name, Path(scratch, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(root / name, Path(scratch, name))
        isolation = ["--no-build-isolation"] if _has_setuptools() else []  # without isolation no network is needed
        failure = _run_pip("wheel", "--no-deps", *isolation, "-w", str(folder.absolute()), scratch)
    if failure:
        raise KaggleError(f"pip must build the wheel of fgtools, but it failed: {failure}")
    return folder / f"fgtools-{__version__}-py3-none-any.whl"


def fetch_wheels(requirements: Iterable[str], pythons: Iterable[str], folder: Path) -> tuple[MissingWheel, ...]:
    """Download wheels for Kaggle's image, without what they depend on: nothing of the image is to be replaced.

    Args:
        requirements: Such as "trl==1.16.0".
        pythons: Python versions, such as "3.12".
        folder: Where the wheels go.

    Returns:
        Those that could not be fetched.
    """
    missing = []
    places = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    for python in pythons:
        for requirement in requirements:
            how = ["--no-deps", "--only-binary", ":all:", "--retries", "1", "--python-version", python, *places]
            failure = _run_pip("download", *how, "-d", str(folder), requirement)
            if failure:
                missing.append(MissingWheel(requirement, python, failure))
    return tuple(missing)


def _pin(names: Iterable[str], constraints: Path) -> list[str]:
    """Return requirements with the tested version where none is named."""
    lines = constraints.read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return [name if "=" in name else f"{name}=={tested[name]}" for name in names]


def _has_setuptools() -> bool:
    try:
        return int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77  # as pyproject.toml asks
    except importlib.metadata.PackageNotFoundError:
        return False


def _run_pip(*words: str) -> str:
    """Run pip; return its last line about an error when it fails, "" when it does not."""
    command = [sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if not outcome.returncode:
        return ""
    lines = [line.strip() for line in outcome.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return (errors or lines or [f"pip ended with status {outcome.returncode} and no message"])[-1]
