"""The real rows of `make real`, chosen again: `python -m tests.real_rows [--data FILE] [--tokenizer FOLDER]`.

From a file of collected public rows, short ones are drawn with a seed, put on the sides of a split by the project's own
rules, and written into the package with their provenance. Nothing of a row's text is changed; it gets a `split`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgtools.calls import row_calls
from fgtools.files import read_jsonl, write_parts, write_text
from fgtools.metrics.validity import has_valid_arguments
from fgtools.models import load_tokenizer
from fgtools.prompts import Encoded, encode_row, probe_template
from fgtools.rows import build_rows, limit_no_call, split_rows
from fgtools.rows.duplicates import build_key, cluster_texts
from fgtools.run.real import PROVENANCE, REAL_ROWS
from tests.toys import SHARED

SEED = 40
SOURCES = {
    "glaive_en": "hiyouga/LLaMA-Factory data/glaive_toolcall_en_demo.json @ ff6d4d12",
    "glaive_zh": "hiyouga/LLaMA-Factory data/glaive_toolcall_zh_demo.json @ ff6d4d12",
    "hermes_reason_demo": "hiyouga/LLaMA-Factory data/reason_tool_use_demo_50.jsonl @ ff6d4d12",
    "bfcl": "ShishirPatil/gorilla bfcl_eval/data @ 6ea57973",
    "seal_tools": "fairyshine/Seal-Tools dataset_for_finetune @ ce753ece",
}
"""Where the rows of each source come from: a public repository, its path and commit; all under Apache-2.0."""

TOKENS = {"one call": 220, "several calls": 260, "no call": 220}
"""Tokens of a training text at most; calls of several parts are longer, and there are few short ones."""

ROWS = {"one call": 240, "several calls": 45, "no call": 105}
"""Rows wanted of each kind."""

SOURCE_LIMIT = {"glaive_en": 80, "glaive_zh": 40}  # rows of a source at most
TOOL_LIMIT = 8  # rows that call the same tool at most: the collection has 118 requests for the weather
N_EVAL, UNSEEN = 70, 0.08  # evaluation rows, and the share of the rows whose tools no training row declares


def name_kind(row: dict[str, Any]) -> str:
    return ("no call", "one call", "several calls")[min(2, len(row["gold"]))]


def list_usable(raw: Sequence[dict[str, Any]], tokenizer: Any, left: Counter[str]) -> list[dict[str, Any]]:
    """Return built rows that are short and whose gold its own tools allow; count in `left` what is left out."""
    rowset = build_rows(raw, "native", coverage=probe_template(tokenizer))
    left.update({reason: count for reason, count in rowset.funnel.items() if reason != "kept"})
    usable = []
    for row in rowset.rows:
        encoded = encode_row(row, tokenizer, "native", 2048)
        schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in row["tools"]}
        if row["source"] not in SOURCES:
            left["another source"] += 1
        elif not isinstance(encoded, Encoded) or len(encoded.input_ids) > TOKENS[name_kind(row)]:
            left["too long"] += 1
        elif not has_valid_arguments(row_calls(row), schemas):
            left["gold breaks its tool's schema"] += 1
        else:
            usable.append(row)
    return usable


def draw_rows(usable: Sequence[dict[str, Any]], left: Counter[str]) -> list[dict[str, Any]]:
    """Return rows of each kind, no two of them near duplicates, with few rows of one tool."""
    clusters = cluster_texts([build_key(row).request for row in usable])
    order = sorted(range(len(usable)), key=lambda place: usable[place]["row_id"])
    random.Random(SEED).shuffle(order)
    order.sort(key=lambda place: usable[place]["source"] == "bfcl")  # replies of BFCL's refusals are all the same
    taken, sources, tools, kinds = [], Counter(), Counter(), Counter()
    seen: set[int] = set()
    for place in order:
        row = usable[place]
        kind, called = name_kind(row), {call["name"] for call in row["gold"]}
        limited = sources[row["source"]] >= SOURCE_LIMIT.get(row["source"], len(usable))
        if clusters[place] in seen:
            left["near duplicate"] += 1
        elif kinds[kind] >= ROWS[kind] or limited or any(tools[name] >= TOOL_LIMIT for name in called):
            left["enough of its kind, source or tool"] += 1
        else:
            seen.add(clusters[place])
            tools.update(called)
            sources[row["source"]] += 1
            kinds[kind] += 1
            taken.append(row)
    return taken


def assign_sides(rows: Sequence[dict[str, Any]], left: Counter[str]) -> dict[str, str]:
    """Return the side of each row by its id; rows that a split leaves out are on none."""
    splits = split_rows(rows, n_eval=N_EVAL, seed=SEED, unseen_fraction=UNSEEN)
    sides = {"train": limit_no_call(splits.train, 0.3, SEED), "eval": splits.eval, "unseen": splits.unseen}
    chosen = {row["row_id"]: side for side, of_side in sides.items() for row in of_side}
    left["declares a held-out tool, or over the share of refusals"] += len(rows) - len(chosen)
    return chosen


def render_provenance(rows: Sequence[dict[str, Any]], built: Sequence[dict[str, Any]], left: Counter[str]) -> str:
    """Return the text that stands beside the rows."""
    sides = {row["row_id"]: row["split"] for row in rows}
    counts = Counter((row["source"], sides[row["row_id"]]) for row in built)
    kinds = Counter((name_kind(row), sides[row["row_id"]]) for row in built)
    trained = {tool["function"]["name"] for row in built if sides[row["row_id"]] == "train" for tool in row["tools"]}
    due = [row for row in built if sides[row["row_id"]] == "eval" and row["gold"]]
    strange = sum(any(call["name"] not in trained for call in row["gold"]) for row in due)

    def table(title: str, names: Sequence[str], found: Counter[tuple[str, str]]) -> list[str]:
        head = [f"| {title} | train | eval | unseen | row ids |", "|---|---|---|---|---|"]
        ids = {name: sum(found[name, side] for side in ("train", "eval", "unseen")) for name in names}
        return head + [
            f"| {name} | {found[name, 'train']} | {found[name, 'eval']} | {found[name, 'unseen']} | {ids[name]} |"
            for name in names
        ]

    lines = [
        "# The real rows of `make real`",
        "",
        "Made by `python -m tests.real_rows`, seed 40; do not edit. Each row's `row_id` begins with its source.",
        "",
        *table("kind", [*ROWS], kinds),
        "",
        *table("source", [*SOURCES], counts),
        "",
        f"Of the {len(due)} evaluation rows with a call, {strange} need a tool that no training row declares; so do",
        "all `unseen` rows. No two rows are near duplicates of each other.",
        "",
        "## Where they come from, and their licence",
        "",
        "All sources are published under the Apache License 2.0, whose text is this project's `LICENSE`:",
        "",
        *(f"- {name}: {origin}" for name, origin in SOURCES.items()),
        "",
        "## What was changed",
        "",
        "- Conversations stand in the Hermes row schema (`conversations`, `tools`, `<tool_call>` blocks), with the",
        "  notation of their source. BFCL's questions and answers were made into conversations; the text of its",
        "  refusals (\"I'm sorry, none of the available functions can answer this request.\") is not BFCL's own.",
        "- `split` was added. Apart from that a row is as it was collected.",
        "- BFCL is a benchmark: a model that was trained on these rows must not be scored on it.",
        "",
        "## What was left out of the collection",
        "",
        *(f"- {count:,}: {reason}" for reason, count in left.most_common() if count),
    ]
    return "\n".join(lines).replace(" | row ids |", " | all |") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", default=SHARED / "data" / "dev.jsonl", type=Path, help="the collection, as JSON lines"
    )
    parser.add_argument("--tokenizer", default=SHARED / "data" / "tokenizer", help="FunctionGemma's, to count tokens")
    options = parser.parse_args()
    raw, left = read_jsonl(options.data), Counter()
    tokenizer = load_tokenizer(options.tokenizer, chat_template="standin")
    drawn = draw_rows(list_usable(raw, tokenizer, left), left)
    taken = {row["row_id"] for row in drawn}
    # which turn of a conversation becomes a row may depend on the other rows, so those that were drawn are read again
    drawn = draw_rows(list_usable([row for row in raw if row["row_id"] in taken], tokenizer, left), left)
    sides = assign_sides(drawn, left)
    rows = [{**row, "split": sides[row["row_id"]]} for row in raw if row["row_id"] in sides]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_parts(REAL_ROWS, [gzip.compress(text.encode(), 9, mtime=0)])
    built = [row for row in drawn if row["row_id"] in sides]
    write_text(PROVENANCE, render_provenance(rows, built, left))
    print(f"{len(rows)} rows, {REAL_ROWS.stat().st_size:,} bytes: {REAL_ROWS}")


if __name__ == "__main__":
    main()
