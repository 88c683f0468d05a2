"""The export of a tuned model: files for llama.cpp, each of which answers the evaluation rows and is scored again.

Knows replies, scores and their comparison; how a file is written and run is `serve`'s. Every figure is made of counts
over the same rows: a file that lost AST matches by the comparison's own test is not called good.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtools.calls.tokens import STOP_TOKENS
from fgtools.files import read_json, read_jsonl, write_text
from fgtools.metrics import Comparison, Scores, Share, compare, score
from fgtools.metrics.comparison import WORSE, WORSE_HERE
from fgtools.metrics.intervals import format_p
from fgtools.profiles import get_recipe
from fgtools.rows import load_rows
from fgtools.run.evaluation import evaluate, match_replies
from fgtools.run.folder import RunFolder
from fgtools.serve.gguf import GgufFile, write_gguf
from fgtools.serve.llama import LlamaServer, llama_version
from fgtools.serve.ollama import render_modelfile
from fgtools.serve.vocabulary import ExportError

if TYPE_CHECKING:
    import pandas

LOST, KEPT, NOT_SHOWN = "lost", "no loss shown", "not shown"
"""The readings of a Variant."""

_COUNTS = {"same prompt": "same_prompt", "same reply": "same_reply", "ended by the model": "ended"}
"""Columns of the table, and which counts of a Variant stand in them."""

_STOP = re.compile(rf"(?:{'|'.join(map(re.escape, STOP_TOKENS))})\Z")


@dataclass(frozen=True)
class Reference:
    """What the files are compared with: the same model's replies in transformers.

    Attributes:
        rows: The evaluation rows.
        prompts: Their prompts as text, <bos> included.
        ids: Their prompts as token ids.
        replies: One reply a row.
        scores: Their scores.
        max_new_tokens: Budget of one reply, in tokens.
        seconds: How long the replies took; None where they were read from a file.
    """

    rows: Sequence[Mapping[str, Any]]
    prompts: Sequence[str]
    ids: Sequence[Sequence[int]]
    replies: Sequence[str]
    scores: Scores
    max_new_tokens: int
    seconds: float | None

    @property
    def n_ctx(self) -> int:
        """Tokens that the longest prompt and a whole reply take, rounded up."""
        return -(-(max(map(len, self.ids)) + self.max_new_tokens + 1) // 256) * 256


@dataclass(frozen=True)
class Variant:
    """One file's replies beside those of transformers.

    Attributes:
        file: The file.
        replies: One reply a row.
        same_prompt: Rows whose prompt llama.cpp splits into the same ids; replies are to our ids in any case.
        same_reply: Rows with the same reply, the token that ends it left aside.
        ended: Rows whose reply the model ended, and not the budget.
        comparison: Scores before (transformers) and after (the file).
        seconds: How long the replies took, loading left aside.
    """

    file: GgufFile
    replies: Sequence[str]
    same_prompt: Share
    same_reply: Share
    ended: Share
    comparison: Comparison
    seconds: float

    @property
    def reading(self) -> str:
        """LOST where the comparison shows a loss of AST matches; NOT_SHOWN where there were none to lose."""
        change = self.comparison.change("ast_match")
        if not change.before.k:
            return NOT_SHOWN
        return LOST if change.reading in (WORSE, WORSE_HERE) else KEPT

    @property
    def verdict(self) -> str:
        """The reading as a sentence that says what it cannot rule out."""
        change = self.comparison.change("ast_match")
        counts = f"{change.fixed} gained, {change.broken} lost, p {format_p(change.p)}"
        if self.reading == NOT_SHOWN:
            return f"not shown: transformers itself matches no row of {change.before.n}"
        if self.reading == LOST:
            return f"LOST AST matches: {counts}"
        return f"no loss shown: {counts}; a loss of {max(0.0, -100 * change.low):.1f} points is not ruled out"

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        change, file = self.comparison.change("ast_match"), self.file
        counts = {name: getattr(self, name).to_dict() for name in ("same_prompt", "same_reply", "ended")}
        return {
            **describe_file(file),
            "reading": self.reading,
            "verdict": self.verdict,
            **counts,
            "ast_match": change.to_dict(),
            "changes": [one.to_dict() for one in self.comparison.changes],
            "seconds": self.seconds,
        }


def describe_file(file: GgufFile) -> dict[str, Any]:
    """Return what is known of a file before it has answered, as JSON values."""
    named = {"file": file.path.name, "type": file.type, "bytes": file.size, "tensors": dict(file.tensors)}
    return {**named, "seconds_to_write": file.seconds, "tokens_left_out": list(file.tokens_left_out)}


def write_files(model: Path, out: RunFolder, types: Sequence[str], base: str = "") -> list[GgufFile]:
    """Write a GGUF file for each number format, as `write_gguf` does, named such as model-f16.gguf."""
    return [write_gguf(model, out.root / f"model-{one}.gguf", one, base) for one in dict.fromkeys(types)]


def write_modelfiles(
    out: RunFolder, files: Sequence[GgufFile], max_new_tokens: int, n_ctx: int, is_gemma: bool
) -> list[Path]:
    """Write a Modelfile for each file, named such as Modelfile.f16; a Gemma model's says under which terms it is."""
    from fgtools.models.licence import LICENCE_TEXT

    licence = LICENCE_TEXT if is_gemma else ""
    texts = {file.type: render_modelfile(file.path.name, max_new_tokens, n_ctx, licence) for file in files}
    return [write_text(out.root / f"Modelfile.{name}", text) for name, text in texts.items()]


