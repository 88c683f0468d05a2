"""fp16 and bf16 beside fp32 on a model's own activations: losses, largest values, gradients, first steps, replies.

`python -m benchmarks.precision --model DIR --rows FILE [--parts losses,...] [--count N] [--steps N] [--out FILE]`

Any folder that `load_model` loads, any rows file of a prepared folder. Weights are fp32 throughout; autocast computes
matrix products in another format, as training does (`fgtools/models/device.py`). The ways:

- fp32
- fp16: autocast, transformers' own norms
- bf16: the same in bf16
- fp16, norms in fp32: fp16, and the norms after attention and MLP return fp32 whatever they are given

The parts, each of which can be run alone and is added to --out under the model's name:

- losses: nats a label of each row
- activations: largest absolute value by layer: the residual stream, every norm's output, every product's factors
- gradients: of --gradient-rows rows together, without a scaler and with the scale that one comes to
- steps: loss of each of the first optimizer steps (AdamW, rate 5e-5, clipped at 1; fp16 with
  torch's GradScaler, from the trainer's first scale and from torch's)
- replies: replies with fp16 products over an fp32 residual stream, as evaluations on a T4 have them, and in fp32

On a CPU fp16 products are computed as tensor cores compute them (see benchmarks/tensor_cores.py). The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("FGTOOLS_BATCH", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor, nn

from benchmarks.tensor_cores import TensorCores
from fgtools.calls import parse_reply
from fgtools.files import write_text
from fgtools.generate import generate_replies
from fgtools.models import load_model, load_tokenizer
from fgtools.models.device import Precision
from fgtools.models.half import AFTER_PRODUCTS, bound_norms, fp16_products, measure_difference
from fgtools.profiles import FIRST_SCALE
from fgtools.prompts import IGNORED, Encoded, encode_row
from fgtools.prompts.encode import encode_prompt, longest_completion, token_budget
from fgtools.rows import load_rows
from fgtools.run.session import quiet_libraries
from fgtools.train.loss import patch_forward, restore_forward

WAYS = {
    "fp32": ("fp32", False),
    "fp16": ("fp16", False),
    "fp16, norms in fp32": ("fp16", True),
    "bf16": ("bf16", False),
}
"""Format of the products, and whether the norms after attention and MLP return fp32, by way."""

STEP_WAYS = {"fp32": ("fp32", 1.0), "fp16": ("fp16", FIRST_SCALE), "bf16": ("bf16", 1.0)}
STEP_WAYS["fp16, torch's first scale"] = ("fp16", 65536.0)
"""The way of a training's first steps, and the first scale of its losses, which fp16 alone has."""

PARTS = ("losses", "activations", "gradients", "steps", "replies")
SCALE = 65536.0
"""What a gradient scaler multiplies the loss by at first."""

LEARNING_RATE = 5e-5


@contextmanager
def computing(model: nn.Module, way: str) -> Iterator[None]:
    """Let a model compute in one of the WAYS; on a CPU, fp16 products are those of tensor cores."""
    name, widened = WAYS[way]
    device = model.device.type
    with ExitStack() as stack:
        if widened:
            stack.enter_context(widened_norms(model))
        stack.enter_context(Precision(name, "").autocast(device))
        stack.enter_context(tensor_cores(device) if name == "fp16" else nullcontext())
        yield


@contextmanager
def widened_norms(model: nn.Module) -> Iterator[None]:
    """Let the norms after attention and MLP return fp32 while the context lasts."""
    norms = [one for name, one in model.named_modules() if name.endswith(AFTER_PRODUCTS)]
    hooks = [norm.register_forward_pre_hook(lambda _, given: (given[0].float(),)) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def tensor_cores(device: str) -> Any:
    """Return the context in which a CPU computes fp16 products as tensor cores do; a GPU has them."""
    return TensorCores() if device == "cpu" else nullcontext()


def to_batch(row: Encoded, device: torch.device) -> dict[str, Tensor]:
    ids = torch.tensor([row.input_ids], device=device)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([row.labels], device=device),
    }


def count_labels(rows: Sequence[Encoded]) -> int:
    return sum(label != IGNORED for row in rows for label in row.labels[1:])


