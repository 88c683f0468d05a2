"""The table of stages: which files of the run folder each notebook reads and writes.

Knows names alone. `run --resume`, the check of a notebook's inputs and the message about a missing one rest on it; a
test holds it against what the executed notebooks really read and wrote.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """What a notebook takes from the run folder, and what it leaves there.

    Attributes:
        reads: Files and folders that must be there.
        writes: Files and folders that it always leaves.
        may_read: What it reads when it is there or when it is needed.
        may_write: What it writes only for some data.
        checks: What it reads to see whether the others belong together, and computes nothing from.
        uses: Which of DATA, TOOLS and MODEL it reads, where they are files or folders of this machine.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    may_read: tuple[str, ...] = ()
    may_write: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


STAGES = {
    "01_setup": Stage(writes=("run.json",), uses=("DATA", "TOOLS", "MODEL")),
    "02_data": Stage(
        reads=("run.json",),
        writes=("rows.train.jsonl", "rows.eval.jsonl", "rows.unseen.jsonl", "funnel.json", "audit.json", "figures"),
        uses=("DATA", "TOOLS", "MODEL"),
    ),
    "03_baseline": Stage(
        reads=("run.json", "rows.eval.jsonl", "rows.unseen.jsonl"),
        writes=("replies.base.jsonl", "scores.base.json", "self_check.json"),
        may_write=("replies.base.unseen.jsonl", "scores.base.unseen.json"),
        checks=("funnel.json", "audit.json"),
        uses=("MODEL",),
    ),
    "04_train": Stage(
        reads=("run.json", "rows.train.jsonl", "rows.eval.jsonl", "audit.json"),
        writes=("model", "train.json", "figures"),
        checks=("funnel.json",),
        uses=("MODEL",),
    ),
    "05_post_eval": Stage(
        reads=("run.json", "rows.train.jsonl", "rows.eval.jsonl", "rows.unseen.jsonl", "model", "scores.base.json"),
        writes=("replies.tuned.jsonl", "scores.tuned.json", "compare.json", "figures"),
        may_read=("scores.base.unseen.json",),
        may_write=("replies.tuned.unseen.jsonl", "scores.tuned.unseen.json"),
        checks=("funnel.json", "audit.json", "train.json"),
        uses=("MODEL",),
    ),
    "06_publish": Stage(
        reads=(
            "run.json",
            "rows.train.jsonl",
            "rows.eval.jsonl",
            "funnel.json",
            "audit.json",
            "train.json",
            "model",
            "scores.tuned.json",
            "compare.json",
        ),
        writes=("card.md", "manifest.json"),
        may_read=("scores.base.unseen.json", "scores.tuned.unseen.json", "figures"),  # those that are published
        checks=("scores.base.json",),
    ),
}
"""The stages by the name of their notebook, in order. The manifest lists every file of the run, whoever wrote it."""


def find_maker(name: str) -> str:
    """Return the first stage that writes a file or folder of this name; "" if none does."""
    return next((stage for stage, files in STAGES.items() if name in (*files.writes, *files.may_write)), "")
