"""How far scoring here agrees with the AST checker of the Berkeley Function Calling Leaderboard.

`pip install --no-deps --target FOLDER bfcl-eval && python -m tests.bfcl --package FOLDER --data ROWS.jsonl`

Every row's right calls are changed in seeded ways, rendered as a reply, scored here, and checked by the package's
`ast_checker` against the accepted values that the package ships (or the row's own, where it ships none). Both verdicts
are counted by kind of change; each disagreement is explained by a rule in which the two differ on purpose, or counted
as unexplained.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas

from fgtools.calls import ToolCall, render_calls, row_calls
from fgtools.files import write_text
from fgtools.metrics import score_row
from fgtools.offline.samples import build_samples
from fgtools.report.layout import render_markdown_table
from fgtools.rows import build_rows

CHANGES = (
    *("right", "wrong value", "other case", "other Unicode", "missing", "extra", "undeclared", "wrong type"),
    *("wrong tool", "reordered", "one call fewer", "one call twice"),
)
WHY = {
    "default": "an optional argument at its default equals its absence here; BFCL wants it listed",
    "accepted when left out": "BFCL lists optional arguments that may be left out though the right call has them",
    "another accepted value": "BFCL lists several values that count as right; a row here has one",
    "own calls refused": "BFCL refuses the row's own right calls: undeclared arguments, types other than declared",
    "source code": "in its Java and JavaScript tests BFCL takes values as source code in strings",
    "variable": "BFCL compares to the letter where a text stands in place of another declared type",
    "first fit": "BFCL gives each right call the first call that fits it; here every way to pair them is tried",
    "enum": "BFCL forgives case, spaces and marks in members of an enum; here they are compared to the letter",
    "unicode": "for BFCL a no-break space and a curved apostrophe are other characters; here they are one text",
    "unexplained": "",
}
"""Rules in which the two differ on purpose."""

SEED = 7
Checker = Callable[[Sequence[Any], Sequence[Any], Sequence[Any], str], dict[str, Any]]


@dataclass(frozen=True)
class Verdicts:
    """What both say of one reply; `why` is a key of WHY where they differ."""

    row_id: str
    category: str
    change: str
    calls: Sequence[ToolCall]
    ours: bool
    theirs: bool
    our_code: str
    their_code: str
    why: str = ""


def find_version(package: Path) -> str:
    """Return the package's version."""
    return next(package.glob("bfcl_eval-*.dist-info")).name.removesuffix(".dist-info").partition("-")[2]


def load_checker(package: Path) -> Checker:
    """Import the package's checker without the clients of the many models it knows."""
    sys.path.insert(0, str(package))
    stub = types.ModuleType("bfcl_eval.constants.model_config")
    stub.MODEL_CONFIG_MAPPING = {"any": types.SimpleNamespace(underscore_to_dot=False)}
    sys.modules["bfcl_eval.constants.model_config"] = stub
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    def check(functions: Sequence[Any], output: Sequence[Any], answers: Sequence[Any], category: str) -> dict:
        language = Language.PYTHON
        if category.endswith(("_java", "_javascript")):
            language = Language.JAVA if category.endswith("_java") else Language.JAVASCRIPT
        return ast_checker(list(functions), list(output), list(answers), language, category, "any")

    return check


