"""One request to a model, with the caller's own tools: the prompt, the raw reply, the calls in it, and what is wrong.

Knows a model, its tokenizer, a recipe, and which names a row replaced; shows nothing. Tools are parsed and shown to the
model as in training: what its chat template would hide is renamed or described, and the calls get the caller's own
names back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fgtools.calls import Problem, ToolCall, parse_reply
from fgtools.files import InputError
from fgtools.gold import developer_text
from fgtools.metrics import find_violations
from fgtools.profiles import Recipe, get_recipe
from fgtools.prompts import probe_template, render_prompt
from fgtools.rows.remedies import apply_remedies
from fgtools.schema import normalize_tools, parse_tools
from fgtools.schema.names import rename_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Answer:
    """A model's answer to one request.

    Attributes:
        prompt: What the model read, control tokens included.
        reply: What it wrote, as it stands.
        calls: The calls that could be read, with the caller's own names.
        text: What it said outside calls.
        problems: What was not in the grammar, and what in the tools could not be read, one sentence each.
        violations: What in the calls is not declared or breaks a schema, one sentence each.
    """

    prompt: str
    reply: str
    calls: tuple[ToolCall, ...]
    text: str
    problems: tuple[str, ...]
    violations: tuple[str, ...]

    @property
    def validity(self) -> str:
        """Whether a server could carry the calls out: a sentence, or one line a fault."""
        faults = [*self.problems, *self.violations]
        if faults:
            return "\n".join(f"✗ {fault}" for fault in faults)
        return "✓ in the grammar, declared tools, arguments fit their schemas" if self.calls else "no call"


def answer_request(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: str,
    tools: Any,
    recipe: str | Recipe = "native",
    *,
    before: Sequence[Mapping[str, Any]] = (),
    max_new_tokens: int = 128,
    constrained: bool = False,
) -> Answer:
    """Return a model's answer to one request.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        request: What the user says.
        tools: Definitions in any form that `normalize_tools` takes, such as JSON text or Python functions.
        recipe: How the model was trained.
        before: Messages before the request, in the caller's own names; none: the developer turn that every row has.
        max_new_tokens: Budget of the reply, in tokens.
        constrained: Whether declared tools, arguments and types are all that can be written.

    Returns:
        The Answer.

    Raises:
        ValueError: There is no request, or the tools cannot be read.
        ConstraintError: As generate_replies; or the recipe's calls are not those that can be constrained.
    """
    from fgtools.generate import generate_replies
    from fgtools.generate.constrained import require_native

    recipe = get_recipe(recipe)
    if constrained:
        require_native(recipe)
    if not request.strip():
        raise InputError("a request must be there, got empty text: type what a user would say")
    declared = normalize_tools(tools, recipe)
    if _SURROGATE.search(request + json.dumps([declared, *before], ensure_ascii=False)):
        raise InputError(
            "request, messages and tools must be Unicode text, got halves of surrogate pairs: paste them again"
        )
    earlier = before or [{"role": "developer", "content": developer_text("")}]
    messages = [*earlier, {"role": "user", "content": request}]
    row = {"row_id": "request", "messages": messages, "tools": declared, "gold": []}
    if recipe.apply_remedies:
        row, _ = apply_remedies(row, probe_template(tokenizer))
    (text,) = generate_replies(model, tokenizer, [row], max_new_tokens=max_new_tokens, constrained=constrained)
    reply = parse_reply(text, recipe.call_style)
    calls = tuple(restore_calls(reply.calls, row.get("renamed", {}), _list_parameters(row["tools"])))
    unread = () if recipe.call_style == "tutorial" else parse_tools(tools).problems
    return Answer(
        prompt=render_prompt(row["messages"], row["tools"], tokenizer),
        reply=text,
        calls=calls,
        text=reply.text,
        problems=(*_describe(unread, "tools, "), *_describe(reply.problems)),
        violations=tuple(find_violations(calls, _list_parameters(declared))),
    )


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


def _list_parameters(tools: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the parameters schemas of function schemas by tool name."""
    return {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}


def _describe(problems: Sequence[Problem], where: str = "") -> tuple[str, ...]:
    return tuple(f"{where}{problem.kind}: {problem.detail}" for problem in problems)
