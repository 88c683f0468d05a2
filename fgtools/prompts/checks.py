"""The checks of an audit: ids and labels, schemas and gold, lengths, and leaks between the sides of a split.

Knows rows, their encodings, a tokenizer and a recipe; each function returns its findings as Checks. What a whole audit
is, and whether training may start, is decided in `audit`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from fgtools.calls import parse_reply, row_calls
from fgtools.calls.tokens import (
    BOS,
    END_CALL,
    END_DECLARATION,
    ESCAPE,
    SPECIAL_TOKEN,
    START_CALL,
    START_DECLARATION,
    START_RESPONSE,
    START_TURN,
)
from fgtools.metrics import has_valid_arguments
from fgtools.profiles import Recipe
from fgtools.prompts.encode import IGNORED, Encoded, find_special_tokens, neutralize_calls
from fgtools.prompts.messages import count_marks
from fgtools.prompts.template import find_hidden_names
from fgtools.rows.duplicates import build_key, cluster_texts, link_conversations
from fgtools.rows.remedies import Coverage, describe_facts
from fgtools.schema.names import parameter_names
from fgtools.schema.nulls import holds_null, leave_out_nulls

ERROR, WARNING, NOTE = "error", "warning", "note"

_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.\-]*")
"""A parameter name that templates render; they may fail on any other."""

FEW_NO_CALL = 20
"""Percentage of training rows without a call below which a model hardly learns to decline: with 10 to 13 % nearly all
requests that no tool serves were still answered with a call, with 30 % none were (docs/training.md, Few rows)."""

_SINGLE = (START_TURN, START_DECLARATION, END_DECLARATION, START_CALL, END_CALL, START_RESPONSE, ESCAPE)
_PLACES = ("messages", "tools", "gold")


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: A short name.
        severity: "error" (training should not start), "warning" or "note", where the count is above 0.
        count: Rows (or what `what` says) in which it was found.
        n: Rows that were checked.
        what: What was counted, for people.
        remedy: What to do about it, or what was done about it.
        examples: Row ids, three at most.
    """

    name: str
    severity: str
    count: int
    n: int
    what: str
    remedy: str = ""
    examples: tuple[str, ...] = ()


class _Finder:
    """Collects the ids of rows by the name of a finding."""

    def __init__(self) -> None:
        self.ids: defaultdict[str, list[str]] = defaultdict(list)

    def note(self, name: str, row: Mapping[str, Any]) -> None:
        self.ids[name].append(str(row.get("row_id", "")))

    def check(self, name: str, severity: str, n: int, what: str, remedy: str) -> Check:
        """Return the rows of a finding as a Check."""
        ids = self.ids[name]
        return Check(name, severity, len(ids), n, what, remedy, tuple(ids[:3]))


def token_checks(
    rows: Sequence[Mapping[str, Any]],
    encoded: Sequence[Encoded],
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
) -> list[Check]:
    """Return the Checks of ids and labels.

    They are: one <bos>, the recipe's labels, targets that parse to their gold, no text as control token, a turn of its
    own for every request.

    Args:
        rows: Row dicts.
        encoded: Their encodings, none cut or left out.
        tokenizer: The tokenizer that made them.
        recipe: The recipe they were made by.
    """
    split = [token for token in _SINGLE if len(tokenizer(token, add_special_tokens=False)["input_ids"]) != 1]
    vocabulary = Check(
        "control_tokens_in_vocabulary",
        ERROR,
        len(split),
        len(_SINGLE),
        "control tokens are not one id",
        "use the tokenizer of a FunctionGemma folder",
        tuple(split[:3]),
    )
    found = _Finder()
    first, *opening = (
        tokenizer.convert_tokens_to_ids(token) for token in (BOS, START_TURN, START_CALL, START_RESPONSE)
    )
    for row, one in zip(rows, encoded, strict=True):
        for kind in _find_token_faults(row, one, tokenizer, recipe, first, opening):
            found.note(kind, row)
    n = len(rows)
    promise = "the whole text" if recipe.loss == "all" else "exactly the completion"
    return [
        vocabulary,
        found.check("round_trip", ERROR, n, "targets do not read back as their gold", "report the row: a fault here"),
        found.check("bos", ERROR, n, "texts do not begin with the one <bos>", "check the tokenizer's template"),
        found.check("label_mask", ERROR, n, f"labels are not {promise}", "report the row: a fault here"),
        found.check("active_control_tokens", ERROR, n, "prompts hold a turn or call that is text", "report the row"),
        found.check(
            "glued_requests",
            WARNING,
            n,
            "prompts hold a user's turn right after a tool's result: the template starts no turn for it",
            "add the assistant's answer to the result, or leave the conversation out",
        ),
        *(
            found.check(f"control_tokens_in_{place}", NOTE, n, f"rows hold one in {place}", "neutralised with a space")
            for place in _PLACES
        ),
    ]


