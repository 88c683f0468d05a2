"""The row that the published tutorial makes of a raw row, result for result, weaknesses included.

Knows nothing of the native rules. It exists so that figures can be compared with the tutorial's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fgtools.calls import ToolCall
from fgtools.gold.tutorial import TutorialError
from fgtools.schema.tutorial import normalize_tutorial_tools


def build_tutorial_row(row: Mapping[str, Any], call: ToolCall) -> dict[str, Any] | str:
    """Build the tutorial's row of a raw row and its gold call.

    Args:
        row: A raw row; never changed.
        call: What `extract_tutorial_gold` found in it.

    Returns:
        {"user_content", "tool_name", "tool_arguments", "hf_tools"} with the arguments as a mapping (the tutorial
        writes them as JSON text), or the reason why the row is left out: "no_tools" or "unknown_tool".

    Raises:
        TutorialError: The row is such that the tutorial's code raises.
    """
    tools = normalize_tutorial_tools(row.get("tools"))
    if not tools:
        return "no_tools"
    try:
        required = {tool["function"]["name"]: tool["function"]["parameters"]["required"] for tool in tools}
        if call.name not in required:
            return "unknown_tool"
        erased = not required[call.name]  # the tutorial's rule: nothing required, no arguments
    except TypeError as error:
        raise TutorialError(f"a tool name must be hashable: {error}") from error
    return {
        "user_content": row.get("task") or "",
        "tool_name": call.name,
        "tool_arguments": copy.deepcopy(call.arguments) if isinstance(call.arguments, dict) and not erased else {},
        "hf_tools": tools,
    }
