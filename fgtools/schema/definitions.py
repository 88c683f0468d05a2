"""The fields of one tool definition: which wrappers are around it, where its name, description and parameters stand.

Knows the field names of published notations; not what parameters say. A field's name is compared without regard to
upper case, underscores and hyphens, so that inputSchema, input_schema and INPUT_SCHEMA are one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from fgtools.schema.limits import MAX_DESCRIPTION, require_at_most
from fgtools.schema.literals import decode_text, plain_value
from fgtools.schema.references import DEFINITION_WORDS
from fgtools.schema.signatures import is_signature, parse_signature
from fgtools.schema.specs import named_entries

NAME_WORDS = (
    *("api_call", "name", "api_name", "function_name", "tool_name", "toolName", "functionName", "operationId"),
    *("tool", "Name"),
)
"""Fields of a tool's callable name, best first: Gorilla's `name` is a title, and its `api_call` what is called."""

WRAPPERS = ("function", "toolSpec", "tool_spec", "functionDeclaration", "function_declaration", "tool")
"""Fields that hold a whole definition."""

_DESCRIPTION_WORDS = ("description", "api_description", "func_description", "function_description", "tool_description")

_PARAMETER_WORDS = (
    *("parameters", "parametersjsonschema", "parameterdefinitions", "inputschema", "inputparameters", "argsschema"),
    *("inputs", "arguments", "args", "params", "parameter", "schema", "input", "jsonschema", "inputjsonschema"),
    *("parametersschema", "parameterschema", "argumentsschema", "argumentschema", "toolparameters", "apiparameters"),
    *("functionparameters", "inputparams", "inputargs", "toolcallschema", "kwargs"),
)
"""Fields that hold the parameters, best first, without upper case and underscores."""

_PARTS = {"params", "parameters", "args", "arguments", "inputs"}
_REQUIRED_WORDS = frozenset(f"required{part}" for part in _PARTS)
_OPTIONAL_WORDS = frozenset(f"optional{part}" for part in _PARTS)
_BESIDE = ("properties", "allOf", "anyOf", "oneOf", "$ref")
_SCHEMA_WORDS = (*_BESIDE, "type", "required", "additionalProperties", *DEFINITION_WORDS)
_NOT_INPUT = ("output", "return", "response", "result", "example", "annotation", "meta", "error", "config")


class Container(NamedTuple):
    """Where a definition has its parameters.

    Attributes:
        field: The field's name, or "" where there is none.
        value: What stands there.
        beside: What stands in the field `required` beside it, or the names in `required_parameters`.
        changes: What was done to get there and what was passed over, as (kind, detail); see `schema.Change`.
    """

    field: str
    value: Any
    beside: Any
    changes: tuple[tuple[str, str], ...] = ()


def find_name(raw: Mapping[str, Any]) -> str | None:
    """Return the field that holds a tool's name; None where there is none."""
    field = next((word for word in NAME_WORDS if isinstance(raw.get(word), str) and raw[word].strip()), None)
    if field is None and isinstance(raw.get("title"), str) and raw["title"].strip() and "properties" in raw:
        return "title"  # the JSON Schema of a class
    return field


def find_description(raw: Mapping[str, Any]) -> str:
    """Return a tool's description as text; "" where there is none."""
    text = next((raw[word] for word in _DESCRIPTION_WORDS if raw.get(word) is not None), "")
    if not isinstance(text, str):
        try:
            text = json.dumps(plain_value(text), ensure_ascii=False)
        except ValueError:
            return ""
    require_at_most(MAX_DESCRIPTION, len(text), "characters of a tool's description")
    return text


