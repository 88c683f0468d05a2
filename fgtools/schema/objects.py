"""What a schema says of an object: its properties and which of them are required.

Knows schemas of any form, also malformed ones; not how they are normalized.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


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
    if not isinstance(schema, Mapping):
        return ObjectSchema({}, frozenset())
    properties, required = schema.get("properties"), schema.get("required")
    return ObjectSchema(
        properties if isinstance(properties, Mapping) else {},
        frozenset(name for name in required if isinstance(name, str)) if isinstance(required, list) else frozenset(),
    )
