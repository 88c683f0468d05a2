"""Many rows to token ids: every declaration is rendered and tokenized once, texts are tokenized in batches.

Knows the same things as `encode`, whose `encode_row` is the reference: `encode_rows` returns the same ids and labels. A
declaration stands between two control tokens, and a tokenizer cuts a text at control tokens before anything else; so a
declaration has the same ids wherever it stands. A chat template may still treat rows differently, so a sample of the
rows is compared with `encode_row`; where they differ, every row goes through `encode_row`.

Rows over the budget are made smaller here, the least loss first.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from fgtools.calls.tokens import END_DECLARATION, START_DECLARATION
from fgtools.files import track
from fgtools.profiles import Recipe, get_recipe
from fgtools.prompts.encode import Encoded, TooLong, add_bos, encode_row, join_ids, render_completion, render_prompt
from fgtools.prompts.messages import split_request
from fgtools.rows import Row
from fgtools.rows.build import paused_collector

BATCH = 512
"""Rows whose texts are tokenized at once."""

COMPARED = 24
"""Rows that are compared with `encode_row`: the first ones, and as many spread over the rest."""

PRUNING_SEED = 40
"""Seed of the order in which declarations are dropped."""

_PLACEHOLDER = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}, "required": []}}
"""A tool whose declaration marks the place where a template puts a row's declarations."""


@dataclass(frozen=True)
class EncodedRows:
    """Rows encoded one by one.

    Attributes:
        encoded: Those that fit, in order.
        too_long: Those that do not.
        without_context: Ids of rows that fit once the oldest turns of their context were dropped.
        pruned: Ids of rows that fit once declarations of tools that are not called were dropped.
    """

    encoded: tuple[Encoded, ...]
    too_long: tuple[TooLong, ...]
    without_context: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()


class _UnlikeError(Exception):
    """The template treats rows in a way that encoding in batches does not follow."""


def encode_rows(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    recipe: str | Recipe = "native",
    max_length: int | None = None,
) -> EncodedRows:
    """Encode rows, with a progress bar when a person is watching.

    Args:
        rows: Row dicts.
        tokenizer: A tokenizer with a chat template.
        recipe: Says what is supervised and what happens to a row over the budget.
        max_length: The budget, in tokens; None: the recipe's.

    Returns:
        The EncodedRows; what `encode_row` returns for every row that is not made smaller to fit.
    """
    recipe = get_recipe(recipe)
    budget = max_length or recipe.max_length
    try:
        with paused_collector():
            results = _encode_in_batches(rows, tokenizer, recipe, budget)
    except _UnlikeError:
        print("encoding row by row: the chat template does not render declarations one after the other")
        results = [encode_row(row, tokenizer, recipe, budget) for row in track(rows, len(rows), "encoding")]
    encoded: list[Encoded] = []
    too_long: list[TooLong] = []
    changed: dict[str, list[str]] = {"context": [], "declarations": []}
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Encoded):
            encoded.append(result)
            continue
        for lost, smaller in _smaller_rows(row, recipe):
            fitted = encode_row(smaller, tokenizer, recipe, budget)
            if isinstance(fitted, Encoded):
                encoded.append(fitted)
                changed[lost].append(result.row_id)
                break
        else:
            too_long.append(result)
    return EncodedRows(tuple(encoded), tuple(too_long), tuple(changed["context"]), tuple(changed["declarations"]))