def measure_losses(model: nn.Module, rows: Sequence[Encoded]) -> dict[str, Any]:
    """Return nats a label of each row and of all together, by way."""
    results = {}
    for way in WAYS:
        sums = []
        for row in rows:
            with torch.no_grad(), computing(model, way):
                sums.append(model(**to_batch(row, model.device)).loss.item())
        by_row = [total / count_labels([row]) for total, row in zip(sums, rows, strict=True)]
        results[way] = {"whole": sum(sums) / count_labels(rows), "rows": by_row}
        print(f"losses, {way}: {results[way]['whole']:.5f} nats a label", flush=True)
    for figures in results.values():
        figures["difference"] = figures["whole"] / results["fp32"]["whole"] - 1
        pairs = zip(figures["rows"], results["fp32"]["rows"], strict=True)
        figures["largest_row_difference"] = max(abs(one - exact) for one, exact in pairs)
    return {"n_rows": len(rows), "n_labels": count_labels(rows), "ways": results}


def measure_activations(model: nn.Module, rows: Sequence[Encoded], way: str) -> dict[str, list[float]]:
    """Return the largest absolute values over some rows by kind of module, one for each layer."""
    largest: dict[str, dict[str, float]] = {}

    def note(kind: str, name: str, value: Tensor) -> None:
        at = largest.setdefault(kind, {})
        at[name] = max(at.get(name, 0.0), value.detach().abs().max().item())

    def watch(name: str, module: nn.Module) -> Any:
        kind = name.rsplit(".", 1)[-1]

        def look(_: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            if isinstance(module, nn.Linear):
                note(f"{kind} in", name, given[0])
                note(f"{kind} out", name, result)
            else:
                note("residual stream" if kind.isdigit() else kind, name, result)

        return module.register_forward_hook(look)

    watched = ("DecoderLayer", "RMSNorm", "Linear")
    hooks = [watch(name, one) for name, one in model.named_modules() if type(one).__name__.endswith(watched)]
    try:
        for row in rows:
            with torch.no_grad(), computing(model, way):
                model(**to_batch(row, model.device))
    finally:
        for hook in hooks:
            hook.remove()
    return {kind: list(at.values()) for kind, at in largest.items()}


def compute_gradients(model: nn.Module, rows: Sequence[Encoded], way: str, scale: float) -> dict[str, Tensor]:
    """Return the gradients of some rows' loss a label, times a scale."""
    model.zero_grad(set_to_none=True)
    for row in rows:
        with computing(model, way):
            loss = model(**to_batch(row, model.device)).loss / count_labels(rows) * scale
            loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def measure_gradients(model: nn.Module, rows: Sequence[Encoded]) -> dict[str, Any]:
    """Return by way the gradients' norm, what is not finite, what underflows, and the distance to fp32's.

    fp16 without a scaler, and with the scale that a scaler comes to: SCALE, halved until every gradient is finite.
    """
    exact = {name: one.clone() for name, one in compute_gradients(model, rows, "fp32", 1.0).items()}
    results: dict[str, Any] = {"n_rows": len(rows), "n_tokens": sum(len(row.input_ids) for row in rows), "ways": {}}
    for way in WAYS:
        for scaled in (False, True) if WAYS[way][0] == "fp16" else (False,):
            scale = SCALE if scaled else 1.0
            taken = compute_gradients(model, rows, way, scale)
            while scaled and not all(one.isfinite().all() for one in taken.values()):
                scale /= 2
                taken = compute_gradients(model, rows, way, scale)
            embedding = {name: one for name, one in taken.items() if "embed" in name}
            body = {name: one for name, one in taken.items() if name not in embedding}
            parts = {"body": body, "embedding": embedding}
            figures = {part: compare_gradients(these, exact, scale) for part, these in parts.items()}
            label = f"{way}, {'scaled' if scaled else 'no scaler'}" if WAYS[way][0] == "fp16" else way
            results["ways"][label] = {"scale": scale, **figures}
            print(f"gradients, {label}: {json.dumps(results['ways'][label])}", flush=True)
    model.zero_grad(set_to_none=True)
    return results


def compare_gradients(taken: dict[str, Tensor], exact: dict[str, Tensor], scale: float) -> dict[str, float]:
    """Return how some gradients, divided by their scale, differ from fp32's."""
    total = sum(one.numel() for one in taken.values())
    lost = sum(((one == 0) & (exact[name] != 0)).sum().item() for name, one in taken.items())
    norms = [torch.linalg.vector_norm(one).item() / scale for one in taken.values()]
    apart = [torch.linalg.vector_norm(one / scale - exact[name]).item() for name, one in taken.items()]
    whole = math.hypot(*(torch.linalg.vector_norm(exact[name]).item() for name in taken))
    return {"norm": math.hypot(*norms), "underflowed": lost / total, "distance": math.hypot(*apart) / whole}


def take_steps(rows: Sequence[Encoded], name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the loss of each of the first optimizer steps of a training, and the steps that the scaler skipped."""
    way, first_scale = STEP_WAYS[name]
    model = load_model(options.model, device=options.device, quiet=True).float().train()
    patch_forward(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    scaler = torch.amp.GradScaler(model.device.type, init_scale=first_scale, enabled=WAYS[way][0] == "fp16")
    losses, skipped = [], 0
    for step in range(options.steps):
        size = options.step_rows
        batch = [rows[(step * size + place) % len(rows)] for place in range(size)]
        total = 0.0
        for row in batch:
            with computing(model, way):
                loss = model(**to_batch(row, model.device)).loss / count_labels(batch)
                scaler.scale(loss).backward()
            total += loss.item()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skipped += scaler.is_enabled() and scaler.get_scale() < before
        optimizer.zero_grad(set_to_none=False)
        losses.append(total)
        print(f"steps, {name}: step {step + 1} loss {total:.5f}", flush=True)
    return {"losses": losses, "skipped": int(skipped), "last_scale": scaler.get_scale()}


def compare_replies(model: Any, tokenizer: Any, rows: Sequence[Any]) -> dict[str, Any]:
    """Return how many replies, and calls in them, are the same with fp16 products as in fp32."""
    budget = token_budget(longest_completion(rows, tokenizer, "native"))
    with tensor_cores(model.device.type):
        differences = [measure_difference(model, encode_prompt(row, tokenizer)) for row in rows]
    print(f"log-probabilities of the prompts' last tokens differ by {max(differences):.4f} nats at most", flush=True)
    replies, seconds = {}, {}
    for way, context in (("fp32", nullcontext()), ("fp16", fp16_products(model))):
        start = time.perf_counter()
        with context, tensor_cores(model.device.type) if way == "fp16" else nullcontext():
            replies[way] = generate_replies(model, tokenizer, rows, max_new_tokens=budget)
        seconds[way] = time.perf_counter() - start
        print(f"replies, {way}: {len(rows)} in {seconds[way]:.0f} s", flush=True)
    pairs = list(zip(replies["fp32"], replies["fp16"], strict=True))
    calls = [[parse_reply(one).calls for one in pair] for pair in pairs]
    return {
        "n_rows": len(rows),
        "max_new_tokens": budget,
        "largest_difference": max(differences),
        "same_reply": sum(one == other for one, other in pairs),
        "same_calls": sum(one == other for one, other in calls),
        "with_calls": sum(bool(one) for one, _ in calls),
        "different": [pair for pair in pairs if pair[0] != pair[1]],
    }


def choose_rows(tokenizer: Any, rows: Sequence[Any], longest: int) -> tuple[list[Any], list[Encoded]]:
    """Return the rows whose text has at most so many tokens, and these encoded."""
    encoded = [encode_row(row, tokenizer, "native", 32_768) for row in rows]
    pairs = [(row, one) for row, one in zip(rows, encoded, strict=True) if isinstance(one, Encoded)]
    fitting = [(row, one) for row, one in pairs if len(one.input_ids) <= longest]
    print(f"{len(fitting)} of {len(rows)} rows have at most {longest} tokens; the others are left out", flush=True)
    return [row for row, _ in fitting], [one for _, one in fitting]


def run_parts(options: argparse.Namespace, add: Callable[[str, Any], None]) -> None:
    """Run the parts that were asked for; each one's figures are handed over as soon as they are known."""
    tokenizer = load_tokenizer(options.model)
    rows, encoded = choose_rows(tokenizer, load_rows(Path(options.rows)), options.longest)
    model = load_model(options.model, device=options.device, quiet=True).float()
    if "replies" in options.parts:
        add("replies", compare_replies(model, tokenizer, rows[: options.reply_rows]))
    patch_forward(model)
    if "losses" in options.parts:
        add("losses", measure_losses(model, encoded[: options.count]))
    if "activations" in options.parts:
        figures = {way: measure_activations(model, encoded[: options.count], way) for way in ("fp32", "fp16")}
        add("activations", {"n_rows": options.count, "bounds": bound_norms(model), **figures})
    if "gradients" in options.parts:
        add("gradients", measure_gradients(model, encoded[: options.gradient_rows]))
    restore_forward(model)
    del model
    if "steps" in options.parts:
        ways = {}
        for name in STEP_WAYS:
            ways[name] = take_steps(encoded, name, options)
            add("steps", {"rows_a_step": options.step_rows, "learning_rate": LEARNING_RATE, "ways": dict(ways)})


def render_results(results: dict[str, Any]) -> str:
    """Write the Markdown tables of docs/training.md from results/precision.json: losses, gradients, values, steps."""
    heads = (
        ("weights", "format", "loss, nats a label", "from fp32's"),
        ("weights", "format", "scale", "layers: off by", "lost", "embedding: off by", "lost"),
        ("weights", "residual stream", "result of a norm", "result of a product", "factor of a product"),
    )
    tables = [["| " + " | ".join(head) + " |", "|---" * len(head) + "|"] for head in heads]
    for name, parts in results.items():
        for way, one in parts["losses"]["ways"].items():
            tables[0].append(f"| {name} | {way} | {one['whole']:.4f} | {one['difference']:+.2%} |")
        for way, one in parts["gradients"]["ways"].items():
            if way != "fp32":
                sides = [one["body"], one["embedding"]]
                off = [f"{side['distance']:.1%} | {side['underflowed']:.2%}" for side in sides]
                tables[1].append(f"| {name} | {way} | {one['scale']:,.0f} | {off[0]} | {off[1]} |")
        largest = {kind: max(by_layer) for kind, by_layer in parts["activations"]["fp32"].items()}
        norms = max(value for kind, value in largest.items() if "norm" in kind)
        products = [max(value for kind, value in largest.items() if kind.endswith(end)) for end in (" out", " in")]
        cells = [f"{value:,.0f}" for value in (largest["residual stream"], norms, *products)]
        tables[2].append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n\n".join("\n".join(lines) for lines in tables)


def render_steps(steps: dict[str, Any]) -> str:
    """Write the Markdown table of the losses of the first optimizer steps, the skipped ones last."""
    ways = steps["ways"]
    lines = ["| step | " + " | ".join(ways) + " |", "|---" * (1 + len(ways)) + "|"]
    for step in range(len(ways["fp32"]["losses"])):
        if step % 5 == 4 or step < 3:
            lines.append(f"| {step + 1} | " + " | ".join(f"{one['losses'][step]:.4f}" for one in ways.values()) + " |")
    lines.append("| skipped | " + " | ".join(str(one["skipped"]) for one in ways.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--name", default="", help="what the results call it (default: the folder's name)")
    parser.add_argument("--rows", required=True, help="rows file, such as rows.train.jsonl of a prepared folder")
    parser.add_argument("--parts", type=lambda words: words.split(","), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--count", type=int, default=16, help="rows of losses and activations")
    parser.add_argument("--gradient-rows", type=int, default=8)
    parser.add_argument("--reply-rows", type=int, default=50)
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--step-rows", type=int, default=2, help="rows of an optimizer step")
    parser.add_argument("--longest", type=int, default=260, help="tokens of a row at most; longer ones are left out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu"], default=None, help="default: a GPU where there is one")
    parser.add_argument("--out", default="", help="file whose figures are added to; docs/training.md shows them")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"--parts must be of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    quiet_libraries()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    on_gpu = options.device is None and torch.cuda.is_available()
    where = torch.cuda.get_device_name() if on_gpu else "CPU, fp16 products as tensor cores compute them"
    name, file = options.name or Path(options.model).name, Path(options.out) if options.out else None
    result: dict[str, Any] = {}

    def add(part: str, figures: Any) -> None:
        whole = json.loads(file.read_text()) if file and file.is_file() else {}
        result.update(whole.get(name, {}), **{part: {"device": where, "torch": torch.__version__, **figures}})
        if file:
            write_text(file, json.dumps({**whole, name: result}, indent=1) + "\n")

    run_parts(options, add)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
