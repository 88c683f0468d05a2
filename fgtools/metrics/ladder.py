"""One row and one reply: how far up the ladder the reply gets, and what it got wrong.

Knows rows, replies and the call grammar; not models, nor sets of rows. The ladder's rungs:

- in_grammar: the calls follow the call grammar exactly, and there is a call where the gold has one. Prose beside calls
  is allowed; control tokens in prose, and white space in a call outside its strings, are not.
- known_tool: there is a call where the gold has one, and only declared tools are called.
- right_tools: the gold's tools, each as often as there, in any order.
- valid_arguments: every call's arguments are declared and satisfy its tool's schema (nullable ones may be null).
- right_names: the gold's argument names; an optional argument at its default equals its absence.
- ast_match: the same meaning by BFCL's rules (`ast_match`).
- exact_match: the same calls in the same order, values typed.

A null argument equals its absence where it says no more (`schema.nulls`), in the reply as in the gold and on every rung
that compares or validates arguments. Character errors compare texts, and a null that is written is text.

known_tool, right_tools, right_names, ast_match and exact_match nest: a reply that misses one misses those after it.
in_grammar and valid_arguments are independent of them, since format is not content and a gold call may break its own
schema. A call that cannot be parsed counts as a wrong call. On a row whose right answer is no call, every rung but
in_grammar and known_tool means: no call.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgtools.calls import Reply, ToolCall, parse_reply, parse_tutorial_prediction, render_calls, row_calls
from fgtools.files import InputError
from fgtools.metrics.ast_match import (
    can_pair,
    declared_type,
    find_error,
    holds_numeric_text,
    missing_names,
    pair_calls,
    unexpected_names,
)
from fgtools.metrics.behaviours import classify_behaviour
from fgtools.metrics.cer import count_edits
from fgtools.metrics.texts import normalize_request
from fgtools.metrics.validity import has_valid_arguments
from fgtools.schema.names import normalize_object
from fgtools.schema.nulls import leave_out_nulls
from fgtools.schema.unions import value_type

LADDER = ("in_grammar", "known_tool", "right_tools", "valid_arguments", "right_names", "ast_match", "exact_match")
"""The rungs in the order of a table; each is a share of all rows."""

MISSED_CALL, FALSE_CALL, UNREADABLE = "missed_call", "false_call", "not_in_grammar"
"""Error codes beside BFCL's: no call where the gold has one, a call where it has none, a call that cannot be parsed."""

_LOST = frozenset({"missing_name", "unclosed_call", "malformed_call", "unclosed_string", "too_deep"})


