"""The packages of a session: which the notebooks need, which are missing, and how pip installs those and nothing else.

Knows pip, wheels and version numbers; not what a package is for. An image of Kaggle or Colab is tested as a whole, so
nothing in it is replaced without need: packages are installed one by one, without their requirements, and of these only
the ones that are absent or too old follow. torch never changes. What changed, and what stayed although a package asks
for a newer one, is printed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgtools.files import FgtoolsError, find_below, find_kaggle_inputs

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NEEDED = {
    "accelerate": "accelerate>=1.10.1",
    "datasets": "datasets>=4.0",
    "datasketch": "datasketch>=1.6",
    "evaluate": "evaluate>=0.4.5",
    "huggingface_hub": "huggingface_hub>=1.11",
    "jiwer": "jiwer>=4.0",
    "jsonschema": "jsonschema>=4.20",
    "kagglehub": "kagglehub>=1.0",
    "matplotlib": "matplotlib>=3.9",
    "rapidfuzz": "rapidfuzz>=3.6",
    "regex": "regex",
    "scipy": "scipy>=1.15",
    "tqdm": "tqdm>=4.66",
    "transformers": "transformers>=5.0",
    "trl": "trl>=1.16,<1.17",
}
"""What the notebooks import, and the versions they need; trl is limited to the tested minor version."""

ENOUGH = {"datasets": ">=4.0", "pyarrow": ">=18.1"}
"""Older versions than trl asks for that the series was run with, those of Kaggle's image of 2026-08: they stay.
`python -m tests.image_environment` makes that image's environment."""

KERNELS = "liger-kernel>=0.5"
"""Fused kernels for training on an NVIDIA GPU (`train.fused`); a training does without where they are missing."""

_ROUNDS = 5
"""How often the requirements of what was installed are looked up: requirements of requirements, and so on."""


class SessionError(FgtoolsError, RuntimeError):
    """The session cannot be made ready; the message says what to do."""


def find_missing() -> list[str]:
    """Return the requirements of NEEDED that are absent or of another version, in pip's notation."""
    from packaging.requirements import Requirement

    return [text for text in NEEDED.values() if not _is_met(Requirement(text))]


def _is_met(requirement: Requirement) -> bool:
    version = find_version(requirement.name)
    return bool(version) and requirement.specifier.contains(version, prereleases=True)