def load_answers(package: Path) -> dict[str, list[dict[str, Any]]]:
    """Load the accepted values of every test of the package."""
    answers = {}
    for path in sorted((package / "bfcl_eval" / "data" / "possible_answer").glob("*.json")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            answers[record["id"]] = record["ground_truth"]
    return answers


def accept_gold(call: ToolCall) -> dict[str, Any]:
    """Return a right call as the package lists accepted values: a list of values for every argument."""

    def nested(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: [nested(item)] for key, item in value.items()}
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            return [nested(item) for item in value]
        return value

    return {call.name: {name: [nested(value)] for name, value in call.arguments.items()}}


def change_calls(
    gold: Sequence[ToolCall], tools: Mapping[str, Any], change: str, draw: random.Random
) -> list[ToolCall]:
    """Change right calls; [] where there is nothing to change in that way."""
    calls = [ToolCall(call.name, copy.deepcopy(dict(call.arguments))) for call in gold]
    place = draw.randrange(len(calls))
    call = calls[place]
    names = sorted(call.arguments)
    if change == "right":
        return calls
    if change == "reordered":
        return calls[::-1] if len(calls) > 1 and calls[::-1] != calls else []
    if change == "one call fewer":
        return calls[:-1] if len(calls) > 1 else []
    if change == "one call twice":
        return [*calls, calls[-1]]
    if change == "wrong tool":
        others = sorted(set(tools) - {call.name})
        calls[place] = ToolCall(draw.choice(others) if others else "unknown_tool", call.arguments)
        return calls
    if change == "undeclared":
        call.arguments["no_such_parameter"] = "x"
        return calls
    if change == "extra":
        properties = tools.get(call.name, {}).get("properties") or {}
        free = sorted(name for name in properties if name not in call.arguments)
        if not free:
            return []
        name = draw.choice(free)
        call.arguments[name] = properties[name].get("default", _make_value(properties[name]))
        return calls
    if not names:
        return []
    name = draw.choice(names)
    value = call.arguments[name]
    if change == "missing":
        del call.arguments[name]
    elif change == "wrong value":
        call.arguments[name] = _other_value(value)
    elif change == "wrong type":
        call.arguments[name] = 17 if isinstance(value, str) else str(value)
    elif change in ("other case", "other Unicode"):
        texts = [one for one in names if isinstance(call.arguments[one], str) and call.arguments[one]]
        if change == "other Unicode":
            texts = [one for one in texts if {" ", "'"} & set(call.arguments[one])]
        if not texts:
            return []
        name = draw.choice(texts)
        text = call.arguments[name]
        if change == "other Unicode":
            call.arguments[name] = text.replace(" ", "\u00a0").replace("'", "\u2019")
        else:
            call.arguments[name] = text.swapcase().replace(" ", "-").replace("'", '"')
    return calls


def _make_value(schema: Mapping[str, Any]) -> Any:
    kinds = {"string": "x", "integer": 3, "number": 2.5, "boolean": True, "array": [], "object": {}}
    return kinds.get(schema.get("type"), "x")


def _other_value(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 7
    if isinstance(value, str):
        return value + " qq"
    if isinstance(value, list):
        return [*value[:-1], _other_value(value[-1])] if value else ["qq"]
    if isinstance(value, Mapping):
        first = next(iter(value), None)
        return {**value, first: _other_value(value[first])} if first is not None else {"qq": 1}
    return "qq"


def explain(one: Verdicts, row: Mapping[str, Any], own_accepted: bool | None) -> str:
    """Return the rule that explains a disagreement; "" where there is none.

    Args:
        one: Both verdicts.
        row: The row.
        own_accepted: What the package says of the row's own right calls.

    Returns:
        A key of WHY.
    """
    if one.ours == one.theirs:
        return ""
    if one.category.endswith(("_java", "_javascript")):
        return "source code"
    if own_accepted is not True:
        return "own calls refused"
    if one.ours and one.change in ("extra", "missing"):
        return "default"
    if one.ours and one.change == "other case" and one.their_code.endswith(("others", "cannot_find_match")):
        return "variable"
    if one.ours and one.change == "reordered":
        return "first fit"
    if one.ours and one.change == "other Unicode":
        return "unicode"
    pairs = zip(one.calls, row_calls(row), strict=False)
    if not one.ours and one.change == "other case" and any(_changes_a_choice(*pair, row) for pair in pairs):
        return "enum"
    if not one.ours and one.change == "missing":
        return "accepted when left out"
    if not one.ours and one.change in ("wrong value", "wrong type", "extra"):
        return "another accepted value"
    return "unexplained"


def _changes_a_choice(call: ToolCall, gold: ToolCall, row: Mapping[str, Any]) -> bool:
    """Return whether a changed call has another value where the gold has a member of the parameter's enum."""
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in row["tools"]}
    properties = tools[call.name].get("properties") or {}
    changed = [name for name, value in call.arguments.items() if value != gold.arguments[name]]
    return any(gold.arguments[name] in (properties[name].get("enum") or ()) for name in changed if name in properties)


def compare_row(
    row: Mapping[str, Any],
    functions: Sequence[Mapping],
    accepted: Sequence[Mapping] | None,
    category: str,
    check: Checker,
) -> Iterator[Verdicts]:
    """Yield both verdicts on every changed reply of a row.

    Args:
        row: The row; calls something.
        functions: Its tools as BFCL writes them.
        accepted: The values BFCL accepts; None: the row's own alone.
        category: BFCL's name for the kind of test.
        check: The package's checker.

    Yields:
        The verdicts, with the rule in which they differ.
    """
    gold = row_calls(row)
    accepted = accepted or [accept_gold(call) for call in gold]
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in row["tools"]}
    own = None
    for change in CHANGES:
        calls = change_calls(gold, tools, change, random.Random(f"{SEED} {row['row_id']} {change}"))
        if not calls:
            continue
        scored = score_row(row, render_calls(calls))
        theirs = check(
            functions, [{call.name: copy.deepcopy(dict(call.arguments))} for call in calls], accepted, category
        )
        if change == "right":
            own = theirs["valid"]
        their_code = "" if theirs["valid"] else str(theirs["error_type"])
        one = Verdicts(
            row["row_id"], category, change, calls, scored.ast_match, theirs["valid"], scored.error, their_code
        )
        yield replace(one, why=explain(one, row, own))


