"""One row to token ids: the prompt, the completion the model learns to write, and which tokens carry a label.

Knows rows, a recipe and a tokenizer with a chat template. The prompt is rendered by the tokenizer's own template, the
completion by `calls`, as it must be the same text for training, for budgets and for scoring. Training and generation
take their prompt ids from here, so they cannot differ.

All content of a row is text: a control token in a request, a description, a name or a value gets a space after its
"<", so that it cannot open a turn or a call. So do the other tokens of the vocabulary that stand for no text, such as
<mask> and <unused7>.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from fgtools.calls import ToolCall, render_calls, row_calls
from fgtools.calls.tokens import END_TURN, EOS, SPECIAL_TOKEN, START_RESPONSE
from fgtools.files import InputError
from fgtools.models.template import render_within_limits
from fgtools.profiles import REPLY_MARGIN, REPLY_STEP, Recipe, get_recipe
from fgtools.prompts.messages import neutralize_control_tokens, prepare_messages

IGNORED = -100
"""Label of a token that is not trained on (PyTorch's cross entropy skips it)."""

_SPECIAL_TOKENS: WeakKeyDictionary[PreTrainedTokenizerBase, re.Pattern[str]] = WeakKeyDictionary()
"""What find_special_tokens has found: a vocabulary is looked through once."""


@dataclass(frozen=True)
class Encoded:
    """One training example.

    Attributes:
        input_ids: Prompt and completion, with one <bos> at the start.
        labels: As long as input_ids; IGNORED where a token is not trained on.
        n_prompt: Tokens of the prompt.
    """

    input_ids: list[int]
    labels: list[int]
    n_prompt: int


@dataclass(frozen=True)
class TooLong:
    """A row that does not fit.

    Attributes:
        row_id: The row.
        length: Its tokens, prompt and completion.
        max_length: The budget.
    """

    row_id: str
    length: int
    max_length: int


def render_prompt(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    tokenizer: PreTrainedTokenizerBase,
    add_generation_prompt: bool = True,
) -> str:
    """Render messages and tools as the model reads them, with the tokenizer's own chat template.

    Args:
        messages: Chat messages, the developer turn first; earlier calls and their results as `messages` says.
        tools: Function schemas; None and an empty list are the same.
        tokenizer: A tokenizer with a chat template.
        add_generation_prompt: Whether the text ends where the model is to write: at the start of its turn, or after the
            results of its calls, where the template goes on in the same turn.

    Returns:
        The text, <bos> included. Control tokens in the row's own texts are neutralised.

    Raises:
        ValueError: The tokenizer has no chat template, or its template does not end.
    """
    if not tokenizer.chat_template:
        raise InputError(
            "the tokenizer must carry a chat template, but has none: load it from the model's own folder, which holds "
            "chat_template.jinja"
        )
    special = find_special_tokens(tokenizer)
    return render_within_limits(
        tokenizer,
        prepare_messages(messages, special),
        neutralize_control_tokens(tools, special) or None,
        add_generation_prompt,
    )


def find_special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Return what matches the tokens that no text may become: those of Gemma, and what this tokenizer marks as special.

    Args:
        tokenizer: A tokenizer; tokens that are added to it later are not found.
    """
    if tokenizer not in _SPECIAL_TOKENS:
        own = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        more = sorted((text for text in own if len(text) > 1 and not SPECIAL_TOKEN.fullmatch(text)), key=len)
        pattern = "|".join([SPECIAL_TOKEN.pattern, *map(re.escape, reversed(more))])
        _SPECIAL_TOKENS[tokenizer] = re.compile(pattern) if more else SPECIAL_TOKEN
    return _SPECIAL_TOKENS[tokenizer]


def encode_prompt(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token ids of a row's prompt, with exactly one <bos>, ending where the model is to write.

    Raises:
        InputError: The chat template refuses the row.
    """
    try:
        text = render_prompt(row["messages"], row["tools"], tokenizer)
    except (TemplateError, TypeError) as error:
        raise InputError(
            f"row {row.get('row_id', '')!r} must be one that the model's chat template renders, but "
            f"{type(error).__name__}: {error}: leave the row out, or put the chat_template.jinja of "
            "google/functiongemma-270m-it into the model's folder"
        ) from error
    return add_bos(_tokenize(text, tokenizer), tokenizer)


def add_bos(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids with <bos> first, where the tokenizer has one and the template did not write it."""
    first = tokenizer.bos_token_id
    return ids if first is None or ids[:1] == [first] else [first, *ids]


def render_completion(
    row: Mapping[str, Any], recipe: str | Recipe = "native", tokenizer: PreTrainedTokenizerBase | None = None
) -> str:
    """Return the text that the model is to answer, the token that ends its turn included.

    Args:
        row: A row dict.
        recipe: "native": the calls and <start_function_response>, after which FunctionGemma waits for the tool, or
            the row's reply and <end_of_turn>. "tutorial": the call and the <eos> that its trainer appended.
        tokenizer: The tokenizer, whose own special tokens the row's texts must not hold; None: Gemma's alone.

    Raises:
        ValueError: The grammar cannot express the calls.
    """
    recipe = get_recipe(recipe)
    special = find_special_tokens(tokenizer) if tokenizer else SPECIAL_TOKEN
    calls = neutralize_calls(row_calls(row), special)
    if calls:
        return render_calls(calls, recipe.call_style) + (EOS if recipe.call_style == "tutorial" else START_RESPONSE)
    reply = row.get("reply", "") if recipe.no_call_target == "reply" else ""
    return neutralize_control_tokens(reply, special).strip() + END_TURN


def neutralize_calls(calls: Sequence[ToolCall], special: re.Pattern[str] = SPECIAL_TOKEN) -> list[ToolCall]:
    """Return calls as a completion writes them, see neutralize_control_tokens."""
    return [
        ToolCall(neutralize_control_tokens(call.name, special), neutralize_control_tokens(call.arguments, special))
        for call in calls
    ]


def encode_row(
    row: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    recipe: str | Recipe = "native",
    max_length: int | None = None,
) -> Encoded | TooLong:
    """Encode a row as token ids and labels.

    Args:
        row: A row dict.
        tokenizer: A tokenizer with a chat template.
        recipe: Says what is supervised and what happens to a row over the budget.
        max_length: The budget, in tokens; None: the recipe's.

    Returns:
        The Encoded row; TooLong for a row over the budget, where the recipe does not cut it.
    """
    recipe = get_recipe(recipe)
    budget = max_length or recipe.max_length
    completion = _tokenize(render_completion(row, recipe, tokenizer), tokenizer)
    return join_ids(row, encode_prompt(row, tokenizer), completion, recipe, budget)


def join_ids(
    row: Mapping[str, Any], prompt: Sequence[int], completion: Sequence[int], recipe: Recipe, budget: int
) -> Encoded | TooLong:
    """Return the Encoded row, or TooLong, from the ids of a prompt and its completion, as `encode_row` does.

    Args:
        row: The row dict; only its id is used.
        prompt: Token ids with <bos>.
        completion: Token ids.
        recipe: Says what is supervised and what happens to a row over the budget.
        budget: The budget, in tokens.
    """
    ids = [*prompt, *completion]
    labels = list(ids) if recipe.loss == "all" else [IGNORED] * len(prompt) + list(completion)
    if len(ids) <= budget:
        return Encoded(ids, labels, len(prompt))
    if recipe.over_length == "cut":
        return Encoded(ids[:budget], labels[:budget], min(len(prompt), budget))
    return TooLong(str(row.get("row_id", "")), len(ids), budget)


def _tokenize(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def longest_completion(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, recipe: str | Recipe = "native"
) -> int:
    """Return the length in tokens of the longest completion with a call; of any completion if none has a call."""
    called = [row for row in rows if row["gold"]] or rows
    return max((len(_tokenize(render_completion(row, recipe, tokenizer), tokenizer)) for row in called), default=0)


def token_budget(longest: int) -> int:
    """Return the tokens a reply may take: REPLY_MARGIN more than the longest gold, rounded up by REPLY_STEP."""
    return -(-int(longest * (1 + REPLY_MARGIN)) // REPLY_STEP) * REPLY_STEP


def render_supervised(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> str:
    """Render a training example as text, with ⟦ ⟧ around the tokens that carry labels."""
    parts = []
    tokens = zip(encoded.input_ids, encoded.labels, strict=True)
    for labelled, run in groupby(tokens, lambda token: token[1] != IGNORED):
        text = tokenizer.decode([token_id for token_id, _ in run], skip_special_tokens=False)
        parts.append(f"⟦{text}⟧" if labelled else text)
    return "".join(parts)
