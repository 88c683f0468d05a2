"""Whether predicted calls mean what the gold calls mean: the AST match of the Berkeley Function Calling Leaderboard.

Knows calls and function schemas, not texts; `tools` is always the parameters schema by tool name. The rules are BFCL's
(`ast_checker`): every required argument there, none that is not declared, values of the right type, strings compared
without case, spaces and the marks , . / - _ * ^, whole numbers allowed where the schema says number, parallel calls in
any order. Two rules are stricter or wider than BFCL's: a member of an enum is compared to the letter, since a server
refuses any other spelling, and Unicode's ways to write one text are equal (`texts`). Of numbers and dates that stand as
text BFCL's rule forgives signs and points ("-5" is "5"); `holds_numeric_text` finds such golds, so that they are
counted. BFCL lists every accepted value. A row here has one value, but an optional argument at its default equals an
argument that is left out, inside objects too. The error codes, and which of several comes first, are BFCL's.

Schemas come from data sets and may be malformed: a part that is not JSON Schema is treated as missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import permutations
from typing import Any, NamedTuple

from fgtools.calls import ToolCall
from fgtools.metrics.texts import normalize_text
from fgtools.schema.names import normalize_object
from fgtools.schema.types import parse_type

WRONG_NAME = "simple_function_checker:wrong_func_name"
MISSING_REQUIRED = "simple_function_checker:missing_required"
MISSING_OPTIONAL = "simple_function_checker:missing_optional"
UNEXPECTED = "simple_function_checker:unexpected_param"
TYPE_SIMPLE, TYPE_NESTED = "type_error:simple", "type_error:nested"
VALUE_STRING, VALUE_LIST, VALUE_OTHERS = "value_error:string", "value_error:list/tuple", "value_error:others"
VALUE_KEY, VALUE_VALUE = "value_error:dict_key", "value_error:dict_value"
WRONG_COUNT_SIMPLE, WRONG_COUNT_MULTIPLE = (
    "simple_function_checker:wrong_count",
    "multiple_function_checker:wrong_count",
)
WRONG_COUNT = "parallel_function_checker_no_order:wrong_count"
NO_MATCH = "parallel_function_checker_no_order:cannot_find_match"

_IGNORED = re.compile(r"[ ,./\-_*^]")
_NUMERIC = re.compile(r"[\d\s.,/\-_:+*^%]+(?:T[\d:.,+\-]+Z?)?")
_LONGEST_NUMERIC = 40
"""Characters of the longest text that is taken for a number or a date."""

_MOST_WAYS = 5040
"""Up to so many ways to pair the calls of a tool (seven with seven), each is tried, so that order breaks no tie."""


class Agreement(NamedTuple):
    """How far the arguments of two calls agree; an optional argument at its default counts only if both calls have it.

    Attributes:
        right: Names of arguments that mean the same in both.
        gold: Names of the gold call's arguments.
        n_predicted: Arguments of the predicted call.
    """

    right: tuple[str, ...]
    gold: tuple[str, ...]
    n_predicted: int

    @property
    def n_wrong(self) -> int:
        """Arguments of either call for which the other has none that means the same."""
        return len(self.gold) + self.n_predicted - 2 * len(self.right)


def declared_type(spec: Any) -> str:
    """Return the JSON type that a parameter's schema declares, also in other words ("float", "String"); "" for none.

    Of several types it is the first that is not null.
    """
    kinds = spec.get("type") if isinstance(spec, Mapping) else None
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        parsed = parse_type(kind) if isinstance(kind, str) and kind else None
        if parsed and parsed.known and (parsed.schema["type"] != "null" or kinds == kind):
            return str(parsed.schema["type"])
    return ""


def find_error(predicted: Sequence[ToolCall], gold: Sequence[ToolCall], tools: Mapping[str, Any]) -> str:
    """Return BFCL's code for why predicted calls do not match the gold calls, at least one; "" for a match."""
    if len(predicted) != len(gold):
        one_due = WRONG_COUNT_MULTIPLE if len(tools) > 1 else WRONG_COUNT_SIMPLE  # "multiple" are the tools
        return one_due if len(gold) == 1 else WRONG_COUNT
    if len(gold) == 1:
        return _find_call_error(predicted[0], gold[0], tools.get(gold[0].name))
    matched = can_pair(predicted, gold, lambda call, wanted: not _find_call_error(call, wanted, tools.get(wanted.name)))
    return "" if matched else NO_MATCH


