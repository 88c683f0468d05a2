"""The self-check at first contact: whether a model is what this package takes it for.

Knows a model, its tokenizer and, where there are any, its replies to rows. Template, control tokens and stop tokens are
held against FunctionGemma's format as it is published; two more checks say whether the model answers in that format.
Each gives one line: what holds, or else what that means and what to do. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from fgtools.calls import parse_reply
from fgtools.calls.tokens import CONTROL_IDS, START_TURN, STOP_TOKENS
from fgtools.files import FgtoolsError
from fgtools.metrics import has_valid_arguments, score
from fgtools.profiles import DEVELOPER_TEXT

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VOCABULARY = 262_144
"""Tokens of FunctionGemma's vocabulary; a tokenizer with fewer has another one."""

HEADS = {"developer": 55060, "user": 2364, "model": 4368}
"""The word in the head of a turn, by its id in FunctionGemma's vocabulary."""

_NEWLINE = 107

IN_GRAMMAR = 0.5
"""Share of replies in the grammar from which on a model is taken to know it. Untuned, FunctionGemma is wholly right on
58 % of Mobile Actions' rows (its model card)."""

_REPLY_TOKENS = 64


class SelfCheckError(FgtoolsError, ValueError):
    """A model is not what this package takes it for; the message says in which checks."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        name: What was checked.
        holds: Whether it is as expected.
        detail: What was found.
        remedy: What it means that it does not hold, and what to do; "" where it holds.
    """

    name: str
    holds: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class KnownCall:
    """A request that asks for the weather in Tokyo, with one tool.

    Attributes:
        request: The request.
        tool: The tool's function schema.
        place: The parameter whose value must hold Tokyo.
        known_of: Which model was seen to answer it rightly.
    """

    request: str
    tool: Mapping[str, Any]
    place: str
    known_of: str


