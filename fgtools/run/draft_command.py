"""What the command `draft` does with its options: a sheet of examples to fill in, or filled in by an endpoint's model.

Knows which rooms it needs, and loads them only then; not how options are declared.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path


def draft(options: Namespace) -> None:
    """Write a sheet of examples to fill in, or with requests that an endpoint's model has written."""
    from fgtools.rows.drafts import build_draft, require_new, write_sheet
    from fgtools.rows.endpoint import Endpoint
    from fgtools.rows.synthetic import Written, write_requests
    from fgtools.schema import parse_tool_file

    out, refusals = Path(options.out), None if options.refusals < 0 else options.refusals
    require_new(out, options.force)
    parsed = parse_tool_file(options.tools)
    for problem in parsed.problems:
        print(f"{Path(options.tools).name}: {problem.kind}: {problem.detail}")
    lines = build_draft(parsed.tools, options.per_tool, refusals)
    without = sum(line.call is None for line in lines)
    called = {line.call.name for line in lines if line.call}
    for name in [tool["function"]["name"] for tool in parsed.tools if tool["function"]["name"] not in called]:
        print(f"{name}: no value is known for a parameter that every call needs: write its calls by hand")
    print(f"{len(parsed.tools)} tools: {len(lines) - without} calls, {without} lines without a call")
    if not options.endpoint:
        write_sheet(out, lines, options.force)
        print(f"{out}: write a request in each line, and values for marks such as <city>; delete lines you do not need")
        return
    written = Written()
    try:
        write_requests(lines, parsed.tools, Endpoint(options.endpoint, options.model), written)
    finally:  # what was received before an error is kept
        if written.lines:
            write_sheet(out, written.lines, options.force)
            counts = ", ".join(f"{count} {reason}" for reason, count in written.counts.most_common())
            empty = sum(not line.request for line in written.lines)
            print(f"{out}: requests by a model: {counts or 'none'}; lines still to be written: {empty}")
            print("read them all before you train: nobody has checked that a request asks for its call")
