"""One row and one reply: how far up the ladder the reply gets, and what it got wrong.

Knows rows, replies and the call grammar; not models, nor sets of rows. The ladder's rungs:

- in_grammar: the calls are written in the call grammar to the letter, with a call where one is due. Prose beside calls
  is in the grammar; control tokens in it, and white space within a call and outside of its strings, are not.
- known_tool: calls where calls are due, and only declared tools.
- right_tools: the gold's tools, each as often as there, in any order.
- valid_arguments: every call's arguments satisfy its tool's schema (nullable parameters may be null).
- right_names: the gold's argument names; an optional argument at its default equals its absence.
- ast_match: the same meaning by BFCL's rules (`ast_match`).
- exact_match: the same calls in the same order, values typed.

known_tool, right_tools, right_names, ast_match and exact_match nest: who misses one misses those after it. in_grammar
and valid_arguments stand by themselves, since format is not content and a gold may break its own schema. A call that
cannot be read at all counts as a wrong call. On a row whose right answer is no call, every rung but in_grammar and
known_tool means: no call.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from fgtools.calls import Reply, ToolCall, parse_reply, parse_tutorial_prediction, render_calls, row_calls
from fgtools.metrics.ast_match import (
    assign,
    declared_type,
    find_error,
    missing_names,
    pair_calls,
    read_object,
    unexpected_names,
)
from fgtools.metrics.behaviours import classify_behaviour
from fgtools.metrics.cer import count_edits
from fgtools.schema import SchemaError, normalize_tools
from fgtools.schema.types import value_type

LADDER = ("in_grammar", "known_tool", "right_tools", "valid_arguments", "right_names", "ast_match", "exact_match")
"""The rungs in the order of a table; each is a share of all rows."""

MISSED_CALL, FALSE_CALL, UNREADABLE = "missed_call", "false_call", "not_in_grammar"
"""Error codes beside BFCL's: no call where one is due, a call where none is, a call that cannot be read."""

PATTERN_SECONDS = 0.2
"""Time one `pattern` of a schema may take on one text."""

_LOST = frozenset({"missing_name", "unclosed_call", "malformed_call", "unclosed_string", "too_deep"})


@dataclass(frozen=True)
class RowScore:
    """One row's outcome; the rungs are those of the module's docstring.

    Attributes:
        row_id: The row.
        n_tools: Tools it declares, also those that it declares twice.
        n_gold: Calls of its gold; 0 for a row whose right answer is no call.
        n_calls: Calls in the reply, unreadable ones included.
        in_grammar: Rung.
        known_tool: Rung.
        right_tools: Rung.
        valid_arguments: Rung.
        right_names: Rung.
        ast_match: Rung.
        exact_match: Rung.
        first_name_right: Whether the tutorial's reading of the reply finds the first gold call's name.
        edits: Edits between the first call's block as it stands and the gold's, in characters; 0 for no-call rows.
        edits_rendered: The same after the reply's first call was parsed and rendered again.
        characters: Characters of the gold's block.
        arguments_right: Predicted arguments that mean what the gold's of that name means, in the pairing of calls
            that leaves the fewest wrong.
        arguments_predicted: Arguments of the predicted calls, without optional ones at a default that the gold omits.
        arguments_gold: Arguments of the gold calls, without optional ones at a default that the reply omits.
        arguments_by_type: (JSON type, right ones, gold ones) for every type among the gold's arguments.
        prompt_characters: Length of the messages and tools, in characters of text and JSON, not tokens.
        behaviour: What the reply does, in When2Call's words: one of behaviours.BEHAVIOURS.
        behaviour_gold: What the right answer does; "" where the row has neither a call nor a text `reply` to tell from.
        chance: Probability that as many declared tools drawn at random are the right ones.
        gold_valid: Whether the gold's own arguments satisfy the schema.
        error: "" for an AST match, else BFCL's code or one of ours.
    """

    row_id: str
    n_tools: int
    n_gold: int
    n_calls: int
    in_grammar: bool
    known_tool: bool
    right_tools: bool
    valid_arguments: bool
    right_names: bool
    ast_match: bool
    exact_match: bool
    first_name_right: bool
    edits: int
    edits_rendered: int
    characters: int
    arguments_right: int
    arguments_predicted: int
    arguments_gold: int
    arguments_by_type: tuple[tuple[str, int, int], ...]
    prompt_characters: int
    behaviour: str
    behaviour_gold: str
    chance: float
    gold_valid: bool
    error: str

    @property
    def strict_match(self) -> bool:
        """Whether the calls are the gold's, in the grammar to the letter: what the strictest server would take.

        Prose beside the calls is allowed: a server hands it on as text.
        """
        return self.in_grammar and self.exact_match

    @property
    def right_behaviour(self) -> bool:
        """Whether the reply does what the right answer does; never where `behaviour_gold` is unknown."""
        return self.behaviour == self.behaviour_gold

    @property
    def missed_call(self) -> bool:
        """Whether a call is due and none was made."""
        return self.n_gold > 0 and not self.n_calls

    @property
    def false_call(self) -> bool:
        """Whether a call was made where none is due."""
        return not self.n_gold and self.n_calls > 0


