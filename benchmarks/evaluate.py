"""How fast replies are generated and scored: the engine here beside the tutorial's loop, in one run.

`python -m benchmarks.evaluate [--shape full|small|standin] [--rows N] [--repeats N] [--threads N] [--device cpu|cuda]
[--worst-case] [--profile] [--out FILE]`

A model of FunctionGemma's shape (`full`), a small one or the stand-in's shape, random weights, answers prompts of real
lengths, once with tool lists that three rows each share (three quarters of the prompt) and once with none shared. Every
reply ends after 20 to 60 tokens, as a call does. Ways, taking turns within every repeat:

- loop: the tutorial's, one row after the other through transformers' `generate`, that stops at the end of its reply
- loop to 128: the same when nothing stops it; measured once
- ours: fgtools.generate

In fp32 the tokens must be the same. With `--profile`, one more run of ours is profiled. Then 10,000
replies are scored. The last line is one JSON object: `ratio` is ours over the stopping loop on rows that share tool
lists, `identical` whether all tokens were equal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("FGTOOLS_BATCH", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pandas
import torch
from transformers import Gemma3ForCausalLM, GenerationConfig

from benchmarks.train import LENGTHS, build_model, synchronize
from fgtools.calls import render_calls, row_calls
from fgtools.files import write_text
from fgtools.generate.replies import generate_tokens
from fgtools.metrics import score
from fgtools.models import load_model
from fgtools.offline.samples import build_samples
from fgtools.report.layout import render_markdown_table
from fgtools.rows import build_rows
from fgtools.run.session import quiet_libraries

SHARED_PART = 0.75
TOGETHER = 3


def build_standin(device: str) -> Gemma3ForCausalLM:
    """Build a model of the stand-in's shape with random weights: its own have ties on inputs they never saw."""
    torch.manual_seed(0)
    return Gemma3ForCausalLM(load_model("standin", device="cpu", quiet=True).config).to(device)


def draw_prompts(n_rows: int, vocabulary: int, shared: bool) -> tuple[list[list[int]], list[int]]:
    """Draw prompts of real lengths and the lengths of their replies."""
    draw = random.Random(7)
    prompts = []
    for number in range(n_rows):
        tokens, labels = LENGTHS[(number // TOGETHER if shared else number) * 3 % len(LENGTHS)]
        length = tokens - labels
        stem = draw.randrange(10**9) if not shared else number // TOGETHER
        start = random.Random(f"stem {stem}").choices(range(110, vocabulary), k=int(length * SHARED_PART))
        prompts.append([2, *start, *draw.choices(range(110, vocabulary), k=length - len(start) - 1)])
    return prompts, [draw.randint(20, 60) for _ in prompts]


def run_loop(model: Any, prompts: Sequence[Sequence[int]], budgets: Sequence[int]) -> list[list[int]]:
    """Generate row by row."""
    replies = []
    for prompt, budget in zip(prompts, budgets, strict=True):
        config = GenerationConfig(do_sample=False, max_new_tokens=budget, eos_token_id=None, pad_token_id=0)
        ids = torch.tensor([prompt], device=model.device)
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        replies.append(output[0, len(prompt) :].tolist())
    return replies


def run_ours(model: Any, prompts: Sequence[Sequence[int]], budgets: Sequence[int]) -> list[list[int]]:
    """Generate as `generate_replies` does, with a length for every reply."""
    replies: dict[int, list[int]] = {}
    generate_tokens(model, prompts, (), budgets, lambda number, ids, _: replies.update({number: ids}))
    return [replies[number] for number in range(len(prompts))]


def timed(way: Callable[[], list[list[int]]], device: str) -> tuple[float, list[list[int]]]:
    synchronize(device)
    start = time.perf_counter()
    with torch.inference_mode():
        replies = way()
    synchronize(device)
    return time.perf_counter() - start, replies


KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "linear", "matmul"),
    "attention": ("attention",),
    "choosing tokens": ("argmax", "softmax"),
    "copies": ("copy_", "clone", "cat", "index"),
    "activation": ("gelu",),
    "other element-wise": ("mul", "add", "pow", "mean", "rsqrt", "neg", "cos", "sin", "masked_fill"),
}


def profile_ours(model: Any, prompts: Sequence[Sequence[int]], budgets: Sequence[int]) -> dict[str, Any]:
    """Return the share of every kind of operation in our time, for reading prompts and for writing replies."""
    parts = {}
    for name, ends in (("reading prompts", [1] * len(prompts)), ("all", list(budgets))):
        with torch.profiler.profile() as profile, torch.inference_mode():
            start = time.perf_counter()
            run_ours(model, prompts, ends)
            taken = time.perf_counter() - start
        micro = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
        parts[name] = (taken, {kind: sum(_matching(micro, words)) / 1e6 for kind, words in KINDS.items()}, micro)
    (read, reading, _), (whole, all_of_it, micro) = parts["reading prompts"], parts["all"]
    writing = {kind: all_of_it[kind] - reading[kind] for kind in KINDS}
    shares = {
        phase: {"seconds": round(taken, 2), **{kind: round(one / taken, 3) for kind, one in kinds.items()}}
        for phase, taken, kinds in (("reading prompts", read, reading), ("writing replies", whole - read, writing))
    }
    other = whole - sum(all_of_it.values())
    return {**shares, "rest_of_all": round(other / whole, 3), "operations": len(micro)}


