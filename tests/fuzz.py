"""Mutated rows: `python -m tests.fuzz [--rows 20000] [--data FILE] [--seed 7]`; the tests run a short version.

Real rows (or made-up ones, one per shape) are damaged at random: keys dropped or renamed, types swapped, texts cut or
marked, values nested deep, huge strings, lone surrogates, numbers that are not finite. Whatever comes out must be a row
or a counted reason, no argument may change, and every row that is kept must read back as its gold and take a score.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from fgtools.calls import parse_reply
from fgtools.metrics import score_row
from fgtools.profiles import RECIPES, adapt_recipe
from fgtools.prompts.batch import drop_context, drop_declarations
from fgtools.prompts.checks import reads_back
from fgtools.prompts.encode import render_completion
from fgtools.rows import build_rows, split_rows
from fgtools.rows.formats import SHAPES
from fgtools.rows.remedies import Coverage, apply_remedies
from fgtools.rows.store import find_row_problem, pack_row
from fgtools.schema import normalize_tools
from tests.toys import SHARED

JUNK = [
    None, True, 3, math.nan, math.inf, -math.inf, 1e400, "", "\ud800", [], {}, [[]], "null", "[]", "<tool_call>",
    "</think>", "<think>", 10**5000, b"x", (1,), {1}, object(), "x" * 5000, "[" * 5000, "Optional. String. x",
    json.loads("[" * 300 + "]" * 300), '{"a":' * 400 + "1" + "}" * 400, "NaN", "-Infinity", "[f(a=1)]", "def f(a): ...",
]  # fmt: skip
WORDS = ["type", "properties", "required", "name", "function", "$ref", "anyOf", "nullable", 5, None, "", "\udfff"]
MARKS = ['"', "}", "{", "</tool_call>", "<tool_call>", "\ud801", "\x00", "\n", "<think>", "NaN", "<escape>", "<bos>"]
EVERY_ANSWER = adapt_recipe(RECIPES["native"], turns="all")

COVERAGE = Coverage(
    frozenset({"type", "description", "properties", "required", "nullable"}),
    frozenset((kind, word) for kind in ("string", "integer", "array") for word in ("default", "enum", "minimum")),
)


def mutated(value: Any, draw: random.Random) -> Any:
    """Return a value with keys dropped or renamed, parts replaced by junk, and text cut, marked or re-encoded."""
    if draw.random() < 0.05:
        return draw.choice(JUNK)
    if isinstance(value, dict):
        kept = [(key, item) for key, item in value.items() if draw.random() > 0.04]
        return {
            draw.choice(WORDS) if draw.random() < 0.03 else key: mutated(item, draw) if draw.random() < 0.4 else item
            for key, item in kept
        }
    if isinstance(value, list):
        return [mutated(item, draw) if draw.random() < 0.5 else item for item in value if draw.random() > 0.03]
    if isinstance(value, str):
        return mutated_text(value, draw)
    swapped = draw.random() < 0.2
    return (
        draw.choice([str(value), [value], {"value": value}]) if swapped and isinstance(value, (int, float)) else value
    )


def mutated_text(text: str, draw: random.Random) -> Any:
    """Return a text that is cut, marked, quoted otherwise, or whose JSON is mutated and encoded once, twice or not."""
    if text[:1] in ("[", "{") and draw.random() < 0.5:
        try:
            inner = mutated(json.loads(text), draw)
            return draw.choice([json.dumps(inner), json.dumps(json.dumps(inner)), repr(inner), inner])
        except (TypeError, ValueError, RecursionError):
            return text[:-1]
    position = draw.randrange(len(text) + 1)
    kind = draw.random()
    if kind < 0.2:
        return text[:position]
    if kind < 0.4:
        return text[:position] + draw.choice(MARKS) + text[position:]
    return text.replace('"', "'") if kind < 0.5 else text * 50 if kind < 0.51 else text


def snapshot(value: Any) -> str:
    """Return a value's text, to see whether it changed."""
    try:
        return repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return "long"


