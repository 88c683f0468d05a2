"""Kernels on Kaggle: pushed in order, each waited for, through Kaggle's own client.

Knows the client's functions and what they answer; credentials are found by the client and are never read here. What
only a person can do in the browser is named, not tried.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fgtools.run.kaggle_build import DATA_SET, Build, load_build
from fgtools.run.kaggle_metadata import KERNELS, RUN_ALL, KaggleError

POLL = 30.0
"""Seconds between two questions about a kernel or a data set."""

DATA_SET_LIMIT = 1800.0
"""Seconds after which a data set that is not ready is an error."""

KERNEL_LIMIT = 15 * 3600.0
"""Seconds after which a kernel that has not ended is an error: a session may take 12 hours, and may wait before it."""

_RUNNING = {"QUEUED", "RUNNING", "NEW_SCRIPT"}
_LOG_LINES = 15

_SOURCES = ("dataset", "kernel", "model", "competition")


def connect() -> Any:
    """Return Kaggle's client, logged in with the credentials that it finds.

    Raises:
        KaggleError: The client is not installed, finds no credentials, or cannot reach Kaggle.
    """
    said = io.StringIO()  # the client prints a page of help when it finds no credentials
    try:
        with contextlib.redirect_stdout(said), _told("logging in"):
            from kaggle.api.kaggle_api_extended import KaggleApi

            client = KaggleApi()
            client.authenticate()
    except ImportError as error:
        raise KaggleError(f"Kaggle's client cannot be loaded ({error}): pip install 'fgtools[kaggle]'") from error
    except SystemExit as error:
        raise KaggleError(
            "Kaggle's client finds no credentials: make a token on kaggle.com (Settings, API) and set "
            "KAGGLE_API_TOKEN, or run `kaggle auth login`"
        ) from error
    return client


def select_kernels(build: Build, only: Sequence[str]) -> dict[str, str]:
    """Return ids by name of the kernels to push.

    Args:
        build: What was built.
        only: Names or numbers ("02_data", "2", "run_all"); empty: the six, one after the other.

    Raises:
        KaggleError: A kernel is unknown.
    """
    by_name = {name: name for name in KERNELS} | {name[:2]: name for name in KERNELS if name != RUN_ALL}
    unknown = [name for name in only if name.zfill(2) not in by_name]
    if unknown:
        raise KaggleError(f"--only takes {', '.join(KERNELS)} or their numbers, got {', '.join(map(repr, unknown))}")
    chosen = {by_name[name.zfill(2)] for name in only} or {*KERNELS} - {RUN_ALL}
    return {name: build.kernels[name] for name in KERNELS if name in chosen}


def describe_manual_steps(build: Build) -> str:
    """Return what no client can do: the steps that stay in the browser, each with its reason."""
    secrets = " and ".join(build.secrets)
    return "\n".join(
        [
            "by hand, once, in the browser:",
            "  licence    kaggle.com/models/google/functiongemma: accept Gemma's terms, or the model is not attached",
            "  phone      kaggle.com/settings: verify a phone number, or a notebook gets neither internet nor a GPU",
            f"  secret     to publish on the Hugging Face hub, or for a gated model of it: {secrets}, under Add-ons, "
            "Secrets, attached to the notebook",
        ]
    )


def push_series(
    client: Any,
    out: Path,
    only: Sequence[str] = (),
    with_data_set: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Upload the data set, then push the kernels in order; each starts when the one before has completed.

    Args:
        client: Kaggle's client, as `connect` returns it.
        out: A folder that `build_kaggle` made.
        only: Kernels, see select_kernels.
        with_data_set: Whether the data set is uploaded, too; False where it is on Kaggle as it was built.
        sleep: Waits a number of seconds; for tests.

    Raises:
        KaggleError: The folder is of another user, Kaggle refuses something, or a kernel fails.
    """
    build = load_build(out)
    kernels = select_kernels(build, only)
    user = client.config_values.get("username") or ""
    if user.lower() != build.owner.lower():
        raise KaggleError(f"the folder is built for {build.owner!r}, but the client is {user!r}: build it with --user")
    if with_data_set:
        _upload_data_set(client, out / DATA_SET, build, sleep)
    for number, (name, kernel) in enumerate(kernels.items()):
        try:
            version = _push_kernel(client, out / name, name)
            _wait_for_kernel(client, name, f"{kernel}/{version}" if version else kernel, sleep)
        except (KaggleError, KeyboardInterrupt):
            left = " ".join([*kernels][number:])
            print(f"to go on from here: python -m fgtools kaggle push --out {out} --no-data-set --only {left}")
            raise


def describe_status(client: Any, out: Path, only: Sequence[str] = ()) -> str:
    """Return a line for each kernel: its name, its id, and what Kaggle says of its newest version."""
    lines = []
    for name, kernel in select_kernels(load_build(out), only or KERNELS).items():
        try:
            with _told(f"the status of {kernel}"):
                status, message = _ask(client, kernel)
        except KaggleError as error:
            status, message = "not known", str(error)
        lines.append(f"{name:<13} {kernel}  {status}{f': {message}' if message else ''}")
    return "\n".join(lines)


