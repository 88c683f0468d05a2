"""The best weights of a training so far: a copy in memory, or in a file where memory is short.

Knows tensors and one file; not metrics or trainers. Of several processes the first one alone holds the copy. The file
is the one that goes with a checkpoint, so that a training that goes on can still choose the best weights.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fgtools.files import FileError, make_folder
from fgtools.models.device import available_memory_bytes

Weights = Mapping[str, Tensor]

_LAST = "best-exchanged.safetensors"
"""The file of the weights of the last step while the model holds the best ones, where memory does not hold both."""


class BestWeights:
    """The trained weights after the best evaluation so far.

    Attributes:
        step: The optimizer step they are of; 0: there are none.
        in_model: Whether the model holds them, and the copy holds those of the last step in their place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.step, self.in_model = folder, 0, False
        self._copy: dict[str, Tensor] = {}
        self._in_file = False

    def file_of(self, step: int) -> Path:
        """Return the file of the best weights of a step."""
        return self.folder / f"best-{step}.safetensors"

    @property
    def needed_file(self) -> Path | None:
        """The file that holds the only copy; None where the copy is in memory."""
        if not self._in_file:
            return None
        return self.folder / _LAST if self.in_model else self.file_of(self.step)

    def keep(self, weights: Weights, step: int) -> None:
        """Keep a copy of the weights in place of an older one; in a file where memory does not hold it.

        Where the file cannot be written either, that is said, and the older copy stays.

        Args:
            weights: The trained weights by name.
            step: The optimizer step they are of.
        """
        older, self.step, failed = self.step, step, False
        is_first = PartialState().is_main_process
        if is_first and not self._in_file and (reason := self._copy_to_memory(weights)):
            self._copy, self._in_file = {}, True
            print(f"best weights: kept in a file, since memory does not hold them ({reason})", flush=True)
        if is_first and self._in_file:
            try:
                write_weights(self.file_of(step), weights)
            except FileError as error:
                failed = True
                print(f"best weights: those after step {step} could not be kept: {error}", flush=True)
        if anywhere(failed):
            self.step = older

    def _copy_to_memory(self, weights: Weights) -> str:
        """Copy the weights, into the memory of an older copy; return why that is not possible, or ""."""
        if self._copy:
            for name, weight in weights.items():
                self._copy[name].copy_(weight.detach())
            return ""
        if reason := _find_shortage(count_bytes(weights)):
            return reason
        try:
            self._copy = copy_to_cpu(weights)
        except (MemoryError, RuntimeError) as error:  # torch's allocator of CPU memory raises RuntimeError
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return ""

    def save(self) -> None:
        """Write the copy to the file that a checkpoint names; nothing where it is there.

        Raises:
            FileError: It cannot be written.
        """
        path = self.file_of(self.step)
        if self._copy and not path.is_file():
            write_weights(path, self._copy)

    def load(self, step: int) -> None:
        """Take the copy from the file of a step, when a training goes on."""
        self.step, path = step, self.file_of(step)
        if PartialState().is_main_process:
            self._in_file = bool(_find_shortage(path.stat().st_size))
            self._copy = {} if self._in_file else {name: one.clone() for name, one in load_file(path).items()}

    def exchange(self, weights: Weights) -> None:
        """Exchange the copy and the weights of the model, in every process.

        Args:
            weights: The trained weights by name, as for `keep`.
        """
        with torch.no_grad():
            if PartialState().is_main_process:
                self._exchange(weights)
            if PartialState().num_processes > 1:
                for weight in weights.values():
                    torch.distributed.broadcast(weight.detach(), 0)
        self.in_model = not self.in_model

    def _exchange(self, weights: Weights) -> None:
        copy = load_file(self.needed_file) if self.needed_file else self._copy
        if self._in_file:  # the file of the best weights stays as it is: checkpoints name it with its hash
            other = self.file_of(self.step) if self.in_model else self.folder / _LAST
            if not self.in_model or not other.is_file():
                write_weights(other, weights)
        for name, weight in weights.items():
            last = None if self._in_file else weight.detach().to("cpu", copy=True)
            weight.copy_(copy[name])
            if last is not None:
                copy[name].copy_(last)

    def release(self) -> None:
        """Give the memory of the copy back, once the choice is made."""
        self._copy = {}


def anywhere(flag: bool) -> bool:
    """Return whether a flag is set in any process; every process must ask."""
    if PartialState().num_processes == 1:
        return flag
    return bool(reduce(torch.tensor([float(flag)], device=PartialState().device), "sum").item())


def _find_shortage(needed: int) -> str:
    """Return why the memory does not hold so many bytes, or "": as much again must stay free for everything else."""
    available = available_memory_bytes()
    if available is None or available >= 2 * needed:
        return ""
    return f"they take {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free"


def copy_to_cpu(weights: Weights) -> dict[str, Tensor]:
    """Return a copy of some weights in the machine's memory."""
    return {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}


def count_bytes(weights: Weights) -> int:
    """Return the bytes of some weights."""
    return sum(weight.numel() * weight.element_size() for weight in weights.values())


def write_weights(path: Path, weights: Weights) -> None:
    """Write weights to a file whole: under a temporary name beside it, then renamed.

    Raises:
        FileError: It cannot be written.
    """
    make_folder(path.parent)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        save_file({name: weight.detach().contiguous() for name, weight in weights.items()}, scratch)
        os.replace(scratch, path)
    except (OSError, SafetensorError) as error:
        raise FileError(f"{path} must be written, but {error}: check the permissions and the free space") from error
    finally:
        scratch.unlink(missing_ok=True)
