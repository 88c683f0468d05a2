"""Schema validity: whether the arguments of calls satisfy the schemas of their tools, and if not, why.

Knows calls and JSON Schema; not gold calls or scores. The validator is jsonschema's (draft 2020-12). Since schemas and
arguments may come from anywhere, a few keywords are replaced by safe ones: no reference is looked up in the network,
searching a pattern has a time limit, and unique items are found in time proportional to their size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from fgtools.calls import ToolCall
from fgtools.schema import SchemaError, normalize_tools

_OPENING = frozenset(
    {"additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "not", "if"}
    | {"$ref", "$dynamicRef", "dependentSchemas", "propertyNames"}
)
"""Keywords with which a schema says itself what else an object may hold, or leaves it to another schema."""

PATTERN_SECONDS = 0.2
"""Time that one `pattern` of a schema may take on one text, in seconds of processor time."""


def has_valid_arguments(calls: Sequence[ToolCall], tools: Mapping[str, Any]) -> bool:
    """Return whether every call names a declared tool and satisfies its schema.

    An argument that the tool does not declare makes a call invalid, unless the schema allows others: a JSON Schema that
    says nothing about them would accept every invented name.

    Args:
        calls: The calls.
        tools: Parameters schema by tool name.

    Returns:
        True for no calls; False where a check fails, such as a pattern that takes too long.
    """
    return all(call.name in tools and not _find_violations(call, tools[call.name], 1) for call in calls)


def find_violations(calls: Sequence[ToolCall], tools: Mapping[str, Any]) -> list[str]:
    """Return what makes calls invalid: tools that are not declared, arguments that do not satisfy their schema.

    Args:
        calls: The calls.
        tools: Parameters schema by tool name.

    Returns:
        One sentence per violation, of 200 characters at most; [] where `has_valid_arguments` is true.
    """
    found = []
    for call in calls:
        declared = call.name in tools
        found += _find_violations(call, tools[call.name]) if declared else [f"{call.name}: no such tool is declared"]
    return found


def _find_violations(call: ToolCall, schema: Any, most: int | None = None) -> list[str]:
    """Return what makes a call's arguments invalid, `most` sentences at most; a check that fails is the only one."""
    try:
        validator = _validator(json.dumps(schema or {}, sort_keys=True))
        found = islice(validator.iter_errors(call.arguments), most)
        return [f"{'.'.join([call.name, *map(str, one.absolute_path)])}: {one.message}"[:200] for one in found]
    except Exception as error:  # numbers too large, lists too deep, patterns too slow: each fails in a way of its own
        return [f"{call.name}: the arguments cannot be held against the schema ({type(error).__name__})"[:200]]


@lru_cache(maxsize=4096)
def _validator(text: str) -> Any:
    """Return the validator of a parameters schema; what is not JSON Schema is first normalized to it."""
    from jsonschema.exceptions import SchemaError as InvalidSchema
    from jsonschema.validators import extend
    from referencing import Registry

    parameters, validator_class = json.loads(text), _validator_class()
    try:
        validator_class.check_schema(parameters)
    except InvalidSchema:
        parameters = _normalize_parameters(parameters)
    if '"patternProperties"' in text:  # with both words jsonschema searches names without a time limit
        validator_class = extend(validator_class, {"unevaluatedProperties": lambda *_: ()})
    return validator_class(_with_null(_close(parameters)) if parameters else {}, registry=Registry())


@lru_cache(maxsize=1)
def _validator_class() -> Any:
    """Return jsonschema's validator class with the unsafe keywords replaced.

    A reference that cannot be resolved within the schema, and a pattern that is not a regular expression, are ignored.
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

    def check_reference(word: str, validator: Any, reference: Any, value: Any, schema: Any) -> Iterator[Any]:
        with suppress(Unresolvable):
            yield from known[word](validator, reference, value, schema)

    checks = {"pattern": check_pattern, "patternProperties": check_named, "additionalProperties": check_others}
    references = {word: partial(check_reference, word) for word in ("$ref", "$dynamicRef")}
    return extend(Draft202012Validator, {**checks, "uniqueItems": check_unique, **references})


def _canonical(value: Any) -> str:
    """Return a text that is equal for values that JSON Schema calls equal: 1 is 1.0, True is not 1."""

    def plain(node: Any) -> Any:
        if isinstance(node, float) and node.is_integer():
            return int(node)
        if isinstance(node, Mapping):
            return {key: plain(item) for key, item in node.items()}
        return [plain(item) for item in node] if isinstance(node, list) else node

    return json.dumps(plain(value), sort_keys=True)


def _normalize_parameters(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        tools = normalize_tools([{"name": "tool", "description": "", "parameters": parameters}])
    except SchemaError:
        return {}
    return tools[0]["function"]["parameters"] if tools else {}


def find_undeclared(call: ToolCall, schema: Any) -> list[str]:
    """Return the arguments of a call that its tool does not declare, nested ones included.

    Args:
        call: The call.
        schema: The tool's parameters.

    Returns:
        Their names with dots, "trip.city"; [] where the schema allows others (`additionalProperties`), leaves open what
        an object holds, or combines schemas (`anyOf`, `$ref`), since what these declare together is not looked up.
    """
    return list(_undeclared(call.arguments, schema, ""))


def _undeclared(value: Any, schema: Any, path: str) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _undeclared(item, schema.get("items"), path)
    elif isinstance(value, Mapping) and isinstance(declared := schema.get("properties"), Mapping):
        for name, item in value.items():
            if name in declared:
                yield from _undeclared(item, declared[name], f"{path}{name}.")
            elif _is_closed(schema, is_top=not path):
                yield f"{path}{name}"


def _is_closed(schema: Mapping[str, Any], is_top: bool) -> bool:
    """Return whether an object may hold its declared properties only; a nested object without any may hold anything."""
    declared = schema.get("properties")
    return isinstance(declared, Mapping) and bool(declared or is_top) and not _OPENING.intersection(schema)


def _close(schema: Any, is_top: bool = True) -> Any:
    """Return a schema whose objects, unless they say otherwise, allow their declared properties only."""
    if not isinstance(schema, Mapping):
        return schema
    inner = dict(schema)
    if _is_closed(schema, is_top):
        inner["additionalProperties"] = False
    for word in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(word), Mapping):
            inner[word] = {name: _close(item, is_top=False) for name, item in schema[word].items()}
    if isinstance(schema.get("items"), Mapping):
        inner["items"] = _close(schema["items"], is_top=False)
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and "properties" not in schema:
            inner[word] = [_close(item, is_top=False) for item in schema[word]]
    return inner


def _with_null(node: Any) -> Any:
    """Return a schema in which a nullable value may be null, and a value with `anyOf` may be any of its alternatives.

    Draft 2020-12 has no keyword `nullable`, and a `type` beside `anyOf` is only what the model is shown. `$schema` is
    removed, since it would select the validator of another draft.
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
