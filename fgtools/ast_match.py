"""Whether predicted calls mean what the gold calls mean: the AST match of the Berkeley Function Calling Leaderboard.

Knows calls and function schemas; not texts. The rules are BFCL's (`ast_checker`): every required argument there, none
that is not declared, values of the right type, strings compared without case, spaces and the marks , . / - _ * ^, whole
numbers allowed where the schema says number, parallel calls in any order. BFCL lists every accepted value; a row here
has one, and an optional argument that the gold leaves out, or that equals its default, may be left out or given as its
default. The error codes are BFCL's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fgtools.calls import ToolCall

WRONG_NAME = "simple_function_checker:wrong_func_name"
MISSING_REQUIRED = "simple_function_checker:missing_required"
MISSING_OPTIONAL = "simple_function_checker:missing_optional"
UNEXPECTED = "simple_function_checker:unexpected_param"
TYPE_SIMPLE, TYPE_NESTED = "type_error:simple", "type_error:nested"
VALUE_STRING, VALUE_LIST, VALUE_OTHERS = "value_error:string", "value_error:list/tuple", "value_error:others"
VALUE_KEY, VALUE_VALUE = "value_error:dict_key", "value_error:dict_value"
WRONG_COUNT = "parallel_function_checker_no_order:wrong_count"
NO_MATCH = "parallel_function_checker_no_order:cannot_find_match"

_IGNORED = re.compile(r"[ ,./\-_*^]")
_ABSENT = object()


def find_error(predicted: Sequence[ToolCall], gold: Sequence[ToolCall], tools: Mapping[str, Mapping[str, Any]]) -> str:
    """Say why predicted calls do not match the gold calls.

    Args:
        predicted: The calls of a reply.
        gold: The row's calls; at least one.
        tools: Parameters schema by tool name, {"properties", "required"}.

    Returns:
        BFCL's error code, "" for a match.
    """
    if len(predicted) != len(gold):
        return WRONG_COUNT
    if len(gold) == 1:
        return _find_call_error(predicted[0], gold[0], tools.get(gold[0].name, {}))
    if sorted(call.name for call in predicted) != sorted(call.name for call in gold):
        return WRONG_NAME
    fits = [[not _find_call_error(call, wanted, tools.get(wanted.name, {})) for call in predicted] for wanted in gold]
    return "" if _can_assign(fits) else NO_MATCH


def _can_assign(fits: Sequence[Sequence[bool]]) -> bool:
    """Tell whether every gold call can have a predicted call of its own (augmenting paths)."""
    taken: dict[int, int] = {}

    def place(wanted: int, tried: set[int]) -> bool:
        for call, fit in enumerate(fits[wanted]):
            if fit and call not in tried:
                tried.add(call)
                if call not in taken or place(taken[call], tried):
                    taken[call] = wanted
                    return True
        return False

    return all(place(wanted, set()) for wanted in range(len(fits)))


def _find_call_error(call: ToolCall, gold: ToolCall, parameters: Mapping[str, Any]) -> str:
    if call.name != gold.name:
        return WRONG_NAME
    specs = _properties(parameters)
    missing = missing_names(call, gold, parameters)
    if any(name in parameters.get("required", ()) for name in missing):
        return MISSING_REQUIRED
    if unexpected_names(call, gold, parameters):
        return UNEXPECTED
    if missing:
        return MISSING_OPTIONAL
    for name, value in call.arguments.items():
        if name in gold.arguments:
            error = find_value_error(value, gold.arguments[name], specs.get(name, {}))
            if error:
                return error
    return ""


def _properties(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = parameters.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _is_at_default(name: str, value: Any, parameters: Mapping[str, Any]) -> bool:
    """Tell whether an argument is optional and has the value it has anyway."""
    spec = _properties(parameters).get(name)
    if not isinstance(spec, Mapping) or name in parameters.get("required", ()):
        return False
    default = spec.get("default", _ABSENT)
    return default is not _ABSENT and not find_value_error(value, default, spec)


def missing_names(call: ToolCall, gold: ToolCall, parameters: Mapping[str, Any]) -> list[str]:
    """Give the gold arguments a call leaves out, those at their default aside."""
    absent = [name for name in gold.arguments if name not in call.arguments]
    return [name for name in absent if not _is_at_default(name, gold.arguments[name], parameters)]


def unexpected_names(call: ToolCall, gold: ToolCall, parameters: Mapping[str, Any]) -> list[str]:
    """Give the arguments of a call that the gold does not have, those at their default aside."""
    added = [name for name in call.arguments if name not in gold.arguments]
    return [name for name in added if not _is_at_default(name, call.arguments[name], parameters)]


def find_value_error(value: Any, gold: Any, spec: Any = None, nested: bool = False) -> str:
    """Say why a value does not mean what the gold value means.

    Args:
        value: The predicted value.
        gold: The gold value.
        spec: The parameter's schema; its type "number" lets whole numbers and decimals meet.
        nested: Whether the value stands inside a list or a mapping.

    Returns:
        BFCL's error code, "" for equal meaning.
    """
    spec = spec if isinstance(spec, Mapping) else {}
    if _kind(value) != _kind(gold) and not _are_numbers(value, gold, spec):
        return TYPE_NESTED if nested else TYPE_SIMPLE
    if isinstance(gold, str):
        return "" if _plain(value) == _plain(gold) else VALUE_STRING
    if isinstance(gold, (list, tuple)):
        if len(value) != len(gold):
            return VALUE_LIST
        errors = (find_value_error(*pair, spec.get("items"), True) for pair in zip(value, gold, strict=True))
        return next((error if error == TYPE_NESTED else VALUE_LIST for error in errors if error), "")
    if isinstance(gold, Mapping):
        if set(value) != set(gold):
            return VALUE_KEY
        specs = _properties(spec)
        errors = (find_value_error(value[key], item, specs.get(key), True) for key, item in gold.items())
        return next((error if error == TYPE_NESTED else VALUE_VALUE for error in errors if error), "")
    return "" if value == gold else VALUE_OTHERS


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, (list, tuple)):
        return "array"
    return type(value).__name__


def _are_numbers(value: Any, gold: Any, spec: Mapping[str, Any]) -> bool:
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in (value, gold)):
        return False
    return spec.get("type") == "number" or (isinstance(gold, float) and spec.get("type") != "integer")


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')
