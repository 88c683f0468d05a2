"""Where the time goes: of a training step and of a decoding step on a GPU, by kernels; on a CPU, by operators.

`python -m benchmarks.profile [--shape full|small|standin] [--steps N] [--device cpu|cuda] [--out FILE]`

A few steps of `fgtools.train.train` are recorded by torch's profiler in the second pass over the same steps, when their
shapes have been seen; then a batch of replies, once with few tokens and once with more, of which the difference is that
of decoding steps. What is shown of a GPU: milliseconds a step by kind of kernel, the share of the time in which a
kernel ran (busy), and how many launches a step took. On a CPU: the shares of the operators' own time.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("FGTOOLS_BATCH", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import TrainerCallback
from transformers.utils.logging import disable_progress_bar

from benchmarks.generations import draw_prompts, run_ours
from benchmarks.records import write_section
from benchmarks.shapes import SHAPES, SHARED, build_model, count_tokens, name_device, synchronize
from benchmarks.trainings import ROWS_A_STEP, Workload, load_workload, train_ours
from fgtools.models.device import choose_device_and_dtype, detect_capability
from fgtools.run.session import quiet_libraries

KERNELS = (
    ("attention", ("flash_fwd", "flash_bwd", "fmha", "sdpa", "attention", "attn_fwd", "attn_bwd")),
    ("matrix products", ("gemm", "gemv", "nvjet", "splitkreduce", "cutlass", "cublas", "xmma", "dot_kernel")),
    ("optimizer", ("multi_tensor_apply", "adam", "lpnorm")),
    ("copies and casts", ("memcpy", "memset", "copy_kernel", "catarraybatchedcopy", "fillfunctor", "_to_copy")),
    ("indexing", ("index", "gather", "scatter", "embedding", "sort", "scan", "radix")),
    ("softmax and loss", ("softmax", "nll_loss", "cross_entropy", "argmax", "argmaxops")),
    ("norms, gates and positions in one kernel", ("rms_norm", "geglu", "rope")),
    ("reductions", ("reduce_kernel", "triton_red", "triton_per")),
    ("element-wise", ("elementwise", "triton_poi", "triton_", "gpu_kernel_impl")),
)
"""Kinds of kernels by parts of their names in lower case; the first kind that fits counts, "other" where none does.
Attention comes before products, since some of its kernels are built from the same library; the optimizer before
element-wise, since its kernels are both."""

OPERATORS = {
    "matrix products": ("mm", "addmm", "bmm", "linear", "matmul"),
    "attention": ("attention",),
    "choosing tokens": ("argmax", "softmax"),
    "copies": ("copy_", "clone", "cat", "index"),
    "activation": ("gelu",),
    "other element-wise": ("mul", "add", "pow", "mean", "rsqrt", "neg", "cos", "sin", "masked_fill"),
}
"""Kinds of torch's operators on a CPU, by their names."""

DEVICE_EVENTS = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories in a trace of what a GPU did; its annotations span several of them and are none."""

DECODED = (64, 16, 48)
"""Rows that are decoded together, and tokens of their replies in the shorter and in the longer run."""

LAUNCHES = ("LaunchKernel", "GraphLaunch", "MemcpyAsync", "MemsetAsync")
"""Parts of the names of the CUDA calls that give a GPU something to do."""


def classify_kernel(name: str) -> str:
    """Return the kind of a GPU kernel, or of a copy, by its name in a trace."""
    lowered = name.lower()
    return next((kind for kind, parts in KERNELS if any(part in lowered for part in parts)), "other")


def summarize_trace(events: Iterable[Mapping[str, Any]], n_steps: int) -> dict[str, Any]:
    """Return what a GPU did in some steps.

    Args:
        events: "traceEvents" of a trace that torch's profiler exported: "cat", "name", and "ts" and "dur" in
            microseconds.
        n_steps: Steps that it spans.

    Returns:
        "kinds", milliseconds a step by kind of kernel, the longest first; "busy_ms", the milliseconds a step in which
        anything ran; "kernels" and "launches" a step: one launch of a graph starts many kernels; "longest", the names
        that took longest, with milliseconds a step.
    """
    events = list(events)
    done = [event for event in events if event.get("cat") in DEVICE_EVENTS]
    kinds: defaultdict[str, float] = defaultdict(float)
    names: defaultdict[str, float] = defaultdict(float)
    for event in done:
        kinds[classify_kernel(event["name"])] += event["dur"]
        names[event["name"]] += event["dur"]
    calls = [event for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver")]
    launches = sum(any(part in event["name"] for part in LAUNCHES) for event in calls)
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in done)
    per_step = 1000 * n_steps
    return {
        "kinds": {kind: round(taken / per_step, 3) for kind, taken in _largest(kinds, len(kinds))},
        "busy_ms": round(measure_union(spans) / per_step, 3),
        "kernels": round(len(done) / n_steps),
        "launches": round(launches / n_steps),
        "longest": {name[:120]: round(taken / per_step, 3) for name, taken in _largest(names, 12)},
    }


def _largest(sums: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    return sorted(sums.items(), key=lambda pair: -pair[1])[:count]


def measure_union(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length that spans cover together; sorted by their beginning, they may overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def read_trace(profiler: torch.profiler.profile) -> list[dict[str, Any]]:
    """Return the events that a profiler recorded."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        return json.loads(file.read_text(encoding="utf-8", errors="replace"))["traceEvents"]


