"""How fast replies are generated and scored: ours beside the tutorial's loop and transformers' batches, in one run.

`python -m benchmarks.evaluate [--shape full|small|standin] [--rows N] [--repeats N] [--threads N] [--device cpu|cuda]
[--ways NAME ...] [--limit SECONDS] [--worst-case] [--profile] [--out FILE]`

A model of FunctionGemma's shape (`full`), a small one or the stand-in's shape, random weights, answers prompts of real
lengths, once with tool lists that three rows each share (three quarters of the prompt) and once with none shared. Every
reply ends after 20 to 60 tokens, as a call does. The ways, those of `generations`, take turns within every repeat; each
has its own time limit, and every figure is printed and written when it is known. With `--worst-case`, the loop is also
run to 128 tokens, as when nothing stops it; once.

On a GPU weights and products are in the format that fgtools would choose there, or `--dtype`. In fp32 the tokens must
be the same. With `--profile`, one more run of ours is profiled. Then 10,000 replies are scored. The last line is one
JSON object: `ratio` is ours over the loop on rows that share tool lists, `identical` whether all tokens that both gave
were equal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("FGTOOLS_BATCH", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pandas
import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.generations import WAYS, Way, draw_prompts, run_loop
from benchmarks.limits import TimeLimit
from benchmarks.profile import profile_operators
from benchmarks.records import CPU_AIMS, EVALUATION_AIMS, compare_aims, render_aims, write_section
from benchmarks.shapes import SHAPES, build_model, name_device, synchronize
from fgtools.calls import render_calls, row_calls
from fgtools.metrics import score
from fgtools.models.device import DTYPES, choose_device_and_dtype, detect_capability
from fgtools.offline.samples import build_samples
from fgtools.report.layout import render_markdown_table
from fgtools.rows import build_rows
from fgtools.run.session import quiet_libraries

AIM_ROWS = 300


def measure_way(way: Way, model: Any, prompts: Sequence, budgets: Sequence[int], limit: float) -> dict[str, Any]:
    """Answer prompts one way, within a time limit.

    Args:
        way: As in `generations`.
        model: The model.
        prompts: Token ids.
        budgets: Tokens of each reply.
        limit: Seconds after which it is ended.

    Returns:
        "seconds"; "rows", how many were answered by then; "first_reply_seconds"; "replies" by number; "over" True where
        it was ended; "failed" with a reason where it ended otherwise.
    """
    device = model.device.type
    replies: dict[int, list[int]] = {}
    first = None

    def answer(number: int, ids: list[int]) -> None:
        nonlocal first
        if not replies:
            synchronize(device)
            first = time.perf_counter() - started
        replies[number] = ids

    synchronize(device)
    started = time.perf_counter()
    try:
        with TimeLimit(limit) as within, torch.inference_mode():
            way(model, prompts, budgets, answer)
            synchronize(device)
        outcome = {"over": True} if within.over else {}
    except Exception as error:  # another library's: whatever it raises, the other ways go on
        outcome = {"failed": f"{type(error).__name__}: {error}"[:300]}
    seconds = time.perf_counter() - started
    return {**outcome, "seconds": seconds, "rows": len(replies), "first_reply_seconds": first, "replies": replies}


def measure_kind(
    kind: str, model: Any, n_rows: int, options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Measure all ways, taking turns, on prompts that share tool lists ("shared") or do not ("unshared").

    Args:
        kind: "shared" or "unshared".
        model: The model.
        n_rows: Prompts.
        options: Of the command.
        keep: Called with the figures so far, after every way.
    """
    prompts, budgets = draw_prompts(n_rows, model.config.vocab_size, kind == "shared")
    takes: dict[str, list[dict[str, Any]]] = {name: [] for name in options.ways}
    for name in options.ways:  # kernels and caches of the libraries are not what is measured
        measure_way(WAYS[name], model, prompts[:2], [2, 2], options.limit)
    for _ in range(options.repeats):
        for name, taken in takes.items():
            if taken and ("over" in taken[0] or "failed" in taken[0]):
                continue
            taken.append(measure_way(WAYS[name], model, prompts, budgets, options.limit))
            print(f"{kind} {name}: {describe_take(taken[-1], n_rows)}", flush=True)
            keep({"ways": summarize_ways(takes)})
    result = {"prompt_tokens": sum(map(len, prompts)), "reply_tokens": sum(budgets), "ways": summarize_ways(takes)}
    ours, loop = result["ways"].get("ours"), result["ways"].get("loop")
    if ours and loop and ours["rows"] and loop["rows"]:
        result |= {
            "distinct_reply_tokens": len({token for ids in takes["loop"][-1]["replies"].values() for token in ids}),
            "loop_seconds": loop["seconds"],
            "ours_seconds": ours["seconds"],
            "rows_per_second": ours["rows_per_second"],
            "same_replies": ours["same_as_loop"],
            "ratio": loop["ours_over_this"],
        }
    if options.worst_case and kind == "shared":
        worst = measure_way(run_loop, model, prompts, [128] * n_rows, options.limit)
        taken = round(worst["seconds"], 3)
        result |= {"loop_128_seconds": taken, "ratio_to_loop_128": round(taken / takes["ours"][-1]["seconds"], 2)}
    if options.profile:
        result["profile"] = profile_operators(model, prompts, budgets)
    keep(result)
    return result


