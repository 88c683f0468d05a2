"""What the stages of the series compute, as functions that notebooks and commands share.

Settings of a run, evaluating a model, the summary at the end. Knows the run folder and the layers
below; not how notebooks are executed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fgtools.files import DataFileError, InputError
from fgtools.generate.reply_log import ReplyLog, find_parts, identify_replies, shard_rows
from fgtools.metrics import Comparison, Scores, score
from fgtools.profiles import PROFILES, Profile, Recipe, ResolvedProfile, compose_banner, get_recipe
from fgtools.rows import RawRows, load_raw_rows, load_rows
from fgtools.rows.formats import SHAPES
from fgtools.run.folder import RunFolder
from fgtools.run.processes import choose_processes, current_process, launch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class SourceOptions(NamedTuple):
    """How data is read.

    Attributes:
        shape: Shape of its rows, one of shapes.SHAPES, or "auto".
        split: Split of a hub data set.
        config: Its configuration; "" for the default one.
        revision: Its commit, tag or branch; "" for the newest.
    """

    shape: str = "auto"
    split: str = "train"
    config: str = ""
    revision: str = ""


AS_IT_COMES = SourceOptions()


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do; made in 01_setup, read by every later stage.

    Attributes:
        profile: Where it runs.
        recipe: How data, loss and format are treated.
        data: "sample", a path or a hub id.
        model: "standin", a folder, a hub id or a kagglehub handle.
        seed: Seed of the shuffle, the split and the training.
        n_total: Raw rows to take.
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
    def banner(self) -> str:
        """What every figure of the run must be read with; "" when it needs no caveat."""
        return compose_banner(self.model, self.data)

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as they stand in run.json; profile and recipe by name."""
        return {
            "profile": self.profile.name,
            "recipe": self.recipe.name,
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
) -> Settings:
    """Combine the parameters of 01_setup with the profile they resolved to.

    Args:
        resolved: The profile and why.
        recipe: "native" or "tutorial".
        data: The parameter DATA; "" means the profile's.
        model: The parameter MODEL; "" means the profile's.
        seed: The parameter SEED.
        n_total: The parameter N_TOTAL.
        n_eval: The parameter N_EVAL.
        source: How the data is read.

    Returns:
        The Settings.

    Raises:
        ValueError: The recipe is unknown, or a number makes no sense.
    """
    if not 0 < n_eval < n_total:
        raise InputError(f"N_EVAL must be at least 1 and less than N_TOTAL, got {n_eval} of {n_total}")
    if source.shape != "auto" and source.shape not in SHAPES:
        raise InputError(f"SHAPE must be 'auto' or one of {sorted(SHAPES)}, got {source.shape!r}")
    profile = resolved.profile
    chosen = get_recipe(recipe)
    return Settings(profile, chosen, data or profile.data, model or profile.model, seed, n_total, n_eval, source)


def load_settings(run: RunFolder) -> Settings:
    """Read the settings of a run; raises MissingArtifactError naming 01_setup when there are none."""
    saved = run.read_json("run.json")
    return Settings(
        profile=PROFILES[saved["profile"]],
        recipe=get_recipe(saved["recipe"]),
        source=SourceOptions(*(saved[name] for name in SourceOptions._fields)),
        **{name: saved[name] for name in ("data", "model", "seed", "n_total", "n_eval")},
    )


def load_data(settings: Settings) -> RawRows:
    """Open the raw rows that the settings name; raises as sources.load_raw_rows."""
    _, split, config, revision = settings.source
    return load_raw_rows(settings.data, settings.n_total, settings.seed, split=split, config=config, revision=revision)


