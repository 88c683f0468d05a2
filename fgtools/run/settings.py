"""The settings of a run: what 01_setup was asked to do, as every later stage reads it from run.json.

Knows parameters, profiles and recipes; not what a stage computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fgtools.files import InputError, find_kaggle_inputs, is_on_kaggle, sha256_of
from fgtools.profiles import (
    PROFILES,
    STANDIN,
    Profile,
    Recipe,
    ResolvedProfile,
    adapt_recipe,
    compose_banner,
    fastest_format,
    get_recipe,
)
from fgtools.rows import RawRows, load_raw_rows
from fgtools.rows.formats import SHAPES
from fgtools.rows.sources import choose_total
from fgtools.run.folder import RunFolder
from fgtools.schema import load_tools


class SourceOptions(NamedTuple):
    """How data is read.

    Attributes:
        shape: Shape of its rows, one of rows.formats.SHAPES, or "auto".
        split: Split of a hub data set.
        config: Its configuration; "" for the default one.
        revision: Its commit, tag or branch; "" for the newest.
        tools: A file of tools for all rows, in place of their own; "" for none.
    """

    shape: str = "auto"
    split: str = "train"
    config: str = ""
    revision: str = ""
    tools: str = ""


AS_IT_COMES = SourceOptions()


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do; made in 01_setup, read by every later stage.

    Attributes:
        profile: Where it runs.
        recipe: How data, loss and format are treated.
        data: "sample", a path or a hub id.
        model: "standin", a folder, a GGUF file, a hub id or a kagglehub handle.
        seed: Seed of the shuffle, the split and the training.
        n_total: Raw rows to take; 0: all of a local file.
        n_eval: Rows kept for evaluation.
        source: How the data is read.
    """

    profile: Profile
    recipe: Recipe
    data: str
    model: str
    seed: int
    n_total: int
    n_eval: int
    source: SourceOptions = AS_IT_COMES

    @property
    def files(self) -> list[Path]:
        """The local files that the rows come from, and a GGUF file that is the model; run.json holds their hashes."""
        model = self.model if self.model.lower().endswith(".gguf") else ""
        return [path for path in map(Path, filter(None, (self.data, self.source.tools, model))) if path.exists()]

    def hash_sources(self) -> dict[str, str]:
        """Return the sha256 of data, tools and model by these names, of each that is a local file or folder."""
        named = {"data": self.data, "tools": self.source.tools, "model": self.model}
        return {name: sha256_of(Path(place)) for name, place in named.items() if place and Path(place).exists()}

    @property
    def banner(self) -> str:
        """What every figure of the run must be read with; "" when it needs no caveat."""
        return compose_banner(self.model, self.data)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as they stand in run.json; profile and recipe by name."""
        return {
            "profile": self.profile.name,
            "recipe": self.recipe.name,
            "turns": self.recipe.turns,
            "data": self.data,
            **self.source._asdict(),
            "model": self.model,
            "seed": self.seed,
            "n_total": self.n_total,
            "n_eval": self.n_eval,
        }


def build_settings(
    resolved: ResolvedProfile,
    recipe: str,
    data: str,
    model: str,
    seed: int,
    n_total: int,
    n_eval: int,
    source: SourceOptions = AS_IT_COMES,
    turns: str = "",
) -> Settings:
    """Combine the parameters of 01_setup with the profile they resolved to.

    Args:
        resolved: The profile and why.
        recipe: "native" or "tutorial".
        data: The parameter DATA; "" means the profile's.
        model: The parameter MODEL; "" means the profile's.
        seed: The parameter SEED.
        n_total: The parameter N_TOTAL; 0 for all rows of a local file, and rows.sources.N_TOTAL of other data.
        n_eval: The parameter N_EVAL.
        source: How the data is read.
        turns: The parameter TURNS; "" means the recipe's.

    Returns:
        The Settings.

    Raises:
        InputError: The recipe is unknown, or a number or `turns` makes no sense.
        FgtoolsError: The file of tools, or the GGUF file that is the model, cannot be used.
    """
    profile = resolved.profile
    n_total = n_total or choose_total(data or profile.data)
    if n_eval < 1 or (n_total and n_eval >= n_total):
        raise InputError(
            f"N_EVAL must be at least 1 and less than N_TOTAL, got {n_eval} of {n_total}: give a smaller N_EVAL, or "
            "more rows"
        )
    if source.shape != "auto" and source.shape not in SHAPES:
        raise InputError(f"SHAPE must be 'auto' or one of {sorted(SHAPES)}, got {source.shape!r}")
    if source.tools:
        load_tools(source.tools)  # a file that cannot be used is said now, not in a later notebook
    if model.lower().endswith(".gguf") and ":" not in model:
        _check_gguf(model)
    chosen = adapt_recipe(get_recipe(recipe), turns=turns)
    model = _name_model(model)
    if warning := warn_of_toy(model or profile.model, model, resolved.reason):
        print(warning)
    return Settings(profile, chosen, data or profile.data, model or profile.model, seed, n_total, n_eval, source)


def _name_model(model: str) -> str:
    """Return MODEL as it stands in run.json: for the folder of a model attached on Kaggle, its handle."""
    if find_kaggle_inputs() is None:
        return model
    from fgtools.models.attached import name_attached_model

    return name_attached_model(model) or model


def warn_of_toy(model: str, asked: str, reason: str) -> str:
    """Return a warning for a run on Kaggle that trains a toy although nobody asked for it; "" for none.

    Args:
        model: The model of the run.
        asked: The parameter MODEL.
        reason: Why the profile of the run was taken.
    """
    _, no_gpu = fastest_format(None)
    if model != STANDIN or asked or reason != no_gpu or not is_on_kaggle():
        return ""
    lines = (
        "WARNING: notebook 1 found no GPU, and MODEL is not given: this run trains a toy model on generated rows, and",
        "its figures say nothing about FunctionGemma. To tune FunctionGemma: set the accelerator to GPU T4 x2 and run",
        "notebook 1 again. To try the toy all the same: MODEL = 'standin' in notebook 1, and this warning is left out.",
    )
    frame = "!" * max(map(len, lines))
    return "\n".join((frame, *lines, frame))


def _check_gguf(model: str) -> None:
    """Print what is made of a local GGUF file; one that cannot be used is an error now, not in a later notebook."""
    from fgtools.models.load import describe_gguf, find_model

    print(describe_gguf(find_model(model)))


def load_settings(run: RunFolder) -> Settings:
    """Read the settings of a run, with a warning where a Kaggle session without a GPU would train a toy unasked.

    Raises:
        MissingArtifactError: There are none; the message names 01_setup.
    """
    saved = run.read_json("run.json")
    if warning := warn_of_toy(saved["model"], saved.get("model_asked", saved["model"]), saved.get("reason", "")):
        print(warning)
    return Settings(
        profile=PROFILES[saved["profile"]],
        recipe=adapt_recipe(get_recipe(saved["recipe"]), turns=saved["turns"]),
        source=SourceOptions(*(saved[name] for name in SourceOptions._fields)),
        **{name: saved[name] for name in ("data", "model", "seed", "n_total", "n_eval")},
    )


def load_data(settings: Settings) -> RawRows:
    """Open the raw rows that the settings name; raises as sources.load_raw_rows."""
    hub = {name: value for name, value in settings.source._asdict().items() if name != "shape"}
    return load_raw_rows(settings.data, settings.n_total, settings.seed, **hub)