def _build_tool(name: str, description: str, properties: Mapping[str, Any], required: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": dict(properties), "required": [required]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


GUIDES_CALL = KnownCall(
    "Hey, what's the weather in Tokyo right now?",
    _build_tool(
        "get_current_weather",
        "Gets the current weather in a given location.",
        {
            "location": {
                "type": "string",
                "description": 'The city and state, e.g. "San Francisco, CA" or "Tokyo, JP"',
            },
            "unit": {
                "type": "string",
                "description": "The unit to return the temperature in.",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "location",
    ),
    "location",
    "FunctionGemma, as Google's guide shows,",
)
STANDINS_CALL = KnownCall(
    "what is the weather in tokyo",
    _build_tool(
        "forecast_get",
        "weather outlook for a city",
        {"city": {"type": "string", "description": "name of the city"}},
        "city",
    ),
    "city",
    "The offline stand-in",
)


def check_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]] = (),
    replies: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """Check a model at first contact.

    Args:
        model: The model, before any training here. It generates one short reply.
        tokenizer: Its tokenizer.
        rows: Row dicts that it has answered; none: how many replies are in the grammar is left out.
        replies: Its replies to these rows, in their order.

    Returns:
        One Finding a check: the chat template, the control tokens, the stop tokens, the replies, a known call.
    """
    from fgtools.generate import generate_replies

    known = GUIDES_CALL if _has_full_vocabulary(tokenizer) else STANDINS_CALL
    messages = [{"role": "developer", "content": DEVELOPER_TEXT}, {"role": "user", "content": known.request}]
    row = {"row_id": "known call", "messages": messages, "tools": [known.tool]}
    (reply,) = generate_replies(model, tokenizer, [row], max_new_tokens=_REPLY_TOKENS)
    return (
        check_template(tokenizer),
        check_control_tokens(tokenizer, model.get_input_embeddings().weight.shape[0]),
        check_stop_tokens(tokenizer, getattr(model.generation_config, "eos_token_id", None)),
        *([check_replies(rows, replies)] if rows else []),
        check_known_call(known, reply),
    )


def _has_full_vocabulary(tokenizer: PreTrainedTokenizerBase) -> bool:
    return len(tokenizer) >= VOCABULARY


def check_template(tokenizer: PreTrainedTokenizerBase) -> Finding:
    """Return whether the tokenizer's chat template renders the golden prompts, or else the first difference."""
    from jinja2 import TemplateError

    from fgtools.prompts import render_prompt
    from fgtools.prompts.golden import GOLDEN_PROMPTS

    name, n, wrong = "chat template", len(GOLDEN_PROMPTS), []
    for golden in GOLDEN_PROMPTS:
        try:
            text = render_prompt(golden.messages, golden.tools, tokenizer, golden.add_generation_prompt)
        except (TemplateError, TypeError, ValueError) as error:
            wrong.append(f"{golden.label!r} fails with {type(error).__name__}: {error}")
            continue
        if text != golden.text:
            wrong.append(f"{golden.label!r} {_describe_difference(text, golden.text)}")
    if not wrong:
        return Finding(name, True, f"it renders {n} of {n} golden prompts as FunctionGemma's does")
    remedy = (
        "prompts follow this template, but the calls to be learnt follow FunctionGemma's format: put the "
        "chat_template.jinja of google/functiongemma-270m-it into the model's folder"
    )
    return Finding(name, False, f"it renders {n - len(wrong)} of {n} golden prompts; {wrong[0]}", remedy)


def _describe_difference(got: str, wanted: str) -> str:
    """Return where two texts part, and what stands there in each."""
    pairs = enumerate(zip(got, wanted, strict=False))
    place = next((at for at, (one, other) in pairs if one != other), min(len(got), len(wanted)))
    return f"has {got[place : place + 30]!r} at character {place}, where {wanted[place : place + 30]!r} must stand"


def check_control_tokens(tokenizer: PreTrainedTokenizerBase, n_embeddings: int) -> Finding:
    """Return whether every control token is one id, known to the model, and in its places in the golden prompts.

    Args:
        tokenizer: The tokenizer. With FunctionGemma's vocabulary it must have FunctionGemma's ids.
        n_embeddings: Rows of the model's embedding: an id from there on has none.
    """
    name, ids = "control tokens", {token: _tokenize(token, tokenizer) for token in CONTROL_IDS}
    wrong = [f"{token} is {len(found)} ids" for token, found in ids.items() if len(found) != 1]
    if not wrong:
        single = {token: found for token, (found,) in ids.items()}
        wrong += [
            f"{token} has id {found}, beyond the embedding" for token, found in single.items() if found >= n_embeddings
        ]
        wrong += _list_misplaced(single, tokenizer)
    if not wrong:
        other = f"a vocabulary of {len(tokenizer):,} tokens may have ids of its own"
        whose = "the ids are FunctionGemma's" if _has_full_vocabulary(tokenizer) else other
        return Finding(name, True, f"{len(ids)} of {len(ids)} are one id each and in their places; {whose}")
    remedy = (
        "the model does not see the marks it was trained on: use the tokenizer files that came with its weights, or "
        "those of google/functiongemma-270m-it"
    )
    return Finding(name, False, f"{wrong[0]}" + (f", and {len(wrong) - 1} more" if wrong[1:] else ""), remedy)


def _list_misplaced(ids: Mapping[str, int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return where ids are not FunctionGemma's, or golden prompts do not hold the ids of their marks."""
    from fgtools.prompts.golden import GOLDEN_PROMPTS

    wrong = []
    if _has_full_vocabulary(tokenizer):
        places = CONTROL_IDS.items()
        wrong += [f"{token} has id {ids[token]}, not {place}" for token, place in places if ids[token] != place]
        for word, place in HEADS.items():
            found, wanted = _tokenize(f"{START_TURN}{word}\n", tokenizer), [CONTROL_IDS[START_TURN], place, _NEWLINE]
            wrong += [f"the head of a {word} turn is {found}, not {wanted}"] if found != wanted else []
    for golden in GOLDEN_PROMPTS:
        found = _tokenize(golden.text, tokenizer)
        counts = {token: (found.count(number), golden.text.count(token)) for token, number in ids.items()}
        wrong += [
            f"{golden.label!r} has {got} ids of {token}, not {wanted}"
            for token, (got, wanted) in counts.items()
            if got != wanted
        ]
    return wrong


def _tokenize(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def check_stop_tokens(tokenizer: PreTrainedTokenizerBase, generation: int | Sequence[int] | None) -> Finding:
    """Return whether the model's own settings end a reply where this package ends it.

    Args:
        tokenizer: The tokenizer.
        generation: eos_token_id of the model's generation settings.
    """
    from fgtools.models.load import stop_ids

    name, ours = "stop tokens", stop_ids(tokenizer)
    own = [generation] if isinstance(generation, int) else sorted(generation or [])
    shown = ", ".join(map(str, ours))
    if own == ours and len(ours) == len(STOP_TOKENS):
        return Finding(name, True, f"a reply ends at the ids {shown}, here and by the model's generation settings")
    remedy = (
        f"replies end at {shown} here, and models saved here say so; a program that loads this folder itself must be "
        f"given eos_token_id=[{shown}], or it writes on after its calls"
    )
    return Finding(name, False, f"the model's generation settings say {own or 'nothing'}, not {shown}", remedy)


def check_replies(rows: Sequence[Mapping[str, Any]], replies: Sequence[str]) -> Finding:
    """Return whether at least half of a model's replies are in FunctionGemma's grammar, as the ladder counts it.

    Args:
        rows: Row dicts.
        replies: One reply a row. They are read as native calls, whatever the recipe is: it is what the model knows.
    """
    name, share = "replies in the grammar", score(rows, replies, style="native").in_grammar
    cut = sum(not reply.endswith(STOP_TOKENS) for reply in replies)
    detail = f"{share}; {cut} of {len(replies)} replies end at the budget" if cut else str(share)
    if share.rate >= IN_GRAMMAR:
        return Finding(name, True, detail)
    remedy = (
        "the model does not know the format yet: of Gemma 3 or another base model that is to be expected, and training "
        "teaches it; of FunctionGemma it is not, so look at the lines above and at a prompt and its reply"
    )
    return Finding(name, False, detail, remedy)


def check_known_call(known: KnownCall, reply: str) -> Finding:
    """Return whether a reply holds the one call that a request asks for: right tool, valid arguments, Tokyo."""
    function, read = known.tool["function"], parse_reply(reply)
    right = len(read.calls) == 1 and not read.problems
    right = right and has_valid_arguments(read.calls, {function["name"]: function["parameters"]})
    right = right and "tokyo" in str(read.calls[0].arguments[known.place]).lower()
    name, detail = "known call", f"{known.request!r} got {shorten(reply, 160)!r}"
    if right:
        return Finding(name, True, detail)
    remedy = (
        f"{known.known_of} calls {function['name']} for Tokyo here. Of a base model or one tuned to other tools a "
        "miss is to be expected; of FunctionGemma it is not: look at the lines above and load it anew"
    )
    return Finding(name, False, detail, remedy)


def to_records(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings as the JSON object of self_check.json."""
    return {"checks": [asdict(finding) for finding in findings]}


def describe_records(saved: Mapping[str, Any]) -> list[str]:
    """Return how many checks of a self_check.json hold, and a line for each that does not."""
    failed = [one for one in saved["checks"] if not one["holds"]]
    counts = f"{len(saved['checks']) - len(failed)} of {len(saved['checks'])} hold"
    return [counts, *(f"{one['name']}: {one['detail']}: {one['remedy']}" for one in failed)]


def build_self_check_table(findings: Sequence[Finding]) -> pandas.DataFrame:
    """Return one line a check: whether it holds, what was found, and what to do where it does not."""
    import pandas

    rows = [(one.name, "yes" if one.holds else "NO", one.detail, one.remedy) for one in findings]
    return pandas.DataFrame(rows, columns=["check", "holds", "found", "what it means, what to do"])


def require_known_model(findings: Sequence[Finding]) -> None:
    """Raise SelfCheckError if a check does not hold."""
    failed = [f"{one.name} ({one.remedy})" for one in findings if not one.holds]
    if failed:
        raise SelfCheckError(
            f"every check of the model must hold, but {len(failed)} of {len(findings)} do not: {'; '.join(failed)}"
        )
