"""Rows to token ids by the thousand: every declaration is rendered and tokenized once, every text once and in batches.

Knows the same things as `prompts`, whose `encode_row` is the reference: `encode_rows` gives the same ids and labels.
That is exact because control tokens are cut out of a text before it is tokenized, so that a declaration between its two
marks has the same ids wherever it stands; and it is checked, since a template may do as it likes: where a sample of the
rows comes out otherwise, all of them go through `encode_row`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from fgtools.calls import END_DECLARATION, START_DECLARATION
from fgtools.files import track
from fgtools.profiles import Recipe, get_recipe
from fgtools.prompts.declarations import NotPlainError, render_declaration
from fgtools.prompts.encode import (
    IGNORED,
    Encoded,
    TooLong,
    encode_prompt,
    encode_row,
    neutralize_control_tokens,
    render_completion,
    render_prompt,
)
from fgtools.prompts.fitting import drop_context, drop_declarations
from fgtools.rows.build import paused_collector

BATCH = 512
"""Rows whose texts are tokenized at once."""

_CHECKED = 24
"""Rows that are also encoded one by one: the first ones, and as many spread over the rest."""

_DUMMY = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "d",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": []},
    },
}


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


class _Unlike(Exception):
    """The template does something that the fast way does not follow."""


def encode_rows(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    recipe: str | Recipe = "native",
    max_length: int | None = None,
    seed: int = 40,
) -> EncodedRows:
    """Encode rows, with a progress bar when a person is watching.

    Args:
        rows: Row dicts.
        tokenizer: A tokenizer with a chat template.
        recipe: Says what is supervised and what happens to a row over the budget.
        max_length: The budget, in tokens; None: the recipe's.
        seed: Seed of the draw among declarations, where the recipe drops some.

    Returns:
        The EncodedRows; for every row that is not changed to fit, what `encode_row` gives.
    """
    recipe = get_recipe(recipe)
    budget = max_length or recipe.max_length
    try:
        with paused_collector():
            results = _encode_fast(rows, tokenizer, recipe, budget)
    except _Unlike:
        print("encoding row by row: the chat template does not render declarations one after the other")
        results = [encode_row(row, tokenizer, recipe, budget) for row in track(rows, len(rows), "encoding")]
    if recipe.over_length != "cut":
        return _fit(rows, results, tokenizer, recipe, budget, seed)
    return EncodedRows(tuple(one for one in results if isinstance(one, Encoded)), ())


def _fit(
    rows: Sequence[Mapping[str, Any]],
    results: Sequence[Encoded | TooLong],
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    budget: int,
    seed: int,
) -> EncodedRows:
    """Try smaller versions of the rows that are too long."""
    encoded: list[Encoded] = []
    too_long: list[TooLong] = []
    changed: dict[str, list[str]] = {"context": [], "declarations": []}
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Encoded):
            encoded.append(result)
            continue
        for lost, smaller in _smaller_rows(row, recipe, seed):
            fitted = encode_row(smaller, tokenizer, recipe, budget)
            if isinstance(fitted, Encoded):
                encoded.append(fitted)
                changed[lost].append(result.row_id)
                break
        else:
            too_long.append(result)
    return EncodedRows(tuple(encoded), tuple(too_long), tuple(changed["context"]), tuple(changed["declarations"]))


def _smaller_rows(row: Mapping[str, Any], recipe: Recipe, seed: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give smaller versions of a row, the least loss first, and what each has lost."""
    for smaller in drop_context(row):
        yield "context", smaller
    if recipe.over_length == "prune":
        for smaller in drop_declarations(row, seed):
            yield "declarations", smaller


