"""What a publication uploads: which files leave, and what they mean for those that are there.

Knows the run folder and the names of files that belong to a model; sends nothing. Files of the run that hold its rows
and replies are never part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from fgtools.files import read_json
from fgtools.run.folder import MissingArtifactError, RunFolder
from fgtools.run.hub import Repository, measure_content
from fgtools.run.uploads import PublishError

if TYPE_CHECKING:
    import pandas

CARD = "README.md"
"""The card's name in a repository."""

REQUIRED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
"""What plain transformers needs to load a published folder."""

MODEL_FILES = (
    *REQUIRED,
    "chat_template.jinja",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "tools.json",
)
"""Files of a model's folder that are uploaded."""

LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "*TERMS*", "PROHIBITED_USE*", "USE_POLICY*")
"""Patterns of files that a licence wants to go with the model; they are uploaded too."""

RUN_FILES = (
    "funnel.json",
    "scores.base.json",
    "scores.base.unseen.json",
    "scores.tuned.json",
    "scores.tuned.unseen.json",
    "compare.json",
)
"""Files of the run that are uploaded as evidence where they are there, with the figures beside them."""

FIGURES = "figures/*.png"

_OLD_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.gguf")
"""Patterns of weights at the top of a repository: those of an older upload would be loaded beside or before the new."""


@dataclass(frozen=True)
class PlannedFile:
    """A file of a publication.

    Attributes:
        name: Its name in the repository.
        size: Bytes: of the file here, or of the one there if it is removed or kept.
        change: "added", "replaced", "unchanged", "removed" or "kept": what the upload means for the name there.
    """

    name: str
    size: int
    change: str = "added"


@dataclass(frozen=True)
class PublishPlan:
    """What a publication uploads, and what it means for what is there.

    Attributes:
        files: The files that are uploaded, then those that are there already and are not.
        left_out: Files of the model's folder that are not known to belong to a model, and stay.
        repo_id: Where they go, such as "you/functiongemma-my-tools"; "" while no name is chosen.
        target: "hub" or "kaggle".
        notes: What else there is to know, such as who will see them.
        uploaded: Whether they are there now; False after a dry run.
        url: Where the model lies; "" after a dry run.
    """

    files: tuple[PlannedFile, ...]
    left_out: tuple[str, ...] = ()
    repo_id: str = ""
    target: str = "hub"
    notes: tuple[str, ...] = ()
    uploaded: bool = False
    url: str = ""

    @property
    def size(self) -> int:
        """Bytes of the files that are uploaded or replaced."""
        return sum(file.size for file in self.files if file.change in ("added", "replaced"))

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of files by what happens to them."""
        return Counter(file.change for file in self.files)

    @property
    def overwrites(self) -> bool:
        """Whether something that is there is replaced or removed."""
        return any(file.change in ("replaced", "removed") for file in self.files)

    def describe(self) -> str:
        """Return it in lines for people: where to, how much, what else there is to know, and whether it was done."""
        changes = ", ".join(f"{count} {change}" for change, count in self.counts.items())
        lines = [
            f"{self.repo_id or 'no repository chosen'}: {changes}; {self.size / 1e6:,.1f} MB to upload",
            *self.notes,
        ]
        if self.left_out:
            lines.append(f"{len(self.left_out)} files of the model's folder are left out: {', '.join(self.left_out)}")
        return "\n".join([*lines, self.url if self.uploaded else "dry run: nothing was uploaded"])


def build_publish_table(plan: PublishPlan) -> pandas.DataFrame:
    """Return the files of a publication as a table: name, bytes, and what happens to the name there."""
    import pandas

    return pandas.DataFrame(
        [(file.name, file.size, file.change) for file in plan.files], columns=["file", "bytes", "change"]
    )


def collect_files(run: RunFolder, card: str) -> tuple[dict[str, Path | bytes], tuple[str, ...]]:
    """Return what is uploaded, by its name in the repository, and the names of the model's folder that are left out.

    Raises:
        PublishError: The model's folder is incomplete.
        MissingArtifactError: There is no model.
        MixedRunError: Two attached folders hold unlike files of one name.
    """
    folder = run.find("model")
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        raise PublishError(
            f"the folder {folder.name!r} must hold {', '.join(REQUIRED)}, but lacks {', '.join(missing)}: run "
            "notebook 4"
        )
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    contents: dict[str, Path | bytes] = {name: path for name, path in found.items() if _belongs_to_model(name)}
    left_out = tuple(name for name in found if name not in contents and name != CARD)
    for name in RUN_FILES:
        try:
            contents[name] = run.find(name)
        except MissingArtifactError:  # no rows with unseen tools, or a run that was not scored
            continue
    drawn = {
        path.relative_to(place).as_posix() for place in (run.root, *run.inputs) for path in place.glob(FIGURES)
    }  # on Kaggle each notebook's figures lie in its own output
    contents |= {name: run.find(name) for name in sorted(drawn)}
    return {**contents, CARD: card.encode()}, left_out


def describe_quotes(contents: Mapping[str, Path | bytes]) -> tuple[str, ...]:
    """Return a note where the files that are uploaded quote rows, which may be nobody else's business."""
    funnel = contents.get("funnel.json")
    examples = read_json(funnel).get("examples", {}) if isinstance(funnel, Path) else {}
    n_quoted = sum(map(len, examples.values()))
    if not n_quoted:
        return ()
    return (
        f"funnel.json says of {n_quoted} raw rows what was wrong with them, and quotes them: read it before others do",
    )


def plan_changes(contents: Mapping[str, Path | bytes], repository: Repository | None) -> PublishPlan:
    """Return what an upload means for a repository.

    Args:
        contents: What is uploaded, by name.
        repository: What is there; None for a new one.
    """
    there = repository.files if repository else {}
    planned = []
    for name, content in sorted(contents.items()):
        change = "added"
        if name in there:
            change = "unchanged" if there[name].is_same(content) else "replaced"
        planned.append(PlannedFile(name, measure_content(content), change))
    for name in sorted(set(there) - set(contents)):
        planned.append(PlannedFile(name, there[name].size, "removed" if is_leftover(name) else "kept"))
    return PublishPlan(tuple(planned))


def is_leftover(name: str) -> bool:
    """Return whether a file of a repository is removed where the new upload has none of that name.

    Weights at the top would be loaded in place of the new ones, settings would change how they are loaded, and scores
    and figures would be another model's. Whatever else there is stays, and so do folders.
    """
    return name in (*MODEL_FILES, *RUN_FILES) or _matches(name, _OLD_WEIGHTS) or fnmatchcase(name, FIGURES)


def _belongs_to_model(name: str) -> bool:
    return name in MODEL_FILES or _matches(name, LICENCE_FILES)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a name at the top of a folder matches one of the patterns."""
    return "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)