def can_pair(
    predicted: Sequence[ToolCall], gold: Sequence[ToolCall], fits: Callable[[ToolCall, ToolCall], bool]
) -> bool:
    """Return whether predicted calls can be paired one to one with as many gold calls, so that every pair fits."""
    in_order = all(map(fits, predicted, gold))
    if in_order or len(gold) < 2:
        return in_order
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    graph = csr_array([[fits(call, wanted) for call in predicted] for wanted in gold])
    return bool((maximum_bipartite_matching(graph) >= 0).all())


def pair_calls(
    predicted: Sequence[ToolCall], gold: Sequence[ToolCall], tools: Mapping[str, Any]
) -> list[tuple[ToolCall | None, Agreement]]:
    """Pair predicted calls with gold calls of the same name, so that the fewest arguments are wrong.

    Returns:
        (gold call or None, how the predicted call agrees with it), for every pair and every call without a partner.
        If the calls match, all pairs agree fully.
    """
    pairs: list[tuple[ToolCall | None, Agreement]] = []
    for name in dict.fromkeys(call.name for call in (*gold, *predicted)):
        wanted = [call for call in gold if call.name == name]
        found = [call for call in predicted if call.name == name]
        pairs.extend(_pair_tool(wanted, found, tools.get(name)))
    return pairs


def _pair_tool(
    wanted: Sequence[ToolCall], found: Sequence[ToolCall], schema: Any
) -> Iterator[tuple[ToolCall | None, Agreement]]:
    properties = normalize_object(schema).properties

    @cache
    def agree(place: int, other: int) -> Agreement:
        given, gold = found[other].arguments, wanted[place].arguments
        shared = [name for name in gold if name in given]
        right = [name for name in shared if not find_value_error(given[name], gold[name], properties.get(name))]
        names = [*shared, *missing_names(given, gold, schema)]
        return Agreement(tuple(right), tuple(names), len(shared) + len(unexpected_names(given, gold, schema)))

    held = _find_best(wanted, found, agree)
    for place, call in enumerate(wanted):
        yield call, agree(place, held[place]) if place in held else Agreement((), tuple(call.arguments), 0)
    taken = set(held.values())
    for other, call in enumerate(found):
        if other not in taken:
            yield None, Agreement((), (), len(call.arguments))


def _find_best(
    wanted: Sequence[ToolCall], found: Sequence[ToolCall], agree: Callable[[int, int], Agreement]
) -> dict[int, int]:
    """Return the place of the predicted call for every gold call that gets one, so that the fewest are wrong."""

    def cost(place: int, other: int) -> int:
        """Return the wrong arguments of a pair, less those that two calls without partners would have."""
        return agree(place, other).n_wrong - len(wanted[place].arguments) - len(found[other].arguments)

    def rate(ways: dict[int, int]) -> tuple[int, list[Agreement]]:
        """Return the cost of a pairing; ties are broken by names, never by order."""
        return sum(cost(*pair) for pair in ways.items()), sorted(agree(*pair) for pair in ways.items())

    few, many = sorted((len(wanted), len(found)))
    if math.perm(many, few) > _MOST_WAYS:
        from scipy.optimize import linear_sum_assignment

        if len(wanted) == len(found) and not any(agree(place, place).n_wrong for place in range(few)):
            return {place: place for place in range(few)}
        costs = [[cost(place, other) for other in range(len(found))] for place in range(len(wanted))]
        places, others = linear_sum_assignment(costs)
        return dict(zip(places.tolist(), others.tolist(), strict=True))
    if len(wanted) <= len(found):
        ways = (dict(enumerate(order)) for order in permutations(range(many), few))
    else:
        ways = (dict(zip(order, range(few), strict=True)) for order in permutations(range(many), few))
    return min(ways, key=rate)


def _find_call_error(call: ToolCall, gold: ToolCall, schema: Any) -> str:
    if call.name != gold.name:
        return WRONG_NAME
    properties, required = normalize_object(schema)
    missing = missing_names(call.arguments, gold.arguments, schema)
    if any(name in required for name in missing):
        return MISSING_REQUIRED
    unexpected = set(unexpected_names(call.arguments, gold.arguments, schema))
    for name, value in call.arguments.items():
        if name in unexpected:
            return UNEXPECTED
        if name in gold.arguments:
            error = find_value_error(value, gold.arguments[name], properties.get(name))
            if error:
                return error
    return MISSING_OPTIONAL if missing else ""


