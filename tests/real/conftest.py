"""What the tests on real weights share: a run folder, of which they read the tuned model and the rows."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from fgtools.run.folder import RunFolder


@dataclass(frozen=True)
class RealRun:
    """A run with a tuned model."""

    model: Path
    train: list
    held_out: list


@pytest.fixture(scope="session")
def real(request):
    run = RunFolder(Path(request.config.getoption("--real")))
    train, *held = (run.read_rows(f"rows.{side}.jsonl") for side in ("train", "eval", "unseen"))  # none may be unseen
    return RealRun(run.find("model"), train, [row for rows in held for row in rows])


@pytest.fixture(scope="session")
def tokenizer(real):
    from fgtools.models import load_tokenizer

    return load_tokenizer(real.model)
