"""A tokenizer.json as the vocabulary of a GGUF file: every token's text, score and type, as llama.cpp reads them.

Knows two kinds of tokenizer: byte-pair merges over whole text with "▁" for a space, as Gemma's, and unigrams, as the
offline stand-in's. How often llama.cpp splits a text as the tokenizer does is counted by who exports (`run.export`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from fgtools.calls.tokens import (
    END_CALL,
    END_DECLARATION,
    END_RESPONSE,
    ESCAPE,
    START_CALL,
    START_DECLARATION,
)
from fgtools.files import DataFileError, FgtoolsError
from fgtools.gguf import read_gguf

VISIBLE = frozenset({START_DECLARATION, END_DECLARATION, START_CALL, END_CALL, END_RESPONSE, ESCAPE})
"""Control tokens that must stand in the text of a reply, or the calls in it could not be parsed. llama.cpp leaves out
tokens of the type CONTROL."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"
"""What llama.cpp writes for a space inside a token."""


class ExportError(FgtoolsError, ValueError):
    """A model cannot be exported, or the exported one has lost; the message says what to do."""


class TokenType(IntEnum):
    """How llama.cpp treats a token; the numbers are those of GGUF."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a GGUF file, one for each row of the embedding.

    Attributes:
        model: llama.cpp's name of the algorithm: "llama" for byte-pair merges, "t5" for unigrams.
        tokens: Their texts, by id.
        scores: Their scores: the higher, the sooner a token is merged, or the likelier it is.
        types: A TokenType each.
        left_out: Texts of tokens of the tokenizer that have no row in the embedding.
    """

    model: str
    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    left_out: tuple[str, ...] = ()


def build_vocabulary(tokenizer: Mapping[str, Any], n_rows: int) -> Vocabulary:
    """Return the vocabulary of a tokenizer.

    Args:
        tokenizer: The JSON object of a tokenizer.json.
        n_rows: Rows of the model's embedding: the number of tokens.

    Raises:
        ExportError: It is a tokenizer of another kind.
    """
    model = tokenizer.get("model", {})
    if model.get("type") == "BPE" and model.get("byte_fallback") and _escapes_spaces(tokenizer):
        ids = model["vocab"]
        texts = [""] * (max(ids.values(), default=-1) + 1)
        for text, number in ids.items():
            texts[number] = text
        # merges are listed from the first to be made to the last, and their results have ids in that order
        pieces = [(text, -float(number)) for number, text in enumerate(texts)]
        return _complete("llama", pieces, tokenizer, n_rows)
    if model.get("type") == "Unigram":
        pieces = [(text.replace(" ", _SPACE), float(score)) for text, score in model["vocab"]]
        return _complete("t5", pieces, tokenizer, n_rows)
    raise ExportError(
        "tokenizer.json must hold byte-pair merges with a byte fallback and '▁' for spaces, as Gemma's does, or "
        f"unigrams, got {model.get('type')!r}: give the GGUF file of the base model with --base"
    )


def _escapes_spaces(tokenizer: Mapping[str, Any]) -> bool:
    normalizer = tokenizer.get("normalizer") or {}
    return normalizer.get("pattern") == {"String": " "} and normalizer.get("content") == _SPACE


def _complete(model: str, pieces: Sequence[tuple[str, float]], tokenizer: Mapping[str, Any], n_rows: int) -> Vocabulary:
    """Return a vocabulary with a type for every token, and one token for every row of the embedding."""
    spare = [(f"<spare{number}>", -1000.0) for number in range(len(pieces), n_rows)]
    tokens, scores = zip(*[*pieces, *spare][:n_rows], strict=True)
    types = [TokenType.BYTE if _BYTE.fullmatch(text) else TokenType.NORMAL for text in tokens]
    types[len(pieces) :] = [TokenType.UNUSED] * len(spare)
    beyond = tuple(text for text, _ in pieces[n_rows:])
    return add_tokens(Vocabulary(model, tokens, scores, tuple(map(int, types)), beyond), tokenizer)


def add_tokens(vocabulary: Vocabulary, tokenizer: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary with a tokenizer's added tokens: those that are found in a text before it is split.

    Args:
        vocabulary: A vocabulary, such as that of the base model.
        tokenizer: The JSON object of a tokenizer.json; its added tokens take the place of those with the same id.
    """
    tokens, scores, types = list(vocabulary.tokens), list(vocabulary.scores), list(vocabulary.types)
    left_out = set(vocabulary.left_out)
    for token in tokenizer.get("added_tokens", []):
        number, text = token["id"], token["content"]
        if number >= len(tokens):
            left_out.add(text)
            continue
        if vocabulary.model == "t5" and not token.get("special", False) and text not in VISIBLE:
            # llama.cpp takes the longest added tokens of a text first, the tokenizer those furthest to the left; as
            # pieces that cost nothing they are chosen as the tokenizer does, but where two ways are equally good: "}}}"
            tokens[number], scores[number], types[number] = text.replace(" ", _SPACE), 0.0, int(TokenType.NORMAL)
            continue
        special = token.get("special", False) and text not in VISIBLE
        tokens[number] = text if special else text.replace(_SPACE, " ")  # it is looked for in the text as it stands
        types[number] = int(TokenType.CONTROL if special else TokenType.USER_DEFINED)
    return replace(
        vocabulary, tokens=tuple(tokens), scores=tuple(scores), types=tuple(types), left_out=tuple(sorted(left_out))
    )


def read_vocabulary(path: Path) -> Vocabulary:
    """Read the vocabulary of a GGUF file.

    Raises:
        ExportError: The file is no GGUF file, or holds no vocabulary.
    """
    try:
        said = read_gguf(path).metadata
        names = [f"tokenizer.ggml.{name}" for name in ("model", "tokens", "scores", "token_type")]
        model, tokens, scores, types = (said[name] for name in names)
    except (DataFileError, KeyError) as error:
        raise ExportError(
            f"{path} must be a GGUF file with a vocabulary, but {type(error).__name__}: {error}: give another --base"
        ) from error
    return Vocabulary(model, tokens, scores, types)
