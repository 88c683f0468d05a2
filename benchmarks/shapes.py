"""Models of random weights and rows of real lengths, for all benchmarks; and how a device is timed and read.

Knows shapes, lengths and devices; not what is measured with them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from fgtools.files import read_jsonl
from fgtools.models import load_model, load_tokenizer
from fgtools.models.device import peak_memory_bytes
from fgtools.prompts import IGNORED, Encoded, encode_rows
from fgtools.rows import Row, build_rows

SHARED = Path(__file__).parents[2] / "shared" / "data"
"""Real rows and FunctionGemma's tokenizer, where they lie beside the repository."""

LENGTHS = ((294, 33), (384, 32), (467, 41), (557, 36), (660, 45), (762, 39), (874, 52), (1019, 47))
"""(tokens, labels) of rows at equal steps through the distribution of dev.jsonl's training rows."""

SHAPES = {
    "full": {"num_hidden_layers": 18, "hidden_size": 640, "intermediate_size": 2048, "vocab_size": 262_144},
    "small": {"num_hidden_layers": 6, "hidden_size": 160, "intermediate_size": 512, "vocab_size": 12_800},
}


def build_model(shape: str, device: str) -> Gemma3ForCausalLM:
    """Build a model of a shape with random weights, on its device.

    Args:
        shape: A name of SHAPES, or "standin": that of the stand-in, whose own weights have ties on inputs that they
            never saw.
        device: "cpu" or "cuda".
    """
    config = _build_config(shape)
    torch.manual_seed(0)
    with torch.device(device):
        return Gemma3ForCausalLM(config).to(device).train()


def find_vocabulary(shape: str) -> int:
    """Return how many tokens a model of a shape knows."""
    return _build_config(shape).vocab_size


def _build_config(shape: str) -> Gemma3TextConfig:
    if shape == "standin":
        return load_model("standin", device="cpu", quiet=True).config
    numbers = SHAPES[shape]
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256 if shape == "full" else 64}
    kinds = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(18)]
    return Gemma3TextConfig(
        **numbers,
        **heads,
        query_pre_attn_scalar=heads["head_dim"],
        layer_types=kinds[: numbers["num_hidden_layers"]],
        sliding_window=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )


def draw_rows(n_rows: int, vocabulary: int) -> tuple[list[Encoded], str]:
    """Draw rows of real lengths with random ids; and say where the lengths are from."""
    data, tokenizer = SHARED / "dev.jsonl", SHARED / "tokenizer"
    pairs, origin = list(LENGTHS), "a sample of dev.jsonl's lengths"
    draw = random.Random(5)
    if data.exists() and tokenizer.exists():
        raw = draw.sample(read_jsonl(data), 400)
        encoded = encode_rows(build_rows(raw).rows, load_tokenizer(tokenizer, "standin")).encoded
        lengths = [(len(row.input_ids), sum(label != IGNORED for label in row.labels)) for row in encoded]
        pairs, origin = sorted(pair for pair in lengths if pair[1] < 90), "rows of dev.jsonl, FunctionGemma's tokenizer"
    places = [int((number + 0.5) * len(pairs) / n_rows) for number in range(n_rows)]
    rows = []
    for length, labels in (pairs[place] for place in places):
        ids = [2, *(draw.randrange(110, vocabulary) for _ in range(length - 1))]
        rows.append(Encoded(ids, [IGNORED] * (length - labels) + ids[length - labels :], length - labels))
    draw.shuffle(rows)
    return rows, origin


def load_rows(n_rows: int, data: str | Path, tokenizer: str | Path, vocabulary: int) -> tuple[list[Row], Any, str]:
    """Load row dicts whose tokens a model knows, in random order, again from the first one where they are few.

    Args:
        n_rows: How many.
        data: JSON lines of raw rows; where the file is not there, the offline sample.
        tokenizer: A folder; where it is not there, or knows more tokens than the model, the stand-in's.
        vocabulary: Tokens of the model.

    Returns:
        The rows, the tokenizer, and where both are from.
    """
    folder, file = Path(tokenizer), Path(data)
    loaded = load_tokenizer(folder, "standin") if folder.is_dir() else None
    if loaded is None or loaded.vocab_size > vocabulary:
        loaded, folder = load_tokenizer("standin"), Path("the stand-in's")
    if file.is_file():
        raw = read_jsonl(file)
    else:
        from fgtools.offline.samples import build_samples

        raw, file = build_samples(min(n_rows * 2, 3000), 40), Path("offline sample")
    rows = list(build_rows(raw).rows)
    random.Random(11).shuffle(rows)
    origin = f"{min(n_rows, len(rows))} rows of {file.name}, tokenizer: {folder.name}"
    return [rows[number % len(rows)] for number in range(n_rows)], loaded, origin


def count_tokens(rows: Sequence[Encoded]) -> int:
    """Return the tokens of rows, without padding."""
    return sum(len(row.input_ids) for row in rows)


def name_device(device: str) -> str:
    """Return the card's name, or how many threads of the CPU are used."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def forget_peak(device: str) -> None:
    """Begin anew to watch for the largest memory in use."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is in use now


def read_peak(device: str) -> int:
    """Return the largest memory in use since `forget_peak`, in bytes: the GPU's, or the process's on a CPU."""
    if device == "cuda" or sys.platform != "linux":
        return peak_memory_bytes(torch.device(device))
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
