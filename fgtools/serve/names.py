"""The names that an application's own tools have, put back into the calls of a tuned model.

Knows calls, and what a row remembers of its replaced names (`schema.names`); not why a name was replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fgtools.calls import ToolCall
from fgtools.schema.names import rename_arguments


def restore_calls(
    calls: Iterable[ToolCall], renamed: Mapping[str, Any], parameters: Mapping[str, Mapping[str, Any]]
) -> list[ToolCall]:
    """Restore the original names in calls that a model made.

    Args:
        calls: The calls.
        renamed: A row's `renamed`: {"tools": {new: old}, "parameters": {tool, by its new name: {new: old}}}.
        parameters: The row's parameters schemas by tool name, as the model saw them.

    Returns:
        The calls as the author's own tools take them, in the same order.
    """
    restored = []
    for call in calls:
        names = renamed.get("parameters", {}).get(call.name, {})
        arguments = rename_arguments(call.arguments, parameters.get(call.name), names)
        restored.append(ToolCall(renamed.get("tools", {}).get(call.name, call.name), arguments))
    return restored
