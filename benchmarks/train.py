"""How fast an optimizer step's gradient is computed: the engine here beside the tutorial's way and TRL's, in one run.

`python -m benchmarks.train [--shape full|small] [--rows N] [--repeats N] [--threads N] [--device cpu|cuda]`
`python -m benchmarks.train --whole [--rows N] [--limit SECONDS] [--epoch-of N]` compares whole trainings: see `whole`.

A model of FunctionGemma's shape (`full`: 18 layers, hidden 640, vocabulary 262,144) or a small one with the same ratio
of head to body, random weights, takes one step on rows of real lengths: those of the training rows of dev.jsonl under
FunctionGemma's tokenizer where they are beside the repository, else a sample of them kept here. Token ids are random.
The ways take turns within every repeat, in one process:

- tutorial: batches of 2 in random order, checkpointing, loss on every token, full logits; rows whole, and cut at 512
- full logits: completion labels, batches of 2, no checkpointing, transformers' own loss
- trl default: SFTTrainer on completion labels with the defaults of TRL 1.16: batches of 8, checkpointing, fused head
- trl pairs: the same in batches of 2, without checkpointing
- ours: `LabelledPositionsTrainer` as `train` plans it for this device

Tokens are real ones, without padding; on a cut row those that are left. The tutorial trained bf16 weights and its
optimizer is not in here, nor anyone's: a step of AdamW takes the same time in every way. The last line is one JSON
object; `ratio` is ours over the tutorial's way on whole rows, in tokens a second, the median over repeats.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("FGTOOLS_BATCH", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import Gemma3ForCausalLM
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer

from benchmarks.records import CPU_AIMS, TRAINING_AIMS, compare_aims, describe_machine, render_aims, write_section
from benchmarks.shapes import (
    SHAPES,
    SHARED,
    build_model,
    count_tokens,
    draw_rows,
    forget_peak,
    name_device,
    read_peak,
    synchronize,
)
from benchmarks.trainings import load_workload
from benchmarks.whole import read_aims, run_whole
from fgtools.files import write_text
from fgtools.models import load_tokenizer
from fgtools.prompts import IGNORED, Encoded
from fgtools.run.session import quiet_libraries
from fgtools.train import build_trainer, training_arguments
from fgtools.train.loss import restore_forward
from fgtools.train.plan import split_by_tokens

CUT = 512


@dataclass(frozen=True)
class Measure:
    """One way's step.

    Attributes:
        seconds: Wall-clock time.
        tokens: Real tokens.
        padding: Tokens of padding.
        peak: Largest memory in use during it, in bytes, the model included.
        loss: In nats, over the labels of the step.
    """

    seconds: float
    tokens: int
    padding: int
    peak: int
    loss: float


def count_all(rows: Sequence[Encoded], cut: int | None = None) -> list[Encoded]:
    """Return rows whose every token carries a label, cut at the end."""
    return [Encoded(row.input_ids[:cut], row.input_ids[:cut], 0) for row in rows]


def pad(rows: Sequence[Encoded], device: str) -> dict[str, torch.Tensor]:
    width = max(len(row.input_ids) for row in rows)
    columns = {
        "input_ids": [row.input_ids + [0] * (width - len(row.input_ids)) for row in rows],
        "attention_mask": [[1] * len(row.input_ids) + [0] * (width - len(row.input_ids)) for row in rows],
        "labels": [row.labels + [IGNORED] * (width - len(row.labels)) for row in rows],
    }
    return {name: torch.tensor(values, device=device) for name, values in columns.items()}


class Bench:
    """The ways to compute a step, on one model."""

    def __init__(self, model: Gemma3ForCausalLM, rows: list[Encoded], tokenizer: Any, device: str) -> None:
        self.model, self.rows, self.tokenizer, self.device = model, rows, tokenizer, device
        self.folder = Path(tempfile.mkdtemp())
        self.arguments = training_arguments(
            batch_size=len(rows), n_rows=len(rows), output_dir=self.folder / "checkpoints"
        )
        capable = device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
        self.bf16 = {"device_type": device, "dtype": torch.bfloat16, "enabled": capable}
        self.ways: dict[str, Callable[[], float]] = {
            "tutorial": lambda: self.step_plainly(count_all(rows), checkpointing=True),
            "tutorial cut": lambda: self.step_plainly(count_all(rows, CUT), checkpointing=True),
            "full logits": lambda: self.step_plainly(rows, checkpointing=False),
            "trl default": lambda: self.step_with_trl(checkpointing=True),
            "trl pairs": lambda: self.step_with_trl(checkpointing=False),
            "ours": self.step_with_ours,
        }

    def _batches(self, rows: Sequence[Any], size: int) -> list[list[Any]]:
        return [list(rows[start : start + size]) for start in range(0, len(rows), size)]

    def step_plainly(self, rows: Sequence[Encoded], checkpointing: bool) -> float:
        """Compute full logits and transformers' loss, batch by batch."""
        count = sum(label != IGNORED for row in rows for label in row.labels[1:])
        switch_checkpointing(self.model, checkpointing)
        total = 0.0
        for batch in self._batches(rows, 2):
            with torch.autocast(**self.bf16):
                output = self.model(**pad(batch, self.device), num_items_in_batch=count, use_cache=False)
            output.loss.backward()
            total += output.loss.item()
        switch_checkpointing(self.model, False)
        return total

    def step_with_trl(self, checkpointing: bool) -> float:
        """Compute TRL's fused loss in its own trainer."""
        count = torch.tensor(sum(label != IGNORED for row in self.rows for label in row.labels))
        trainer = self.trl
        switch_checkpointing(self.model, checkpointing)
        total = 0.0
        for batch in self._batches(self.rows, 8 if checkpointing else 2):
            total += trainer.training_step(trainer.prepared, pad(batch, self.device), count).item()
        switch_checkpointing(self.model, False)
        return total

    def step_with_ours(self) -> float:
        """Compute the step as `train` would."""
        rows = [{"input_ids": row.input_ids, "labels": row.labels} for row in self.rows]
        return self.ours.training_step(self.model, self.ours.data_collator(rows)).item()

    def prepare(self, way: str) -> None:
        """Give the model the forward that a way needs; not part of what is measured."""
        restore_forward(self.model)
        if way.startswith("trl"):
            arguments = SFTConfig(
                output_dir=str(self.folder),
                report_to="none",
                bf16=self.bf16["enabled"],
                use_cpu=self.device == "cpu",
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
                gradient_checkpointing=False,  # switched by hand, as every way's
            )
            dataset = self.ours.train_dataset
            self.trl = SFTTrainer(self.model, arguments, train_dataset=dataset, processing_class=self.tokenizer)
            self.trl.create_optimizer()
            self.trl.prepared = self.trl.accelerator.prepare(self.model)
        if way == "ours":
            self.build_ours()

    def build_ours(self) -> None:
        """Build the trainer, which plans the step."""
        self.ours = build_trainer(self.model, self.tokenizer, self.rows, self.rows[:1], self.arguments)
        self.ours.create_optimizer()
        self.plan = self.ours.task.plan

    def measure(self, way: str) -> Measure:
        """Compute one step."""
        self.prepare(way)
        self.model.zero_grad(set_to_none=True)
        gc.collect()
        forget_peak(self.device)
        start = time.perf_counter()
        loss = self.ways[way]()
        synchronize(self.device)
        seconds = time.perf_counter() - start
        peak = read_peak(self.device)
        rows = [min(len(row.input_ids), CUT if way == "tutorial cut" else 10**9) for row in self.rows]
        own = split_by_tokens(rows, self.plan.micro_batches.tokens)
        batches = own if way == "ours" else self._batches(range(len(rows)), 8 if way == "trl default" else 2)
        padded = sum(len(batch) * max(rows[row] for row in batch) for batch in batches)
        return Measure(seconds, sum(rows), padded - sum(rows), peak, loss)