@dataclass(frozen=True)
class Evaluation:
    """A model's replies to rows, and their scores.

    Attributes:
        rows: The rows.
        replies: One reply a row, in the order of the rows.
        scores: What the replies are worth.
        max_new_tokens: Budget of one reply, in tokens.
    """

    rows: tuple[Mapping[str, Any], ...]
    replies: tuple[str, ...]
    scores: Scores
    max_new_tokens: int

    def write(self, run: RunFolder, replies_name: str, scores_name: str, inputs: Sequence[str | Path] = ()) -> None:
        """Write the replies as JSON lines, and the scores with the budget and the inputs' hashes.

        The files in which `evaluate` kept the replies under way, of the same name with ".part", go.
        """
        pairs = zip(self.rows, self.replies, strict=True)
        run.write_rows(replies_name, ({"row_id": row["row_id"], "reply": reply} for row, reply in pairs))
        scores = {"max_new_tokens": self.max_new_tokens, **self.scores.to_dict()}
        run.write_json(scores_name, scores, [replies_name, *inputs])
        for part in find_parts(run.root / f"{replies_name}.part"):
            part.unlink()


def score_rows(rows: Sequence[Mapping[str, Any]], replies: Sequence[str], recipe: str | Recipe) -> Scores:
    """Score replies in the grammar of a recipe; raises as metrics.score."""
    return score(rows, replies, style=get_recipe(recipe).call_style)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    recipe: str | Recipe,
    *,
    max_new_tokens: int = 0,
    batch_size: int = 64,
    constrained: bool = False,
    part: Path | None = None,
) -> Evaluation:
    """Generate a reply for every row and score it; in processes that `launch` started, each generates its share.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        rows: Row dicts.
        recipe: "native", "tutorial" or a Recipe.
        max_new_tokens: Budget of one reply, in tokens; 0: from the longest gold.
        batch_size: Rows generated at once, at most.
        constrained: Whether declared tools, arguments and types are all that can be written; such scores are not those
            of free replies.
        part: File in which replies are kept as they come; those that are there for this model, these rows and this
            budget are not generated again. None: they are not kept.

    Returns:
        The Evaluation.

    Raises:
        ValueError: There are no rows, or two have the same id.
        ConstraintError: As generate_replies; or the recipe's calls are not those that can be constrained.
    """
    from fgtools.generate import generate_replies
    from fgtools.generate.constrained import require_native
    from fgtools.models.load import fingerprint_model, stop_ids
    from fgtools.prompts.encode import encode_prompt, longest_completion, token_budget

    if constrained:
        require_native(recipe)
    if not rows or len({row["row_id"] for row in rows}) < len(rows):
        raise InputError(f"rows to evaluate must be there and have an id each of their own, got {len(rows)} rows")
    budget = max_new_tokens or token_budget(longest_completion(rows, tokenizer, recipe))
    options = {"max_new_tokens": budget, "batch_size": batch_size, "constrained": constrained}
    rank, world = current_process()
    if part is None:
        replies = generate_replies(model, tokenizer, rows, **options)
    else:
        prompts = [encode_prompt(row, tokenizer) for row in rows]
        identity = identify_replies(fingerprint_model(model), rows, prompts, stop_ids(tokenizer), budget, constrained)
        log = ReplyLog(part, identity, rank, world)
        missing = [row for row in rows if row["row_id"] not in log.replies]
        if len(missing) < len(rows) and not rank:
            print(f"{len(rows) - len(missing)} of {len(rows)} replies are there already")
        mine = shard_rows(missing, rank, world)
        generate_replies(
            model, tokenizer, mine, **options, on_reply=lambda place, text: log.append(mine[place]["row_id"], text)
        )
        known = log.gather()
        replies = [known[row["row_id"]] for row in rows]
    scores = dataclasses.replace(score_rows(rows, replies, recipe), constrained=constrained)
    return Evaluation(tuple(rows), tuple(replies), scores, budget)


def name_files(name: str, constrained: bool = False) -> tuple[str, str]:
    """Give the names of the replies and scores files of an evaluation, such as "base", "tuned.unseen" or "".

    Constrained ones have names of their own, so that neither takes the place of the other.
    """
    middle = "".join(f".{part}" for part in (name, "constrained" if constrained else "") if part)
    return f"replies{middle}.jsonl", f"scores{middle}.json"


def list_inputs(rows: Path, model: str) -> list[Path]:
    """List what an evaluation was made from, as far as it lies in files: the rows, and the model's folder."""
    return [rows, *([Path(model)] if Path(model).is_dir() else [])]


