"""The parameters that a schema names, and replacing names that a prompt or a call cannot carry.

Knows the names of tools, parameters and arguments, also in malformed schemas. The call grammar cannot carry some tool
names, and a chat template hides some parameter names; which ones is for the caller to say. A row has its replacements
in `renamed`: {"tools": {new: old}, "parameters": {tool, by its new name: {new: old}}}; `serve.restore_calls` undoes
them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from fgtools.calls import is_writable
from fgtools.calls.tokens import SPECIAL_TOKEN

_UNWRITABLE = re.compile(SPECIAL_TOKEN.pattern + r"|[{}\s]+")


class ObjectSchema(NamedTuple):
    """What a schema says of an object.

    Attributes:
        properties: Schema by property name.
        required: Names of the required properties.
    """

    properties: Mapping[str, Any]
    required: frozenset[str]


def normalize_object(schema: Any) -> ObjectSchema:
    """Return the properties and required names of a schema.

    Args:
        schema: The parameters of a tool or the schema of an object; anything.

    Returns:
        The ObjectSchema; a part that is missing or malformed is empty.
    """
    required = schema.get("required") if isinstance(schema, Mapping) else None
    names = required if isinstance(required, list) else ()
    return ObjectSchema(_properties(schema), frozenset(name for name in names if isinstance(name, str)))


def _properties(schema: Any) -> Mapping[str, Any]:
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def replace_tool_names(names: Iterable[str]) -> dict[str, str]:
    """Choose a name for every tool name that the call grammar cannot carry.

    Args:
        names: All tool names of a row.

    Returns:
        {new: old}, for the names that are replaced; the new ones differ from all other names.
    """
    given = list(dict.fromkeys(names))
    taken = {name for name in given if is_writable(name)}
    replaced: dict[str, str] = {}
    for name in given:
        if not is_writable(name):
            base = new = _UNWRITABLE.sub("_", name.strip()).strip("_") or "tool"
            number = 2
            while new in taken:
                new, number = f"{base}_{number}", number + 1
            taken.add(new)
            replaced[new] = name
    return replaced


def replace_parameter_names(parameters: Mapping[str, Any], hidden: Collection[str]) -> dict[str, str]:
    """Choose a name for every hidden parameter of a tool, nested ones included.

    Args:
        parameters: The tool's parameters, in normal form.
        hidden: Names that the chat template does not show.

    Returns:
        {new: old}; a new name is the old one with as many underscores appended as make it unique in the tool.
    """
    given = parameter_names(parameters)
    replaced: dict[str, str] = {}
    for name in sorted(given & set(hidden)):
        new = f"{name}_"
        while new in given or new in hidden or new in replaced:
            new += "_"
        replaced[new] = name
    return replaced


def parameter_names(schema: Any) -> set[str]:
    """Return the names of all parameters of a schema, at every level."""
    if not isinstance(schema, Mapping):
        return set()
    inner = (*_properties(schema).values(), schema.get("items"))
    return set(_properties(schema)).union(*map(parameter_names, inner))


def rename_parameters(schema: Mapping[str, Any], new_names: Mapping[str, str]) -> dict[str, Any]:
    """Return a schema with other parameter names, at every level.

    Args:
        schema: Parameters in normal form.
        new_names: {old: new}.

    Returns:
        A copy, with the new names in `properties`, `required` and `items`.
    """
    result = dict(schema)
    if _properties(schema):
        result["properties"] = {
            new_names.get(name, name): rename_parameters(inner, new_names) if isinstance(inner, Mapping) else inner
            for name, inner in _properties(schema).items()
        }
    if isinstance(schema.get("required"), (list, tuple)):
        result["required"] = [new_names.get(name, name) for name in schema["required"]]
    if isinstance(schema.get("items"), Mapping):
        result["items"] = rename_parameters(schema["items"], new_names)
    return result


def rename_arguments(value: Any, schema: Any, new_names: Mapping[str, str]) -> Any:
    """Return argument values with other names; a name that the schema does not declare stays.

    Args:
        value: The arguments, or a value inside them.
        schema: Its schema, or None.
        new_names: {old: new}.

    Returns:
        A copy with the new names.
    """
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, Mapping):
        declared = _properties(schema)
        return {
            new_names.get(name, name) if name in declared else name: rename_arguments(
                item, declared.get(name), new_names
            )
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [rename_arguments(item, schema.get("items"), new_names) for item in value]
    return value
