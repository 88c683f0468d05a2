"""Tools: definitions in the notations of published data sets, as the function schemas FunctionGemma's template shows.

Knows parameter types, specifications, signatures and names; not conversations, rows or models.
"""

from fgtools.schema.limits import SchemaError
from fgtools.schema.toolfiles import load_tools, parse_functions, parse_tool_file
from fgtools.schema.tools import Change, ParsedTools, normalize_tools, normalize_type, parse_tools

__all__ = [
    "Change",
    "ParsedTools",
    "SchemaError",
    "literals",
    "load_tools",
    "names",
    "normalize_tools",
    "normalize_type",
    "nulls",
    "parse_functions",
    "parse_tool_file",
    "parse_tools",
    "signatures",
    "toolfiles",
    "tutorial",
    "types",
    "unions",
]
