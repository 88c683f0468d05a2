"""OpenAPI 3 and Swagger 2 documents: every operation as a tool.

Knows paths, operations, their parameters and request bodies; not how an operation is called. A call's arguments are one
object here, while an operation takes them from its path, query, headers and body: a second one of a name is renamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fgtools.calls import Problem
from fgtools.schema.definitions import find_description
from fgtools.schema.limits import MAX_TOOLS, require_at_most
from fgtools.schema.names import normalize_object
from fgtools.schema.parameters import parse_parameters
from fgtools.schema.references import Definitions

_METHODS = ("get", "put", "post", "delete", "patch", "options", "head", "trace")
_JSON_LIKE = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
_SPEC_HEADERS = frozenset({"accept", "content-type", "authorization"})
"""Headers that OpenAPI says are no parameters."""

_NOT_SCHEMA = frozenset({"name", "in", "required", "schema", "content", "style", "explode", "collectionFormat"})


class Operations:
    """The tools of one document, what was left out, and what was changed as (tool, kind, detail)."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Parse every operation; raises LimitError where there are too many."""
        self._document = document
        self._definitions = Definitions([document])
        self.tools: list[dict[str, Any]] = []
        self.problems: list[Problem] = []
        self.changes: list[tuple[str, str, str]] = []
        self._names: set[str] = set()
        for path, method, operation, shared in _list_operations(document, self._definitions):
            require_at_most(MAX_TOOLS, len(self.tools) + 1, "operations of a document")
            self._add(path, method, operation, shared)

    def _add(self, path: str, method: str, operation: Mapping[str, Any], shared: Any) -> None:
        given = operation.get("operationId")
        wanted = given if isinstance(given, str) and given.strip() else _name_of(method, path)
        name, number = wanted, 2
        while name in self._names:
            name, number = f"{wanted}_{number}", number + 1
        if name != wanted:
            self.problems.append(Problem("name_clash", f"{method} {path}: {wanted} is {name}"[:80]))
        self._names.add(name)
        properties: dict[str, Any] = {}
        required: list[str] = []
        for entry, spec, needed, place in self._list_arguments(name, operation, shared):
            key, count = entry, 2
            while key in properties:
                key, count = (f"{place}_{entry}" if count == 2 else f"{place}_{entry}_{count}"), count + 1
            if key != entry:
                self.problems.append(Problem("name_clash", f"{name}: {entry} in {place} is {key}"[:80]))
            properties[key] = spec
            required += [key] * needed
        raw = {"type": "object", "properties": properties, "required": required}
        parameters, noted = parse_parameters(raw, None, [self._document])
        self.changes += [(name, kind, detail) for kind, detail in noted]
        said = [find_description({"description": operation.get(word)}) for word in ("summary", "description")]
        text = "\n".join(dict.fromkeys(part.strip() for part in said if part.strip())) or f"{method.upper()} {path}"
        function = {"name": name, "description": text, "parameters": parameters}
        self.tools.append({"type": "function", "function": function})

    def _list_arguments(
        self, name: str, operation: Mapping[str, Any], shared: Any
    ) -> Iterator[tuple[str, Any, bool, str]]:
        """Yield an operation's arguments as (name, specification, whether required, place)."""
        parameters: dict[tuple[str, str], Mapping[str, Any]] = {}
        for listed in (shared, operation.get("parameters")):
            for one in listed if isinstance(listed, (list, tuple)) else ():
                found = self._resolve(one)
                if found is None or not isinstance(found.get("name"), str):
                    self.problems.append(Problem("parameter_left_out", f"{name}: no name in {one}"[:80]))
                else:  # one of the operation takes the place of one of its path
                    parameters[found["name"], str(found.get("in", "query"))] = found
        for (entry, place), found in parameters.items():
            if place == "header" and entry.lower() in _SPEC_HEADERS:
                continue
            if place == "cookie":
                self.problems.append(Problem("parameter_left_out", f"{name}: cookie {entry}"[:80]))
            elif place == "body":
                yield from self._list_body(name, found.get("schema"), found.get("required") is True, found)
            else:
                needed = found.get("required") is True or place == "path"
                yield entry, _specification(found), needed, place
        body = self._resolve(operation.get("requestBody"))
        if body is not None and isinstance(body.get("content"), Mapping):
            yield from self._list_body(name, _schema_of(body["content"]), body.get("required") is not False, body)

    def _list_body(
        self, name: str, schema: Any, needed: bool, said: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any, bool, str]]:
        """Yield the properties of a request body, or the body as one argument where it is no object."""
        whole, noted = parse_parameters({"type": "object", "properties": {"body": schema}}, None, [self._document])
        body = whole["properties"]["body"]
        found = normalize_object(body)
        if body["type"] != "object" or not found.properties:
            described = {"description": said["description"]} if isinstance(said.get("description"), str) else {}
            yield "body", {**described, **(schema if isinstance(schema, Mapping) else {})}, needed, "body"
            return
        self.changes += [(name, kind, detail) for kind, detail in noted]
        read_only = self._read_only_names(schema)
        for entry, spec in found.properties.items():
            if entry in read_only:
                self.problems.append(Problem("parameter_left_out", f"{name}: {entry} is read-only"[:80]))
            else:
                yield entry, spec, needed and entry in found.required, "body"

    def _read_only_names(self, schema: Any) -> set[str]:
        """Return the properties that a body's schema, or a part of its allOf, marks as only sent in answers."""
        whole = self._resolve(schema) or {}
        parts = whole.get("allOf") if isinstance(whole.get("allOf"), (list, tuple)) else ()
        given = [item for part in (whole, *parts) for item in normalize_object(self._resolve(part)).properties.items()]
        return {name for name, spec in given if (self._resolve(spec) or {}).get("readOnly") is True}

    def _resolve(self, value: Any) -> Mapping[str, Any] | None:
        """Return a mapping without its reference; None where there is none."""
        for _ in range(8):
            if not isinstance(value, Mapping):
                return None
            if not isinstance(value.get("$ref"), str):
                return value
            value = self._definitions.find(value["$ref"])
        return None


