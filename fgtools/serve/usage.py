"""The lines with which an application uses a tuned model, as README, model card and notebook 6 show them.

Knows how a ToolCaller is used; runs nothing. There is one text for all places, so that what is shown is what is tested.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fgtools.files import InputError
from fgtools.serve.taught import TAUGHT_FILE, TaughtTools

USAGE = """\
caller = load_caller(model, tools)
answer = caller.call(request)
for _ in range(4):  # steps at most: a model may call without end
    for call in answer.calls:  # under your names, in your types, arguments that fit
        print(call.name, call.arguments)
        result = {"status": "done"}  # in your application: functions[call.name](**call.arguments)
        answer = caller.respond(call, result)
print(answer.kind, answer.text or answer.validity)
"""
"""What is done with a model, tools and a request, whatever these are."""


class Example(NamedTuple):
    """A request to show a model with.

    Attributes:
        tools: The author's names of the tools that are declared.
        request: What the user says.
    """

    tools: tuple[str, ...]
    request: str


def render_usage(model: str, tools: Sequence[str], request: str) -> str:
    """Return the lines that load a model and answer a request, as a Python program.

    Args:
        model: The model's folder or hub repository.
        tools: Names of taught tools.
        request: What the user says.
    """
    names = json.dumps(list(tools), ensure_ascii=False)
    return (
        "from fgtools import load_caller\n\n"
        f"model = {json.dumps(model, ensure_ascii=False)}\n"
        f"tools = {names}  # or your Python functions, schemas in any notation\n"
        f"request = {json.dumps(request, ensure_ascii=False)}\n\n{USAGE}"
    )


def choose_example(rows: Sequence[Mapping[str, Any]], taught: TaughtTools | None) -> Example:
    """Return the request of the first row that a reader would understand at once.

    Args:
        rows: Row dicts, those first that are to be preferred; at least one.
        taught: What the training showed.

    Returns:
        The Example of the first row with a call, a single message before it, and taught tools alone. Where no row is
        such a one, the last words of a user in the first row, with the tools that were called most.

    Raises:
        InputError: Nothing is known of the training.
    """
    if taught is None or not taught.tools:
        raise InputError(f"the model's folder must hold {TAUGHT_FILE} with its tools: train it again (notebook 4)")
    names = {one.taught_name: one.name for one in reversed(taught.tools)}
    for row in rows:
        shown = [tool["function"]["name"] for tool in row["tools"]]
        if row["gold"] and len(row["messages"]) == 2 and names.keys() >= set(shown):
            return Example(tuple(names[name] for name in shown), row["messages"][1]["content"])
    called = sorted(taught.tools, key=lambda one: -one.called)
    said = [message["content"] for message in rows[0]["messages"] if message["role"] == "user"]
    return Example(tuple(dict.fromkeys(one.name for one in called))[:3], said[-1])
