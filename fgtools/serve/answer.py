"""Answers: what a model wrote to one request, as something an application can act on.

Knows calls, problems and messages; no model, no tools. An answer's `calls` can be carried out as they are: a call that
names no declared tool, or whose arguments do not fit, is among `rejected`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fgtools.calls import Problem, ToolCall
from fgtools.files import FgtoolsError
from fgtools.metrics.confidence import UNKNOWN, Confidence

Kind = Literal["call", "calls", "text", "empty", "invalid", "broken", "waiting"]

LOST = frozenset({"unclosed_call", "malformed_call", "unclosed_string", "missing_name", "too_deep", "cut_off"})
"""Kinds of problems with which a part of a reply could not be read."""


class ReplyError(FgtoolsError, RuntimeError):
    """A reply cannot be carried out; the message says what is wrong with it."""


class Turn:
    """A reply with calls, and the results that they have got so far; the one thing here that changes."""

    def __init__(self, caller: object, messages: tuple[dict[str, Any], ...], answered: dict[int, Any]) -> None:
        """Keep where the conversation stands.

        Args:
            caller: The ToolCaller that asked.
            messages: The conversation with the reply, under the application's names.
            answered: Results by the number of their call.
        """
        self.caller, self.messages, self.answered = caller, messages, answered
        self.calls: tuple[PendingCall, ...] = ()


@dataclass(frozen=True, eq=False)
class PendingCall(ToolCall):
    """A call that waits for its result; equal to a ToolCall with the same name and arguments.

    Attributes:
        number: Its place among the calls of its reply.
        turn: The reply it belongs to.
    """

    number: int = field(default=0, repr=False)
    turn: Turn | None = field(default=None, repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ToolCall):
            return NotImplemented
        return (self.name, self.arguments) == (other.name, other.arguments)

    __hash__ = None  # type: ignore[assignment]  # arguments are a dict, as in ToolCall


@dataclass(frozen=True)
class Answer:
    """A model's answer to one request.

    Attributes:
        prompt: What the model read, control tokens included; "" for text that was parsed.
        reply: What it wrote, as it stands.
        calls: The calls that can be carried out: declared tools under the application's names, arguments that fit.
        text: What it said outside calls.
        problems: What is wrong with the reply. Kinds: unknown_tool, invalid_arguments (each belongs to a call in
            `rejected`), cut_off (the budget of the reply ended it), and those of a Reply, such as unclosed_call.
        rejected: The calls that could be read and must not be carried out.
        notes: What was changed or should be known. Kinds: converted (a value's type), null_left_out (of an optional
            argument), prose_with_call, untaught_tool.
        messages: The conversation with this answer, under the application's names; a rejected call is not part of it.
        waiting: Whether other calls of the reply still wait for their results; `calls` are these.
        confidence: How sure the model was of the reply; not known for text that was parsed.
        unsure: Whether the caller has a threshold and the confidence is below it or not known: pass the request on.
    """

    prompt: str
    reply: str
    calls: tuple[ToolCall, ...]
    text: str = ""
    problems: tuple[Problem, ...] = ()
    rejected: tuple[ToolCall, ...] = ()
    notes: tuple[Problem, ...] = ()
    messages: tuple[Mapping[str, Any], ...] = ()
    waiting: bool = False
    confidence: Confidence = UNKNOWN
    unsure: bool = False

    @property
    def kind(self) -> Kind:
        """What the application has got.

        "broken": a part of the reply could not be read, such as half a call, or its words hold control tokens;
        "invalid": a call must not be carried out; "waiting": further results are needed; "call", "calls": one or
        several calls; "text": words alone; "empty": nothing. Where several hold, the first named here.
        """
        kinds = {problem.kind for problem in self.problems}
        if LOST & kinds or ("stray_token" in kinds and not self.calls and not self.rejected):
            return "broken"
        if self.rejected:
            return "invalid"
        if self.waiting:
            return "waiting"
        if self.calls:
            return "call" if len(self.calls) == 1 else "calls"
        return "text" if self.text else "empty"

    @property
    def validity(self) -> str:
        """Whether an application could carry the calls out: a sentence, or one line a fault."""
        if self.problems:
            return "\n".join(f"✗ {problem.kind}: {problem.detail}" for problem in self.problems)
        return "✓ in the grammar, declared tools, arguments fit their schemas" if self.calls else "no call"


def describe_answer(answer: Answer) -> dict[str, Any]:
    """Return an answer as a JSON object: kind, calls, what is wrong, the texts of prompt and reply."""
    calls = {"calls": answer.calls, "rejected": answer.rejected}
    said, sure = {"problems": answer.problems, "notes": answer.notes}, answer.confidence
    return {
        "kind": answer.kind,
        **{name: [{"name": one.name, "arguments": one.arguments} for one in found] for name, found in calls.items()},
        "text": answer.text,
        "confidence": {"total": sure.total, **sure.to_dict()} if sure.is_known else None,
        "unsure": answer.unsure,
        **{name: [{"kind": one.kind, "detail": one.detail} for one in found] for name, found in said.items()},
        "prompt": answer.prompt,
        "reply": answer.reply,
    }


def render_answer(answer: Answer) -> str:
    """Return an answer as text for people: prompt, reply, calls and whether they can be carried out."""
    found = [("call", one) for one in answer.calls] + [("rejected", one) for one in answer.rejected]
    calls = [f"{word}: {one.name} {json.dumps(one.arguments, ensure_ascii=False)}" for word, one in found]
    notes = [f"note: {one.kind}: {one.detail}" for one in answer.notes]
    text = [f"text: {answer.text}"] if answer.text else []
    lines = [
        f"prompt: {answer.prompt}",
        f"reply: {answer.reply}",
        *calls,
        *text,
        *notes,
        *_render_confidence(answer),
        f"validity: {answer.validity}",
    ]
    return "\n".join(lines)


def _render_confidence(answer: Answer) -> list[str]:
    """Return the line on how sure the model was; none where that is not known."""
    sure = answer.confidence
    if not sure.is_known:
        return []
    unsure = ", below the threshold: unsure, pass the request on" if answer.unsure else ""
    means = f"means a token: call {sure.call:.3g}, name {sure.name:.3g}"
    return [f"confidence: {sure.total:.3g}{unsure} (sum of the log-probabilities of {sure.n_tokens} tokens; {means})"]


def require_usable(answer: Answer) -> None:
    """Check that an answer can be acted on.

    Raises:
        ReplyError: It is broken or invalid, or empty.
    """
    if answer.kind in ("broken", "invalid", "empty"):
        first = answer.problems[0] if answer.problems else Problem("empty", "neither a call nor a word")
        raise ReplyError(f"the reply cannot be carried out: {first.kind}: {first.detail}")