def _encode_in_batches(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, budget: int
) -> list[Encoded | TooLong]:
    encoder = _Encoder(tokenizer, recipe, budget)
    results: list[Encoded | TooLong] = []
    waiting = iter(track(rows, len(rows), "encoding"))
    stride = max(1, len(rows) // COMPARED)
    while batch := list(islice(waiting, BATCH)):
        found = encoder.encode(batch)
        for number, (row, result) in enumerate(zip(batch, found, strict=True), len(results)):
            if (number < COMPARED or number % stride == 0) and result != encode_row(row, tokenizer, recipe, budget):
                raise _UnlikeError
        results.extend(found)
    return results


class _Encoder:
    """Encodes batches of rows, and keeps the ids of what recurs: declarations, and the text before them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, budget: int) -> None:
        self.tokenizer, self.recipe, self.budget = tokenizer, recipe, budget
        self.tokenize = _batch_tokenizer(tokenizer)
        self.declarations: dict[str, Sequence[int]] = {}  # by the tool as JSON
        self.heads: dict[str, Sequence[int]] = {}

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Encoded | TooLong]:
        tools = [[json.dumps(tool) for tool in row["tools"]] for row in rows]
        self._learn_declarations(list({key for keys in tools for key in keys} - self.declarations.keys()))
        parts = [self._split_prompt(row) for row in rows]
        new = list({head for head, _ in parts} - self.heads.keys())
        self.heads |= zip(new, self.tokenize(new), strict=True)
        tails = self.tokenize([tail for _, tail in parts])
        completions = self.tokenize([render_completion(row, self.recipe, self.tokenizer) for row in rows])
        results = []
        for row, keys, (head, _), tail, completion in zip(rows, tools, parts, tails, completions, strict=True):
            prompt = list(self.heads[head])
            for key in keys:
                prompt += self.declarations[key]
            prompt += tail
            results.append(join_ids(row, add_bos(prompt, self.tokenizer), completion, self.recipe, self.budget))
        return results

    def _split_prompt(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Render a row's prompt without its declarations; return the text before and after their place."""
        if not row["tools"]:
            return "", self._render(row["messages"], None)
        text = self._render(row["messages"], [{"type": "function", "function": _PLACEHOLDER}])
        head, start, rest = text.partition(START_DECLARATION)
        _, end, tail = rest.partition(END_DECLARATION)
        if not start or not end or START_DECLARATION in tail:
            raise _UnlikeError
        return head, tail

    def _learn_declarations(self, new: Sequence[str]) -> None:
        """Render and tokenize the declarations of tools, given as JSON."""
        if not new:
            return
        text = self._render([{"role": "user", "content": "x"}], [json.loads(tool) for tool in new])
        start, end = text.find(START_DECLARATION), text.rfind(END_DECLARATION)
        if start < 0 or end < 0:
            raise _UnlikeError
        texts = text[start : end + len(END_DECLARATION)].split(END_DECLARATION)[:-1]
        if len(texts) != len(new) or not all(one.startswith(START_DECLARATION) for one in texts):
            raise _UnlikeError
        self.declarations |= zip(new, self.tokenize([one + END_DECLARATION for one in texts]), strict=True)

    def _render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> str:
        try:
            return render_prompt(messages, tools, self.tokenizer)
        except TemplateError as error:  # encode_row raises it for the row it belongs to
            raise _UnlikeError from error


def _batch_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[str]], list[Sequence[int]]]:
    """Return a function that tokenizes texts without special tokens, on all cores where the tokenizer can."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):
        return lambda texts: tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    backend.no_truncation()
    backend.no_padding()
    return lambda texts: [one.ids for one in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def _smaller_rows(row: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, Row]]:
    """Yield smaller versions of a row, the least loss first, and what each has lost."""
    for smaller in drop_context(row):
        yield "context", smaller
    if recipe.over_length == "prune":
        for smaller in drop_declarations(row, PRUNING_SEED):
            yield "declarations", smaller


def drop_context(row: Mapping[str, Any]) -> Iterator[Row]:
    """Yield a row with fewer and fewer turns before its request, the oldest dropped first.

    Args:
        row: A row dict; not changed.

    Yields:
        Rows that keep the developer turn, begin with a user's turn and end with the same request and what followed it.
    """
    first, *turns = row["messages"]
    for start in range(1, len(turns)):
        if turns[start]["role"] == "user":
            yield {**row, "messages": [first, *turns[start:]]}


def drop_declarations(row: Mapping[str, Any], seed: int) -> Iterator[Row]:
    """Yield a row without context and with fewer and fewer tools that are not called, one less each time.

    Args:
        row: A row dict; not changed.
        seed: Seed of the order in which tools are dropped; that order depends on it and the row's id alone.

    Yields:
        Rows that keep every tool that the gold or a call since the request calls, and one tool at least; the order of
        the tools is kept.
    """
    before, request = split_request(row["messages"])
    called = {call["name"] for call in row["gold"]}
    called |= {call["function"]["name"] for message in request for call in message.get("tool_calls") or ()}
    others = [index for index, tool in enumerate(row["tools"]) if tool["function"]["name"] not in called]
    random.Random(f"{seed} {row.get('row_id', '')}").shuffle(others)
    gone: set[int] = set()
    messages = [*before[:1], *request]
    for index in others:
        gone.add(index)
        left = [tool for position, tool in enumerate(row["tools"]) if position not in gone]
        if left:
            yield {**row, "messages": messages, "tools": left}
