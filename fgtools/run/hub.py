"""The Hugging Face hub: what a model repository holds, and one commit that changes it.

Knows huggingface_hub's client and its answers; not which files make a model. Files are sent from where they lie:
nothing is written beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtools.files import FgtoolsError, name_file, sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi


SILENCE = 60.0
"""Seconds for which the hub may neither send nor take a byte before a request ends. huggingface_hub itself waits for
ever."""

_PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses after which huggingface_hub asks again by itself."""


class UnansweredError(FgtoolsError, OSError):
    """A request got no answer; raised from the client's own error, which says why."""


@contextmanager
def limit_silence() -> Iterator[None]:
    """Let each request of huggingface_hub end once: answered, failed, or after SILENCE seconds without a byte.

    huggingface_hub asks up to six times by itself, for as long as a service asks it to wait, and after a failed
    connection through a client that has no limit. Here every failure ends the request at once, so that tries are
    counted, waited for and named in one place, `uploads.try_repeatedly`. A limit of the user's stays.
    """
    from huggingface_hub import get_session
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import hf_raise_for_status

    session = get_session()
    before, send = session.timeout, session.send
    if before.read is None:
        session.timeout = SILENCE

    def send_once(request: Any, **options: Any) -> Any:
        try:
            response = send(request, **options)
        except HTTPError as error:
            raise UnansweredError(f"{type(error).__name__}: {error}") from error
        if response.status_code in _PASSING and not options.get("stream"):
            hf_raise_for_status(response)
        return response

    session.send = send_once
    try:
        yield
    finally:
        session.timeout, session.send = before, send


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        size: Bytes.
        sha256: Its sha256; "" for a small file, which git keeps itself.
        blob: Git's hash of a file that it keeps itself; of no meaning for others.
    """

    size: int
    sha256: str
    blob: str

    def is_same(self, content: Path | bytes) -> bool:
        """Return whether it holds the bytes of a local file, or these bytes."""
        size = measure_content(content)
        if size != self.size:
            return False
        if self.sha256:
            own = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_of(content)
            return own == self.sha256
        return hash_blob(_read_content(content)) == self.blob


@dataclass(frozen=True)
class Repository:
    """A model repository as the hub describes it.

    Attributes:
        commit: The hash of its newest commit.
        private: Whether only its owners see it.
        files: Its files by name.
    """

    commit: str
    private: bool
    files: Mapping[str, RemoteFile]


def measure_content(content: Path | bytes) -> int:
    """Return the size in bytes of a local file, or of bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def hash_blob(data: bytes) -> str:
    """Return git's hash of a file with these bytes: the sha1 of the word blob, their number, and themselves."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def read_repository(api: HfApi, repo_id: str, revision: str | None = None) -> Repository | None:
    """Ask the hub what a model repository holds.

    Args:
        api: The client, with its token.
        repo_id: "owner/name".
        revision: A commit, tag or branch; None for its main branch.

    Returns:
        The Repository; None if there is none that the token may see.

    Raises:
        HfHubHTTPError: The hub refuses.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(repo_id, revision=revision, timeout=SILENCE, files_metadata=True)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 404:
            return None
        raise
    files = {}
    for file in info.siblings or []:
        sha256 = file.lfs["sha256"] if file.lfs else ""
        files[file.rfilename] = RemoteFile(file.size or 0, sha256, file.blob_id or "")
    return Repository(info.sha or "", bool(info.private), files)


def commit_files(
    api: HfApi,
    repo_id: str,
    added: Mapping[str, Path | bytes],
    removed: Iterable[str],
    parent: str | None,
    message: str,
) -> str:
    """Add, replace and remove files of a repository in one commit: all of it is done, or nothing.

    Args:
        api: The client, with its token.
        repo_id: "owner/name"; it must be there.
        added: Name in the repository -> a local file, or the bytes themselves.
        removed: Names of files to remove.
        parent: The commit that it must follow; None for any.
        message: The commit's first line.

    Returns:
        The commit's hash.

    Raises:
        HfHubHTTPError: The hub refuses; with status 412 if `parent` is no longer the newest commit.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in added.items()),
        *(CommitOperationDelete(path_in_repo=name, is_folder=False) for name in removed),
    ]
    return str(api.create_commit(repo_id, operations, commit_message=message, parent_commit=parent).oid)


def _read_content(content: Path | bytes) -> bytes:
    if isinstance(content, bytes):
        return content
    with name_file(content, "read"):
        return content.read_bytes()