def _matching(micro: dict[str, float], words: Sequence[str]) -> list[float]:
    return [
        taken
        for key, taken in micro.items()
        if any(key.removeprefix("aten::") == word or (word == "attention" and word in key) for word in words)
    ]


def measure_kind(kind: str, model: Any, n_rows: int, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the loop and ours, taking turns, on prompts that share tool lists ("shared") or do not ("unshared")."""
    prompts, budgets = draw_prompts(n_rows, model.config.vocab_size, kind == "shared")
    timed(lambda: run_ours(model, prompts[:2], [2, 2]), device)
    timed(lambda: run_loop(model, prompts[:1], [2]), device)
    ways = {"loop": lambda: run_loop(model, prompts, budgets), "ours": lambda: run_ours(model, prompts, budgets)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    replies: dict[str, list[list[int]]] = {}
    for _ in range(options.repeats):
        for name, way in ways.items():
            taken, replies[name] = timed(way, device)
            seconds[name].append(taken)
            print(f"{kind} {name}: {taken:.2f} s", flush=True)
    ratio = statistics.median(one / other for one, other in zip(seconds["loop"], seconds["ours"], strict=True))
    result = {
        "prompt_tokens": sum(map(len, prompts)),
        "reply_tokens": sum(budgets),
        "distinct_reply_tokens": len({token for reply in replies["loop"] for token in reply}),
        "loop_seconds": round(statistics.median(seconds["loop"]), 3),
        "ours_seconds": round(statistics.median(seconds["ours"]), 3),
        "rows_per_second": round(n_rows / statistics.median(seconds["ours"]), 3),
        "same_replies": sum(one == other for one, other in zip(replies["loop"], replies["ours"], strict=True)),
        "ratio": round(ratio, 2),
    }
    if options.worst_case and kind == "shared":
        taken, _ = timed(lambda: run_loop(model, prompts, [128] * len(prompts)), device)
        result |= {"loop_128_seconds": round(taken, 3), "ratio_to_loop_128": round(taken / seconds["ours"][-1], 2)}
    if options.profile:
        result["profile"] = profile_ours(model, prompts, budgets)
    return result


def measure_scoring() -> float:
    """Return the seconds that scoring 10,000 replies takes."""
    rows = build_rows(build_samples(600, 1)).rows
    draw = random.Random(2)
    chosen = [draw.choice(rows) for _ in range(10_000)]
    texts = [render_calls(row_calls(row)) for row in chosen]
    replies = [text if draw.random() < 0.5 else text[: draw.randrange(len(text) + 1)] for text in texts]
    start = time.perf_counter()
    score([{**row, "row_id": str(number)} for number, row in enumerate(chosen)], replies)
    return time.perf_counter() - start


def render_results(results: dict[str, Any]) -> str:
    """Render the Markdown table of docs/evaluation.md from results/evaluate.json."""
    columns = (
        "model",
        "device",
        "rows",
        "n",
        "the loop, s",
        "ours, s",
        "ratio",
        "loop to 128, s",
        "same tokens",
    )
    rows = []
    for name, result in results.items():
        model = "the stand-in's shape" if name.startswith("standin") else "FunctionGemma's shape"
        for kind, one in result["kinds"].items():
            alike = "tool lists shared by three rows" if kind == "shared" else "none shared"
            n, worst = result["rows"], one.get("loop_128_seconds")
            seconds = [f"{one['loop_seconds']:.2f}", f"{one['ours_seconds']:.2f}", f"{one['ratio']:.2f}"]
            seconds.append("" if worst is None else f"{worst:.1f} ({one['ratio_to_loop_128']:.1f} times ours)")
            rows.append((model, result["device"], alike, str(n), *seconds, f"{one['same_replies']}/{n}"))
    return render_markdown_table(pandas.DataFrame(rows, columns=list(columns)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["full", "small", "standin"], default="full")
    parser.add_argument("--rows", type=int, default=0, help="rows (default: 12, on a GPU 64)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU (default: torch's own)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--worst-case", action="store_true", help="also run the loop to 128 tokens")
    parser.add_argument("--profile", action="store_true", help="profile one more run of ours")
    parser.add_argument("--out", type=Path, help="also keep the JSON object there, beside those of other shapes")
    options = parser.parse_args()
    quiet_libraries()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    model = (build_standin(device) if options.shape == "standin" else build_model(options.shape, device)).eval()
    model.generation_config.eos_token_id = None  # a random reply must not end by chance
    n_rows = options.rows or (64 if device == "cuda" else 12)
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"shape {options.shape}, {n_rows} rows, {where}", flush=True)
    kinds = {}
    for kind in ("shared", "unshared"):
        kinds[kind] = measure_kind(kind, model, n_rows, device, options)
        print(kind, kinds[kind], flush=True)
    scoring = measure_scoring()
    print(f"10,000 replies scored in {scoring:.2f} s")
    result = {
        "benchmark": "evaluate",
        "shape": options.shape,
        "device": where,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": n_rows,
        "kinds": kinds,
        "scoring_10000_seconds": round(scoring, 2),
        "identical": all(one["same_replies"] == n_rows for one in kinds.values()),
        "ratio": kinds["shared"]["ratio"],
        "ratio_unshared": kinds["unshared"]["ratio"],
    }
    if options.out:
        kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
        kept[options.shape if device == "cpu" else f"{options.shape} on a GPU"] = result
        write_text(options.out, json.dumps(kept, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