def unwrap(raw: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Remove {"function": ...} and other wrappers; fields beside the inner definition are kept where it lacks them.

    Args:
        raw: A definition, possibly wrapped.

    Returns:
        The definition, and the kinds of the changes.
    """
    changes: tuple[str, ...] = ()
    own = set(raw) <= {"type", "function"}  # the wrapper of the normal form is no change
    for level in range(4):
        word, inner = _find_wrapped(raw)
        if inner is None:
            break
        changes = () if own and not level and "type" in raw else ("wrapper_removed",)
        beside = {key: value for key, value in raw.items() if key not in (word, "type")}
        if word != "function" and not find_parameters(inner).field and find_parameters(beside).field:
            raw = {**inner, **beside}  # the definition stands outside
        else:
            raw = {**beside, **inner}
        if not any(key in inner for key in WRAPPERS):
            break
    return raw, changes


def _find_wrapped(raw: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    for word in WRAPPERS:
        inner = raw.get(word)
        if word == "function" and isinstance(inner, str):
            try:
                inner = decode_text(inner)
            except ValueError:
                inner = _parse_signature(inner)
        if isinstance(inner, Mapping) and (word == "function" or find_name(inner) is not None):
            return word, inner
    return "", None


def _parse_signature(text: str) -> Mapping[str, Any]:
    try:
        return parse_signature(text) if is_signature(text) else {"name": text}
    except ValueError:
        return {"name": text}


def find_parameters(raw: Mapping[str, Any]) -> Container:
    """Return the parameters of a definition, wherever they stand.

    Args:
        raw: A definition without wrappers.

    Returns:
        The Container; of several fields the first that is not empty.
    """
    plain = {_plain(word): word for word in reversed(list(raw)) if isinstance(word, str)}
    found = [plain[word] for word in _PARAMETER_WORDS if word in plain and _may_hold(word, raw[plain[word]])]
    if any(isinstance(raw.get(word), (Mapping, list, tuple)) for word in _BESIDE) or isinstance(raw.get("$ref"), str):
        found.append("properties")
    required = next((raw[plain[word]] for word in sorted(_REQUIRED_WORDS) if word in plain and raw[plain[word]]), None)
    optional = next((raw[plain[word]] for word in sorted(_OPTIONAL_WORDS) if word in plain and raw[plain[word]]), None)
    beside = raw.get("required")
    if _are_names(required) and (found or not _are_names(optional)):
        beside, required = beside or required, (None if found else required)
    values = {word: _value_of(raw, word) for word in found}
    if required or optional:
        found.append("required_parameters")
        values["required_parameters"] = _split_entries(required, True) + _split_entries(optional, False)
    filled = [word for word in found if not _is_empty(values[word])]
    if not filled and (other := _find_schema(raw, found)):
        filled, values[other] = [other], raw[other]
    if not filled:
        return Container(found[0], values[found[0]], beside) if found else Container("", None, beside)
    field = filled[0]
    changes = [("parameters_from", field)] * (field != "parameters")
    changes += [("parameters_ignored", word) for word in filled[1:] if values[word] != values[field]]
    return Container(field, values[field], None if field == "properties" else beside, tuple(changes))


def _plain(word: str) -> str:
    return word.replace("_", "").replace("-", "").lower()


def _may_hold(word: str, value: Any) -> bool:
    if word == "parameters":
        return value is not None
    return isinstance(value, (Mapping, list, tuple)) or (isinstance(value, str) and value.lstrip()[:1] in ("{", "["))


def _value_of(raw: Mapping[str, Any], word: str) -> Any:
    if word != "properties":
        return raw[word]
    schema = {key: raw[key] for key in _SCHEMA_WORDS if key in raw}
    return {**schema, "type": "object"}


def _are_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(name, str) for name in value)


def _split_entries(value: Any, required: bool) -> list[dict[str, Any]]:
    """Return the arguments in `required_parameters` or `optional_parameters`, each with a name and `required`."""
    if isinstance(value, Mapping):
        entries: Mapping[str, Any] = value
    else:
        entries, _ = named_entries(value if isinstance(value, (list, tuple)) else ())
    specs = {name: spec if isinstance(spec, Mapping) else {"type": spec} for name, spec in entries.items()}
    return [{**spec, "name": name, "required": required} for name, spec in specs.items()]


def _is_empty(value: Any) -> bool:
    """Return whether a container names no parameters."""
    if isinstance(value, str):
        return not value.strip() or value.strip() in ("{}", "[]")
    if not isinstance(value, Mapping):
        return not value
    if any(value.get(word) for word in ("properties", "allOf", "anyOf", "oneOf", "$ref")):
        return False
    return not set(value) - {"type", "properties", "required", "additionalProperties", "$schema", "title"}


def _find_schema(raw: Mapping[str, Any], known: list[str]) -> str | None:
    """Return a field of an unknown name that holds a JSON Schema with properties, and is no output or example."""
    for word, value in raw.items():
        if word in known or not isinstance(value, Mapping) or any(part in _plain(str(word)) for part in _NOT_INPUT):
            continue
        inner = value.get("properties")
        if isinstance(inner, Mapping) and inner and all(isinstance(spec, Mapping) for spec in inner.values()):
            return word
    return None


def unwrap_parameters(value: Any) -> tuple[Any, tuple[tuple[str, str], ...]]:
    """Decode parameters that are text, and take the schema out of {"json": ...}, {"jsonSchema": ...}, {"schema": ...}.

    Args:
        value: What stands in a parameters field.

    Returns:
        The parameters, and what was done as (kind, detail).

    Raises:
        ValueError: It is text that cannot be parsed.
    """
    changes: tuple[tuple[str, str], ...] = ()
    for _ in range(3):
        if isinstance(value, str) and value.strip():
            value = decode_text(value)
            changes = (("text_decoded", "parameters"),)
        if not isinstance(value, Mapping):
            break
        inner = next((value[word] for word in ("json", "jsonSchema", "json_schema", "schema") if word in value), None)
        is_text = isinstance(inner, str) and inner.lstrip().startswith("{")
        if len(value) > 2 or not (is_text or (isinstance(inner, Mapping) and _is_schema(inner))):
            break
        value = inner
    return value, changes


def _is_schema(inner: Mapping[str, Any]) -> bool:
    """Return whether a mapping is a whole JSON Schema, and not the specification of a parameter named `schema`."""
    return isinstance(inner.get("properties"), Mapping) or any(word in inner for word in ("allOf", "anyOf", "oneOf"))
