"""One request to a model, with tools of one's own: the prompt, the raw reply, what can be read of it, what is wrong.

Knows a model, its tokenizer and a recipe; draws nothing (`widgets`). Tools are read as training reads them, and shown
to the model as training shows them: what its chat template would hide is renamed or said, and the calls get the
caller's own names back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fgtools.calls import Problem, ToolCall, parse_reply
from fgtools.files import InputError
from fgtools.gold import developer_text
from fgtools.metrics import find_violations
from fgtools.profiles import Recipe, get_recipe
from fgtools.prompts import probe_template
from fgtools.rows.remedies import apply_remedies
from fgtools.schema import normalize_tools, parse_tools
from fgtools.schema.names import restore_calls

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
        """What a server would make of it, in a sentence or a list of faults."""
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
    """Let a model answer one request.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        request: What the user says.
        tools: Definitions in any form that `normalize_tools` takes, such as JSON text or Python functions.
        recipe: How the model was trained.
        before: Messages before the request; none: the developer turn that every row has.
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
    from fgtools.prompts import render_prompt

    if not request.strip():
        raise InputError("a request must be there, got empty text: type what a user would say")
    if constrained:
        require_native(recipe)
    recipe = get_recipe(recipe)
    declared = normalize_tools(tools, recipe)
    if _SURROGATE.search(request + json.dumps(declared, ensure_ascii=False)):
        raise InputError("request and tools must be Unicode text, got halves of surrogate pairs: paste them again")
    messages = [*(before or [{"role": "developer", "content": developer_text("")}])]
    row: dict[str, Any] = {
        "row_id": "playground",
        "messages": [*messages, {"role": "user", "content": request}],
        "tools": declared,
        "gold": [],
    }
    if recipe.apply_remedies:
        row, _ = apply_remedies(row, probe_template(tokenizer))
    options = {"max_new_tokens": max_new_tokens, "constrained": constrained}
    (text,) = generate_replies(model, tokenizer, [row], **options)
    reply = parse_reply(text, recipe.call_style)
    shown = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in row["tools"]}
    own = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in declared}
    calls = tuple(restore_calls(reply.calls, row.get("renamed", {}), shown))
    reading = () if recipe.call_style == "tutorial" else parse_tools(tools).problems
    return Answer(
        prompt=render_prompt(row["messages"], row["tools"], tokenizer),
        reply=text,
        calls=calls,
        text=reply.text,
        problems=(*_describe(reading, "tools, "), *_describe(reply.problems)),
        violations=tuple(find_violations(calls, own)),
    )


def _describe(problems: Sequence[Problem], where: str = "") -> tuple[str, ...]:
    return tuple(f"{where}{problem.kind}: {problem.detail}" for problem in problems)