def _find_token_faults(
    row: Mapping[str, Any],
    one: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    first: int,
    opening: Sequence[int],
) -> Iterator[str]:
    """Yield the names of the checks that a row fails; `first`: the id of <bos>, `opening`: those of turns and calls."""
    prompt, completion = one.input_ids[: one.n_prompt], one.input_ids[one.n_prompt :]
    if one.input_ids[:1] != [first] or one.input_ids.count(first) != 1:
        yield "bos"
    *marks, glued = count_marks(row["messages"])
    if [prompt.count(token) for token in opening] != marks:
        yield "active_control_tokens"
    if glued:
        yield "glued_requests"
    if one.labels != (one.input_ids if recipe.loss == "all" else [IGNORED] * one.n_prompt + completion):
        yield "label_mask"
    special = find_special_tokens(tokenizer)
    if not reads_back(row, tokenizer.decode(completion, skip_special_tokens=False), recipe, special):
        yield "round_trip"
    for place in _PLACES:
        if special.search(_to_json(row[place])):
            yield f"control_tokens_in_{place}"


def reads_back(row: Mapping[str, Any], text: str, recipe: Recipe, special: re.Pattern[str] = SPECIAL_TOKEN) -> bool:
    """Return whether a completion parses to exactly the gold (names, values, types); also if neither holds a call.

    Args:
        row: A row dict.
        text: The completion, control tokens kept.
        recipe: The recipe it was written by.
        special: As for neutralize_control_tokens.
    """
    reply = parse_reply(text, recipe.call_style)
    wanted = [[call.name, call.arguments] for call in neutralize_calls(row_calls(row), special)]
    got = [[call.name, call.arguments] for call in reply.calls]
    return not reply.problems and _to_json(got) == _to_json(wanted)


def _to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def schema_checks(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, coverage: Coverage
) -> list[Check]:
    """Return the Checks of tools and gold against each other and against what the prompt shows of them.

    Args:
        rows: Row dicts.
        tokenizer: A tokenizer with the chat template.
        recipe: The recipe; hidden gold arguments are an error where it renames hidden parameters.
        coverage: What the template hides.
    """
    found, facts = _Finder(), Counter()
    names = {
        name for row in rows for tool in row["tools"] for name in parameter_names(tool["function"].get("parameters"))
    }
    hidden = coverage.hidden_names & names
    unusual = {name for name in names - hidden if not _PLAIN_NAME.fullmatch(name)}
    hidden |= find_hidden_names(unusual, tokenizer)
    for row in rows:
        schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in row["tools"]}
        before = facts.total()
        for schema in schemas.values():
            describe_facts(schema, coverage, facts)
        if facts.total() > before:
            found.note("hidden_facts", row)
        if any(hidden & parameter_names(schema) for schema in schemas.values()):
            found.note("hidden_parameters", row)
        if row.get("renamed"):
            found.note("renamed", row)
        calls = row_calls(row)
        if any(hidden & set(call.arguments) & parameter_names(schemas.get(call.name)) for call in calls):
            found.note("hidden_gold_arguments", row)
        if any(call.name not in schemas for call in calls):
            found.note("undeclared_tool", row)
        if calls and not has_valid_arguments(leave_out_nulls(calls, schemas)[0], schemas):
            found.note("gold_fails_schema", row)
        if any(holds_null(call.arguments) for call in calls):
            found.note("null_arguments", row)
    golds, not_shown = "golds use hidden parameters", "rows hold facts that are not shown"
    if hidden:
        golds = f"golds use a parameter that the prompt does not show ({', '.join(sorted(hidden))})"
    if facts:
        counts = ", ".join(f"{name.removesuffix('_described')} {count}" for name, count in facts.most_common())
        not_shown += f" ({counts})"
    no_nulls = "no engine's parser reads None: declare the parameter as optional and prepare anew, or parse the text"
    severity = ERROR if recipe.apply_remedies else WARNING
    n, n_calls = len(rows), sum(bool(row_calls(row)) for row in rows)
    texts = (
        ("undeclared_tool", ERROR, n, "golds call a tool that is not declared", "drop the rows"),
        ("hidden_gold_arguments", severity, n_calls, golds, "the native recipe renames them"),
        ("hidden_parameters", WARNING, n, "rows declare a parameter that is not shown", "as above"),
        ("hidden_facts", WARNING, n, not_shown, "the native recipe says them in the description"),
        ("renamed", NOTE, n, "rows hold names that were replaced", "names.restore_calls puts them back"),
        ("null_arguments", NOTE if recipe.keep_null_arguments else WARNING, n_calls, "golds hold null", no_nulls),
        ("gold_fails_schema", WARNING, n_calls, "golds do not fit their own schema", "mend or drop them at the source"),
    )
    return [found.check(*text) for text in texts]


def mention_check(rows: Sequence[Mapping[str, Any]]) -> Check:
    """Return the Check of replies without a call that name a declared tool: one of them may be a call in disguise.

    Args:
        rows: Row dicts. A tool whose name is an ordinary word is only looked for between quotes or backticks.
    """
    found = _Finder()
    answered = [row for row in rows if not row["gold"] and row.get("reply")]
    for row in answered:
        names = {tool["function"]["name"] for tool in row["tools"]}
        names |= set(row.get("renamed", {}).get("tools", {}).values())
        if any(name in row["reply"] and _is_mentioned(name, row["reply"]) for name in names):
            found.note("replies_mention_tools", row)
    return found.check(
        "replies_mention_tools",
        WARNING,
        len(answered),
        "replies without a call name a declared tool",
        "read some: a reply that calls in words teaches the model not to call",
    )


