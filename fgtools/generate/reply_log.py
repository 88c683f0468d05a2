"""Replies as they come, kept in files, so that an evaluation that was killed goes on where it was.

Knows files of JSON lines, one for every process that generates: the first line names what the replies answer (a hash),
each later one is a reply. They stand beside the finished file until that is written whole.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgtools.files import write_text


def identify_replies(
    model: str,
    rows: Sequence[Mapping[str, Any]],
    prompts: Sequence[Sequence[int]],
    stops: Sequence[int],
    max_new_tokens: int,
    constrained: bool = False,
) -> str:
    """Give a hash of all that decides greedy replies.

    Args:
        model: What models.fingerprint_model gives.
        rows: The rows.
        prompts: Their prompts as token ids: tokenizer and chat template are in them.
        stops: Ids that end a reply.
        max_new_tokens: Budget of one reply, in tokens.
        constrained: Whether the rows' tools decide what can be written.

    Returns:
        The hash.
    """
    digest = hashlib.sha256(json.dumps([model, list(stops), max_new_tokens, constrained]).encode())
    for row, prompt in zip(rows, prompts, strict=True):
        asked = [row["row_id"], list(prompt), row["tools"] if constrained else None]
        digest.update(json.dumps(asked).encode())
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
        self.replies[row_id] = reply
        with self.own.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row_id": row_id, "reply": reply}) + "\n")

    def gather(self) -> dict[str, str]:
        """Wait for all processes; give the replies of all by row id."""
        self._wait()
        replies = {**self._read_all(), **self.replies}
        self._wait()  # nobody takes the files away before all have read them
        return replies

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
        lines = path.read_bytes().splitlines()
        if not lines or _read_line(lines[0]) != {"identity": self.identity}:
            print(f"{path.name} answers other rows or is another model's: starting from the first row")
            return {}
        records = [_read_line(line) for line in lines[1:]]
        texts = [(one["row_id"], one["reply"]) for one in records if set(one) == {"row_id", "reply"}]
        return {row_id: reply for row_id, reply in texts if isinstance(row_id, str) and isinstance(reply, str)}


def _read_line(line: bytes) -> dict[str, Any]:
    """Read a line; {} for what is no JSON object, such as the last line of a process that was killed."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def find_parts(path: Path) -> list[Path]:
    """List the files of an evaluation under way: the first process's, and those of the others beside it."""
    others = sorted(path.parent.glob(f"{glob.escape(path.name)}.[0-9]*"))
    return [one for one in (path, *others) if one.is_file()]
