"""Type annotations and defaults of Python source, with the classes and constants of their file.

Knows syntax trees; runs nothing. Enum classes become choices; dataclasses, TypedDicts, pydantic models and other
classes with annotated fields become objects. An annotation that names nothing of its file stays text for `types`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from fgtools.schema.docstrings import parse_docstring
from fgtools.schema.limits import MAX_NODES, require_at_most
from fgtools.schema.literals import plain_value

_CONSTRAINTS = {
    **{"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"},
    **{"multiple_of": "multipleOf", "min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"},
    **{"regex": "pattern", "examples": "examples", "description": "description"},
}
"""pydantic's words for keywords of JSON Schema."""

_ARRAYS = frozenset("list List set Set frozenset FrozenSet tuple Tuple Sequence Iterable Collection deque".split())
_MAPPINGS = frozenset("dict Dict Mapping MutableMapping defaultdict OrderedDict".split())
_WRAPPERS = frozenset("Required NotRequired ReadOnly Final ClassVar".split())
_ENUMS = frozenset("Enum StrEnum IntEnum Flag IntFlag".split())


class Scope:
    """The classes, type aliases and constants at the top of a file."""

    def __init__(self, tree: ast.Module | None = None) -> None:
        """Collect them; without a tree there are none."""
        self.classes: dict[str, ast.ClassDef] = {}
        self.values: dict[str, ast.expr] = {}
        self.open: list[str] = []  # names that are being resolved
        self.resolved = 0
        for node in tree.body if tree else ():
            if isinstance(node, ast.ClassDef):
                self.classes[node.name] = node
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self.values[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                self.values[node.target.id] = node.value
            elif type(node).__name__ == "TypeAlias":  # `type X = ...`, since Python 3.12
                self.values[node.name.id] = node.value  # type: ignore[attr-defined]

    def knows(self, node: ast.AST) -> bool:
        """Return whether an annotation needs more than its text: it names something of the file, or carries data."""
        parts = list(ast.walk(node))
        texts = {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
        names = texts.union(map(_last_name, parts))
        return bool(names & {*self.classes, *self.values, "Annotated", "Literal"})


def describe_annotation(node: ast.expr | None, scope: Scope) -> dict[str, Any]:
    """Return the specification that an annotation stands for; {} where there is none."""
    if node is None:
        return {}
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            node = ast.parse(node.value, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return {"type": node.value}
    if not scope.knows(node):
        return {"type": ast.unparse(node)}
    if isinstance(node, ast.Name) and node.id in {*scope.classes, *scope.values}:
        return _describe_name(node.id, scope)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _describe_union([node.left, node.right], scope)
    if isinstance(node, ast.Subscript):
        return _describe_generic(node, scope)
    return {"type": ast.unparse(node)}


def _describe_name(name: str, scope: Scope) -> dict[str, Any]:
    if name in scope.open:
        return {"type": "object"}  # it holds itself
    scope.resolved += 1  # classes that hold classes can multiply without end
    require_at_most(MAX_NODES, scope.resolved, "uses of a file's own types")
    scope.open.append(name)
    try:
        if name in scope.classes:
            return describe_class(scope.classes[name], scope)
        value = scope.values[name]
        if isinstance(value, ast.Call) and _last_name(value.func) == "NewType" and len(value.args) == 2:
            value = value.args[1]
        return describe_annotation(value, scope)
    finally:
        scope.open.pop()


def _describe_generic(node: ast.Subscript, scope: Scope) -> dict[str, Any]:
    name = _last_name(node.value)
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        return {"enum": [value for part in parts for value in _literal(part, scope).values()]}
    if name == "Annotated":
        spec = describe_annotation(parts[0], scope)
        for part in parts[1:]:
            spec.update(_describe_metadata(part, scope))
        return spec
    if name == "Optional":
        return _describe_union([parts[0], ast.Constant(None)], scope)
    if name == "Union":
        return _describe_union(parts, scope)
    if name in _WRAPPERS:
        return describe_annotation(parts[0], scope)
    if name in _ARRAYS:
        items = [describe_annotation(part, scope) for part in parts if not _is_ellipsis(part)]
        return {"type": "array", "items": items[0] if len(items) == 1 else {"anyOf": items}}
    if name in _MAPPINGS and len(parts) == 2:
        return {"type": "object", "properties": {}, "additionalProperties": describe_annotation(parts[1], scope)}
    return {"type": ast.unparse(node)}


def _describe_union(parts: Iterable[ast.expr], scope: Scope) -> dict[str, Any]:
    members = []
    for part in parts:
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr):
            members += _describe_union([part.left, part.right], scope)["anyOf"]
        elif isinstance(part, ast.Constant) and part.value is None:
            members.append({"type": "null"})
        else:
            members.append(describe_annotation(part, scope))
    optional = {"optional": True} if {"type": "null"} in members else {}
    return {"anyOf": members, **optional}


def describe_class(node: ast.ClassDef, scope: Scope) -> dict[str, Any]:
    """Return the specification of a class: choices for an Enum, else an object with its annotated fields."""
    bases = [_last_name(base) for base in node.bases]
    if _ENUMS & set(bases):
        return {"enum": list(enum_values(node, scope).values())}
    summary, documented = parse_docstring(ast.get_docstring(node) or "")
    properties: dict[str, Any] = {}
    required: list[str] = []
    for base in bases:
        if base in scope.classes and base not in scope.open:
            inherited = _describe_name(base, scope)
            properties.update(inherited.get("properties", {}))
            required += inherited.get("required", [])
    total = not any(word.arg == "total" and getattr(word.value, "value", True) is False for word in node.keywords)
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        name = field.target.id
        if name.startswith("_") or _last_name(getattr(field.annotation, "value", None)) == "ClassVar":
            continue
        spec = describe_annotation(field.annotation, scope)
        said = documented[name].text if name in documented else ""
        facts = {} if field.value is None else describe_default(field.value, scope)
        properties[name] = {**({"description": said} if said else {}), **spec, **facts}
        optional = "default" in facts or properties[name].get("optional") or "NotRequired" in ast.dump(field.annotation)
        if total and not optional and name not in required:
            required.append(name)
    described = {"description": summary} if summary else {}
    return {"type": "object", **described, "properties": properties, "required": required}


def enum_values(node: ast.ClassDef, scope: Scope) -> dict[str, Any]:
    """Return the values of an Enum class by member name; `auto()` counts, or is the name in lower case in a StrEnum."""
    values: dict[str, Any] = {}
    for member in node.body:
        if isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name):
            name = member.targets[0].id
            if name.startswith("_"):
                continue
            found = _literal(member.value, scope)
            automatic = name.lower() if "StrEnum" in map(_last_name, node.bases) else len(values) + 1
            values[name] = found["value"] if found else automatic
    return values


def describe_default(node: ast.expr, scope: Scope) -> dict[str, Any]:
    """Return what a default says: {"default"}, or {"optional": True} where its value is not known from the source.

    A call of pydantic's Field or dataclasses' field, and FastAPI's like it, may bring a description and bounds; one
    without a default, or with `...`, leaves the parameter required.
    """
    if isinstance(node, ast.Call) and _last_name(node.func) in ("Field", "field", "Query", "Path", "Body", "Header"):
        return _describe_field(node, scope)
    found = _literal(node, scope)
    return {"default": found["value"]} if found else {"optional": True}


def _describe_field(node: ast.Call, scope: Scope) -> dict[str, Any]:
    keywords = {word.arg: word.value for word in node.keywords if word.arg}
    default = node.args[0] if node.args else keywords.get("default")
    facts: dict[str, Any] = {}
    for word, name in _CONSTRAINTS.items():
        if word in keywords and (found := _literal(keywords[word], scope)):
            facts[name] = found["value"]
    if "default_factory" in keywords:
        facts["optional"] = True
    elif default is not None and not _is_ellipsis(default):
        facts.update(describe_default(default, scope))
    return facts


def _describe_metadata(node: ast.expr, scope: Scope) -> dict[str, Any]:
    """Return what stands behind the type in Annotated: a description, or a call of Field or Doc."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {"description": node.value}
    if isinstance(node, ast.Call) and _last_name(node.func) == "Doc" and node.args:
        found = _literal(node.args[0], scope)
        return {"description": found["value"]} if found else {}
    return _describe_field(node, scope) if isinstance(node, ast.Call) else {}


def _literal(node: ast.expr, scope: Scope) -> Mapping[str, Any]:
    """Return {"value"} of a literal, of a constant of the file, or of an Enum's member; {} for anything else."""
    if isinstance(node, ast.Name) and node.id in scope.values:
        node = scope.values[node.id]
    if isinstance(node, ast.Attribute) and node.attr == "value":
        node = node.value
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in scope.classes:
        members = enum_values(scope.classes[node.value.id], scope)
        return {"value": members[node.attr]} if node.attr in members else {}
    try:
        return {"value": plain_value(ast.literal_eval(node))}
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return {}


def _last_name(node: Any) -> str:
    """Return "Field" for `Field` and `pydantic.Field`, also with brackets behind it; "" for anything else."""
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...
