"""Replies as they come, kept in files, so that an evaluation that was killed goes on where it was.

Knows files of JSON lines, one for every process that generates: the first line names what the replies answer (a hash),
each later one is a reply. They stand beside the finished file until that is written whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgtools.artifacts import write_text


def identify_replies(
    weights: str, rows: Sequence[Mapping[str, Any]], max_new_tokens: int, constrained: bool = False
) -> str:
    """Give a hash of all that decides greedy replies: the weights, what the rows ask, the budget, the constraint."""
    digest = hashlib.sha256(f"{weights} {max_new_tokens} {constrained}".encode())
    for row in rows:
        asked = [row["row_id"], row["messages"], row["tools"]]
        digest.update(json.dumps(asked, ensure_ascii=True).encode())
    return digest.hexdigest()


def share_out(rows: Sequence[Mapping[str, Any]], rank: int, world: int) -> list[Mapping[str, Any]]:
    """Give the rows that one of several processes answers.

    Rows with the same tools stay together, so that what their prompts share is still read once, and every process gets
    about as many characters.

    Args:
        rows: All rows.
        rank: Number of the process, from 0.
        world: Processes.

    Returns:
        Its rows; all of them for one process.
    """
    if world == 1:
        return list(rows)
    texts = [json.dumps([row["tools"], row["messages"]]) for row in rows]
    order = sorted(range(len(rows)), key=lambda number: texts[number])
    total, before, mine = sum(map(len, texts)), 0, []
    for number in order:
        if before * world // max(1, total) == rank:
            mine.append(rows[number])
        before += len(texts[number])
    return mine


class ReplyLog:
    """The files of an evaluation under way."""

    def __init__(self, path: Path, identity: str, rank: int = 0, world: int = 1) -> None:
        """Read what is there; what answers another model, other rows or another budget is dropped.

        Args:
            path: Where the first process writes; the others write beside it.
            identity: What `identify_replies` gives.
            rank: Number of this process.
            world: Processes; with more than one, each must make its own.
        """
        self.path, self.identity, self.world = path, identity, world
        self.own = path.with_name(f"{path.name}.{rank}") if rank else path
        self.replies = self._read_all()
        self._wait()  # nobody writes before all have read the same
        lines = [{"identity": identity}, *({"row_id": name, "reply": text} for name, text in self.replies.items())]
        write_text(self.own, "".join(json.dumps(line) + "\n" for line in lines))  # without a line that was cut short

    def append(self, row_id: str, reply: str) -> None:
        """Add a reply, on disk before this returns."""
        with self.own.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row_id": row_id, "reply": reply}) + "\n")

    def gather(self) -> dict[str, str]:
        """Wait for all processes; give the replies of all by row id."""
        self._wait()
        return self._read_all()

    def _wait(self) -> None:
        if self.world > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def _read_all(self) -> dict[str, str]:
        replies: dict[str, str] = {}
        for path in find_parts(self.path):
            replies |= self._read(path)
        return replies

    def _read(self, path: Path) -> dict[str, str]:
        replies: dict[str, str] = {}
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break  # the last line of a process that was killed
            if number == 0 and record != {"identity": self.identity}:
                print(f"{path.name} answers other rows or is another model's: starting from the first row")
                return {}
            if number:
                replies[record["row_id"]] = record["reply"]
        return replies


def find_parts(path: Path) -> list[Path]:
    """List the files of an evaluation under way: the first process's, and those of the others beside it."""
    return [one for one in (path, *sorted(path.parent.glob(f"{path.name}.[0-9]*"))) if one.is_file()]
