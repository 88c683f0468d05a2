"""The evaluation of a model, as notebooks and commands share it: replies that are kept as they come, then scores.

Knows the run folder, replies and scores; not how a reply is generated or what a score means.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtools.files import DataFileError, InputError
from fgtools.metrics import Confidence, GeneratedReply, Scores, score
from fgtools.profiles import Recipe, get_recipe
from fgtools.rows import load_rows
from fgtools.run.folder import RunFolder
from fgtools.run.lock import hold_folder
from fgtools.run.processes import choose_processes, current_process, launch
from fgtools.run.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Evaluation:
    """A model's replies to rows, and their scores.

    Attributes:
        rows: The rows.
        generated: One reply a row with its confidence, in the order of the rows.
        scores: Their scores.
        max_new_tokens: Budget of one reply, in tokens.
    """

    rows: tuple[Mapping[str, Any], ...]
    generated: tuple[GeneratedReply, ...]
    scores: Scores
    max_new_tokens: int

    @property
    def replies(self) -> tuple[str, ...]:
        """The texts of the replies."""
        return tuple(reply.text for reply in self.generated)

    def write(self, run: RunFolder, replies_name: str, scores_name: str, inputs: Sequence[str | Path] = ()) -> None:
        """Write the replies with their confidence as JSON lines, and the scores with the budget and the inputs' hashes.

        The files of the same name with ".part", in which `evaluate` kept unfinished replies, are deleted.
        """
        from fgtools.generate.reply_log import find_parts, to_record

        pairs = zip(self.rows, self.generated, strict=True)
        run.write_rows(replies_name, (to_record(row["row_id"], reply) for row, reply in pairs))
        scores = {"max_new_tokens": self.max_new_tokens, **self.scores.to_dict()}
        run.write_json(scores_name, scores, [replies_name, *inputs])
        for part in find_parts(run.root / f"{replies_name}.part"):
            part.unlink()


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    recipe: str | Recipe,
    *,
    max_new_tokens: int = 0,
    batch_size: int = 0,
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
        batch_size: Rows generated at once, at most; 0: on a GPU as many as its memory holds, on a CPU 64.
        constrained: Whether decoding allows declared tools, arguments and types alone; such scores must not be
            compared with those of unconstrained replies.
        part: File to which each reply is added; replies that it holds for this model, these rows and this budget are
            not generated again. None: replies are kept in memory only.

    Returns:
        The Evaluation.

    Raises:
        InputError: There are no rows, or two have the same id.
        ConstraintError: As generate_replies; or the recipe's calls are not those that can be constrained.
    """
    from fgtools.generate.constrained import require_native
    from fgtools.prompts.encode import longest_completion, token_budget

    if constrained:
        require_native(recipe)
    if not rows or len({row["row_id"] for row in rows}) < len(rows):
        raise InputError(f"rows to evaluate must be there and have an id each of their own, got {len(rows)} rows")
    budget = max_new_tokens or token_budget(longest_completion(rows, tokenizer, recipe))
    options = {"max_new_tokens": budget, "batch_size": batch_size, "constrained": constrained}
    generated = _generate_and_keep(model, tokenizer, rows, part, options)
    scores = score(rows, [reply.text for reply in generated], style=get_recipe(recipe).call_style)
    scores = dataclasses.replace(scores, constrained=constrained)
    return Evaluation(tuple(rows), tuple(generated), scores, budget)


def _generate_and_keep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    part: Path | None,
    options: Mapping[str, Any],
) -> list[GeneratedReply]:
    """Return one reply a row: those that the file `part` holds, and the missing ones, which are added to it.

    They are generated in the format of models.half.generation_precision. A reply that fp16 gave no probabilities for
    is generated again in fp32.
    """
    from fgtools.generate import generate_with_confidence
    from fgtools.generate.reply_log import ReplyLog, identify_replies, shard_rows
    from fgtools.models.half import CHECKED_PROMPTS, generation_precision
    from fgtools.models.load import fingerprint_model, stop_ids
    from fgtools.prompts.encode import encode_prompt

    rank, world = current_process()
    prompts = [encode_prompt(row, tokenizer) for row in (rows if part else rows[:CHECKED_PROMPTS])]
    weights = fingerprint_model(model) if part else ""
    with generation_precision(model, prompts) as precision:
        if precision.reason and not rank:
            print(f"generation {precision.name}: {precision.reason}", flush=True)
        if part is None:
            replies: dict[str, GeneratedReply] = {}
            log, keep, mine = None, replies.__setitem__, rows
        else:
            limits = stop_ids(tokenizer), options["max_new_tokens"], options["constrained"]
            identity = identify_replies(f"{weights} {precision.name}", rows, prompts, *limits)
            log = ReplyLog(part, identity, rank, world)
            replies, keep = log.replies, log.append
            missing = [row for row in rows if row["row_id"] not in replies]
            if len(missing) < len(rows) and not rank:
                print(f"{len(rows) - len(missing)} of {len(rows)} replies are there already")
            mine = shard_rows(missing, rank, world)

        def keep_numbers(place: int, reply: GeneratedReply) -> None:
            if reply.confidence.is_known or precision.name != "fp16":
                keep(mine[place]["row_id"], reply)

        generate_with_confidence(model, tokenizer, mine, **options, on_reply=keep_numbers)
    again = [row for row in mine if row["row_id"] not in replies]
    if again:
        print(f"{len(again)} of {len(mine)} replies were not numbers in fp16: generated again in fp32", flush=True)
        for row, reply in zip(again, generate_with_confidence(model, tokenizer, again, **options), strict=True):
            keep(row["row_id"], reply)
    known = log.gather() if log else replies
    return [known[row["row_id"]] for row in rows]