@dataclass(frozen=True)
class RowScore:
    """The score of one row; the module's docstring defines the rungs.

    Attributes:
        row_id: The row.
        tool_group: The tool that the gold calls first, or for a row whose right answer is no call the first that it
            declares: rows of one tool are not independent.
        request_group: Equal for rows that ask the same: near duplicates and turns of one conversation where the split
            found them (`request_group` of the row, `conversation`), else equal requests.
        n_tools: Tools it declares, also those that it declares twice.
        n_gold: Calls of its gold; 0 for a row whose right answer is no call.
        n_calls: Calls in the reply, unreadable ones included.
        in_grammar, known_tool, right_tools, valid_arguments, right_names, ast_match, exact_match: The rungs.
        first_name_right: Whether the tutorial's reading of the reply finds the first gold call's name.
        edits: Edits between the first call's block as it stands and the gold's, in characters; 0 for no-call rows.
        edits_rendered: The same after the reply's first call was parsed and rendered again.
        characters: Characters of the gold's block.
        arguments_right: Predicted arguments that mean what the gold's of that name means, in the pairing of calls
            that leaves the fewest wrong.
        arguments_predicted: Arguments of the predicted calls, without optional ones at a default that the gold omits.
        arguments_gold: Arguments of the gold calls, without optional ones at a default that the reply omits.
        arguments_by_type: (JSON type, right ones, gold ones) for every type among the gold's arguments.
        prompt_characters: Length of the messages and tools, in characters of text and JSON, not tokens.
        behaviour: What the reply does, in When2Call's words: one of behaviours.BEHAVIOURS.
        behaviour_gold: What the right answer does; "" where the row has neither a gold call nor a text `reply`.
        chance: Probability that declared tools drawn at random, as many as the gold has calls, are the right ones.
        gold_valid: Whether the gold's own arguments satisfy the schema.
        gold_numeric: Whether the gold holds text that is a number or a date, of which an AST match forgives signs.
        error: "" for an AST match, else BFCL's code or one of ours.
    """

    row_id: str
    tool_group: str
    request_group: str
    n_tools: int
    n_gold: int
    n_calls: int
    in_grammar: bool
    known_tool: bool
    right_tools: bool
    valid_arguments: bool
    right_names: bool
    ast_match: bool
    exact_match: bool
    first_name_right: bool
    edits: int
    edits_rendered: int
    characters: int
    arguments_right: int
    arguments_predicted: int
    arguments_gold: int
    arguments_by_type: tuple[tuple[str, int, int], ...]
    prompt_characters: int
    behaviour: str
    behaviour_gold: str
    chance: float
    gold_valid: bool
    gold_numeric: bool
    error: str

    @property
    def strict_match(self) -> bool:
        """Whether the calls are the gold calls, exactly in the grammar, as the strictest server wants them.

        Prose beside the calls is allowed: servers return it as text.
        """
        return self.in_grammar and self.exact_match

    @property
    def right_behaviour(self) -> bool:
        """Whether the reply does what the right answer does; never where `behaviour_gold` is unknown."""
        return self.behaviour == self.behaviour_gold

    @property
    def gold_invalid(self) -> bool:
        """Whether the gold's own arguments break the schema."""
        return not self.gold_valid

    @property
    def missed_call(self) -> bool:
        """Whether the gold has a call and the reply has none."""
        return self.n_gold > 0 and not self.n_calls

    @property
    def false_call(self) -> bool:
        """Whether the reply has a call and the gold has none."""
        return not self.n_gold and self.n_calls > 0


def score_row(row: Mapping[str, Any], text: str, style: str = "native") -> RowScore:
    """Score one reply.

    Args:
        row: A row dict.
        text: The reply, special tokens kept.
        style: Its call grammar, "native" or "tutorial".

    Returns:
        The RowScore.

    Raises:
        ValueError: The reply is not text.
    """
    if not isinstance(text, str):
        raise InputError(f"the reply of row {row.get('row_id')!r} must be text, got {type(text).__name__}")
    gold, reply = row_calls(row), parse_reply(text, style)
    block, gold_block, rendered = _blocks(text, reply, gold, style)
    tools = {tool["function"]["name"]: tool["function"].get("parameters") for tool in row["tools"]}
    gold, calls = leave_out_nulls(gold, tools)[0], leave_out_nulls(reply.calls, tools)[0]
    lost = sum(problem.kind in _LOST for problem in reply.problems)
    n_calls = len(calls) + lost
    known = not lost and all(call.name in tools for call in calls) and bool(calls or not gold)
    right = not lost and Counter(call.name for call in calls) == Counter(call.name for call in gold)
    error = _row_error(calls, gold, tools, lost)
    types, n_predicted = _count_arguments(calls, gold, tools)
    return RowScore(
        row_id=str(row.get("row_id", "")),
        tool_group=_tool_group(row),
        request_group=_request_group(row),
        n_tools=len(row["tools"]),
        n_gold=len(gold),
        n_calls=n_calls,
        in_grammar=not reply.problems and bool(calls or not gold),
        known_tool=known,
        right_tools=right,
        valid_arguments=known and bool(gold or not n_calls) and has_valid_arguments(calls, tools),
        right_names=right and _have_right_names(calls, gold, tools),
        ast_match=not error,
        exact_match=not lost and [_typed(call) for call in calls] == [_typed(call) for call in gold],
        first_name_right=bool(gold) and parse_tutorial_prediction(text).name == gold[0].name,
        edits=count_edits(block, gold_block),
        edits_rendered=count_edits(rendered, gold_block),
        characters=len(gold_block),
        arguments_right=sum(right for _, right, _ in types),
        arguments_predicted=n_predicted,
        arguments_gold=sum(wanted for _, _, wanted in types),
        arguments_by_type=types,
        prompt_characters=_prompt_characters(row),
        behaviour=classify_behaviour(reply.text, n_calls),
        behaviour_gold=_right_behaviour(row),
        chance=_chance(gold, tools),
        gold_valid=has_valid_arguments(gold, tools),
        gold_numeric=any(holds_numeric_text(call.arguments, tools.get(call.name)) for call in gold),
        error=error,
    )


