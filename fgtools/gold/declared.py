"""The tools that a row declares, as far as calls are told by them: names, and parameters by name.

Knows a row's tools field; it is parsed only when something asks for it, since most calls stand between marks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from fgtools.schema import SchemaError, parse_tools

_PREFIXES = ("functions.", "function.", "tools.", "tool.", "default_api.", "api.")
_SUFFIXES = (".call", ".run", ".invoke")


class DeclaredTools:
    """The declared tools of a row.

    Attributes:
        parameters: Schema by parameter by tool; {} where no tools are declared or they cannot be read.
    """

    def __init__(self, raw: Any = None) -> None:
        """Take a row's tools field, in any notation that `schema` reads."""
        self._raw = raw

    @cached_property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """Schema by parameter by tool."""
        try:
            tools = parse_tools(self._raw).tools
        except SchemaError:  # `rows` rejects the row for it
            return {}
        return {tool["function"]["name"]: tool["function"]["parameters"].get("properties") or {} for tool in tools}

    def resolve(self, name: str) -> str:
        """Return a called name as it is declared: without the name space or method that a notation adds to it.

        Args:
            name: Such as "functions.get_weather", "default_api.get_weather" or "get_weather.call".

        Returns:
            The declared name; the name itself where neither is declared.
        """
        bare = name
        for prefix in _PREFIXES:
            bare = bare.removeprefix(prefix)
        for suffix in _SUFFIXES:
            bare = bare.removesuffix(suffix)
        return bare if bare != name and name not in self.parameters and bare in self.parameters else name