def name_files(name: str, constrained: bool = False) -> tuple[str, str]:
    """Return the names of the replies and scores files of an evaluation, such as "base", "tuned.unseen" or "".

    Constrained ones have names of their own, so that neither takes the place of the other.
    """
    middle = "".join(f".{part}" for part in (name, "constrained" if constrained else "") if part)
    return f"replies{middle}.jsonl", f"scores{middle}.json"


def list_inputs(rows: Path, model: str) -> list[Path]:
    """Return the files an evaluation was made from: the rows, and the model where it is a folder or a GGUF file."""
    return [rows, *([Path(model)] if Path(model).exists() else [])]


def generate_run(
    run: RunFolder,
    settings: Settings,
    name: str,
    rows_name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str,
    *,
    max_new_tokens: int,
    batch_size: int = 0,
    processes: int = 0,
) -> list[GeneratedReply]:
    """Generate replies to a rows file of a run, as `generate_with_confidence`, in one process per GPU where that pays.

    Args:
        run: The run folder; it keeps the replies, so that a call that was interrupted goes on where it was.
        settings: Of the run.
        name: Name of the evaluation, such as "base"; see name_files.
        rows_name: The rows file.
        model: The model, for one process.
        tokenizer: Its tokenizer.
        folder: The model's name or folder, which further processes load.
        max_new_tokens: Budget of one reply, in tokens.
        batch_size: Rows generated at once, at most; 0: on a GPU as many as its memory holds, on a CPU 64.
        processes: How many; 0 for one per GPU where that pays.

    Returns:
        One reply a row, in the order of the file.

    Raises:
        DataFileError: The rows file is malformed.
        LaunchError: One of several processes failed.
        FolderInUseError: Another process writes these replies.
    """
    rows, (replies_name, _) = load_rows(run.find(rows_name)), name_files(name)
    count, reason = choose_processes(len(rows), processes)
    if count == 1:
        options = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "constrained": False}
        return _generate_and_keep(model, tokenizer, rows, run.root / f"{replies_name}.part", options)
    print(f"processes: {count}, {reason}", flush=True)
    words = {"model": folder, "rows": run.find(rows_name), "recipe": settings.recipe.name, "out": run.root}
    words |= {"max-new-tokens": max_new_tokens, "batch-size": batch_size, "name": name}
    with hold_folder(run.root, "evaluate", replies_name):
        launch("evaluate", count, [f"--{word}={value}" for word, value in words.items() if value != 0])
    return match_replies(rows, run.read_rows(replies_name))


def match_replies(rows: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]) -> list[GeneratedReply]:
    """Return the replies of a replies file in the order of the rows.

    Args:
        rows: Row dicts.
        records: {"row_id", "reply"} mappings in any order, with "confidence" where it is known.

    Returns:
        One reply a row.

    Raises:
        DataFileError: A record lacks a field or has a malformed one, a row has no reply or two, or a reply belongs to
            no row.
    """
    replies: dict[str, GeneratedReply] = {}
    for number, record in enumerate(records, start=1):
        for field in ("row_id", "reply"):
            if not isinstance(record.get(field), str):
                found = type(record[field]).__name__ if field in record else "no such field"
                raise DataFileError(f"reply {number} must hold the texts row_id and reply, but got {found} for {field}")
        if record["row_id"] in replies:
            raise DataFileError(f"a row must have one reply, but {record['row_id']!r} has two")
        try:
            confidence = Confidence.from_dict(record.get("confidence"))
        except InputError as error:
            raise DataFileError(f"reply {number}: {error}") from error
        replies[record["row_id"]] = GeneratedReply(record["reply"], confidence)
    missing = [row["row_id"] for row in rows if row["row_id"] not in replies]
    if missing:
        raise DataFileError(f"every row must have a reply, but {len(missing)} have none, the first {missing[0]!r}")
    unknown = set(replies) - {row["row_id"] for row in rows}
    if unknown:
        raise DataFileError(f"every reply must belong to a row, but {len(unknown)} do not, such as {min(unknown)!r}")
    return [replies[row["row_id"]] for row in rows]