def evaluate_run(
    run: RunFolder,
    settings: Settings,
    name: str,
    rows_name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str,
    *,
    max_new_tokens: int = 0,
    batch_size: int = 64,
    processes: int = 0,
    constrained: bool = False,
) -> Evaluation:
    """Evaluate a model on a rows file of a run, in one process a GPU where that pays, and write replies and scores.

    Replies are kept as they come: what a run that was cut short has generated is not generated again.

    Args:
        run: The run folder.
        settings: Of the run.
        name: What the files are called by, such as "base"; see name_files.
        rows_name: The rows file.
        model: The model, for one process.
        tokenizer: Its tokenizer.
        folder: The model's name or folder: what further processes load, and what the scores say they are of.
        max_new_tokens: As for `evaluate`.
        batch_size: As for `evaluate`.
        processes: How many; 0 for one a GPU where that pays.
        constrained: As for `evaluate`.

    Returns:
        The Evaluation.

    Raises:
        DataFileError: The rows file is not one.
        LaunchError: One of several processes failed.
    """
    rows, names = load_rows(run.find(rows_name)), name_files(name, constrained)
    count, reason = choose_processes(len(rows), processes)
    if count > 1:
        print(f"processes: {count}, {reason}", flush=True)
        options = {"model": folder, "rows": run.find(rows_name), "recipe": settings.recipe.name, "out": run.root}
        options |= {"max-new-tokens": max_new_tokens, "batch-size": batch_size, "name": name}
        words = [f"--{option}={value}" for option, value in options.items()]
        launch("evaluate", count, [*words, *(["--constrain"] if constrained else [])])
        scores = run.read_json(names[1])
        replies = match_replies(rows, run.read_rows(names[0]))
        return Evaluation(tuple(rows), tuple(replies), Scores.from_dict(scores), scores["max_new_tokens"])
    limits = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "constrained": constrained}
    part = run.root / f"{names[0]}.part"
    evaluation = evaluate(model, tokenizer, rows, settings.recipe, **limits, part=part)
    evaluation.write(run, *names, list_inputs(run.find(rows_name), folder))
    return evaluation


def match_replies(rows: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Put the records of a replies file in the order of the rows.

    Args:
        rows: Row dicts.
        records: {"row_id", "reply"} mappings in any order.

    Returns:
        One reply a row.

    Raises:
        DataFileError: A record lacks a field, a row has no reply or two, or a reply belongs to no row.
    """
    replies: dict[str, str] = {}
    for number, record in enumerate(records, start=1):
        for field in ("row_id", "reply"):
            if not isinstance(record.get(field), str):
                found = type(record[field]).__name__ if field in record else "no such field"
                raise DataFileError(f"reply {number} must hold the texts row_id and reply, but got {found} for {field}")
        if record["row_id"] in replies:
            raise DataFileError(f"a row must have one reply, but {record['row_id']!r} has two")
        replies[record["row_id"]] = record["reply"]
    missing = [row["row_id"] for row in rows if row["row_id"] not in replies]
    if missing:
        raise DataFileError(f"every row must have a reply, but {len(missing)} have none, the first {missing[0]!r}")
    unknown = set(replies) - {row["row_id"] for row in rows}
    if unknown:
        raise DataFileError(f"every reply must belong to a row, but {len(unknown)} do not, such as {min(unknown)!r}")
    return [replies[row["row_id"]] for row in rows]


def render_summary(run: RunFolder) -> str:
    """Say where a finished run stands: the before/after table, the figures, the executed notebooks."""
    from fgtools.report.layout import render_table
    from fgtools.report.tables import build_comparison_table

    lines = []
    if (run.root / "compare.json").exists():
        comparison = Comparison.from_dict(run.read_json("compare.json"))
        banner = load_settings(run).banner
        lines += [*([banner] if banner else []), render_table(build_comparison_table(comparison)), ""]
    figures = sorted((run.root / "figures").glob("*.png"))
    lines += [f"figure    {figure}" for figure in figures]
    lines += [f"notebook  {notebook}" for notebook in sorted((run.root / "notebooks").glob("*.ipynb"))]
    return "\n".join(lines)
