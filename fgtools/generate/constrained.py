"""Constrained decoding: a reply is prose, or calls of declared tools with declared arguments of the declared types.

Knows tools, the call grammar and a tokenizer's vocabulary. xgrammar keeps the state of the grammar and masks the tokens
it does not allow; this module writes the grammar of one tool list. Only the form is constrained: the model still
chooses tools and values, so scores of constrained replies mean something else than those of free replies and are
reported apart.

Arguments come in the order in which the format writes them, sorted by name. A text may hold anything but control
tokens. A control token that the model spells out character by character is neutralised as in prompts and targets,
since a parser of the reply could not tell it from a real one. Not constrained: bounds, lengths, patterns and formats,
and that keys of a mapping without declared properties are unique.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jsonschema import Draft4Validator
from transformers import PreTrainedTokenizerBase

from fgtools.calls import render_key, render_value
from fgtools.calls.tokens import CONTROL_TOKENS, END_CALL, ESCAPE, SPECIAL_TOKEN, START_CALL
from fgtools.files import FgtoolsError
from fgtools.generate.decoding import Choose
from fgtools.models.load import stop_ids
from fgtools.profiles import Recipe, get_recipe
from fgtools.prompts.encode import find_special_tokens
from fgtools.prompts.messages import neutralize_control_tokens
from fgtools.schema.names import normalize_object

_MARKS = {START_CALL: "\ue000", END_CALL: "\ue001", ESCAPE: "\ue002"}
"""Each mark is one token of the vocabulary. In the grammar it is a private-use character, which no text may hold, so
that a mark cannot be spelled out character by character."""

_BYTE_OF_MARKS = "<0xEE>"
"""The first byte of these characters in UTF-8; without this token they cannot be spelled out in bytes either."""

_CLASS = "\ue000-\ue002"

_RULES = f"""
text ::= [^{_CLASS}]*
string ::= "\ue002" text "\ue002"
integer ::= "-"? ("0" | [1-9] [0-9]{{0,30}})
number ::= integer ("." [0-9]{{1,30}})? ([eE] [+\\-]? [0-9]{{1,2}})?
boolean ::= "true" | "false"
null ::= "None"
any ::= string | number | boolean | null | list | mapping
list ::= "[" (any ("," any)*)? "]"
mapping ::= "{{" (pair ("," pair)*)? "}}"
pair ::= (string | [^{_CLASS},:{{}}[\\]]+) ":" any
"""
"""The rules that every tool list shares. Numbers stay in the range of a float: a parser refuses larger ones."""

_NEVER = re.compile(f"[{_CLASS}]")

_SIMPLE = ("string", "integer", "number", "boolean", "null")
"""The types whose rule has the name of the type."""


class ConstraintError(FgtoolsError, RuntimeError):
    """Replies cannot be constrained; the message says what to do."""


def require_native(recipe: str | Recipe) -> None:
    """Check that a recipe writes calls in the grammar that can be constrained.

    Args:
        recipe: "native", "tutorial" or a Recipe.

    Raises:
        ConstraintError: It writes them in the tutorial's notation.
    """
    style = get_recipe(recipe).call_style
    if style != "native":
        raise ConstraintError(
            f"constrained replies are in FunctionGemma's own grammar, but the recipe's are {style!r}: leave it off, "
            "or use the recipe native"
        )


def render_grammar(tools: Sequence[Mapping[str, Any]], special: re.Pattern[str] = SPECIAL_TOKEN) -> str:
    """Render the grammar of a row's replies.

    Args:
        tools: Its tools, function schemas; control tokens in them are neutralised, as in the prompt.
        special: As for neutralize_control_tokens.

    Returns:
        EBNF as xgrammar reads it; its root is prose, or one call after the other.
    """
    rules: list[str] = []
    names = []
    for tool in neutralize_control_tokens(tools, special):
        function = tool["function"]
        arguments = _add_arguments(function.get("parameters"), rules)
        names.append(f"{_literal(function['name'])} {arguments}")
    root = "root ::= text"
    if names:
        root += " | call+"
        rules.append(f"call ::= {_literal(START_CALL + 'call:')} ({' | '.join(names)}) {_literal(END_CALL)}")
    return "\n".join([root, *rules]) + _RULES


def _literal(text: str) -> str:
    for mark, character in _MARKS.items():
        text = text.replace(mark, character)
    return json.dumps(text, ensure_ascii=False)


def _add_arguments(schema: Any, rules: list[str]) -> str:
    """Add a rule for a mapping of declared properties, each written once at most and the required ones always."""
    properties, required = normalize_object(schema)
    place = len(rules)
    rules.append("")  # reserves the number while values add rules of their own
    first, rest = '""', '""'
    names = [name for name in properties if isinstance(name, str)]
    for name in reversed(sorted(names, key=str.lower)):  # names that differ in case alone stay in order
        pair = f"{_literal(render_key(name) + ':')} {_add_value(properties[name], rules)}"
        later = _add(rules, rest)
        if name in required:
            first, rest = f"{pair} {later}", f'"," {pair} {later}'
        else:
            first, rest = f"{pair} {later} | {_add(rules, first)}", f'"," {pair} {later} | {later}'
    rules[place] = f'r{place} ::= "{{" {_add(rules, first)} "}}"'
    return f"r{place}"


def _add(rules: list[str], body: str) -> str:
    name = f"r{len(rules)}"
    rules.append(f"{name} ::= {body}")
    return name


def _add_value(schema: Any, rules: list[str]) -> str:
    """Add a rule for the values of a schema and return its name."""
    if not isinstance(schema, Mapping):
        return "any"
    alternatives = _add_alternatives(schema, rules)
    if schema.get("nullable") is True and isinstance(schema.get("type"), str) and "any" not in alternatives:
        alternatives.append("null")
    unique = list(dict.fromkeys(alternatives))
    return unique[0] if len(unique) == 1 else _add(rules, " | ".join(unique))


def _add_alternatives(schema: Mapping[str, Any], rules: list[str]) -> list[str]:
    """Add the rules for a schema and return their names: a value follows one of them."""
    kinds = schema.get("type")
    names = kinds if isinstance(kinds, list) else [kinds]
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        fitting = [value for value in values if any(_is_of_type(value, kind) for kind in names)]
        return [_add(rules, " | ".join(_literal(render_value(value)) for value in fitting or values))]
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and schema[word]:
            return [_add_value(one, rules) for one in schema[word]]
    return [_add_of_type(kind, schema, rules) for kind in names] or ["any"]


def _is_of_type(value: Any, kind: Any) -> bool:
    """Return whether a value of an enum has the declared type; other values would never be valid."""
    return kind not in (*_SIMPLE, "array", "object") or Draft4Validator.TYPE_CHECKER.is_type(value, kind)


def _add_of_type(kind: Any, schema: Mapping[str, Any], rules: list[str]) -> str:
    if kind == "array":
        item = _add_value(schema.get("items"), rules)
        return _add(rules, f'"[" ({item} ("," {item})*)? "]"')
    if kind == "object":
        return _add_arguments(schema, rules) if normalize_object(schema).properties else "mapping"
    return kind if kind in _SIMPLE else "any"


class Constraints:
    """The grammars of one tokenizer, each compiled once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        """Prepare a compiler for a tokenizer's vocabulary.

        Args:
            tokenizer: The tokenizer; SentencePiece with byte fallback, as Gemma's.
            vocabulary: Number of the model's logits.

        Raises:
            ConstraintError: xgrammar is not installed.
        """
        try:
            import xgrammar
        except ImportError as error:
            raise ConstraintError(
                "constrained decoding needs xgrammar, which is not installed: pip install 'fgtools[constrained]', or "
                "leave it off"
            ) from error
        self.xgrammar, self.stops, self.tokenizer = xgrammar, stop_ids(tokenizer), tokenizer
        self.vocabulary = vocabulary
        words = [""] * vocabulary  # a token without text is never allowed
        self.special = find_special_tokens(tokenizer)
        for token, number in tokenizer.get_vocab().items():
            is_text = token != _BYTE_OF_MARKS and not _NEVER.search(token) and not self.special.fullmatch(token)
            if number < vocabulary and (token in _MARKS or is_text):
                words[number] = _MARKS.get(token, token)
        kind = xgrammar.VocabType.BYTE_FALLBACK
        information = xgrammar.TokenizerInfo(words, kind, vocab_size=vocabulary, stop_token_ids=self.stops)
        self.compiler = xgrammar.GrammarCompiler(information)
        self.control = {number for token, number in tokenizer.get_vocab().items() if token in CONTROL_TOKENS}

    def render_grammars(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return one grammar a row; they are rendered before any row is answered.

        Args:
            rows: Row dicts.

        Raises:
            ConstraintError: A row's tools cannot be written as a grammar.
        """
        grammars = []
        for row in rows:
            try:
                grammars.append(render_grammar(row["tools"], self.special))
                grammars[-1].encode()
            except (ValueError, RecursionError) as error:
                raise ConstraintError(
                    f"the tools of row {row['row_id']!r} must be writable as a grammar, but {error}: leave the row or "
                    "the constraint out"
                ) from error
        return grammars

    def build_choice(self, grammars: Sequence[str]) -> Choose:
        """Return what chooses the tokens of a batch.

        Args:
            grammars: The grammar of each row.

        Returns:
            A function of some rows' numbers in the batch and their logits, [rows, vocabulary]; it returns the most
            likely token that each row's grammar allows.
        """
        matchers = [self.xgrammar.GrammarMatcher(self.compiler.compile_grammar(grammar)) for grammar in grammars]
        mask = self.xgrammar.allocate_token_bitmask(len(matchers), self.vocabulary)

        def choose(rows: Sequence[int], logits: torch.Tensor) -> list[int]:
            for place, row in enumerate(rows):
                matchers[row].fill_next_token_bitmask(mask, place)
            self.xgrammar.apply_token_bitmask_inplace(logits, mask[: len(rows)].to(logits.device))
            chosen = logits.argmax(-1).tolist()
            for row, token in zip(rows, chosen, strict=True):
                matchers[row].accept_token(token)
            return chosen

        return choose

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a reply; control tokens that ordinary tokens spell out get a space after their "<"."""
        parts = []
        for is_control, part in itertools.groupby(ids, self.control.__contains__):
            text = self.tokenizer.decode(list(part), clean_up_tokenization_spaces=False)
            parts.append(text if is_control else neutralize_control_tokens(text, self.special))
        return "".join(parts)
