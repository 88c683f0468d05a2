"""Replies as they come, kept in a file, so that an evaluation that was killed goes on where it was.

Knows one file of JSON lines: the first names what the replies answer (a hash), each later one is a reply. It stands
beside the finished file until that is written whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgtools.artifacts import write_text


def identify_replies(weights: str, rows: Sequence[Mapping[str, Any]], max_new_tokens: int) -> str:
    """Give a hash of all that decides greedy replies: the weights, what the rows ask, the budget."""
    digest = hashlib.sha256(f"{weights} {max_new_tokens}".encode())
    for row in rows:
        asked = [row["row_id"], row["messages"], row["tools"]]
        digest.update(json.dumps(asked, ensure_ascii=True).encode())
    return digest.hexdigest()


class ReplyLog:
    """The file of an evaluation under way."""

    def __init__(self, path: Path, identity: str) -> None:
        """Open the file; what it holds for another model, rows or budget is dropped.

        Args:
            path: Where it lies.
            identity: What `identify_replies` gives.
        """
        self.path = path
        self.replies = self._read(identity)
        lines = [{"identity": identity}, *({"row_id": name, "reply": text} for name, text in self.replies.items())]
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))  # without a line that was cut short

    def _read(self, identity: str) -> dict[str, str]:
        if not self.path.is_file():
            return {}
        replies: dict[str, str] = {}
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break  # the last line of a process that was killed
            if number == 0 and record != {"identity": identity}:
                print(f"{self.path.name} answers other rows or is another model's: starting from the first row")
                return {}
            if number:
                replies[record["row_id"]] = record["reply"]
        return replies

    def append(self, row_id: str, reply: str) -> None:
        """Add a reply, on disk before this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row_id": row_id, "reply": reply}) + "\n")