def write_terms(model: Path, folder: Path, out: RunFolder, files: Sequence[GgufFile]) -> list[Path]:
    """Write what Gemma's terms ask for beside the files of a Gemma model; nothing for another model.

    Args:
        model: The model that was exported, a folder or a GGUF file.
        folder: The model as a folder, with config.json.
        out: Where the files lie. If that is the model's own folder, its NOTICE stays as it is.
        files: The files.

    Returns:
        The files written.
    """
    from fgtools.models.licence import NOTICE_FILE, write_licence_files

    home = model if model.is_dir() else model.parent
    if (out.root / NOTICE_FILE).is_file() and out.root.resolve() == home.resolve():
        return []
    return write_licence_files(
        out.root, str(model), read_json(folder / "config.json"), [file.path.name for file in files]
    )


def build_reference(
    model: Path,
    rows: Sequence[Mapping[str, Any]],
    recipe: str,
    out: RunFolder,
    *,
    records: Sequence[Mapping[str, Any]] = (),
    max_new_tokens: int = 0,
) -> Reference:
    """Return transformers' replies to the rows and their scores.

    Args:
        model: The model's folder.
        rows: Row dicts.
        recipe: How the model was trained.
        out: Where replies.transformers.jsonl is written, as `evaluate` writes it.
        records: {"row_id", "reply"} mappings of an earlier evaluation with the same budget; none: replies are
            generated here.
        max_new_tokens: Budget of one reply, in tokens; 0: from the longest gold.

    Raises:
        DataFileError: The records are not those of the rows.
    """
    from fgtools.models import load_model, load_tokenizer
    from fgtools.prompts import render_prompt
    from fgtools.prompts.encode import encode_prompt, longest_completion, token_budget

    tokenizer = load_tokenizer(model)
    budget = max_new_tokens or token_budget(longest_completion(rows, tokenizer, recipe))
    seconds: float | None = None
    if records:
        replies = [reply.text for reply in match_replies(rows, records)]
        scores = score(rows, replies, style=get_recipe(recipe).call_style)
    else:
        name = "replies.transformers.jsonl"
        part = out.root / f"{name}.part"
        resumed = part.is_file()
        loaded = load_model(model, device="cpu")  # where llama.cpp runs as well
        begun = time.perf_counter()
        evaluated = evaluate(loaded, tokenizer, rows, recipe, max_new_tokens=budget, part=part)
        seconds = None if resumed else time.perf_counter() - begun
        evaluated.write(out, name, "scores.transformers.json")
        replies, scores = evaluated.replies, evaluated.scores
    prompts = [render_prompt(row["messages"], row["tools"], tokenizer) for row in rows]
    ids = [encode_prompt(row, tokenizer) for row in rows]
    return Reference(tuple(rows), prompts, ids, replies, scores, budget, seconds)


