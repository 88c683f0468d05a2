"""ToolCaller: a tuned model that answers requests with calls of an application's own tools.

Knows a model, its tokenizer and the tools as they were taught; runs no tool. A ToolCaller never changes: where a
conversation stands is kept by the calls of its answers, so one caller serves many conversations at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtools.calls import Problem, ToolCall, parse_reply
from fgtools.calls.tokens import STOP_TOKENS
from fgtools.files import InputError
from fgtools.metrics import Confidence, GeneratedReply, find_violations
from fgtools.metrics.confidence import UNKNOWN
from fgtools.profiles import Recipe, get_recipe
from fgtools.prompts import render_prompt
from fgtools.rows.remedies import change_calls
from fgtools.schema.names import rename_arguments
from fgtools.schema.nulls import LEFT_OUT, leave_out_nulls
from fgtools.serve.answer import Answer, PendingCall, Turn
from fgtools.serve.app_tools import AppTools, list_parameters, prepare_tools, restore_calls
from fgtools.serve.conversation import build_message, normalize_messages, normalize_tool_result
from fgtools.serve.taught import TaughtTools, build_taught_tools, load_taught_tools
from fgtools.serve.values import convert_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Request = str | Sequence[Mapping[str, Any]]
"""What the user says; or a conversation, whose last message is the user's or a tool's result."""


@dataclass(frozen=True, eq=False)
class ToolCaller:
    """A tuned model with an application's tools. `load_caller` makes one.

    Attributes:
        model: The model; None for a caller that only writes prompts and parses replies, for another engine.
        tokenizer: Its tokenizer.
        taught: What its training showed it.
        app: The application's tools, and what they are for the model.
        max_new_tokens: Budget of a reply, in tokens.
        constrained: Whether declared tools, arguments and types are all that can be written.
        threshold: Answers with a lower `confidence.total` are marked as unsure; None: none is.
    """

    model: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase
    taught: TaughtTools
    app: AppTools
    max_new_tokens: int
    constrained: bool = False
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not -math.inf < self.threshold <= 0:
            raise InputError(
                f"threshold must be a log-probability of at most 0, got {self.threshold!r}: take the one that notebook "
                "5 or `score` prints for your rows, or None"
            )

    def __repr__(self) -> str:
        names = ", ".join(tool["function"]["name"] for tool in self.app.declared)
        return f"ToolCaller({names})"

    @property
    def tools(self) -> tuple[Mapping[str, Any], ...]:
        """The tools as taught: the function schemas that the model sees."""
        return self.app.shown

    @property
    def untaught(self) -> tuple[str, ...]:
        """The application's tools that no training row declared, by their own names."""
        return self.app.untaught

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What an application should know of its tools, see AppTools."""
        return self.app.notes

    def prompt(self, request: Request) -> str:
        """Return what the model reads for a request, <bos> included; another engine takes it as it is.

        Args:
            request: Text, or messages under the application's own names. A first message of role "developer" or
                "system" takes the place of the developer turn that the model was taught with.

        Raises:
            InputError: The messages cannot be read.
        """
        return self._render(normalize_messages(request, self.taught.developer))

    def parse(self, text: str, confidence: Confidence = UNKNOWN) -> Answer:
        """Return what a reply says, wherever it was generated: calls under the application's own names, validated.

        Args:
            text: The reply, special tokens kept, with or without its stop token.
            confidence: How sure its model was of it, where that is known.

        Returns:
            The Answer. Its calls belong to no conversation: append `answer.messages[-1]` and the results to yours.
        """
        style = self.taught.call_style
        reply = parse_reply(text, style)
        problems, notes = list(reply.problems), []
        calls: list[ToolCall] = []
        rejected: list[ToolCall] = []
        declared = list_parameters(self.app.declared)
        for call in restore_calls(reply.calls, self.app.renamed, list_parameters(self.app.shown)):
            (call,), nulls = leave_out_nulls([call], declared)
            notes += [Problem("null_left_out", call.name)] * nulls.get(LEFT_OUT, 0)
            arguments, told = convert_values(call.arguments, declared.get(call.name))
            notes += [Problem("converted", f"{call.name}: {one}") for one in told]
            call = ToolCall(call.name, arguments)
            faults = find_violations([call], declared)
            kind = "invalid_arguments" if call.name in declared else "unknown_tool"
            problems += [Problem(kind, fault) for fault in faults]
            (rejected if faults else calls).append(call)
            notes += [Problem("untaught_tool", call.name)] * (call.name in self.untaught)
        if reply.text and reply.calls:
            notes.append(Problem("prose_with_call", reply.text[:80]))
        messages = (build_message(reply.text, calls),) if calls or reply.text else ()
        unsure = self.threshold is not None and not confidence.total >= self.threshold
        faults = {"problems": tuple(problems), "rejected": tuple(rejected), "notes": tuple(notes)}
        judged = {"confidence": confidence, "unsure": unsure}
        return Answer("", text, tuple(calls), reply.text, **faults, messages=messages, **judged)

    def call(self, request: Request) -> Answer:
        """Return the model's answer to a request.

        Args:
            request: As for `prompt`. To go on with a conversation: `[*answer.messages, {"role": "user", ...}]`.

        Returns:
            The Answer; give the result of each of its calls to `respond`.

        Raises:
            InputError: The request cannot be read, or this caller has no model.
            ConstraintError: As for generate_replies.
        """
        return self.call_many([request])[0]

    def call_many(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the model's answers to several requests, generated together; each is a conversation of its own.

        Args:
            requests: As for `call`.

        Raises:
            InputError: As for `call`.
            ConstraintError: As for `call`.
        """
        if isinstance(requests, str):
            raise InputError("call_many takes a list of requests, got one text: use call, or put it in a list")
        return self._answer([normalize_messages(request, self.taught.developer) for request in requests])

    def respond(self, call: ToolCall, result: Any) -> Answer:
        """Give the model the result of a call, and return its next answer.

        The model answers once all calls of its reply have their results, in whatever order they are given. Until then
        the Answer is a waiting one, whose calls are those that are left.

        Args:
            call: A call of an Answer of this caller.
            result: What the tool gave back: a JSON value, text, or the exception that it raised.

        Returns:
            The Answer: words, or the next calls.

        Raises:
            InputError: The call is not one that waits for a result, or the result has no JSON form.
        """
        turn = call.turn if isinstance(call, PendingCall) else None
        if turn is None or turn.caller is not self:
            raise InputError(
                f"respond takes a call out of an Answer of this caller, got {call!r:.80}: pass the call itself; calls "
                "of a parsed reply go into the messages of the next request, with their results"
            )
        if call.number in turn.answered:
            raise InputError(f"every call has one result, but {call.name!r} has got its own: pass another call")
        answered = {**turn.answered, call.number: normalize_tool_result(result)}
        missing = tuple(one for one in turn.calls if one.number not in answered)
        if missing:
            turn.answered = answered
            return Answer("", "", missing, messages=turn.messages, waiting=True)
        results = [{"role": "tool", "name": one.name, "content": answered[one.number]} for one in turn.calls]
        answer = self._answer([(*turn.messages, *results)])[0]
        turn.answered = answered  # not before: after an error the result can be given again
        return answer

    def _answer(self, conversations: Sequence[tuple[dict[str, Any], ...]]) -> list[Answer]:
        """Return the answers to conversations in normal form."""
        from fgtools.generate import generate_with_confidence

        if self.model is None:
            raise InputError("this caller was loaded without weights: it writes prompts and parses replies alone")
        if self.constrained:
            from fgtools.generate.constrained import require_native

            require_native(self.taught.recipe)
        tools = list(self.app.shown)
        rows = [
            {"row_id": f"request {number}", "messages": self._to_taught(messages), "tools": tools, "gold": []}
            for number, messages in enumerate(conversations)
        ]
        how = {"max_new_tokens": self.max_new_tokens, "constrained": self.constrained}
        replies = generate_with_confidence(self.model, self.tokenizer, rows, **how)
        return [self._build(messages, reply) for messages, reply in zip(conversations, replies, strict=True)]

    def _build(self, messages: tuple[dict[str, Any], ...], reply: GeneratedReply) -> Answer:
        """Return the answer to a conversation, with calls that can be answered."""
        parsed = self.parse(reply.text, reply.confidence)
        turn = Turn(self, (*messages, *parsed.messages), {})
        turn.calls = tuple(
            PendingCall(call.name, call.arguments, number, turn) for number, call in enumerate(parsed.calls)
        )
        ended = reply.text.endswith(STOP_TOKENS)
        cut = () if ended else (Problem("cut_off", f"no end within {self.max_new_tokens} tokens"),)
        return replace(
            parsed,
            prompt=self._render(messages),
            calls=turn.calls,
            problems=(*parsed.problems, *cut),
            messages=turn.messages,
        )

    def _render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        return render_prompt(self._to_taught(messages), self.app.shown, self.tokenizer)

    def _to_taught(self, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return messages with earlier calls and results under the names that the model knows."""
        new_names = self.app.new_names
        declared = list_parameters(self.app.declared)
        parameters = self.app.renamed["parameters"]

        def rename(call: Mapping[str, Any]) -> Mapping[str, Any]:
            name = new_names.get(call["name"], call["name"])
            old_to_new = {old: new for new, old in parameters.get(name, {}).items()}
            arguments = rename_arguments(call["arguments"], declared.get(call["name"]), old_to_new)
            return {"name": name, "arguments": arguments}

        changed = change_calls(messages, rename)
        return [
            {**one, "name": new_names.get(one["name"], one["name"])} if one["role"] == "tool" else one
            for one in changed
        ]


def load_caller(
    model: str | Path | PreTrainedModel,
    tools: Any = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    recipe: str | Recipe = "",
    max_new_tokens: int = 0,
    constrained: bool = False,
    threshold: float | None = None,
    weights: bool = True,
    quiet: bool = False,
) -> ToolCaller:
    """Return a caller for a tuned model and an application's tools.

    Args:
        model: The model's folder, as `train` saved it, or another name that `load_model` takes; or a loaded model, with
            its tokenizer.
        tools: The application's tools: Python functions with type hints, schemas in any notation, an MCP server's list,
            the path of a file that `load_tools` reads, or names of taught tools. None: the tools of the folder.
        tokenizer: The tokenizer of a loaded model.
        recipe: How the model was trained, where its folder does not say it; "": native.
        max_new_tokens: Budget of a reply, in tokens; 0: from the longest right answer of the training.
        constrained: Whether declared tools, arguments and types are all that can be written (needs xgrammar).
        threshold: Answers with a lower `confidence.total` are marked as unsure, to be passed on to a larger model; take
            the one that notebook 5 or `score` prints for your evaluation rows. None: none is.
        weights: Whether the weights are loaded; without them the caller writes prompts and parses replies.
        quiet: Whether the notes on the tools, such as that one was never taught, are not printed.

    Returns:
        The ToolCaller.

    Raises:
        ModelError: As `load_model` and `load_tokenizer`.
        InputError: As `prepare_tools`.
        DataFileError: The folder's tools.json is malformed.
    """
    from fgtools.models import load_model, load_tokenizer
    from fgtools.models.load import find_model

    taught = None
    if isinstance(model, (str, Path)):
        folder = find_model(str(model))
        taught = load_taught_tools(folder)
        tokenizer = tokenizer or load_tokenizer(folder)
    if tokenizer is None:
        raise InputError("a loaded model needs its tokenizer: pass tokenizer=, or the folder in place of the model")
    if taught is None or (recipe and get_recipe(recipe).call_style != taught.call_style):
        taught = build_taught_tools((), tokenizer, recipe or "native")
    app = prepare_tools(tools, taught)
    if not quiet:
        for note in app.notes:
            print(f"{note.kind}: {note.detail}")
    if isinstance(model, (str, Path)):
        model = load_model(folder, quiet=True) if weights else None
    return ToolCaller(model, tokenizer, taught, app, max_new_tokens or taught.reply_tokens, constrained, threshold)


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
    """Return a model's answer to one request, as a ToolCaller for these tools gives it.

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
        The Answer; its problems begin with the definitions that could not be read.

    Raises:
        InputError: There is no request, or the tools cannot be read.
        ConstraintError: As generate_replies; or the recipe's calls are not those that can be constrained.
    """
    taught = build_taught_tools((), tokenizer, recipe)
    app = prepare_tools(tools, taught)
    caller = ToolCaller(model, tokenizer, taught, app, max_new_tokens, constrained)
    answer = caller.call([*before, {"role": "user", "content": request}])
    unread = [note for note in app.notes if note.kind != "no_taught_tools"]
    return replace(answer, problems=(*(Problem(one.kind, f"tools: {one.detail}") for one in unread), *answer.problems))