def _is_mentioned(name: str, reply: str) -> bool:
    """Return whether a reply names a tool, and not only uses a word that is also its name."""
    marks = "[`\"'*]" if name.isalpha() and name.islower() else r"(?<!\w)"
    end = marks if marks.startswith("[") else r"(?!\w)"
    return re.search(marks + re.escape(name) + end, reply) is not None


def length_check(
    rows: Sequence[Mapping[str, Any]], lengths: Sequence[int], budget: int, recipe: Recipe, fits: bool = True
) -> Check:
    """Return the Check of training rows that exceed the budget.

    Args:
        rows: Row dicts.
        lengths: Their lengths in tokens.
        budget: The longest text that is trained on whole, in tokens.
        recipe: The recipe; says what happens to longer rows.
        fits: Whether any row fits, if need be made smaller. Where none does and rows are not cut, it is an error.
    """
    found = _Finder()
    for row, length in zip(rows, lengths, strict=True):
        if length > budget:
            found.note("over_budget", row)
    if rows and recipe.over_length != "cut" and not fits:
        ask = "raise MAX_LENGTH (--max-length)"
        what = f"training rows do not fit into {budget} tokens, so none is left to train on"
        needed = f"{ask}: the shortest has {min(lengths)} tokens, the longest {max(lengths)}"
        return found.check("over_budget", ERROR, len(rows), what, needed)
    remedies = {
        "cut": "this recipe cuts them silently, the answer first: use the native recipe or raise MAX_LENGTH",
        "reject": "they lose old context or stay out: raise MAX_LENGTH, or OVER_LENGTH = 'prune' offers fewer tools",
        "prune": "declarations of other tools are dropped until they fit",
    }
    return found.check(
        "over_budget", WARNING, len(rows), f"training rows exceed {budget} tokens", remedies[recipe.over_length]
    )


def leak_checks(sides: Mapping[str, Sequence[Mapping[str, Any]]], recipe: Recipe) -> list[Check]:
    """Return the Checks of duplicates across the sides, copies within training, and training rows without a call.

    The last kind is a note, beside which a warning stands where such rows are few (FEW_NO_CALL).

    Args:
        sides: Row dicts by side; all but "train" are held out.
        recipe: The recipe; a leak is an error where it splits by group.
    """
    found = _Finder()
    train = sides.get("train", ())
    held = [row for side, rows in sides.items() if side != "train" for row in rows]
    keys = [build_key({"group": str(row.get("row_id", "")), **row}) for row in [*train, *held]]
    clusters = link_conversations(keys, cluster_texts([key.request for key in keys]))
    n_train, n_held = len(train), len(held)
    trained_groups, trained_clusters = {key.group for key in keys[:n_train]}, set(clusters[:n_train])
    for row, key, cluster in zip(held, keys[n_train:], clusters[n_train:], strict=True):
        if key.group in trained_groups:
            found.note("leaks", row)
        elif (key.request or key.conversation) and cluster in trained_clusters:
            found.note("near_leaks", row)
    seen: set[tuple[str, str]] = set()
    for row, key in zip(train, keys[:n_train], strict=True):
        if (key.group, key.gold) in seen:
            found.note("duplicates", row)
        seen.add((key.group, key.gold))
    leak = ERROR if recipe.split == "group" else WARNING
    texts = (
        ("leaks", leak, n_held, "held-out rows have their request and tools in training", "split anew"),
        (
            "near_leaks",
            WARNING,
            n_held,
            "held-out rows have nearly their request, or their conversation, in training",
            "compare with care",
        ),
        ("duplicates", WARNING, n_train, "training rows are copies", "prepare the data anew"),
    )
    return [*(found.check(*text) for text in texts), *_check_no_call(train, recipe)]


def _check_no_call(train: Sequence[Mapping[str, Any]], recipe: Recipe) -> list[Check]:
    """Return the Check of training rows without a call and, where they are few and the recipe takes them, a warning."""
    count, most = sum(not row["gold"] for row in train), recipe.no_call_share
    text = "training rows have no call as their right answer"
    checks = [Check("no_call_rows", NOTE, count, len(train), text, f"NO_CALL_SHARE; at most {most:.0%} here")]
    wanted = math.ceil((len(train) - count) * FEW_NO_CALL / (100 - FEW_NO_CALL))
    if most * 100 >= FEW_NO_CALL and wanted > count:
        text = f"rows without a call are missing for a share of {FEW_NO_CALL}%, below which a model hardly declines"
        remedy = "write more requests that no tool serves"
        checks.append(Check("few_no_call_rows", WARNING, wanted - count, len(train), text, remedy))
    return checks