def score_file(file: GgufFile, reference: Reference, recipe: str, out: RunFolder) -> Variant:
    """Return a file's replies through llama.cpp's server, scored and compared; they are written beside it.

    Prompts go in as token ids, so that a difference in replies is one of weights and arithmetic alone.

    Raises:
        InputError: xllamacpp is not installed.
        LlamaError: The server does not start or dies.
    """
    from fgtools.files import track

    with LlamaServer(file.path, reference.n_ctx) as server:
        pairs = zip(reference.prompts, reference.ids, strict=True)
        same_prompt = sum(server.tokenize(text) == list(ids) for text, ids in pairs)
        begun, n = time.perf_counter(), len(reference.rows)
        completions = [
            server.complete(ids, reference.max_new_tokens) for ids in track(reference.ids, n, f"{file.type} replies")
        ]
        seconds = time.perf_counter() - begun
    replies = [completion.text for completion in completions]
    named = zip(reference.rows, replies, strict=True)
    out.write_rows(f"replies.{file.type}.jsonl", ({"row_id": row["row_id"], "reply": text} for row, text in named))
    before = (_STOP.sub("", reply) for reply in reference.replies)
    same_reply = sum(old == new for old, new in zip(before, replies, strict=True))
    scores = score(reference.rows, replies, style=get_recipe(recipe).call_style)
    ended = sum(completion.ended for completion in completions)
    counts = (Share(count, n) for count in (same_prompt, same_reply, ended))
    return Variant(file, replies, *counts, compare(reference.scores, scores), seconds)


def describe_export(
    files: Sequence[GgufFile], reference: Reference | None, variants: Sequence[Variant]
) -> dict[str, Any]:
    """Return the JSON object of export.json; without a reference the files are not scored, and it says so."""
    if reference is None:
        unscored = {"reading": "not scored", "verdict": "not scored: no evaluation rows were given"}
        return {"rows": 0, "variants": [describe_file(file) | unscored for file in files]}
    transformers = {"ast_match": reference.scores.ast_match.to_dict(), "seconds": reference.seconds}
    head = {"llama_cpp": llama_version(), "rows": len(reference.rows), "max_new_tokens": reference.max_new_tokens}
    return {**head, "transformers": transformers, "variants": [variant.to_dict() for variant in variants]}


def build_export_table(export: Mapping[str, Any]) -> pandas.DataFrame:
    """Return a line for transformers and one for each file, from the JSON object of export.json."""
    import pandas

    n, before = export["rows"], export["transformers"]
    lines = [{"file": "transformers", "AST match": _render_share(before["ast_match"])}]
    lines[0]["rows/s"] = f"{n / before['seconds']:.2f}" if before["seconds"] else ""
    for variant in export["variants"]:
        change = variant["ast_match"]
        counts = {name: f"{variant[key]['k']}/{n}" for name, key in _COUNTS.items()}
        lines.append(
            {
                "file": variant["type"],
                "MB": f"{variant['bytes'] / 1e6:.1f}",
                "written in": f"{variant['seconds_to_write']:.1f} s",
                **counts,
                "AST match": _render_share(change["after"]),
                "gained, lost": f"{change['fixed']}, {change['broken']}",
                "p": change["p"],
                "rows/s": f"{n / variant['seconds']:.2f}",
            }
        )
    columns = [*lines[-1]]
    return pandas.DataFrame([dict.fromkeys(columns, "") | line for line in lines], columns=columns)