def describe_take(take: dict[str, Any], n_rows: int) -> str:
    """Return what one way took, for people."""
    if "failed" in take:
        return f"failed after {take['seconds']:.2f} s: {take['failed']}"
    first = "" if take["first_reply_seconds"] is None else f", first reply after {take['first_reply_seconds']:.2f} s"
    if "over" in take:
        return f"over {take['seconds']:.0f} s, {take['rows']} of {n_rows} rows answered{first}"
    return f"{take['seconds']:.2f} s{first}"


def summarize_ways(takes: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the medians of each way, and what it is to ours and to the loop.

    Rows a second count the rows that were answered until a way ended or was ended. `same_as_loop` counts the rows that
    both answered alike, `compared` those that both answered.
    """
    figures: dict[str, dict[str, Any]] = {}
    loop = takes["loop"][-1]["replies"] if takes.get("loop") else {}
    for name, taken in takes.items():
        if not taken:
            continue
        last, both = taken[-1], [number for number in taken[-1]["replies"] if number in loop]
        seconds = statistics.median(take["seconds"] for take in taken)
        figures[name] = {
            **{key: last[key] for key in ("over", "failed") if key in last},
            "seconds": round(seconds, 3),
            "rows": last["rows"],
            "rows_per_second": round(last["rows"] / seconds, 3),
            "first_reply_seconds": last["first_reply_seconds"] and round(last["first_reply_seconds"], 3),
            "same_as_loop": sum(last["replies"][number] == loop[number] for number in both),
            "compared": len(both),
        }
        pairs = [(one, other) for one, other in zip(takes.get("ours", ()), taken, strict=False) if other["rows"]]
        if pairs and "failed" not in last:
            rates = [(one["rows"] / one["seconds"]) / (other["rows"] / other["seconds"]) for one, other in pairs]
            figures[name]["ours_over_this"] = round(statistics.median(rates), 2)
    return figures


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


def render_ways(result: Mapping[str, Any]) -> str:
    """Write the Markdown table of docs/evaluation.md of what was measured on a GPU."""
    lines = [
        "| rows | way | s | rows/s | first reply, s | tokens as the loop's | ours is |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, known in result["kinds"].items():
        alike = "tool lists shared by three rows" if kind == "shared" else "none shared"
        for name, one in known["ways"].items():
            if "failed" in one:
                lines.append(f"| {alike} | {name} | failed: {one['failed']} |" + " |" * 4)
                continue
            seconds = f"{one['seconds']:.1f}"
            if "over" in one:
                seconds = f"over {one['seconds']:.0f}, {one['rows']} of {result['rows']} answered"
            first = "" if one["first_reply_seconds"] is None else f"{one['first_reply_seconds']:.2f}"
            ratio = f"{one['ours_over_this']:.2f}x" if "ours_over_this" in one else ""
            cells = [seconds, f"{one['rows_per_second']:.1f}", first, f"{one['same_as_loop']}/{one['compared']}", ratio]
            lines.append(f"| {alike} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, "standin"], default="full")
    parser.add_argument("--rows", type=int, default=0, help="rows (default: 12, on a GPU 300)")
    parser.add_argument("--repeats", type=int, default=0, help="default: 3, on a GPU 1")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU (default: torch's own)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--dtype", choices=["auto", *DTYPES], default="auto")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--limit", type=float, default=0, help="seconds that each way may take (600, on a GPU 30)")
    parser.add_argument("--worst-case", action="store_true", help="also run the loop to 128 tokens")
    parser.add_argument("--profile", action="store_true", help="profile one more run of ours, by operators of the CPU")
    parser.add_argument("--out", type=Path, help="also keep the JSON object there, beside those of other shapes")
    options = parser.parse_args(arguments)
    options.device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    gpu = options.device == "cuda"
    options.rows = options.rows or (AIM_ROWS if gpu else 12)
    options.repeats = options.repeats or (1 if gpu else 3)
    options.limit = options.limit or (30 if gpu else 600)
    return options


def load_random_model(shape: str, device: str, dtype: str) -> Any:
    """Build a model for generation, in a dtype by name or in the one that fgtools chooses for the device."""
    model = build_model(shape, device).eval()
    chosen = choose_device_and_dtype(detect_capability(model.device)).dtype if dtype == "auto" else DTYPES[dtype]
    model.generation_config.eos_token_id = None  # a random reply must not end by chance
    return model.to(chosen)


def compare_kinds(options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure both kinds of prompts; `keep` is called with all that is known, again and again."""
    model = load_random_model(options.shape, options.device, options.dtype)
    where, dtype = name_device(options.device), str(model.dtype).removeprefix("torch.")
    print(f"evaluation: shape {options.shape}, {dtype}, {options.rows} rows, {where}", flush=True)
    result: dict[str, Any] = {
        "benchmark": "evaluate",
        "shape": options.shape,
        "device": where,
        "dtype": dtype,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": options.rows,
        "limit_seconds": options.limit,
        "kinds": {},
    }
    for kind in ("shared", "unshared"):

        def keep_kind(figures: dict[str, Any], kind: str = kind) -> None:
            result["kinds"][kind] = figures
            keep(result)

        print(kind, measure_kind(kind, model, options.rows, options, keep_kind), flush=True)
    result["aims"] = compare_aims(EVALUATION_AIMS, read_aims(result))
    print(render_aims(result["aims"], f"an H100, FunctionGemma's shape; here {where}"))
    keep(result)
    return result


def read_aims(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the figures that the aims of evaluations are compared with: of both kinds of prompts the worse one."""
    ways = [kind["ways"] for kind in result["kinds"].values()]
    ours = [one["ours"] for one in ways if "ours" in one]
    ended = [one["seconds"] for one in ours if one["rows"] == result["rows"] >= AIM_ROWS]

    def least(name: str) -> float | None:
        ratios = [one[name].get("ours_over_this") for one in ways if name in one]
        return min(ratios) if ratios and None not in ratios else None

    return {
        "evaluation_seconds": max(ended) if ended and len(ended) == len(ways) else None,
        "evaluation_over_loop": least("loop"),
        "evaluation_over_batched": least("batched"),
    }


def main() -> None:
    options = parse_options()
    quiet_libraries()
    disable_progress_bar()
    if options.threads:
        torch.set_num_threads(options.threads)
    name = options.shape if options.device == "cpu" else f"{options.shape} on a GPU"
    result = compare_kinds(options, lambda known: write_section(options.out, name, known))
    scoring = measure_scoring()
    print(f"10,000 replies scored in {scoring:.2f} s")
    kinds = result["kinds"]
    every = [way for one in kinds.values() for way in one["ways"].values()]
    result |= {
        "scoring_10000_seconds": round(scoring, 2),
        "identical": all(way["same_as_loop"] == way["compared"] for way in every),
        "ratio": kinds["shared"].get("ratio"),
        "ratio_unshared": kinds["unshared"].get("ratio"),
    }
    if options.device == "cpu" and options.shape == "full":
        measured = {"evaluation_shared": result["ratio"], "evaluation_unshared": result["ratio_unshared"]}
        print(render_aims(compare_aims(CPU_AIMS[1:], measured), "a CPU, this shape, fp32"))
    write_section(options.out, name, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