def score_row(row: Mapping[str, Any], text: str, style: str = "native") -> RowScore:
    """Score one reply.

    Args:
        row: A row dict.
        text: The reply, special tokens kept.
        style: Its call grammar, "native" or "tutorial".

    Returns:
        The RowScore.

    Raises:
        ValueError: The reply is not text.
    """
    if not isinstance(text, str):
        raise ValueError(f"the reply of row {row.get('row_id')!r} must be text, got {type(text).__name__}")
    gold, reply = row_calls(row), parse_reply(text, style)
    tools = {tool["function"]["name"]: tool["function"].get("parameters") for tool in row["tools"]}
    lost = sum(problem.kind in _LOST for problem in reply.problems)
    n_calls = len(reply.calls) + lost
    known = not lost and all(call.name in tools for call in reply.calls) and bool(reply.calls or not gold)
    right = not lost and Counter(call.name for call in reply.calls) == Counter(call.name for call in gold)
    error = _row_error(reply, gold, tools, lost)
    block, gold_block, rendered = _blocks(text, reply, gold, style)
    types, n_predicted = _count_arguments(reply.calls, gold, tools)
    return RowScore(
        row_id=str(row.get("row_id", "")),
        n_tools=len(row["tools"]),
        n_gold=len(gold),
        n_calls=n_calls,
        in_grammar=not reply.problems and bool(reply.calls or not gold),
        known_tool=known,
        right_tools=right,
        valid_arguments=known and bool(gold or not n_calls) and has_valid_arguments(reply.calls, tools),
        right_names=right and _have_right_names(reply.calls, gold, tools),
        ast_match=not error,
        exact_match=not lost and [_typed(call) for call in reply.calls] == [_typed(call) for call in gold],
        first_name_right=bool(gold) and parse_tutorial_prediction(text).name == gold[0].name,
        edits=count_edits(block, gold_block),
        edits_rendered=count_edits(rendered, gold_block),
        characters=len(gold_block),
        arguments_right=sum(right for _, right, _ in types),
        arguments_predicted=n_predicted,
        arguments_gold=sum(wanted for _, _, wanted in types),
        arguments_by_type=types,
        prompt_characters=_prompt_characters(row),
        behaviour=classify_behaviour(reply.text, n_calls),
        behaviour_gold=_right_behaviour(row),
        chance=_chance(gold, tools),
        gold_valid=has_valid_arguments(gold, tools),
        error=error,
    )


def _row_error(reply: Reply, gold: Sequence[ToolCall], tools: Mapping[str, Any], lost: int) -> str:
    if lost:
        return UNREADABLE if gold else FALSE_CALL
    if not gold:
        return FALSE_CALL if reply.calls else ""
    return find_error(reply.calls, gold, tools) if reply.calls else MISSED_CALL


def _blocks(text: str, reply: Reply, gold: Sequence[ToolCall], style: str) -> tuple[str, str, str]:
    """Give the predicted block, the gold block, and the first predicted call rendered again; "" for no-call rows."""
    if not gold:
        return "", "", ""
    block = parse_tutorial_prediction(text).block
    try:
        rendered = render_calls(reply.calls[:1], style)
    except ValueError:  # a call that was tolerated but cannot be written, such as one with a mark in its name
        rendered = block
    return block, render_calls(gold[:1], style), rendered


