"""The vocabulary of a GGUF file as a tokenizer, and the chat template beside it.

Knows SentencePiece's byte-pair vocabulary of Gemma as llama.cpp stores it, and where FunctionGemma has its control
tokens; not weights. A file holds no merges. They follow from the scores: every two tokens that make a token are a
merge, and the higher the score of what they make, the earlier it is made. For Gemma's vocabulary that gives the 514,906
merges of its tokenizer.json, in their order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from fgtools.calls.tokens import (
    BOS,
    CONTROL_IDS,
    END_TURN,
    EOS,
    PAD,
    START_DECLARATION,
    START_RESPONSE,
    START_TURN,
    STOP_TOKENS,
)
from fgtools.gguf import GgufHeader
from fgtools.models.errors import ModelError

_UNK = "<unk>"
_PLACES = {number: text for text, number in CONTROL_IDS.items()}
"""FunctionGemma's control tokens by their ids."""

STOP_IDS = tuple(number for number, text in _PLACES.items() if text in STOP_TOKENS)
"""Ids that end a reply: 1, 50 and 106."""

_UNUSED = re.compile(r"<unused\d+>")
_SPECIAL = frozenset({PAD, EOS, BOS, _UNK, START_RESPONSE, START_TURN, END_TURN, "<start_of_image>"})
"""Tokens that FunctionGemma leaves out of decoded text; a call's marks stay in it. GGUF's types do not say: a file of
Gemma 3 270M calls 6,249 tokens control tokens."""

_NORMAL, _CONTROL, _USER_DEFINED, _BYTE = 1, 3, 4, 6
"""GGUF's types of tokens."""

_SPACE = "▁"


def read_tokens(header: GgufHeader, path: Path) -> tuple[list[str], int]:
    """Return the texts of a file's tokens with FunctionGemma's control tokens in their places.

    Gemma 3 270M, from which FunctionGemma was made, has unused tokens where the marks of calls are: they get the marks'
    texts.

    Returns:
        The texts by id, and how many unused tokens got one.

    Raises:
        ModelError: Another token is in such a place, or the file ends a reply otherwise.
    """
    tokens = list(header.metadata["tokenizer.ggml.tokens"])
    named = 0
    for number, text in _PLACES.items():
        found = tokens[number] if number < len(tokens) else "nothing"
        if found != text and not _UNUSED.fullmatch(found):
            raise ModelError(
                f"the vocabulary of {path.name} must have {text} or an unused token at id {number}, as FunctionGemma "
                f"and Gemma 3 do, got {found!r}: give a file of one of them"
            )
        named += found != text
        tokens[number] = text
    for role in ("bos", "eos", "eot", "eom", "padding", "unknown"):
        wanted = {"bos": (BOS,), "padding": (PAD,), "unknown": (_UNK,)}.get(role, STOP_TOKENS)
        number = header.metadata.get(f"tokenizer.ggml.{role}_token_id")
        if number is not None and tokens[number : number + 1] not in [[text] for text in wanted]:
            raise ModelError(
                f"{path.name} must have {' or '.join(wanted)} as its {role} token, got id {number}: give a file of "
                "FunctionGemma or Gemma 3"
            )
    return tokens, named


def choose_template(header: GgufHeader, own: str) -> tuple[str, str]:
    """Return the chat template to use with a file's vocabulary, and why, for people.

    Args:
        header: The file's header.
        own: FunctionGemma's template, as this package has it.
    """
    held = header.metadata.get("tokenizer.chat_template", "")
    if START_DECLARATION in held:
        return held, "the file's"
    reason = "declares no tools" if held else "is missing"
    return own, f"this package's, which renders as FunctionGemma's, since the file's {reason}"


def describe_vocabulary(header: GgufHeader, path: Path, own_template: str) -> str:
    """Return where tokens, template and stop ids of a file's tokenizer come from, for people.

    Raises:
        ModelError: As read_tokens.
    """
    tokens, named = read_tokens(header, path)
    places = f"{named} of them unused ones of a base model, named here" if named else "as in FunctionGemma"
    _, template = choose_template(header, own_template)
    return (
        f"vocabulary: {len(tokens):,} tokens of the file, control tokens in their places ({places}); replies stop at "
        f"ids {', '.join(map(str, STOP_IDS))}; chat template: {template}"
    )


def build_tokenizer(header: GgufHeader, path: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a file's vocabulary, without a chat template.

    Raises:
        ModelError: As read_tokens; or it is no vocabulary of Gemma's kind.
    """
    said = {name: header.metadata.get(f"tokenizer.ggml.{name}") for name in ("model", "scores", "token_type")}
    tokens, _ = read_tokens(header, path)
    if said["model"] != "llama" or header.metadata.get("tokenizer.ggml.add_space_prefix", False):
        raise ModelError(
            f"the vocabulary of {path.name} must be SentencePiece's byte pairs without a space before the text "
            f"(tokenizer.ggml.model llama), as Gemma's, got {said['model']!r}: give a file that "
            "was converted with tokenizer.model beside it, or the model's transformers folder"
        )
    scores, types = said["scores"] or (), said["token_type"] or ()
    if not len(tokens) == len(scores) == len(types):
        raise ModelError(
            f"the vocabulary of {path.name} must have a score and a type for each of {len(tokens):,} tokens, got "
            f"{len(scores):,} and {len(types):,}: the file is damaged, download it again"
        )
    # tokens that are looked for in a text before it is split have their spaces unescaped
    pieces = [
        text.replace(" ", _SPACE) if kind == _USER_DEFINED else text for text, kind in zip(tokens, types, strict=True)
    ]
    ids = {text: number for number, text in enumerate(pieces)}
    if len(ids) < len(pieces):
        raise ModelError(
            f"the vocabulary of {path.name} must have no token twice, but {len(pieces) - len(ids)} are: it cannot be "
            "read as a tokenizer"
        )
    merges = _build_merges(pieces, scores, types)
    tokenizer = Tokenizer(BPE(vocab=ids, merges=merges, unk_token=_UNK, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, ids[BOS])]
    )
    added = [text for text, kind in zip(pieces, types, strict=True) if kind in (_CONTROL, _USER_DEFINED)]
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=text in _SPECIAL) for text in added])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{"bos_token": BOS, "eos_token": EOS, "pad_token": PAD, "unk_token": _UNK},
        extra_special_tokens=[START_RESPONSE, START_TURN, END_TURN],
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=header.metadata["gemma3.context_length"],
    )


def _build_merges(pieces: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> list[tuple[str, str]]:
    """Return the merges, the first to be made first.

    Args:
        pieces: The tokens' texts, by id.
        scores: Their scores; tokens that are found in the text before it is split count as the highest ordinary one.
        types: Their types; control tokens and bytes are parts and results of no merge.
    """
    highest = max((score for score, kind in zip(scores, types, strict=True) if kind == _NORMAL), default=0.0)
    parts = {text for text, kind in zip(pieces, types, strict=True) if kind not in (_CONTROL, _BYTE)}
    merges: list[tuple[float, int, int, str, str]] = []
    for text, score, kind in zip(pieces, scores, types, strict=True):
        if kind in (_CONTROL, _BYTE):
            continue
        score = highest if kind == _USER_DEFINED else score
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in parts and right in parts:
                merges.append((score, len(left), len(right), left, right))
    merges.sort(key=lambda merge: merge[:3], reverse=True)
    return [(left, right) for *_, left, right in merges]