def _render_share(saved: Mapping[str, Any]) -> str:
    return str(Share(saved["k"], saved["n"]))


def export_model(
    name: str,
    out: RunFolder,
    types: Sequence[str],
    *,
    to: str = "gguf",
    base: str = "",
    rows_path: str = "",
    replies_path: str = "",
    recipe: str = "native",
    max_new_tokens: int = 0,
) -> dict[str, Any]:
    """Write a model's files into a folder, score them where there are rows, and write export.json.

    Args:
        name: The model, as for models.load.find_model; a GGUF file is written anew in other number formats.
        out: The folder.
        types: Number formats, of profiles.GGUF_TYPES.
        to: "gguf", or "ollama" for a Modelfile beside each file as well.
        base: The base model's GGUF file, or "".
        rows_path: A rows file, or "": nothing is scored.
        replies_path: transformers' replies to these rows, or "": they are generated.
        recipe: How the model was trained.
        max_new_tokens: Budget of one reply, in tokens; 0: that of the scores file beside the replies, else from the
            longest gold.

    Returns:
        The JSON object of export.json, which is written last.

    Raises:
        FgtoolsError: As write_gguf, build_reference and score_file.
    """
    from fgtools.models.base import GEMMA, find_licence
    from fgtools.models.load import find_model

    adapters = (Path(name) / "adapter_config.json").is_file()  # no whole model, which write_gguf says better
    model = Path(name) if adapters else find_model(name)
    rows = load_rows(Path(rows_path)) if rows_path else []
    records = read_jsonl(Path(replies_path)) if replies_path else []
    if rows_path:
        llama_version()  # a missing package is told before anything is written
    reference, variants = None, []
    with _open_folder(model, out, recipe) as folder:
        files = write_files(folder, out, types, base)
        write_terms(model, folder, out, files)
        is_gemma = find_licence(read_json(folder / "config.json")) == GEMMA
        if rows_path:
            budget = max_new_tokens or _read_budget(replies_path)
            reference = build_reference(folder, rows, recipe, out, records=records, max_new_tokens=budget)
            variants = [score_file(file, reference, recipe, out) for file in files]
    if to == "ollama":
        budget = reference.max_new_tokens if reference else max_new_tokens or 256
        write_modelfiles(out, files, budget, max(4096, reference.n_ctx if reference else 0), is_gemma)
    inputs = [model, *(Path(path) for path in (base, rows_path, replies_path) if path)]
    described = describe_export(files, reference, variants)
    out.write_json("export.json", described, inputs)
    return described


@contextmanager
def _open_folder(model: Path, out: RunFolder, recipe: str) -> Iterator[Path]:
    """Give the model's folder; of a GGUF file one with the same weights in fp32, which is deleted at the end."""
    if model.is_dir():
        yield model
        return
    from fgtools.models import load_model, load_tokenizer, save_model

    with tempfile.TemporaryDirectory(dir=out.root, prefix=".model.") as scratch:
        yield save_model(load_model(model, device="cpu"), load_tokenizer(model), Path(scratch, "model"), recipe)


def _read_budget(replies_path: str) -> int:
    """Return the budget of replies, which `evaluate` writes into the scores file beside them; 0 where there is none."""
    if not replies_path:
        return 0
    replies = Path(replies_path)
    scores = replies.with_name(replies.name.replace("replies", "scores", 1)).with_suffix(".json")
    return int(read_json(scores).get("max_new_tokens", 0)) if scores.is_file() else 0


def require_kept(export: Mapping[str, Any]) -> None:
    """Raise ExportError if a file of an export lost AST matches."""
    lost = [f"{one['file']} {one['verdict']}" for one in export["variants"] if one["reading"] == LOST]
    if lost:
        raise ExportError(
            f"every file must answer as well as the model, but {'; '.join(lost)}: use a more exact --types"
        )