def load_real_rows(data: Path, package: Path) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of `compare_row`, without the checker, for the rows that come from BFCL."""
    with data.open(encoding="utf-8") as file:
        raws = {raw["row_id"]: raw for raw in map(json.loads, file) if raw.get("source") == "bfcl"}
    answers = load_answers(package)
    for row in build_rows(raws.values()).rows:
        if row["gold"]:
            raw = raws[row["row_id"]]
            accepted = answers.get(row["row_id"].removeprefix("bfcl/"))
            yield row, json.loads(raw["tools"]), accepted, raw["category"]


def build_sample_rows(n_rows: int) -> Iterator[tuple[Any, ...]]:
    """Yield the same for rows of the offline sample, with tools written as BFCL writes them."""
    kinds = {"number": "float", "object": "dict"}

    def as_bfcl(node: Any) -> Any:
        if isinstance(node, list):
            return [as_bfcl(item) for item in node]
        if not isinstance(node, Mapping):
            return node
        made = {key: as_bfcl(value) for key, value in node.items()}
        if isinstance(node.get("type"), str):
            made["type"] = kinds.get(node["type"], node["type"])
        return made

    rows = [row for row in build_rows(build_samples(400, 3)).rows if row["gold"] and _is_plain(row)]
    for row in rows[:n_rows]:
        functions = [as_bfcl(tool["function"]) for tool in row["tools"]]
        row = {**row, "tools": [_without_text(tool) for tool in row["tools"]]}
        yield row, functions, None, "parallel" if len(row["gold"]) > 1 else "multiple"


def _without_text(node: Any) -> Any:
    """Return the schema without descriptions, on which no verdict depends."""
    if isinstance(node, list):
        return [_without_text(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    return {key: _without_text(value) for key, value in node.items() if key != "description" or isinstance(value, dict)}


def _is_plain(row: Mapping[str, Any]) -> bool:
    """Return whether the checker knows every type: it has no untyped lists and no alternatives."""
    text = json.dumps([tool["function"]["parameters"] for tool in row["tools"]])
    arrays = text.count('"type": "array"')
    return "anyOf" not in text and text.count('"items": {"type"') == arrays and "nullable" not in text


def render_agreement(result: Mapping[str, Any]) -> str:
    """Return the Markdown tables of docs/evaluation.md, from results/bfcl.json."""
    counts = [(change, str(one["n"]), str(one["agree"])) for change, one in result["changes"].items()]
    counts.append(("all", str(result["n"]), str(result["agree"])))
    why = [(str(count), WHY[name]) for name, count in result["differ"].items()]
    tables = (
        pandas.DataFrame(counts, columns=["change", "replies", "same verdict"]),
        pandas.DataFrame(why, columns=["differ", "because"]),
    )
    return "\n\n".join(render_markdown_table(table) for table in tables)


def main() -> None:
    """Count, and say why."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True, help="folder the package was installed into")
    parser.add_argument("--data", type=Path, help="rows that come from BFCL, as JSON lines")
    parser.add_argument("--out", type=Path, help="also write the counts there")
    parser.add_argument("--golden", type=Path, help="write verdicts on rows of the offline sample there")
    options = parser.parse_args()
    check, version = load_checker(options.package), find_version(options.package)
    if options.golden:
        lines = []
        for row, *rest in build_sample_rows(12):
            for one in compare_row(row, *rest, check):
                case = {"source": f"bfcl-eval {version}, ast_checker", "change": one.change, "why": one.why}
                case |= {"row": {name: row[name] for name in ("row_id", "tools", "gold")}}
                case |= {"reply": render_calls(one.calls), "valid": one.theirs, "code": one.their_code}
                lines.append(json.dumps(case, ensure_ascii=False))
        write_text(options.golden, "\n".join(lines) + "\n")
        print(f"{len(lines)} cases in {options.golden}")
    if not options.data:
        return
    verdicts = [one for row in load_real_rows(options.data, options.package) for one in compare_row(*row, check)]
    result: dict[str, Any] = {"package": f"bfcl-eval {version}", "rows": len({one.row_id for one in verdicts})}
    result |= {"n": len(verdicts), "agree": sum(not one.why for one in verdicts), "changes": {}}
    for change in CHANGES:
        of_it = [one for one in verdicts if one.change == change]
        result["changes"][change] = {"n": len(of_it), "agree": sum(not one.why for one in of_it)}
    both_wrong = [one for one in verdicts if not one.ours and not one.theirs]
    same_code = sum(one.our_code == one.their_code for one in both_wrong)
    result["both_wrong"] = {"n": len(both_wrong), "same_code": same_code}
    result["differ"] = dict(Counter(one.why for one in verdicts if one.why).most_common())
    for one in verdicts:
        if one.why == "unexplained":
            print(one)
    print(render_agreement(result))
    if options.out:
        write_text(options.out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