def switch_checkpointing(model: Gemma3ForCausalLM, on: bool) -> None:
    if on:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def compare_gradients(bench: Bench, ways: Sequence[str]) -> dict[str, float]:
    """Return the largest difference of any gradient to that of full logits, relative to the tensor's largest."""
    wanted: dict[str, torch.Tensor] = {}
    differences = {}
    for way in ("full logits", *ways):
        bench.prepare(way)
        bench.model.zero_grad(set_to_none=True)
        bench.ways[way]()
        gradients = {name: weight.grad for name, weight in bench.model.named_parameters()}
        if not wanted:
            wanted = {name: gradient.clone() for name, gradient in gradients.items()}
            continue
        differences[way] = max(
            ((gradients[name] - wanted[name]).abs().max() / wanted[name].abs().max()).item() for name in wanted
        )
    return differences


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, "standin"], default="full")
    parser.add_argument("--rows", type=int, default=0, help="rows of the step (default: 8, on a GPU 64)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--out", default="", help="also write the JSON object there; docs/training.md shows results/train.json"
    )
    whole = parser.add_argument_group("whole trainings")
    whole.add_argument("--whole", action="store_true", help="compare whole trainings (--rows: 342 by default)")
    whole.add_argument("--eval-rows", type=int, default=48)
    whole.add_argument("--limit", type=float, default=90, help="seconds that each way may take")
    whole.add_argument("--epoch-of", type=int, default=0, help="also train ours on so many rows, for one pass")
    whole.add_argument("--data", default=str(SHARED / "dev.jsonl"), help="JSON lines; without it, the offline sample")
    whole.add_argument("--tokenizer", default=str(SHARED / "tokenizer"), help="a folder; without it, the stand-in's")
    options = parser.parse_args()
    options.device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    return options


def main() -> None:
    options = parse_options()
    quiet_libraries()
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    if options.whole:
        print(json.dumps(compare_whole(options)))
    else:
        compare_steps(options)


