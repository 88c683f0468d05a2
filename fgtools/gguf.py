"""The header of a GGUF file: what it says of itself, and where its tensors lie.

Knows the layout of the file; no model, and reads no weights.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fgtools.files import DataFileError, name_file, require_file


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies in a GGUF file.

    Attributes:
        name: Its name.
        shape: Its dimensions, outermost first as in torch; the file has them the other way round.
        type: GGUF's number of its number format.
        offset: Its first byte, from the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says before its weights.

    Attributes:
        metadata: Its keys and values; arrays are tuples.
        tensors: Its tensors, in the file's order.
    """

    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]


def read_gguf(path: Path) -> GgufHeader:
    """Read the header of a GGUF file (version 2 or 3, little-endian), and no weights.

    Raises:
        DataFileError: The file is missing, is no GGUF file, or its header is cut off or damaged.
    """
    require_file(path)
    with name_file(path, "read"), path.open("rb") as file:
        magic, version = file.read(4), file.read(4)
        if magic != b"GGUF" or version not in (b"\2\0\0\0", b"\3\0\0\0"):
            raise DataFileError(f"{path} must be a GGUF file of version 2 or 3, but begins otherwise: check the path")
        try:
            return _read_gguf_header(file)
        except (struct.error, EOFError, KeyError, UnicodeDecodeError, TypeError, ArithmeticError) as error:
            raise DataFileError(
                f"{path} must be a whole GGUF file, but its header is cut off or damaged at byte {file.tell():,}: "
                "download it again"
            ) from error


_GGUF_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_GGUF_TEXT, _GGUF_ARRAY = 8, 9
"""GGUF's kinds of values, and how the module struct calls those that are numbers."""


def _read_gguf_header(file: BinaryIO) -> GgufHeader:
    n_tensors, n_values = _read_numbers(file, "QQ")
    metadata = {}
    for _ in range(n_values):
        key, (kind,) = _read_gguf_text(file), _read_numbers(file, "I")
        metadata[key] = _read_gguf_array(file) if kind == _GGUF_ARRAY else _read_gguf_values(file, kind, 1)[0]
    found = []
    for _ in range(n_tensors):
        name, (n_dimensions,) = _read_gguf_text(file), _read_numbers(file, "I")
        *shape, kind, offset = _read_numbers(file, f"{n_dimensions}QIQ")
        found.append((name, tuple(reversed(shape)), kind, offset))
    alignment = metadata.get("general.alignment", 32)
    start = -(-file.tell() // alignment) * alignment
    return GgufHeader(metadata, tuple(GgufTensor(*place, start + offset) for *place, offset in found))


def _read_gguf_array(file: BinaryIO) -> tuple[Any, ...]:
    return _read_gguf_values(file, *_read_numbers(file, "IQ"))


def _read_gguf_values(file: BinaryIO, kind: int, count: int) -> tuple[Any, ...]:
    if kind == _GGUF_TEXT:
        return tuple(_read_gguf_text(file) for _ in range(count))
    return _read_numbers(file, f"{count}{_GGUF_NUMBERS[kind]}")


def _read_gguf_text(file: BinaryIO) -> str:
    return _read_bytes(file, *_read_numbers(file, "Q")).decode("utf-8")


def _read_numbers(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{layout}", _read_bytes(file, struct.calcsize(f"<{layout}")))


def _read_bytes(file: BinaryIO, size: int) -> bytes:
    """Return the next bytes; raises EOFError where there are fewer, or where a damaged length asks for over 1 GiB."""
    data = file.read(size) if size <= 2**30 else b""
    if len(data) < size:
        raise EOFError
    return data