def subtract_profiles(more: Mapping[str, Any], less: Mapping[str, Any], n_steps: int) -> dict[str, Any]:
    """Return what a step took of those that one run has and another has not.

    Args:
        more: Of the longer run, `summarize_trace` with n_steps 1, and "wall_ms", the milliseconds it took unrecorded.
        less: The same of the shorter one.
        n_steps: Steps of the difference.
    """
    kinds = {kind: round((taken - less["kinds"].get(kind, 0.0)) / n_steps, 3) for kind, taken in more["kinds"].items()}
    rest = {name: (more[name] - less[name]) / n_steps for name in ("busy_ms", "kernels", "launches", "wall_ms")}
    return {"kinds": kinds, **{name: round(value, 3) for name, value in rest.items()}}


class Recorder(TrainerCallback):
    """Lets a first pass go by, times a second one, and records a third one with torch's profiler."""

    def __init__(self, device: str) -> None:
        self.device, self.passes, self.seconds, self.started = device, 0, 0.0, 0.0
        self.profiler = torch.profiler.profile()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock or the profiler."""
        synchronize(self.device)
        self.started = time.perf_counter()
        if self.passes == 2:
            self.profiler.start()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop them."""
        synchronize(self.device)
        if self.passes == 1:
            self.seconds = time.perf_counter() - self.started
        if self.passes == 2:
            self.profiler.stop()
        self.passes += 1


