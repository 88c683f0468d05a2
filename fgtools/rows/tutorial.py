"""The row that the published tutorial makes of a raw row, result for result, weaknesses included.

Knows nothing of the native rules. It exists so that figures can be compared with the tutorial's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fgtools.calls import ToolCall
from fgtools.gold import Rejected
from fgtools.gold.tutorial import TutorialError
from fgtools.profiles import DEVELOPER_TEXT
from fgtools.rows.funnel import Built
from fgtools.schema.literals import show
from fgtools.schema.tutorial import normalize_tutorial_tools


def build_tutorial_row(row: Mapping[str, Any], call: ToolCall) -> Built | Rejected:
    """Build the tutorial's row of a raw row and its gold call.

    Args:
        row: A raw row; never changed.
        call: What `extract_tutorial_gold` found in it.

    Returns:
        The row, without its label and group, or why it is left out: no_tools, unknown_tool, or bad_row where the
        tutorial's code raises.
    """
    try:
        tools = normalize_tutorial_tools(row.get("tools"))
        if not tools:
            return Rejected("no_tools", show(call.name))
        required = {tool["function"]["name"]: tool["function"]["parameters"]["required"] for tool in tools}
        if call.name not in required:
            return Rejected("unknown_tool", show(call.name))
    except TypeError as error:
        return Rejected("bad_row", f"a tool name must be hashable: {error}")
    except (TutorialError, RecursionError) as error:
        return Rejected("bad_row", str(error))
    arguments = copy.deepcopy(call.arguments) if isinstance(call.arguments, dict) else {}
    return Built(
        {
            "messages": [
                {"role": "developer", "content": DEVELOPER_TEXT},
                {"role": "user", "content": row.get("task") or ""},
            ],
            "tools": tools,
            # the tutorial's rule: nothing required, no arguments
            "gold": [{"name": call.name, "arguments": arguments if required[call.name] else {}}],
            "reply": "",
        }
    )