def fetch_outputs(client: Any, out: Path, only: Sequence[str] = ()) -> dict[str, int]:
    """Download what kernels wrote to OUT/output/NAME; return the number of files by kernel.

    Raises:
        KaggleError: A kernel is not there, or a download fails.
    """
    counts = {}
    for name, kernel in select_kernels(load_build(out), only).items():
        with _told(f"the output of {kernel}"):
            files, _ = client.kernels_output(kernel, str(out / "output" / name), force=True, quiet=True)
        counts[name] = len(files)
    return counts


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what the client raises into a KaggleError that says what was asked; no address, since one may be signed."""
    try:
        yield
    except KaggleError:
        raise
    except OSError as error:  # before ValueError: an answer of the server that is no JSON is both
        answer = getattr(error, "response", None)
        if answer is None:
            reason = f"Kaggle cannot be reached ({type(error).__name__}): check the network and try again"
        else:
            reason = f"Kaggle answers {answer.status_code}: {_REMEDIES.get(answer.status_code, 'try again later')}"
        raise KaggleError(f"{what}: {reason}") from error
    except ValueError as error:
        raise KaggleError(f"{what}: Kaggle's client says: {error}") from error


_REMEDIES = {
    401: "the token is not valid (any more), make a new one",
    403: "this user may not do that; check the name of the owner and that the phone number is verified",
    404: "there is nothing of that name",
    429: "too many requests, wait some minutes",
}


def _upload_data_set(client: Any, folder: Path, build: Build, sleep: Callable[[float], None]) -> None:
    before = _find_version(client, build.data_set)
    with _told(f"the data set {build.data_set}"):
        if before:
            answer = client.dataset_create_version(str(folder), f"fgtools {build.version}", quiet=True)
        else:
            answer = client.dataset_create_new(str(folder), public=False, quiet=True)
    if answer.error or (answer.status or "").lower() == "error":
        raise KaggleError(f"Kaggle does not take the data set {build.data_set}: {answer.error or 'no reason given'}")
    print(f"data set      {build.data_set}  uploaded, {len(build.sha256)} files, private", flush=True)
    waited = 0.0
    while (version := _find_version(client, build.data_set)) <= before:
        if waited >= DATA_SET_LIMIT:
            raise KaggleError(
                f"the data set {build.data_set} is not ready after {waited / 60:.0f} minutes: look at "
                f"kaggle.com/datasets/{build.data_set}, then push with --no-data-set"
            )
        sleep(POLL)
        waited += POLL
    print(f"data set      {build.data_set}  version {version} is ready", flush=True)


def _find_version(client: Any, data_set: str) -> int:
    """Return the newest version of a data set that is ready; 0 if there is none."""
    try:
        told = json.loads(client.dataset_status(data_set, format="json"))
    except OSError as error:
        answer = getattr(error, "response", None)
        if answer is not None and answer.status_code in (403, 404):  # Kaggle says 403 of what is not there
            return 0
        with _told(f"the status of {data_set}"):
            raise
    if told["status"] in ("failed", "deleted"):
        raise KaggleError(f"the data set {data_set} is {told['status']}: look at kaggle.com/datasets/{data_set}")
    return int(told["current_version_number"] or 0) if told["status"] == "ready" else 0


def _push_kernel(client: Any, folder: Path, name: str) -> int:
    """Push one kernel and return its version; raises KaggleError when Kaggle takes it only in part."""
    with _told(f"pushing {name}"):
        answer = client.kernels_push(str(folder))
    if answer.error:
        raise KaggleError(f"Kaggle does not take {name}: {answer.error}")
    refused = {kind: list(getattr(answer, f"invalid_{kind}_sources", None) or ()) for kind in _SOURCES}
    if any(refused.values()):
        told = "; ".join(f"{kind}: {', '.join(map(str, names))}" for kind, names in refused.items() if names)
        raise KaggleError(
            f"{name} is pushed and runs, but without what Kaggle does not let it read ({told}): it cannot succeed. For "
            "a model, accept its licence; for a data set or kernel, check its owner and that it is there"
        )
    print(f"{name:<13} pushed, version {answer.version_number}: {answer.url}", flush=True)
    return int(answer.version_number or 0)


def _ask(client: Any, kernel: str) -> tuple[str, str]:
    """Return the name of a kernel's status, such as "COMPLETE", and its failure message, "" without one."""
    answer = client.kernels_status(kernel)
    return getattr(answer.status, "name", str(answer.status)), answer.failure_message or ""


def _wait_for_kernel(client: Any, name: str, kernel: str, sleep: Callable[[float], None]) -> None:
    waited, before = 0.0, ""
    while waited < KERNEL_LIMIT:
        with _told(f"the status of {kernel}"):
            status, message = _ask(client, kernel)
        if status != before:
            print(f"{name:<13} {status.lower()} after {waited / 60:.0f} min", flush=True)
            before = status
        if status == "COMPLETE":
            return
        if status not in _RUNNING:
            with _told(f"the log of {kernel}"):
                log = _read_log(client.kernels_logs(kernel))
            raise KaggleError(f"{name} ended as {status.lower()}: {message or 'no reason given'}\n{log}".rstrip())
        sleep(POLL)
        waited += POLL
    raise KaggleError(f"{name} has not ended after {waited / 3600:.0f} hours: look at kaggle.com/code/{kernel}")


def _read_log(text: str) -> str:
    """Return the last lines of a kernel's log, which is JSON with a piece of text in each entry, or plain text."""
    with contextlib.suppress(ValueError, AttributeError, TypeError):  # plain text stays as it is
        text = "".join(entry.get("data", "") for entry in json.loads(text))
    return "\n".join(f"  {line}" for line in text.splitlines()[-_LOG_LINES:])
