"""References in schemas: finding what `$ref` names.

Knows JSON pointers, anchors and the places where definitions stand; not what a definition says. Nothing is fetched: a
reference to another file or address is not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from fgtools.schema.limits import MAX_NODES

DEFINITION_WORDS = ("$defs", "definitions", "components")
"""Fields that hold definitions for references, and no parameters."""

REFERENCE_WORDS = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
"""Fields that hold a reference."""


class Definitions:
    """The definitions that the references of one tool may name.

    Attributes:
        documents: Where a pointer is resolved: the parameters schema first, then the tool, then what encloses it.
    """

    def __init__(self, documents: Sequence[Any]) -> None:
        """Take the documents, in the order in which they are searched; those that are no mappings are left out."""
        self.documents = [document for document in documents if isinstance(document, Mapping)]
        self._named: dict[str, Mapping[str, Any]] | None = None

    def find(self, reference: str) -> Mapping[str, Any] | None:
        """Return the schema that a reference names.

        Args:
            reference: "#", "#/$defs/Pet", "#/properties/status", "#anchor", or a name alone. Where no document has
                such a path, a definition of the last name in it is taken, at whatever level it stands.

        Returns:
            The schema as it stands in its document; None where there is none.
        """
        path, _, pointer = reference.partition("#")
        if not path:
            for document in self.documents:
                found = _follow(document, pointer)
                if isinstance(found, Mapping):
                    return found
        if path and "/" in path:
            return None  # another file or address
        if self._named is None:
            self._named = {}
            for document in self.documents:
                for name, schema in _list_named(document):
                    self._named.setdefault(name, schema)
        return self._named.get(_parts(pointer or path)[-1])


def find_reference(raw: Mapping[str, Any]) -> str:
    """Return the field that holds a schema's reference; "" where it is none."""
    if REFERENCE_WORDS.isdisjoint(raw):
        return ""
    return next((word for word in sorted(REFERENCE_WORDS) if isinstance(raw.get(word), str)), "")


def is_definitions(value: Any) -> bool:
    """Return whether a value under one of DEFINITION_WORDS holds definitions, and is no parameter of that name."""
    return isinstance(value, Mapping) and all(isinstance(item, Mapping) for item in value.values())


def _parts(pointer: str) -> list[str]:
    return [unquote(part).replace("~1", "/").replace("~0", "~") for part in pointer.split("/")]


def _follow(document: Any, pointer: str) -> Any:
    """Return what a JSON pointer names in a document, or None."""
    if not pointer or pointer == "/":
        return document
    if not pointer.startswith("/"):
        return None
    value = document
    for part in _parts(pointer)[1:]:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, (list, tuple)) and part.isdecimal() and len(part) < 8 and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _list_named(document: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the definitions of every level by name, and schemas with an anchor or an id; those above come first."""
    level, seen = [document], 0
    while level and seen < MAX_NODES:
        seen += len(level)
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                for word in ("$anchor", "$dynamicAnchor", "$id", "id"):
                    if isinstance(value.get(word), str):
                        yield value[word].lstrip("#"), value
                for word in (*DEFINITION_WORDS, "schemas"):
                    if is_definitions(value.get(word)):
                        yield from ((str(name), schema) for name, schema in value[word].items())
                below.extend(value.values())
            elif isinstance(value, (list, tuple)):
                below.extend(value)
        level = [value for value in below if isinstance(value, (Mapping, list, tuple))]