def _row_error(calls: Sequence[ToolCall], gold: Sequence[ToolCall], tools: Mapping[str, Any], lost: int) -> str:
    if lost:
        return UNREADABLE if gold else FALSE_CALL
    if not gold:
        return FALSE_CALL if calls else ""
    return find_error(calls, gold, tools) if calls else MISSED_CALL


def _blocks(text: str, reply: Reply, gold: Sequence[ToolCall], style: str) -> tuple[str, str, str]:
    """Return the predicted block, the gold block, and the first predicted call rendered again; "" for no-call rows."""
    if not gold:
        return "", "", ""
    block = parse_tutorial_prediction(text).block
    return block, render_calls(gold[:1], style), render_first(reply.calls, block, style)


def render_first(calls: Sequence[ToolCall], block: str, style: str = "native") -> str:
    """Return the first call rendered again; `block` where it was tolerated but cannot be rendered, as odd names."""
    try:
        return render_calls(calls[:1], style)
    except ValueError:
        return block


def _typed(call: ToolCall) -> str:
    """Return a text that is equal for equal calls: True is not 1, 1 is not 1.0, keys have no order."""
    return json.dumps([call.name, call.arguments], sort_keys=True)


def _have_right_names(calls: Sequence[ToolCall], gold: Sequence[ToolCall], tools: Mapping[str, Any]) -> bool:
    """Return whether the calls can be paired with gold calls of the same name and the same argument names."""

    def fits(call: ToolCall, wanted: ToolCall) -> bool:
        pair = (call.arguments, wanted.arguments, tools.get(wanted.name))
        return call.name == wanted.name and not missing_names(*pair) and not unexpected_names(*pair)

    return can_pair(calls, gold, fits)


def _count_arguments(
    calls: Sequence[ToolCall], gold: Sequence[ToolCall], tools: Mapping[str, Any]
) -> tuple[tuple[tuple[str, int, int], ...], int]:
    """Count right and gold arguments by JSON type, and the predicted ones."""
    right, wanted, n_predicted = Counter[str](), Counter[str](), 0
    for call, agreement in pair_calls(calls, gold, tools):
        n_predicted += agreement.n_predicted
        if call:
            properties = normalize_object(tools.get(call.name)).properties
            types = {
                name: declared_type(properties.get(name)) or value_type(call.arguments[name]) for name in agreement.gold
            }
            right.update(types[name] for name in agreement.right)
            wanted.update(types.values())
    return tuple((kind, right[kind], count) for kind, count in sorted(wanted.items())), n_predicted


def _tool_group(row: Mapping[str, Any]) -> str:
    names = [call["name"] for call in row["gold"]] or [tool["function"]["name"] for tool in row["tools"]]
    return str(names[0]) if names else ""


def _request_group(row: Mapping[str, Any]) -> str:
    said = [str(one.get("content") or "") for one in row.get("messages", ()) if one.get("role") == "user"]
    request = normalize_request("\n".join(said))
    same = row.get("request_group") or row.get("conversation") or (f"request: {_hash(request)}" if request else "")
    return str(same or row.get("row_id", ""))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _right_behaviour(row: Mapping[str, Any]) -> str:
    if row["gold"]:
        return classify_behaviour("", len(row["gold"]))
    return classify_behaviour(row["reply"]) if isinstance(row.get("reply"), str) else ""


def _prompt_characters(row: Mapping[str, Any]) -> int:
    messages = row.get("messages", ())
    said = sum(len(str(message.get("content") or "")) for message in messages)
    said += sum(len(json.dumps(one["tool_calls"], ensure_ascii=False)) for one in messages if one.get("tool_calls"))
    return said + len(json.dumps(row["tools"], ensure_ascii=False))


def _chance(gold: Sequence[ToolCall], tools: Mapping[str, Any]) -> float:
    if not gold or any(call.name not in tools for call in gold):
        return 0.0
    repeated = math.prod(map(math.factorial, Counter(call.name for call in gold).values()))
    return math.factorial(len(gold)) // repeated / len(tools) ** len(gold)