def _typed(call: ToolCall) -> str:
    """Write a call so that equal texts mean equal calls: True is not 1, 1 is not 1.0, keys have no order."""
    return json.dumps([call.name, call.arguments], sort_keys=True)


def _have_right_names(calls: Sequence[ToolCall], gold: Sequence[ToolCall], tools: Mapping[str, Any]) -> bool:
    """Tell whether the calls can be paired with gold calls of their name that have the same argument names."""

    def fits(wanted: int, call: int) -> bool:
        one, other = calls[call], gold[wanted]
        pair = (one.arguments, other.arguments, tools.get(other.name))
        return one.name == other.name and not missing_names(*pair) and not unexpected_names(*pair)

    return len(assign(len(gold), len(calls), fits)) == len(gold)


def _count_arguments(
    calls: Sequence[ToolCall], gold: Sequence[ToolCall], tools: Mapping[str, Any]
) -> tuple[tuple[tuple[str, int, int], ...], int]:
    """Count right and gold arguments by JSON type, and the predicted ones."""
    right, wanted, n_predicted = Counter[str](), Counter[str](), 0
    for call, agreement in pair_calls(calls, gold, tools):
        n_predicted += agreement.n_predicted
        if call:
            properties = read_object(tools.get(call.name)).properties
            types = {name: _type_of(call.arguments[name], properties.get(name)) for name in agreement.gold}
            right.update(types[name] for name in agreement.right)
            wanted.update(types.values())
    return tuple((kind, right[kind], count) for kind, count in sorted(wanted.items())), n_predicted


def _type_of(value: Any, spec: Any) -> str:
    """Give an argument's JSON type: the declared one, else that of its value."""
    return declared_type(spec) or value_type(value)


def _right_behaviour(row: Mapping[str, Any]) -> str:
    if row["gold"]:
        return classify_behaviour("", len(row["gold"]))
    return classify_behaviour(row["reply"]) if isinstance(row.get("reply"), str) else ""


def _prompt_characters(row: Mapping[str, Any]) -> int:
    said = sum(len(str(message.get("content") or "")) for message in row.get("messages", ()))
    return said + len(json.dumps(row["tools"], ensure_ascii=False))


def _chance(gold: Sequence[ToolCall], tools: Mapping[str, Any]) -> float:
    if not gold or any(call.name not in tools for call in gold):
        return 0.0
    orders = math.factorial(len(gold))
    for count in Counter(call.name for call in gold).values():
        orders //= math.factorial(count)
    return orders / len(tools) ** len(gold)


def has_valid_arguments(calls: Sequence[ToolCall], tools: Mapping[str, Any]) -> bool:
    """Tell whether every call names a declared tool and fits its schema.

    Args:
        calls: The calls.
        tools: Parameters schema by tool name.

    Returns:
        True for no calls; False where a schema cannot be applied, as a pattern that takes too long.
    """
    return all(call.name in tools and not _find_faults(call, tools[call.name], 1) for call in calls)


def find_violations(calls: Sequence[ToolCall], tools: Mapping[str, Any]) -> list[str]:
    """Say what keeps calls from being valid: tools that were not declared, arguments that break their schema.

    Args:
        calls: The calls.
        tools: Parameters schema by tool name.

    Returns:
        One sentence a violation, of 200 characters at most; [] where `has_valid_arguments` is true.
    """
    found = []
    for call in calls:
        declared = call.name in tools
        found += _find_faults(call, tools[call.name]) if declared else [f"{call.name}: no such tool is declared"]
    return found


def _find_faults(call: ToolCall, schema: Any, most: int | None = None) -> list[str]:
    """Say what keeps a call's arguments from being valid, `most` faults of it; a check that fails is one, and alone."""
    try:
        validator = _validator(json.dumps(schema or {}, sort_keys=True))
        return [_describe_fault(call, error) for error in islice(validator.iter_errors(call.arguments), most)]
    except Exception as error:  # numbers too large, lists too deep, patterns too slow: each fails in a way of its own
        return [f"{call.name}: the arguments cannot be held against the schema ({type(error).__name__})"[:200]]


