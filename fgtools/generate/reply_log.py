"""Replies saved as they come, so that an evaluation that was killed resumes where it stopped.

Knows files of JSON lines, one for every process that generates: the first line identifies model, rows and budget by a
hash, each later line is a reply with its confidence. The files lie beside the finished file until that is written
whole.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgtools.files import InputError, name_file, write_text
from fgtools.metrics import Confidence, GeneratedReply


def identify_replies(
    model: str,
    rows: Sequence[Mapping[str, Any]],
    prompts: Sequence[Sequence[int]],
    stops: Sequence[int],
    max_new_tokens: int,
    constrained: bool = False,
) -> str:
    """Return a hash of everything that greedy replies depend on.

    Args:
        model: The model's hash, as models.load.fingerprint_model returns it.
        rows: The rows.
        prompts: Their prompts as token ids: tokenizer and chat template are in them.
        stops: Ids that end a reply.
        max_new_tokens: Budget of one reply, in tokens.
        constrained: Whether only the rows' tools can be called.
    """
    digest = hashlib.sha256(json.dumps([model, list(stops), max_new_tokens, constrained]).encode())
    for row, prompt in zip(rows, prompts, strict=True):
        asked = [row["row_id"], list(prompt), row["tools"] if constrained else None]
        digest.update(json.dumps(asked).encode())
    return digest.hexdigest()


def shard_rows(rows: Sequence[Mapping[str, Any]], rank: int, world: int) -> list[Mapping[str, Any]]:
    """Return the rows that one of several processes answers; all of them for one process.

    Rows with the same tools stay together, so that the shared prefix of their prompts is still computed once, and every
    process gets about the same number of characters.

    Args:
        rows: All rows.
        rank: Number of the process, from 0.
        world: Number of processes.
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
    """The files of an evaluation that is not finished."""

    def __init__(self, path: Path, identity: str, rank: int = 0, world: int = 1) -> None:
        """Load the replies that are there; those of another model, other rows or another budget are dropped.

        Args:
            path: Where the first process writes; the others write beside it.
            identity: As `identify_replies` returns it.
            rank: Number of this process.
            world: Number of processes; with more than one, each must make its own log.
        """
        self.path, self.identity, self.world = path, identity, world
        self.own = path.with_name(f"{path.name}.{rank}") if rank else path
        self.replies = self._load()
        self._wait()  # no process writes before all have loaded the same replies
        lines = [{"identity": identity}, *(to_record(name, reply) for name, reply in self.replies.items())]
        write_text(self.own, "".join(json.dumps(line) + "\n" for line in lines))  # drops a line that was cut short

    def append(self, row_id: str, reply: GeneratedReply) -> None:
        """Add a reply; it is in the file when this returns."""
        self.replies[row_id] = reply
        with name_file(self.own, "written"), self.own.open("a", encoding="utf-8") as file:
            file.write(json.dumps(to_record(row_id, reply)) + "\n")

    def gather(self) -> dict[str, GeneratedReply]:
        """Wait for all processes and return the replies of all by row id."""
        self._wait()
        replies = {**self._load(), **self.replies}
        self._wait()  # no process deletes the files before all have loaded them
        return replies

    def _wait(self) -> None:
        if self.world > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def _load(self) -> dict[str, GeneratedReply]:
        replies: dict[str, GeneratedReply] = {}
        for path in find_parts(self.path):
            lines = [_parse_line(line) for line in path.read_bytes().splitlines()]
            if not lines or lines[0] != {"identity": self.identity}:
                print(f"{path.name} answers other rows or is another model's: starting from the first row")
                continue
            for line in lines[1:]:
                if reply := _parse_reply_record(line):
                    replies[line["row_id"]] = reply
        return replies


def to_record(row_id: str, reply: GeneratedReply) -> dict[str, Any]:
    """Return the line of a replies file: {"row_id", "reply", "confidence"}, the last only where it is known."""
    known = {"confidence": reply.confidence.to_dict()} if reply.confidence.is_known else {}
    return {"row_id": row_id, "reply": reply.text, **known}


def _parse_reply_record(line: Mapping[str, Any]) -> GeneratedReply | None:
    """Return the reply of a line, also of one without confidence; None if it is no such line."""
    row_id, text = line.get("row_id"), line.get("reply")
    whole = {"row_id", "reply"} <= set(line) <= {"row_id", "reply", "confidence"}
    if not whole or not isinstance(row_id, str) or not isinstance(text, str):
        return None
    try:
        return GeneratedReply(text, Confidence.from_dict(line.get("confidence")))
    except InputError:
        return None


def _parse_line(line: bytes) -> dict[str, Any]:
    """Parse a line; {} if it is no JSON object, such as the last line of a process that was killed."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def find_parts(path: Path) -> list[Path]:
    """List the files of an unfinished evaluation: the first process's, and those of the others beside it."""
    others = sorted(path.parent.glob(f"{glob.escape(path.name)}.[0-9]*"))
    return [one for one in (path, *others) if one.is_file()]
