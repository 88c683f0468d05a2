"""CSV files as rows: their encoding, the mark between their fields, and empty fields.

Knows tables of text; not what a row means.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

from fgtools.files import DataFileError

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def load_csv(path: Path, data: bytes, delimiter: str = "") -> list[dict[str, Any]]:
    """Return the rows of a CSV file with a line of names.

    Args:
        path: The file, for messages.
        data: Its content. UTF-8 with or without a mark, UTF-16 with one, else Windows-1252, which is said.
        delimiter: The mark between fields; "" for the one that is in the line of names most often, which is said unless
            it is a comma.

    Returns:
        One mapping a row; an empty field is None.

    Raises:
        DataFileError: The file is malformed; the row is named.
    """
    text = decode_bytes(path, data, fallback="cp1252")
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    if not delimiter:
        delimiter = _guess_delimiter(text)
        if delimiter != ",":
            print(f"{path.name}: fields are separated by {_DELIMITERS[delimiter]}")
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter))
    except csv.Error as error:
        raise DataFileError(f"{path} must be a CSV file with a line of names, but {error}") from error
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise DataFileError(f"{path}, row {number}: must have as many fields as there are names: quote the commas")
    return [{(name or "").strip(): value or None for name, value in row.items()} for row in rows]


def decode_bytes(path: Path, data: bytes, fallback: str = "") -> str:
    """Return the text of a file: UTF-8, or UTF-16 where its first bytes say so.

    Args:
        path: The file, for messages.
        data: Its content.
        fallback: Encoding of a file that is not UTF-8, which is said; "" for none.

    Returns:
        The text.

    Raises:
        DataFileError: The bytes are no text in these encodings.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decode(path, data, "utf-16")
    if b"\x00" in data:
        raise DataFileError(f"{path} must be text, but it holds zero bytes: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not fallback:
            raise DataFileError(
                f"{path} must be UTF-8 text, but byte {error.start} is not: save it as UTF-8"
            ) from error
    print(f"{path.name}: read as Windows-1252, since it is not UTF-8: check letters with accents")
    return _decode(path, data, fallback)


def _decode(path: Path, data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataFileError(
            f"{path} must be {encoding} text, but byte {error.start} is not: save it as UTF-8"
        ) from error


def _guess_delimiter(text: str) -> str:
    """Return the mark that separates the names in the first line, quoted names left out."""
    header = text.partition("\n")[0]
    outside = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=outside.count)
