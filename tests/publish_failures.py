"""What publishing says of each failure, made by failing: the table of docs/publishing.md.

    python -m tests.publish_failures

Each case lets one route of the hub on this machine fail, and publishes through huggingface_hub's real client; waits are
not waited for. `tests/run/test_publish.py` runs the same cases, and holds the page to what they say.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from fgtools.run import hub as hub_client
from fgtools.run import publish
from fgtools.run.folder import RunFolder
from fgtools.run.publish_plan import REQUIRED
from fgtools.run.uploads import PublishError
from tests.hub_server import CUT, SILENT, HubServer

TOKEN = "hf_canaryThatMustNeverBeSeen"
PAGE = Path(__file__).parents[1] / "docs" / "publishing.md"
CARD = "---\nlicense: gemma\n---\n# A model\n"
REPO_ID = "you/model"


MANY = 99
"""Times a route fails that does not recover."""

PATIENCE = 0.5
"""Seconds after which a hub that says nothing is given up here."""


class Case(NamedTuple):
    """A failure: the route that fails, with which status (or CUT, or SILENT), how often, and the tries it takes.

    With `tries` 0 the upload succeeds in the end.
    """

    route: str
    status: int
    times: int
    tries: int


CASES = [
    Case("info", 401, MANY, 1),
    Case("info", 500, MANY, 4),
    Case("info", CUT, MANY, 4),
    Case("info", 503, 2, 0),
    Case("create", 402, MANY, 1),
    Case("create", 403, MANY, 1),
    Case("create", 409, MANY, 1),
    Case("create", 429, MANY, 4),
    Case("create", 429, 2, 0),
    Case("yaml", 400, MANY, 1),
    Case("yaml", 503, MANY, 4),
    Case("preupload", 403, MANY, 1),
    Case("preupload", 404, MANY, 1),
    Case("preupload", CUT, 2, 0),
    Case("batch", 413, MANY, 1),
    Case("batch", 500, 2, 0),
    Case("put", 403, MANY, 1),
    Case("put", 500, MANY, 4),
    Case("put", CUT, MANY, 4),
    Case("put", CUT, 3, 0),
    Case("verify", 404, MANY, 1),
    Case("commit", 409, MANY, 1),
    Case("commit", 412, MANY, 1),
    Case("commit", 418, MANY, 1),
    Case("commit", 500, MANY, 4),
    Case("commit", 503, 2, 0),
    Case("commit", CUT, MANY, 4),
    Case("info", SILENT, MANY, 1),
    Case("create", SILENT, MANY, 1),
    Case("put", SILENT, MANY, 1),
    Case("commit", SILENT, MANY, 1),
]
"""Failures of every request that an upload makes."""

REQUESTS = {
    "info": "what is there",
    "create": "make the repository",
    "yaml": "is the card's head valid",
    "preupload": "how files are to be sent",
    "batch": "where large files go",
    "put": "a large file",
    "verify": "has it arrived",
    "commit": "the commit",
}
"""What each route is asked."""


def provoke(hub: HubServer, run: RunFolder, case: Case) -> str:
    """Publish while a route fails; return what the user is told, with the address of the real hub, or "published".

    The server quotes the token in what it answers, which must not come out.
    """
    body = '{"errors": [{"message": "unknown licence"}]}' if case.route == "yaml" else f"no, {TOKEN}"
    hub.fail(case.route, case.status, case.times, body=body)
    patience = PATIENCE if case.status == SILENT else hub_client.SILENCE
    try:
        with patch.object(hub_client, "SILENCE", patience):
            publish.publish_model(run, CARD, REPO_ID, dry_run=False)
    except PublishError as error:
        return str(error).replace(hub.url, "https://huggingface.co")
    return "published"


def write_run(root: Path) -> RunFolder:
    """Write the folder of a run with a model of a few bytes."""
    (root / "model").mkdir(parents=True)
    for name in REQUIRED:
        (root / "model" / name).write_text("{}")
    return RunFolder(root)


def shorten(said: str) -> str:
    """Return what is said without a repository that was made before, and without the client's words for a cut."""
    return re.sub(r" \(\w+Error: [^()]*\)", "", said.partition(". The repository https://")[0])


def render_table(results: Sequence[tuple[Case, str]]) -> str:
    """Return the page's table: what fails, at which requests, and what is said; equal sentences in one line."""
    places: dict[tuple[str, str], list[str]] = {}
    for case, said in results:
        answers = {CUT: "the connection is cut", SILENT: f"none within {hub_client.SILENCE:.0f} s"}
        answer = answers.get(case.status, str(case.status))
        often = f", {case.times} times" if case.times < MANY else ""
        places.setdefault((answer + often, shorten(said)), []).append(REQUESTS[case.route])
    lines = [f"| {answer} | {', '.join(asked)} | {said} |" for (answer, said), asked in places.items()]
    return "\n".join(["| the answer | to | what is said |", "| --- | --- | --- |", *lines])


def main() -> None:
    """Print the table."""
    from huggingface_hub import constants

    os.environ |= {"HUGGINGFACE_TOKEN": TOKEN, "FGTOOLS_BATCH": "1"}
    publish.MIN_WEIGHTS = 0
    constants.HF_HUB_DISABLE_XET = True
    constants.HF_HUB_OFFLINE = False
    time.sleep = lambda _: None
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        run = write_run(Path(scratch) / "run")
        for case in CASES:
            with HubServer({TOKEN: "you"}) as hub, contextlib.redirect_stdout(io.StringIO()):
                constants.ENDPOINT = hub.url
                results.append((case, provoke(hub, run, case)))
    print(render_table(results))


if __name__ == "__main__":
    main()