def _encode_fast(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, budget: int
) -> list[Encoded | TooLong]:
    encoder = _Encoder(tokenizer, recipe, budget)
    results: list[Encoded | TooLong] = []
    waiting = iter(track(rows, len(rows), "encoding"))
    stride = max(1, len(rows) // _CHECKED)
    while batch := list(islice(waiting, BATCH)):
        found = encoder.encode(batch)
        for offset, (row, result) in enumerate(zip(batch, found, strict=True), len(results)):
            if (offset < _CHECKED or offset % stride == 0) and result != encode_row(row, tokenizer, recipe, budget):
                raise _Unlike
        results.extend(found)
    return results


class _Encoder:
    """Holds what was rendered and tokenized before."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, budget: int) -> None:
        self.tokenizer, self.recipe, self.budget = tokenizer, recipe, budget
        self.tokenize = _batch_tokenizer(tokenizer)
        self.plain = True  # until the template is seen to write declarations in another way
        self.skeletons: dict[tuple[Any, ...], tuple[tuple[str, ...], bool]] = {}
        self.declarations: dict[str, array[int]] = {}
        self.heads: dict[str, array[int]] = {}
        self.bos = encode_prompt({"messages": [{"role": "user", "content": "x"}], "tools": []}, tokenizer)[:1]

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Encoded | TooLong]:
        """Encode a batch."""
        tools = [[json.dumps(tool) for tool in row["tools"]] for row in rows]
        self._learn_declarations(
            [text for texts in tools for text in texts], [tool for row in rows for tool in row["tools"]]
        )
        parts = [self._render(row) for row in rows]
        self._learn_heads(head for head, _ in parts)
        tails = self.tokenize([tail for _, tail in parts])
        completions = self.tokenize([render_completion(row, self.recipe) for row in rows])
        return [
            self._join(row, names, head, tail, completion)
            for row, names, (head, _), tail, completion in zip(rows, tools, parts, tails, completions, strict=True)
        ]

    def _join(
        self, row: Mapping[str, Any], tools: Sequence[str], head: str, tail: Sequence[int], completion: Sequence[int]
    ) -> Encoded | TooLong:
        prompt = array("i", self.heads[head])
        for tool in tools:
            prompt.extend(self.declarations[tool])
        prompt.extend(tail)
        ids = prompt.tolist()
        if ids[:1] != self.bos:
            raise _Unlike
        n_prompt = len(ids)
        ids.extend(completion)
        labels = list(ids) if self.recipe.loss == "all" else [*[IGNORED] * n_prompt, *completion]
        if len(ids) <= self.budget:
            return Encoded(ids, labels, n_prompt)
        if self.recipe.over_length == "cut":
            return Encoded(ids[: self.budget], labels[: self.budget], min(n_prompt, self.budget))
        return TooLong(str(row.get("row_id", "")), len(ids), self.budget)

    def _render(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Give the prompt's text before and after the declarations."""
        messages = row["messages"]
        roles = tuple(message["role"] for message in messages)
        if any(set(message) != {"role", "content"} for message in messages):
            raise _Unlike
        key = (roles, bool(row["tools"]))
        if key not in self.skeletons:
            self.skeletons[key] = self._skeleton(roles, bool(row["tools"]))
        pieces, strips = self.skeletons[key]
        texts: list[str] = []
        head = ""
        for piece, message in zip(pieces, [*messages, None], strict=True):
            before, mark, after = piece.partition(_PLACE)
            if mark:
                head, texts = "".join([*texts, before]), []
            texts.append(after if mark else piece)
            if message is not None:
                content = neutralize_control_tokens(message["content"])
                texts.append(content.strip() if strips else content)
        return head, "".join(texts)

    def _skeleton(self, roles: Sequence[str], with_tools: bool) -> tuple[tuple[str, ...], bool]:
        """Give the prompt's text between the contents of its messages, and whether contents are stripped."""
        marks = [f"\u241e{index}\u241e" for index in range(len(roles))]
        plain, padded = (
            self._rendered(
                [{"role": role, "content": f"{pad}{mark}{pad}"} for role, mark in zip(roles, marks, strict=True)],
                [_DUMMY] if with_tools else None,
            )
            for pad in ("", "  ")
        )
        if with_tools:
            plain, padded = (_without_declaration(text) for text in (plain, padded))
        pieces, rest = [], plain
        for mark in marks:
            piece, found, rest = rest.partition(mark)
            if not found or mark in rest:
                raise _Unlike
            pieces.append(piece)
        strips = padded == plain
        if not strips and padded.replace("  \u241e", "\u241e").replace("\u241e  ", "\u241e") != plain:
            raise _Unlike
        return (*pieces, rest), strips

    def _rendered(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> str:
        try:
            return render_prompt(messages, tools, self.tokenizer)
        except TemplateError as error:
            raise _Unlike from error

    def _learn_declarations(self, texts: Sequence[str], tools: Sequence[Mapping[str, Any]]) -> None:
        new = {text: tool for text, tool in zip(texts, tools, strict=True) if text not in self.declarations}
        if not new:
            return
        safe = [neutralize_control_tokens(tool) if "<" in text else tool for text, tool in new.items()]
        first = not self.declarations
        blocks = [_render_plainly(tool) if self.plain else None for tool in safe]
        sampled = [index for index in range(len(safe)) if (first and index < _CHECKED) or index % 64 == 0]
        asked = [index for index in range(len(safe)) if blocks[index] is None or index in set(sampled)]
        for index, block in zip(asked, self._declared([safe[index] for index in asked]), strict=True):
            if blocks[index] not in (None, block):
                if not first:
                    raise _Unlike
                self.plain = False
            blocks[index] = block
        if first and not self.plain:
            blocks = self._declared(safe)
        for text, ids in zip(new, self.tokenize(blocks), strict=True):
            self.declarations[text] = array("i", ids)

    def _declared(self, tools: Sequence[Mapping[str, Any]]) -> list[str]:
        """Render declarations with the tokenizer's own template."""
        if not tools:
            return []
        text = self._rendered([{"role": "user", "content": "x"}], tools)
        start, end = text.find(START_DECLARATION), text.rfind(END_DECLARATION)
        if start < 0 or end < 0:
            raise _Unlike
        blocks = text[start : end + len(END_DECLARATION)].split(END_DECLARATION)[:-1]
        if len(blocks) != len(tools) or not all(block.startswith(START_DECLARATION) for block in blocks):
            raise _Unlike
        return [block + END_DECLARATION for block in blocks]

    def _learn_heads(self, heads: Any) -> None:
        new = list(dict.fromkeys(head for head in heads if head not in self.heads))
        for head, ids in zip(new, self.tokenize(new), strict=True):
            self.heads[head] = array("i", ids)


def _render_plainly(tool: Mapping[str, Any]) -> str | None:
    try:
        return render_declaration(tool)
    except NotPlainError:
        return None


_PLACE = "\u241ddeclarations\u241d"


def _without_declaration(text: str) -> str:
    head, start, rest = text.partition(START_DECLARATION)
    _, end, tail = rest.partition(END_DECLARATION)
    if not start or not end or START_DECLARATION in tail:
        raise _Unlike
    return head + _PLACE + tail


def _batch_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[str]], list[Sequence[int]]]:
    """Give a function that tokenizes texts on all cores, without special tokens and without offsets where it can."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):
        return lambda texts: tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    backend.no_truncation()
    backend.no_padding()
    return lambda texts: [one.ids for one in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