def is_openapi(value: Any) -> bool:
    """Return whether a value is an OpenAPI or Swagger document."""
    return isinstance(value, Mapping) and ("openapi" in value or "swagger" in value) and "paths" in value


def _list_operations(
    document: Mapping[str, Any], definitions: Definitions
) -> Iterator[tuple[str, str, Mapping[str, Any], Any]]:
    paths = document["paths"] if isinstance(document["paths"], Mapping) else {}
    for path, item in paths.items():
        if isinstance(item, Mapping) and isinstance(item.get("$ref"), str):
            item = definitions.find(item["$ref"])
        for method in _METHODS if isinstance(item, Mapping) else ():
            if isinstance(item.get(method), Mapping):
                yield str(path), method, item[method], item.get("parameters")


def _name_of(method: str, path: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{method} {path}").strip("_")


def _schema_of(content: Mapping[str, Any]) -> Any:
    """Return the schema of a request's content: of JSON where there is some, else of a form, else of the first."""
    kinds = [kind for kind in _JSON_LIKE if kind in content] or [kind for kind in content if "json" in str(kind)]
    chosen = content[(kinds or list(content))[0]] if content else None
    return chosen.get("schema") if isinstance(chosen, Mapping) else None


def _specification(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specification of a parameter: of its schema, its content, or (in Swagger 2) of its own keywords."""
    beside = {word: value for word, value in found.items() if word not in _NOT_SCHEMA}
    content = found.get("content")
    schema = _schema_of(content) if isinstance(content, Mapping) else found.get("schema")
    return {**(schema if isinstance(schema, Mapping) else {}), **beside}
