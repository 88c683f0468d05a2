"""How fast raw rows become token ids and labels: both recipes here, and the tutorial's way, in one run.

`python -m benchmarks.data [--data FILE] [--tokenizer FOLDER] [--rows N] [--repeats N]`

The tutorial's way is its own functions, the chat template row by row, `Dataset.from_list`, its map that changes
nothing, and TRL's tokenizing. The ids of the `tutorial` recipe must equal what the trainer gets that way, less the
second <bos>; those of the `native` recipe must equal `encode_row`'s. Rates are raw rows a second, reading the file
left out; the ways take turns, and the medians of their times count. The native recipe turns more of the raw rows into
training rows, so the rates that are compared are those of the rows that come out. The last line is one JSON object;
`ratio` is the smaller of the two recipes' rates over that of the tutorial's way.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets.utils.logging import disable_progress_bar

from fgtools.files import read_jsonl
from fgtools.gold.tutorial import TutorialError, extract_tutorial_gold
from fgtools.models import load_tokenizer
from fgtools.prompts import encode_row, encode_rows
from fgtools.rows import Row, build_rows
from fgtools.rows.build import build_tutorial_row
from fgtools.rows.funnel import Built
from fgtools.schema.tools import clear_caches

SHARED = Path(__file__).parents[2] / "shared" / "data"
LIMIT = 1_000_000
"""Budget in tokens: nothing is cut, so that all ids are compared."""


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(SHARED / "dev.jsonl"), help="JSON lines; without it, the offline sample")
    parser.add_argument("--tokenizer", default=str(SHARED / "tokenizer"), help="a folder; without it, the stand-in's")
    parser.add_argument("--rows", type=int, default=10_000, help="raw rows at most")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ["FGTOOLS_BATCH"] = "1"
    disable_progress_bar()
    raw = load_rows(Path(options.data), options.rows)
    tokenizer = load_benchmark_tokenizer(Path(options.tokenizer))
    ways: dict[str, Callable[[], list[list[int]]]] = {
        "tutorial's way": lambda: encode_the_tutorials_way(raw, tokenizer),
        "recipe tutorial": lambda: encode(raw, tokenizer, "tutorial"),
        "recipe native": lambda: encode(raw, tokenizer, "native"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    ids: dict[str, list[list[int]]] = {}
    for name in ways:
        way_on_few(name, raw[:50], tokenizer)  # imports and caches of the libraries are not what is measured
    for _ in range(options.repeats):
        for name, way in ways.items():
            clear_caches()
            start = time.perf_counter()
            ids[name] = way()
            seconds[name].append(time.perf_counter() - start)
            print(f"{name}: {seconds[name][-1]:.2f} s", flush=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    rates = {name: len(ids[name]) / median for name, median in medians.items()}
    print(f"{len(raw)} raw rows, {options.repeats} repeats taking turns, {os.cpu_count()} cores")
    for name, times in seconds.items():
        tokens = sum(map(len, ids[name]))
        print(
            f"{name:16}{rates[name]:7.0f} rows/s out{len(raw) / medians[name]:7.0f} raw rows/s in   "
            f"({len(ids[name])} rows, {tokens} tokens; {', '.join(f'{one:.2f}' for one in times)} s)"
        )
    first = tokenizer.bos_token_id
    singles = [one[1:] if one[:2] == [first, first] else one for one in ids["tutorial's way"]]
    reference = [encode_row(row, tokenizer, "native", LIMIT).input_ids for row in build_rows(raw, "native").rows]
    identical = {"tutorial": singles == ids["recipe tutorial"], "native": reference == ids["recipe native"]}
    print(f"ids equal: tutorial's way and recipe tutorial {identical['tutorial']}, ", end="")
    print(f"native and encode_row {identical['native']}")
    ratios = {recipe: rates[f"recipe {recipe}"] / rates["tutorial's way"] for recipe in ("tutorial", "native")}
    result = {
        "benchmark": "data",
        "rows": len(raw),
        "rows_per_second": {name: round(rate) for name, rate in rates.items()},
        "raw_rows_per_second": {name: round(len(raw) / median) for name, median in medians.items()},
        "ratio_by_recipe": {recipe: round(ratio, 2) for recipe, ratio in ratios.items()},
        "identical": all(identical.values()),
        "ratio": round(min(ratios.values()), 2),
    }
    print(json.dumps(result))


def load_rows(path: Path, n_rows: int) -> list[Any]:
    """Read raw rows, or make some where the file is not there."""
    if path.is_file():
        return read_jsonl(path)[:n_rows]
    from fgtools.offline.samples import build_samples

    return build_samples(min(n_rows, 3000), 40)


def load_benchmark_tokenizer(folder: Path) -> Any:
    """Load a tokenizer with the stand-in's chat template, which renders as FunctionGemma's; or the stand-in's own."""
    return load_tokenizer(folder, "standin") if folder.is_dir() else load_tokenizer("standin")


def encode(raw: Sequence[Any], tokenizer: Any, recipe: str) -> list[list[int]]:
    """Encode raw rows as this package does."""
    return [one.input_ids for one in encode_rows(build_rows(raw, recipe).rows, tokenizer, recipe, LIMIT).encoded]


def encode_the_tutorials_way(raw: Sequence[Any], tokenizer: Any) -> list[list[int]]:
    """Encode raw rows with the tutorial's steps and TRL's."""
    from datasets import Dataset

    texts = []
    for row in raw:
        try:
            gold = extract_tutorial_gold(row)
            made = build_tutorial_row(row, gold[0]) if gold else None
        except TutorialError:
            continue
        if isinstance(made, Built):
            texts.append({"text": render_the_tutorials_text(made.fate, tokenizer)})
    dataset = Dataset.from_list(texts).map(lambda example: {"text": str(example["text"])})
    return tokenize_as_trl(dataset, tokenizer)


def render_the_tutorials_text(row: Row, tokenizer: Any) -> str:
    """Write a training text as the tutorial does."""
    prompt = tokenizer.apply_chat_template(
        row["messages"], tools=row["tools"], add_generation_prompt=True, tokenize=False
    )
    (call,) = row["gold"]
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    return f"{prompt}<start_function_call>call:{call['name']}{{args:<escape>{arguments}<escape>}}<end_function_call>"


def tokenize_as_trl(dataset: Any, tokenizer: Any) -> list[list[int]]:
    """Let TRL's trainer prepare a dataset: it appends <eos> and tokenizes row by row."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig
    from trl import SFTConfig, SFTTrainer

    config = Gemma3TextConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=8
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(output_dir=folder, max_length=None, bf16=False, use_cpu=True, report_to="none")
        trainer = SFTTrainer(
            Gemma3ForCausalLM(config), args=arguments, train_dataset=dataset, processing_class=tokenizer
        )
        return [list(ids) for ids in trainer.train_dataset["input_ids"]]


def way_on_few(name: str, raw: Sequence[Any], tokenizer: Any) -> None:
    """Run one way on a few rows."""
    if name.startswith("recipe "):
        encode(raw, tokenizer, name.removeprefix("recipe "))
    else:
        encode_the_tutorials_way(raw, tokenizer)


if __name__ == "__main__":
    main()