def _describe_fault(call: ToolCall, error: Any) -> str:
    where = ".".join([call.name, *map(str, error.absolute_path)])
    return f"{where}: {error.message}"[:200]


@lru_cache(maxsize=4096)
def _validator(text: str) -> Any:
    """Give the validator of a parameters schema; one that is no JSON Schema is read as `native` reads it."""
    from jsonschema.exceptions import SchemaError as InvalidSchema
    from referencing import Registry

    parameters, kind = json.loads(text), _validator_class()
    try:
        kind.check_schema(parameters)
    except InvalidSchema:
        parameters = _read_natively(parameters)
    return kind(_with_null(parameters) if parameters else {}, registry=Registry())


@lru_cache(maxsize=1)
def _validator_class() -> Any:
    """Give JSON Schema's validator, made safe: no look-ups in the network, no time beyond the size of the arguments.

    A reference that leads nowhere within the schema, and a pattern that is none, say nothing.
    """
    import regex
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.validators import extend
    from referencing.exceptions import Unresolvable

    known = Draft202012Validator.VALIDATORS

    def matches(pattern: str, text: str) -> bool:
        try:
            return regex.search(pattern, text, timeout=PATTERN_SECONDS) is not None
        except regex.error:
            return True

    def check_pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
        if isinstance(value, str) and not matches(pattern, value):
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    def check_named(validator: Any, specs: Mapping[str, Any], value: Any, schema: Any) -> Iterator[Any]:
        for name in value if isinstance(value, Mapping) else ():
            for pattern in specs:
                if matches(pattern, name):
                    yield from validator.descend(value[name], specs[pattern], path=name, schema_path=pattern)

    def check_others(validator: Any, allowed: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
        if isinstance(value, Mapping) and "patternProperties" in schema:
            value = {k: v for k, v in value.items() if not any(matches(one, k) for one in schema["patternProperties"])}
            schema = {word: item for word, item in schema.items() if word != "patternProperties"}
        yield from known["additionalProperties"](validator, allowed, value, schema)

    def check_unique(validator: Any, unique: Any, value: Any, schema: Any) -> Iterator[Any]:
        if unique and isinstance(value, list) and len({_canonical(item) for item in value}) < len(value):
            yield ValidationError(f"{value!r} has non-unique elements")

    def check_reference(word: str) -> Any:
        def check(validator: Any, reference: Any, value: Any, schema: Any) -> Iterator[Any]:
            try:
                yield from known[word](validator, reference, value, schema)
            except Unresolvable:
                return

        return check

    checks = {"pattern": check_pattern, "patternProperties": check_named, "additionalProperties": check_others}
    references = {word: check_reference(word) for word in ("$ref", "$dynamicRef")}
    return extend(Draft202012Validator, {**checks, "uniqueItems": check_unique, **references})


def _canonical(value: Any) -> str:
    """Write a value so that equal texts mean what JSON Schema calls equal: 1 is 1.0, True is not 1."""

    def plain(node: Any) -> Any:
        if isinstance(node, float) and node.is_integer():
            return int(node)
        if isinstance(node, Mapping):
            return {key: plain(item) for key, item in node.items()}
        return [plain(item) for item in node] if isinstance(node, list) else node

    return json.dumps(plain(value), sort_keys=True)


def _read_natively(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        tools = normalize_tools([{"name": "tool", "description": "", "parameters": parameters}])
    except SchemaError:
        return {}
    return tools[0]["function"]["parameters"] if tools else {}


def _with_null(node: Any) -> Any:
    """Give a schema in which a nullable value may be null and a narrowed union may be any of its alternatives.

    Draft 2020-12 has no keyword `nullable`, and `type` beside `anyOf` is what is shown, not what is allowed. A
    `$schema` is left out, since it would have the validator of another draft take over.
    """
    if isinstance(node, list):
        return [_with_null(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    inner = {key: _with_null(value) for key, value in node.items() if key != "$schema" or isinstance(value, Mapping)}
    if isinstance(node.get("anyOf"), list) and isinstance(node.get("type"), str):
        inner = {"anyOf": inner["anyOf"]}
    if node.get("nullable") is not True or not isinstance(node.get("type"), str):
        return inner
    return {"anyOf": [{"type": "null"}, inner]}