def check_rows(raws: Sequence[Any], recipe: str, shape: str = "auto") -> Counter[str]:
    """Build rows and check whatever must hold of them.

    Args:
        raws: Raw rows of any kind.
        recipe: Name of the recipe.
        shape: Shape to force, or "auto".

    Returns:
        The funnel.

    Raises:
        AssertionError: Something does not hold.
    """
    before = [snapshot(raw) for raw in raws]
    row_set = build_rows(raws, recipe, shape=shape)
    assert sum(row_set.funnel.values()) == len(raws) == len(row_set.rows) + len(row_set.rejected)
    assert sum(row_set.shapes.values()) == len(raws)
    assert [snapshot(raw) for raw in raws] == before
    ids = [row["row_id"] for row in row_set.rows] + [item.row_id for item in row_set.rejected]
    assert len(set(ids)) == len(raws)
    for row in row_set.rows:
        check_row(row, recipe)
    for rejected in row_set.rejected:
        json.dumps(vars(rejected), ensure_ascii=False).encode("utf-8")
    split_rows(row_set.rows, n_eval=20, by=RECIPES[recipe].split)
    if recipe == "native":
        check_answers(raws, shape)
    return Counter(row_set.funnel)


def check_answers(raws: Sequence[Any], shape: str) -> None:
    """Build a row for every answer of each conversation and check whatever must hold of them."""
    row_set = build_rows(raws, EVERY_ANSWER, shape=shape)
    n_answers = sum(number * count for number, count in row_set.answers.items())
    assert sum(row_set.funnel.values()) == n_answers == len(row_set.rows) + len(row_set.rejected)
    assert row_set.n_raw == len(raws) == sum(row_set.shapes.values())
    ids = [row["row_id"] for row in row_set.rows] + [item.row_id for item in row_set.rejected]
    assert len(set(ids)) == n_answers
    for row in row_set.rows:
        assert not find_row_problem(row), row["row_id"]
        declared = {tool["function"]["name"] for tool in row["tools"]}
        called = [call["function"]["name"] for one in row["messages"] for call in one.get("tool_calls", ())]
        assert set(called) <= declared, row["row_id"]
        if row["messages"][-1]["role"] != "user":
            check_row(row, "native")
    split_rows(row_set.rows, n_eval=20)


def check_row(row: dict[str, Any], recipe: str) -> None:
    """Check one kept row."""
    json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")
    text = render_completion(row, recipe)
    assert reads_back(row, text, RECIPES[recipe]), row["row_id"]
    assert score_row(row, text, recipe).in_grammar, row["row_id"]
    for cut in range(0, len(text), max(1, len(text) // 7)):
        parse_reply(text[:cut], recipe)
        json.dumps(vars(score_row(row, text[:cut], recipe)), allow_nan=False)
    if recipe != "native":
        return
    before = copy.deepcopy(row)
    assert normalize_tools(row["tools"]) == row["tools"], row["row_id"]
    mended, _ = apply_remedies(row, COVERAGE)
    assert apply_remedies(mended, COVERAGE)[0] == mended, row["row_id"]
    for tool in mended["tools"]:
        Draft202012Validator.check_schema(tool["function"]["parameters"])
    declared = {tool["function"]["name"] for tool in mended["tools"]}
    assert {call["name"] for call in mended["gold"]} <= declared
    assert all(one["gold"] == row["gold"] for one in (*drop_context(row), *drop_declarations(row, 1)))
    pack_row(mended)
    assert row == before


def load_rows(path: Path) -> list[Any]:
    """Read rows to mutate; without the file, one row of every shape."""
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    from tests.rows.test_formats import ROWS

    return list(ROWS.values())


def main() -> None:
    """Mutate, check and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "dev.jsonl")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    from tests.rows.test_formats import ROWS

    draw = random.Random(options.seed)
    sources = {"rows of the file": load_rows(options.data), "one row of every shape": list(ROWS.values())}
    for name, rows in sources.items():
        n_rows = options.rows if name == "rows of the file" else options.rows // 4
        start, funnels = time.perf_counter(), {recipe: Counter[str]() for recipe in RECIPES}
        for _ in range(0, n_rows, 1000):
            raws = [mutated(draw.choice(rows), draw) for _ in range(min(1000, n_rows))]
            for recipe, funnel in funnels.items():
                funnel.update(check_rows(raws, recipe))
            check_rows(raws[:50], "native", draw.choice(sorted(SHAPES)))
        print(f"{name}: {n_rows} mutated rows a recipe, {time.perf_counter() - start:.0f} s, every one accounted for")
        for recipe, funnel in funnels.items():
            print(f"  {recipe}: {dict(funnel.most_common())}")


if __name__ == "__main__":
    main()
