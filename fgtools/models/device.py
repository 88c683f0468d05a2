"""Where a model runs and in which number format it computes: device, dtype, precision and free memory, with reasons.

Knows torch and GPUs; not models, rows or trainers. `profiles.fastest_format` says what a compute capability can do.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from fgtools.files import InputError
from fgtools.profiles import PRECISIONS, fastest_format

DTYPES = dict(zip(PRECISIONS, (torch.float32, torch.bfloat16, torch.float16), strict=True))
"""The torch dtype of every precision."""

TRAINING_SHARE = 0.7
"""Share of a GPU's free memory that the estimated activations of a micro-batch may fill: the estimate is rough."""

CACHE_SHARE = 0.5
"""Share of a GPU's free memory for the keys and values of one batch: the forward passes need the rest."""


@dataclass(frozen=True)
class Decision:
    """Where a model runs and in which dtype its weights are.

    Attributes:
        device: "cpu" or "cuda:0", "cuda:1", ...
        dtype: Of the weights.
        reason: Why, for people.
    """

    device: str
    dtype: torch.dtype
    reason: str


@dataclass(frozen=True)
class Precision:
    """In which number format a training computes matrix products; fp32 weights stay fp32 in all of them.

    Attributes:
        name: "fp32", "bf16" or "fp16".
        reason: Why, for people.
    """

    name: str
    reason: str

    def autocast(self, device_type: str) -> AbstractContextManager:
        """Return the context that computes in this format; for fp32 one that does nothing."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device_type, dtype=DTYPES[self.name])


@contextlib.contextmanager
def casts_kept() -> Iterator[None]:
    """Keep the casts of weights that autocast makes until the end, for weights that do not change meanwhile.

    Autocast forgets them whenever its outermost context ends; several micro-batches of a step would each cast all
    weights anew.
    """
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()


def detect_capability(device: torch.device | None = None) -> tuple[int, int] | None:
    """Return the CUDA compute capability of a GPU.

    Args:
        device: The device; None: the first visible GPU.

    Returns:
        The capability, such as (7, 5) for a T4; None for a CPU, or where no GPU is visible.
    """
    if not torch.cuda.is_available() or (device is not None and device.type != "cuda"):
        return None
    return torch.cuda.get_device_capability(device or 0)


def choose_device_and_dtype(capability: tuple[int, int] | None) -> Decision:
    """Decide where a model runs and in which dtype its weights are.

    Args:
        capability: As `detect_capability` returns it. It decides, and not torch.cuda.is_bf16_supported(), which says
            yes on a T4 that only emulates bf16.

    Returns:
        The Decision; where several processes run, each has the GPU of its LOCAL_RANK.
    """
    device = "cpu" if capability is None else f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    fastest, fact = fastest_format(capability)
    if capability is None:
        return Decision(device, torch.float32, f"{fact}, and a CPU is exact in fp32")
    if fastest == "bf16":
        return Decision(device, torch.bfloat16, fact)
    return Decision(device, torch.float32, f"{fact}, and Gemma 3's residual stream overflows fp16")


def choose_precision(capability: tuple[int, int] | None, precision: str = "auto") -> Precision:
    """Return the number format that a training computes in, with the reason.

    Args:
        capability: As for `choose_device_and_dtype`.
        precision: "auto", or "fp32", "bf16" or "fp16" to overrule.

    Raises:
        ValueError: The name is unknown.
    """
    if precision != "auto":
        if precision not in DTYPES:
            raise InputError(f"PRECISION must be 'auto' or one of {sorted(DTYPES)}, got {precision!r}")
        return Precision(precision, "asked for by name")
    fastest, fact = fastest_format(capability)
    if capability is None:
        return Precision(fastest, f"{fact}, and a CPU is exact in fp32")
    addition = {"bf16": ", over fp32 weights", "fp16": "; weights and residual stream stay in fp32", "fp32": ""}
    return Precision(fastest, fact + addition[fastest])


def choose_cpu_precision() -> Precision:
    """Return the number format that a training of real size computes in on this CPU, with the reason.

    bf16 where the CPU multiplies it in hardware: a step of Gemma 3 270M took 0.8 of fp32's time (measured once on
    avx512_bf16, docs/training.md). A CPU without such an instruction converts number by number, and is slower in bf16.
    """
    known = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch do not tell
    fast = [name for name in ("amx_bf16", "avx512_bf16") if known.get(name)]
    if not fast:
        return choose_precision(None)
    return Precision("bf16", f"no GPU is visible, and this CPU multiplies in bf16 ({fast[0]}); weights stay in fp32")


def choose_generation_precision(capability: tuple[int, int] | None, dtype: torch.dtype) -> Precision:
    """Return the number format in which the matrix products of an evaluation's replies are computed, with the reason.

    Args:
        capability: As for `choose_device_and_dtype`.
        dtype: Of the model's weights.

    Returns:
        The format; the reason is "" where it is that of the weights.
    """
    fastest, fact = fastest_format(capability)
    if dtype == torch.float32 and fastest == "fp16":
        return Precision("fp16", f"{fact}; norms, residual stream and weights stay in fp32")
    return Precision(weights_precision(dtype), "")


def weights_precision(dtype: torch.dtype) -> str:
    """Return the name of the precision that weights of a dtype compute in by themselves."""
    return next(name for name, known in DTYPES.items() if known == dtype)


def free_memory_bytes(device: torch.device) -> int | None:
    """Return the bytes of a GPU's memory that can be used; None for a CPU.

    What torch has reserved and does not use is free, though the driver counts it as used.
    """
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def peak_memory_bytes(device: torch.device) -> int:
    """Return the largest memory in use so far, in bytes: of the GPU's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil  # comes with accelerate

        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory_bytes() -> int | None:
    """Return the bytes of the machine's memory that can still be used, as Linux tells them; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None