def find_version(name: str, otherwise: str = "") -> str:
    """Return the installed version of a package; `otherwise` where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return otherwise


def find_wheel_folders() -> list[Path]:
    """Return the folders that hold wheels: attached to a Kaggle notebook, or this one, where Colab puts uploads."""
    mount = find_kaggle_inputs()
    attached = {wheel.parent for wheel in find_below(mount, "*.whl")} if mount else set()
    return sorted(attached | {wheel.parent.absolute() for wheel in Path().glob("*.whl")})


def install_missing() -> None:
    """Install what find_missing lists, and what it requires in turn, from attached wheels or from the package index.

    Raises:
        SessionError: pip fails, or a package to be replaced is already imported.
    """
    missing = find_missing()
    if not missing:
        return
    before, kept, folders = _list_versions(), [], find_wheel_folders()
    for _ in range(_ROUNDS):
        if not missing:
            break
        _require_not_loaded(missing)
        print("installing", ", ".join(missing), "(torch stays as it is)", flush=True)
        if failure := install([*missing], folders):
            raise SessionError(
                f"pip must install {', '.join(missing)}, but it failed ({failure}): switch the notebook's internet on, "
                "or attach a data set that holds their wheels (README, Kaggle)"
            )
        after = _list_versions()
        missing, kept = _find_unmet([name for name in after if after[name] != before.get(name)])
    print(*describe_changes(before, _list_versions()), *kept, sep="\n", flush=True)


def install(requirements: Sequence[str], folders: Sequence[Path] = (), *options: str) -> str:
    """Let pip install packages without their requirements: from folders of wheels alone, else from the index too.

    Args:
        requirements: In pip's notation.
        folders: Folders that hold wheels.
        options: More options of `pip install`.

    Returns:
        "", or the last line of what pip says when it fails.
    """
    links = [f"--find-links={folder}" for folder in folders]
    attempts = [["--no-index", *links], links] if folders else [[]]
    said = ""
    for attempt in attempts:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *options, *attempt, *requirements]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        if not outcome.returncode:
            importlib.invalidate_caches()
            return ""
        said = (outcome.stderr.strip().splitlines()[-1:] or ["no message"])[0]
    return said


def install_kernels(gpu: Path | None) -> None:
    """Install KERNELS where there is an NVIDIA GPU; where that fails, a line says so and the session goes on."""
    if gpu is None or importlib.util.find_spec("liger_kernel"):
        return
    print("installing", KERNELS, "(fused kernels for training on this GPU; torch and triton stay as they are)")
    failure = install([KERNELS], find_wheel_folders(), "--retries", "0", "--timeout", "5")
    if failure:
        print(f"{KERNELS} is not installed ({failure}): training computes with plain kernels, a step takes longer")


def _require_not_loaded(requirements: Sequence[str]) -> None:
    """Raise SessionError if a package that would be replaced is imported: both versions would be mixed."""
    loaded = find_loaded(requirements)
    if loaded:
        quoted = " ".join(f'"{text}"' for text in requirements)
        raise SessionError(
            f"{', '.join(requirements)} must be installed before {', '.join(loaded)} is imported, since what is loaded "
            f"is not replaced: run `%pip install --no-deps {quoted}` in a cell of its own, restart the kernel, and run "
            "the notebook from its first cell (on Kaggle: make that cell the first one, and run the notebook again)"
        )


def find_loaded(requirements: Iterable[str]) -> list[str]:
    """Return the names of packages of which a module is imported; a package may have modules of other names."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    modules: dict[str, set[str]] = {}
    for module, packages in importlib.metadata.packages_distributions().items():
        for package in packages:
            modules.setdefault(canonicalize_name(package), set()).add(module)
    names = [Requirement(text).name for text in requirements]
    usual = {name: {name.replace("-", "_")} for name in names}
    return [name for name in names if (modules.get(canonicalize_name(name), set()) | usual[name]) & {*sys.modules}]


def _list_versions() -> dict[str, str]:
    """Return the versions of all installed packages by their names, in lower case with dashes."""
    found = {}
    for one in importlib.metadata.distributions():
        if name := one.metadata["Name"]:
            found.setdefault(name.lower().replace("_", "-"), one.version)
    return found


def _find_unmet(installed: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return what packages just installed require and lack, and a line for each version that stays all the same."""
    from packaging.requirements import Requirement

    missing, kept = {}, []
    for name in installed:
        for requirement in map(Requirement, importlib.metadata.requires(name) or ()):
            if (requirement.marker and not requirement.marker.evaluate({"extra": ""})) or _is_met(requirement):
                continue
            required = requirement.name.lower().replace("_", "-")
            enough = Requirement(f"{required}{ENOUGH.get(required, '')}")
            if required == "torch" or (required in ENOUGH and _is_met(enough)):
                reason = "torch never changes" if required == "torch" else "the series was run with it"
                version = find_version(required)
                kept.append(f"kept: {required} {version}, although {name} asks for {requirement.specifier}: {reason}")
            else:
                missing[required] = f"{requirement.name}{requirement.specifier}"
    return sorted(missing.values()), kept


def describe_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return a line for the packages that are new and one for those whose version changed, where there are any.

    Args:
        before: Versions by package.
        after: The same, later.
    """
    new = [f"{name} {after[name]}" for name in sorted(after) if name not in before]
    changed = [
        f"{name} {before[name]} -> {after[name]}"
        for name in sorted(after)
        if before.get(name, after[name]) != after[name]
    ]
    return [
        *([f"installed: {', '.join(new)}"] if new else []),
        f"replaced: {', '.join(changed) or 'nothing of what was there'}",
    ]