def missing_names(given: Mapping[str, Any], gold: Mapping[str, Any], schema: Any) -> list[str]:
    """Return the gold arguments that are not given, without those at their default."""
    return [name for name in gold if name not in given and not _is_at_default(name, gold[name], schema)]


def unexpected_names(given: Mapping[str, Any], gold: Mapping[str, Any], schema: Any) -> list[str]:
    """Return the given arguments that the gold does not have, without those at their default."""
    return missing_names(gold, given, schema)


def _is_at_default(name: str, value: Any, schema: Any) -> bool:
    """Return whether an argument is optional and its value equals its default."""
    properties, required = normalize_object(schema)
    spec = properties.get(name)
    if not isinstance(spec, Mapping) or name in required or "default" not in spec:
        return False
    return not find_value_error(value, spec["default"], spec)


def find_value_error(value: Any, gold: Any, spec: Any = None, nested: bool = False) -> str:
    """Return BFCL's code for why a value does not mean the same as the gold value; "" if it does.

    Args:
        value: The predicted value.
        gold: The gold value.
        spec: The parameter's schema; with type "number" a whole number may equal a decimal.
        nested: Whether the value is inside a list or a mapping.
    """
    if _kind(value) != _kind(gold) and not _are_numbers(value, gold, spec):
        return TYPE_NESTED if nested else TYPE_SIMPLE
    if isinstance(gold, str):
        same = value == gold or (not _is_choice(gold, spec) and _plain(value) == _plain(gold))
        return "" if same else VALUE_STRING
    if isinstance(gold, (list, tuple)):
        if len(value) != len(gold):
            return VALUE_LIST
        items = spec.get("items") if isinstance(spec, Mapping) else None
        errors = (find_value_error(*pair, items, True) for pair in zip(value, gold, strict=True))
        return next((error if error == TYPE_NESTED else VALUE_LIST for error in errors if error), "")
    if isinstance(gold, Mapping):
        if missing_names(value, gold, spec) or unexpected_names(value, gold, spec):
            return VALUE_KEY
        properties = normalize_object(spec).properties
        shared = [key for key in gold if key in value]
        errors = (find_value_error(value[key], gold[key], properties.get(key), True) for key in shared)
        return next((error if error == TYPE_NESTED else VALUE_VALUE for error in errors if error), "")
    return "" if value == gold else VALUE_OTHERS


def holds_numeric_text(value: Any, spec: Any = None) -> bool:
    """Return whether a gold value is, or holds, text that is a number, a date or a time and no member of an enum.

    Args:
        value: The gold value.
        spec: The parameter's schema.
    """
    if isinstance(value, str):
        if len(value) > _LONGEST_NUMERIC or not _NUMERIC.fullmatch(value) or not any(map(str.isdigit, value)):
            return False
        return not _is_choice(value, spec)
    if isinstance(value, (list, tuple)):
        items = spec.get("items") if isinstance(spec, Mapping) else None
        return any(holds_numeric_text(item, items) for item in value)
    if isinstance(value, Mapping):
        properties = normalize_object(spec).properties
        return any(holds_numeric_text(item, properties.get(name)) for name, item in value.items())
    return False


def _is_choice(gold: Any, spec: Any) -> bool:
    """Return whether a value is a member of its schema's enum, or of that of one of the schema's alternatives."""
    if not isinstance(spec, Mapping):
        return False
    others = spec.get("anyOf")
    schemas = [spec, *(one for one in (others if isinstance(others, list) else ()) if isinstance(one, Mapping))]
    return any(gold in schema["enum"] for schema in schemas if isinstance(schema.get("enum"), list))


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, (list, tuple)):
        return "array"
    return type(value).__name__


def _are_numbers(value: Any, gold: Any, spec: Any) -> bool:
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in (value, gold)):
        return False
    kind = declared_type(spec)
    return kind == "number" or (isinstance(gold, float) and kind != "integer")


def _plain(text: str) -> str:
    return _IGNORED.sub("", normalize_text(text)).lower().replace("'", '"')
