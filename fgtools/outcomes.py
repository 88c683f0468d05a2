"""One row and one reply: how far up the ladder the reply gets, and what it got wrong.

Knows rows, replies and the call grammar; not models, nor sets of rows. The ladder's rungs:

- in_grammar: the reply is in the call grammar to the letter, with a call where one is due.
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
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fgtools.ast_match import find_error, find_value_error, missing_names, unexpected_names
from fgtools.behaviours import classify_behaviour
from fgtools.calls import Reply, ToolCall, parse_reply, parse_tutorial_prediction, render_calls, row_calls
from fgtools.cer import count_edits
from fgtools.schema import SchemaError, normalize_tools

LADDER = ("in_grammar", "known_tool", "right_tools", "valid_arguments", "right_names", "ast_match", "exact_match")
"""The rungs in the order of a table; each is a share of all rows."""

MISSED_CALL, FALSE_CALL, UNREADABLE = "missed_call", "false_call", "not_in_grammar"
"""Error codes beside BFCL's: no call where one is due, a call where none is, a call that cannot be read."""

_LOST = frozenset({"missing_name", "unclosed_call", "malformed_call", "unclosed_string", "too_deep"})


@dataclass(frozen=True)
class RowScore:
    """One row's outcome; the rungs are those of the module's docstring.

    Attributes:
        row_id: The row.
        n_tools: Tools it declares.
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
        arguments_right: Predicted arguments that mean what the gold's of that name means.
        arguments_predicted: Arguments of the predicted calls.
        arguments_gold: Arguments of the gold calls.
        arguments_by_type: (JSON type, right ones, gold ones) for every type among the gold's arguments.
        prompt_characters: Length of the messages and tools, in characters of text and JSON, not tokens.
        behaviour: What the reply does, in When2Call's words: one of behaviours.BEHAVIOURS.
        behaviour_gold: What the right answer does.
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
        """Whether the calls are the gold's, in the grammar to the letter: what the strictest server would take."""
        return self.in_grammar and self.exact_match

    @property
    def right_behaviour(self) -> bool:
        """Whether the reply does what the right answer does."""
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
    tools = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in row["tools"]}
    lost = sum(problem.kind in _LOST for problem in reply.problems)
    n_calls = len(reply.calls) + lost
    known = not lost and all(call.name in tools for call in reply.calls) and bool(reply.calls or not gold)
    right = not lost and Counter(call.name for call in reply.calls) == Counter(call.name for call in gold)
    error = _row_error(reply, gold, tools, lost)
    block, gold_block, rendered = _blocks(text, reply, gold, style)
    types = _count_right_arguments(reply.calls, gold, tools)
    return RowScore(
        row_id=str(row.get("row_id", "")),
        n_tools=len(tools),
        n_gold=len(gold),
        n_calls=n_calls,
        in_grammar=not reply.problems and bool(reply.calls or not gold),
        known_tool=known,
        right_tools=right,
        valid_arguments=known and bool(gold or not n_calls) and has_valid_arguments(reply.calls, tools),
        right_names=not error or (right and _have_right_names(reply.calls, gold, tools)),
        ast_match=not error,
        exact_match=not lost and [_typed(call) for call in reply.calls] == [_typed(call) for call in gold],
        first_name_right=bool(gold) and parse_tutorial_prediction(text).name == gold[0].name,
        edits=count_edits(block, gold_block),
        edits_rendered=count_edits(rendered, gold_block),
        characters=len(gold_block),
        arguments_right=sum(right for _, right, _ in types),
        arguments_predicted=sum(len(call.arguments) for call in reply.calls),
        arguments_gold=sum(len(call.arguments) for call in gold),
        arguments_by_type=types,
        prompt_characters=_prompt_characters(row),
        behaviour=classify_behaviour(reply.text, n_calls),
        behaviour_gold=classify_behaviour(str(row.get("reply", "")), len(gold)),
        chance=_chance(gold, len(tools)),
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
    """Tell whether the calls, paired with gold calls of their name, use the gold's argument names."""
    left = list(calls)
    for wanted in gold:
        parameters = tools.get(wanted.name, {})
        fits = [
            call
            for call in left
            if call.name == wanted.name
            and not missing_names(call, wanted, parameters)
            and not unexpected_names(call, wanted, parameters)
        ]
        if not fits:
            return False
        left.remove(min(fits, key=lambda call: bool(find_error([call], [wanted], tools))))
    return True


def _count_right_arguments(
    calls: Sequence[ToolCall], gold: Sequence[ToolCall], tools: Mapping[str, Any]
) -> tuple[tuple[str, int, int], ...]:
    """Count right and gold arguments by JSON type, each gold call taking the call of its name that fits it best."""
    left = list(calls)
    right, wanted_of = Counter[str](), Counter[str]()
    for wanted in gold:
        properties = tools.get(wanted.name, {}).get("properties") or {}
        types = {name: _type_of(value, properties.get(name)) for name, value in wanted.arguments.items()}
        wanted_of.update(types.values())
        equal = [_find_equal(call, wanted, properties) if call.name == wanted.name else None for call in left]
        fits = [index for index, names in enumerate(equal) if names is not None]
        if fits:
            best = max(fits, key=lambda index: (len(equal[index] or ()), -index))
            right.update(types[name] for name in equal[best] or ())
            left.pop(best)
    return tuple((kind, right[kind], count) for kind, count in sorted(wanted_of.items()))


def _find_equal(call: ToolCall, wanted: ToolCall, properties: Mapping[str, Any]) -> list[str]:
    """Give the names of the arguments that mean the same in both calls."""
    shared = [name for name in wanted.arguments if name in call.arguments]
    return [
        name
        for name in shared
        if not find_value_error(call.arguments[name], wanted.arguments[name], properties.get(name))
    ]


def _type_of(value: Any, spec: Any) -> str:
    """Give an argument's JSON type: the declared one, else that of its value."""
    declared = spec.get("type") if isinstance(spec, Mapping) else None
    if isinstance(declared, str) and declared:
        return declared
    for kinds, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array")):
        if isinstance(value, kinds):
            return name
    return "null" if value is None else "object"


def _prompt_characters(row: Mapping[str, Any]) -> int:
    said = sum(len(str(message.get("content") or "")) for message in row.get("messages", ()))
    return said + len(json.dumps(row["tools"], ensure_ascii=False))


def _chance(gold: Sequence[ToolCall], n_tools: int) -> float:
    if not gold or not n_tools:
        return 0.0
    orders = math.factorial(len(gold))
    for count in Counter(call.name for call in gold).values():
        orders //= math.factorial(count)
    return orders / n_tools ** len(gold)


def has_valid_arguments(calls: Sequence[ToolCall], tools: Mapping[str, Any]) -> bool:
    """Tell whether every call names a declared tool and fits its schema.

    Args:
        calls: The calls.
        tools: Parameters schema by tool name.

    Returns:
        True for no calls.
    """
    return all(
        call.name in tools and _validator(json.dumps(tools[call.name], sort_keys=True)).is_valid(call.arguments)
        for call in calls
    )


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
        if call.name not in tools:
            found.append(f"{call.name}: no such tool is declared")
            continue
        validator = _validator(json.dumps(tools[call.name], sort_keys=True))
        for error in validator.iter_errors(call.arguments):
            where = ".".join([call.name, *map(str, error.absolute_path)])
            found.append(f"{where}: {error.message}"[:200])
    return found


@lru_cache(maxsize=4096)
def _validator(text: str) -> Any:
    """Give the validator of a parameters schema; one that is no JSON Schema is read as `native` reads it."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError as InvalidSchema

    parameters = json.loads(text)
    try:
        Draft202012Validator.check_schema(parameters)
        re.compile("|".join(_patterns(parameters)))
    except (InvalidSchema, re.error):
        parameters = _read_natively(parameters)
    return Draft202012Validator(_with_null(parameters) if parameters else {})


def _patterns(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in _patterns(item)]
    if not isinstance(node, Mapping):
        return []
    own = [node["pattern"]] if isinstance(node.get("pattern"), str) else []
    return own + [found for item in node.values() for found in _patterns(item)]


def _read_natively(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        tools = normalize_tools([{"name": "tool", "description": "", "parameters": parameters}])
    except SchemaError:
        return {}
    return tools[0]["function"]["parameters"] if tools else {}


def _with_null(node: Any) -> Any:
    """Give a schema in which a nullable value may be null and a narrowed union may be any of its alternatives.

    Draft 2020-12 has no keyword `nullable`, and `type` beside `anyOf` is what is shown, not what is allowed.
    """
    if isinstance(node, list):
        return [_with_null(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    inner = {key: _with_null(value) for key, value in node.items()}
    if isinstance(node.get("anyOf"), list) and isinstance(node.get("type"), str):
        inner = {"anyOf": inner["anyOf"]}
    if node.get("nullable") is not True or not isinstance(node.get("type"), str):
        return inner
    return {"anyOf": [{"type": "null"}, inner]}