def compare_whole(options: argparse.Namespace) -> dict[str, Any]:
    """Measure whole trainings; see `whole`. The file of --out gets every figure as it is known."""
    file = Path(options.out) if options.out else None
    machine = describe_machine(options.device)
    write_section(file, "machine", machine)
    n_rows = (options.rows or 342) + options.eval_rows
    sources = options.data, options.tokenizer
    work, origin = load_workload(options.shape, options.device, n_rows, options.eval_rows, *sources)
    tokens = count_tokens(work.encoded[0])
    print(f"whole trainings: shape {options.shape}, {machine['device']}; {origin}")
    print(f"{len(work.rows[0])} rows, {tokens} tokens, {len(work.rows[1])} rows held out", flush=True)
    result = run_whole(work, options.limit, options.epoch_of, lambda name, one: write_section(file, name, one))
    aims = compare_aims(TRAINING_AIMS, read_aims(result))
    write_section(file, "aims", aims)
    print(render_aims(aims, "an H100, FunctionGemma's shape; here " + machine["device"]))
    return {"benchmark": "whole", "machine": machine, "origin": origin, **result, "aims": aims}


def compare_steps(options: argparse.Namespace) -> None:
    """Measure the gradient of one optimizer step."""
    device = options.device
    model = build_model(options.shape, device)
    rows, origin = draw_rows(options.rows or (64 if device == "cuda" else 8), model.config.vocab_size)
    bench = Bench(model, rows, load_tokenizer("standin"), device)
    bench.build_ours()
    where = name_device(device)
    print(f"shape {options.shape}, {sum(one.numel() for one in model.parameters()) / 1e6:.1f} M parameters, {where}")
    print(f"{len(rows)} rows, {sum(len(row.input_ids) for row in rows)} tokens ({origin})")
    if device == "cuda" or options.shape == "small":
        for way in bench.ways:
            bench.measure(way)  # kernels and allocators warm up
    measures: dict[str, list[Measure]] = {way: [] for way in bench.ways}
    for _ in range(options.repeats):
        for way, taken in measures.items():
            taken.append(bench.measure(way))
            print(f"{way}: {taken[-1].seconds:.2f} s", flush=True)
    results = report(measures)
    differences = compare_gradients(bench, ["trl pairs", "ours"])
    print("largest gradient difference to full logits, relative to each tensor's largest:", differences)
    ratios = [
        (ours.tokens / ours.seconds) / (theirs.tokens / theirs.seconds)
        for ours, theirs in zip(measures["ours"], measures["tutorial"], strict=True)
    ]
    result = {
        "benchmark": "train",
        "shape": options.shape,
        "device": where,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": len(rows),
        "ways": results,
        "gradient_difference": differences,
        "ratio": round(statistics.median(ratios), 2),
    }
    if device == "cpu" and options.shape == "full":
        print(render_aims(compare_aims(CPU_AIMS[:1], {"step_over_tutorial": result["ratio"]}), "a CPU, this shape"))
    if options.out:
        write_text(Path(options.out), json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def render_results(result: dict[str, Any]) -> str:
    """Write the Markdown table of docs/training.md from results/train.json."""
    lines = ["| way | s | tokens/s | padding | peak memory | ours is |", "|---|---|---|---|---|---|"]
    for way, figures in result["ways"].items():
        cells = [
            f"{figures['seconds']:.1f}",
            f"{figures['tokens_per_second']:.1f}",
            f"{figures['padding_share']:.1%}",
            f"{figures['peak_gib']:.1f} GiB",
            f"{figures['ours_over_this']:.2f}x",
        ]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(measures: dict[str, list[Measure]]) -> dict[str, dict[str, float]]:
    """Print a table; give its figures."""
    ours = measures["ours"]
    results = {}
    print(f"\n{'way':14}{'s':>9}{'tokens/s':>10}{'padding':>9}{'peak GiB':>10}{'ours is':>9}{'loss':>9}")
    for way, taken in measures.items():
        seconds = statistics.median(one.seconds for one in taken)
        rate = taken[0].tokens / seconds
        speedup = statistics.median(
            (mine.tokens / mine.seconds) / (one.tokens / one.seconds) for mine, one in zip(ours, taken, strict=True)
        )
        padding = taken[0].padding / (taken[0].padding + taken[0].tokens)
        peak = statistics.median(one.peak for one in taken) / 2**30
        print(f"{way:14}{seconds:9.2f}{rate:10.1f}{padding:9.1%}{peak:10.2f}{speedup:8.2f}x{taken[0].loss:9.4f}")
        results[way] = {
            "seconds": round(seconds, 3),
            "tokens_per_second": round(rate, 1),
            "padding_share": round(padding, 4),
            "peak_gib": round(peak, 3),
            "ours_over_this": round(speedup, 2),
        }
    print()
    return results


if __name__ == "__main__":
    main()
