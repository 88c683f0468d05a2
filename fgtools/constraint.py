"""Constrained decoding: nothing but prose or calls of declared tools, declared arguments and values of their types.

Knows tools, the call grammar and a tokenizer's vocabulary. Automaton and masks are xgrammar's; what is written here is
the grammar of one tool list. It settles form alone: a model that is held to it still chooses tools and values, so its
scores say something else than those of free replies and are reported apart.

Arguments come in the order in which the format writes them, sorted by name. A string may hold anything but marks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from fgtools.calls import CONTROL_TOKENS, END_CALL, ESCAPE, START_CALL, render_key, render_value
from fgtools.models import stop_ids

_MARKS = {START_CALL: "\ue000", END_CALL: "\ue001", ESCAPE: "\ue002"}
"""Marks are single tokens; in the grammar each is a character that no text holds, so that none can be spelled out."""

_TEXT = "[^\ue000-\ue002]*"

_RULES = f"""
text ::= {_TEXT}
string ::= "{_MARKS[ESCAPE]}" {_TEXT} "{_MARKS[ESCAPE]}"
integer ::= "-"? ("0" | [1-9] [0-9]*)
number ::= integer ("." [0-9]+)? ([eE] [+\\-]? [0-9]+)?
boolean ::= "true" | "false"
null ::= "None"
any ::= string | number | boolean | null | list | mapping
list ::= "[" (any ("," any)*)? "]"
mapping ::= "{{" (pair ("," pair)*)? "}}"
pair ::= (string | [^\ue000-\ue002,:{{}}[\\]]+) ":" any
"""

_SIMPLE = {name: name for name in ("string", "integer", "number", "boolean", "null")}


class ConstraintError(RuntimeError):
    """Constrained decoding is not to be had; the message says what to do."""


def render_grammar(tools: Sequence[Mapping[str, Any]]) -> str:
    """Write the grammar of a row's replies.

    Args:
        tools: Its tools, function schemas.

    Returns:
        EBNF as xgrammar reads it; its root is prose, or one call after the other.
    """
    rules: list[str] = []
    names = []
    for tool in tools:
        function = tool["function"]
        arguments = _arguments(function.get("parameters") or {}, rules)
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


def _arguments(schema: Mapping[str, Any], rules: list[str]) -> str:
    """Give the name of a new rule for a mapping with declared names; required ones are there, none comes twice."""
    properties, required = schema.get("properties") or {}, set(schema.get("required") or ())
    place = len(rules)
    rules.append("")  # keeps the number taken while values add rules of their own
    first, rest = '""', '""'
    for name in sorted(properties, key=str.lower, reverse=True):
        pair = f"{_literal(render_key(name) + ':')} {_value(properties[name], rules)}"
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


def _value(schema: Any, rules: list[str]) -> str:
    """Give the name of a rule for values of a schema."""
    if not isinstance(schema, Mapping):
        return "any"
    alternatives = _alternatives(schema, rules)
    if schema.get("nullable") is True and "any" not in alternatives:
        alternatives.append("null")
    unique = list(dict.fromkeys(alternatives))
    return unique[0] if len(unique) == 1 else _add(rules, " | ".join(unique))


def _alternatives(schema: Mapping[str, Any], rules: list[str]) -> list[str]:
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return [_add(rules, " | ".join(_literal(render_value(value)) for value in schema["enum"]))]
    if isinstance(schema.get("anyOf"), list) and schema["anyOf"]:
        return [_value(one, rules) for one in schema["anyOf"]]
    kinds = schema.get("type")
    return [_of_type(kind, schema, rules) for kind in (kinds if isinstance(kinds, list) else [kinds])] or ["any"]


def _of_type(kind: Any, schema: Mapping[str, Any], rules: list[str]) -> str:
    if kind == "array":
        item = _value(schema.get("items"), rules)
        return _add(rules, f'"[" ({item} ("," {item})*)? "]"')
    if kind == "object":
        return _arguments(schema, rules) if schema.get("properties") else "mapping"
    return _SIMPLE.get(kind, "any")


class Constraints:
    """The grammars of one tokenizer, each compiled once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        """Read the vocabulary.

        Args:
            tokenizer: The tokenizer; SentencePiece with byte fallback, as Gemma's.
            vocabulary: Logits of the model.

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
        self.xgrammar, self.stops = xgrammar, stop_ids(tokenizer)
        words = [""] * vocabulary  # a token without text is never allowed
        control = set(CONTROL_TOKENS) | {
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        }
        for token, number in tokenizer.get_vocab().items():
            if number < vocabulary:
                words[number] = _MARKS.get(token, "" if token in control or token.startswith("<unused") else token)
        kind = xgrammar.VocabType.BYTE_FALLBACK
        information = xgrammar.TokenizerInfo(words, kind, vocab_size=vocabulary, stop_token_ids=self.stops)
        self.compiler = xgrammar.GrammarCompiler(information)
        self.vocabulary = vocabulary

    def choose(self, tools: Sequence[Sequence[Mapping[str, Any]]]) -> Choice:
        """Give what chooses the tokens of a batch: each row's tools, in the order of its prompts."""
        grammars = [self.compiler.compile_grammar(render_grammar(one)) for one in tools]
        return Choice(self, [self.xgrammar.GrammarMatcher(grammar) for grammar in grammars])


class Choice:
    """Chooses the most likely allowed token for every row of a batch."""

    def __init__(self, constraints: Constraints, matchers: Sequence[Any]) -> None:
        """Begin a batch: one automaton a row."""
        self.xgrammar, self.stops, self.matchers = constraints.xgrammar, set(constraints.stops), matchers
        self.mask = self.xgrammar.allocate_token_bitmask(len(matchers), constraints.vocabulary)

    def __call__(self, rows: Sequence[int], logits: torch.Tensor) -> list[int]:
        """Choose.

        Args:
            rows: Numbers of the rows, as they were given.
            logits: [rows, vocabulary].

        Returns:
            One token id a row.
        """
        for place, row in enumerate(rows):
            self.matchers[row].fill_next_token_bitmask(self.mask, place)
        self.xgrammar.apply_token_bitmask_inplace(logits, self.mask[: len(rows)].to(logits.device))
        chosen = logits.argmax(-1).tolist()
        for row, token in zip(rows, chosen, strict=True):
            self.matchers[row].accept_token(token)
        return chosen