def profile_training(work: Workload, n_steps: int) -> dict[str, Any]:
    """Return where the time of a step of 16 rows goes, without evaluations and saves.

    Args:
        work: Rows; as many are taken as the steps need.
        n_steps: Steps that are recorded.
    """
    recorder = Recorder(work.device)
    few = work.first(n_steps * ROWS_A_STEP)
    with tempfile.TemporaryDirectory() as folder:
        train_ours(few, Path(folder), recorder, 3, evaluate=False)
    sizes = {"steps": n_steps, "tokens_a_step": count_tokens(few.encoded[0]) // n_steps}
    wall = round(1000 * recorder.seconds / n_steps, 3)
    if work.device == "cpu":
        operators = share_operators(recorder.profiler.key_averages(), recorder.seconds)
        return {**sizes, "wall_ms": wall, "operators": operators}
    return {**sizes, "wall_ms": wall, **summarize_trace(read_trace(recorder.profiler), n_steps)}


def profile_decoding(model: Any, n_rows: int, short: int, long: int) -> dict[str, Any]:
    """Return where the time of a decoding step on a GPU goes, from two runs of ours on the same prompts.

    Args:
        model: The model, on a GPU.
        n_rows: Prompts that are answered together.
        short: Tokens of every reply of the one run.
        long: Those of the other.
    """
    prompts, _ = draw_prompts(n_rows, model.config.vocab_size, shared=True)
    runs = {}
    for tokens in (short, long):
        for recorded in (False, False, True):  # the first one meets new shapes
            profiler = torch.profiler.profile() if recorded else nullcontext()
            torch.cuda.synchronize()
            started = time.perf_counter()
            with profiler, torch.inference_mode():
                run_ours(model, prompts, [tokens] * n_rows, lambda *_: None)
                torch.cuda.synchronize()
            if not recorded:
                wall = 1000 * (time.perf_counter() - started)
        runs[tokens] = {**summarize_trace(read_trace(profiler), 1), "wall_ms": wall}
    steps = long - short
    return {"rows": n_rows, "steps": steps, **subtract_profiles(runs[long], runs[short], steps)}


def profile_operators(model: Any, prompts: Sequence[Sequence[int]], budgets: Sequence[int]) -> dict[str, Any]:
    """Return the share of every kind of operator in our time on a CPU, for reading prompts and for writing replies."""
    parts = {}
    for name, ends in (("reading prompts", [1] * len(prompts)), ("all", list(budgets))):
        with torch.profiler.profile() as profiler, torch.inference_mode():
            start = time.perf_counter()
            run_ours(model, prompts, ends, lambda *_: None)
            taken = time.perf_counter() - start
        micro = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
        parts[name] = (taken, {kind: sum(_matching(micro, words)) / 1e6 for kind, words in OPERATORS.items()}, micro)
    (read, reading, _), (whole, all_of_it, micro) = parts["reading prompts"], parts["all"]
    writing = {kind: all_of_it[kind] - reading[kind] for kind in OPERATORS}
    shares = {
        phase: {"seconds": round(taken, 2), **{kind: round(one / taken, 3) for kind, one in kinds.items()}}
        for phase, taken, kinds in (("reading prompts", read, reading), ("writing replies", whole - read, writing))
    }
    other = whole - sum(all_of_it.values())
    return {**shares, "rest_of_all": round(other / whole, 3), "operations": len(micro)}


def share_operators(averages: Iterable[Any], seconds: float) -> dict[str, float]:
    """Return the share of some seconds that each of the ten operators with the longest own time took on a CPU."""
    own = {event.key: event.self_cpu_time_total / 1e6 for event in averages}
    return {name: round(taken / seconds, 3) for name, taken in _largest(own, 10)}


def _matching(micro: dict[str, float], words: Sequence[str]) -> list[float]:
    return [
        taken
        for key, taken in micro.items()
        if any(key.removeprefix("aten::") == word or (word == "attention" and word in key) for word in words)
    ]


def render_profile(profile: Mapping[str, Any]) -> str:
    """Write the Markdown table of a profile on a GPU, training step and decoding step side by side."""
    parts = [profile[name] for name in ("training", "decoding") if "kinds" in profile.get(name, {})]
    if not parts:
        return "no GPU was profiled"
    titles = [f"{'training' if 'tokens_a_step' in part else 'decoding'} step, ms" for part in parts]
    kinds = sorted({kind for part in parts for kind in part["kinds"]}, key=lambda kind: -parts[0]["kinds"].get(kind, 0))
    lines = [f"| kernels | {' | '.join(titles)} |", "|---|" + "---|" * len(parts)]
    lines += [f"| {kind} | {' | '.join(_cell(part['kinds'].get(kind, 0.0)) for part in parts)} |" for kind in kinds]
    for words, name in (("GPU busy", "busy_ms"), ("the step by the clock", "wall_ms")):
        lines.append(f"| {words} | {' | '.join(_cell(part[name]) for part in parts)} |")
    busy = [f"{part['busy_ms'] / part['wall_ms']:.0%}" for part in parts]
    lines.append(f"| share of the time in which the GPU was busy | {' | '.join(busy)} |")
    lines.append(f"| launches a step | {' | '.join(str(round(part['launches'])) for part in parts)} |")
    return "\n".join(lines)


def _cell(value: float) -> str:
    return f"{value:.2f}"


def run_profile(work: Workload, n_steps: int, keep: Callable[[str, Any], None]) -> dict[str, Any]:
    """Profile a training step, and on a GPU a decoding step.

    Args:
        work: Rows.
        n_steps: Training steps that are recorded.
        keep: Called with a part's name and its figures as soon as they are known.
    """
    result = {"training": profile_training(work, n_steps)}
    keep("training", result["training"])
    if work.device == "cuda":
        model = build_model(work.shape, work.device).eval()
        model.to(choose_device_and_dtype(detect_capability(model.device)).dtype)
        result["decoding"] = profile_decoding(model, *DECODED)
        keep("decoding", result["decoding"])
        print(render_profile(result), flush=True)
    else:
        print(f"a step of {result['training']['tokens_a_step']} tokens took {result['training']['wall_ms']:.0f} ms")
        for name, share in result["training"]["operators"].items():
            print(f"  {name}: {share:.1%}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, "standin"], default="full")
    parser.add_argument("--steps", type=int, default=4, help="training steps that are recorded")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--data", default=str(SHARED / "dev.jsonl"), help="JSON lines; without it, the offline sample")
    parser.add_argument("--tokenizer", default=str(SHARED / "tokenizer"), help="a folder; without it, the stand-in's")
    parser.add_argument("--out", type=Path, help="also write the JSON object there")
    options = parser.parse_args()
    quiet_libraries()
    disable_progress_bar()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    n_rows = options.steps * ROWS_A_STEP + 4
    work, origin = load_workload(options.shape, device, n_rows, 4, options.data, options.tokenizer)
    print(f"profile: shape {options.shape}, {name_device(device)}; {origin}", flush=True)
    result = run_profile(work, options.steps, lambda name, one: write_section(options.out, name, one))
    print(json.dumps({"benchmark": "profile", "shape": options.shape, "device": name_device(device), **result}))


if __name__ == "__main__":
    main()
