"""Publishing on the Hugging Face hub: compared with what is there, then one commit.

Knows the order of the requests and what must hold before one that changes something; what an upload means for the files
that are there is `publish_plan.plan_changes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fgtools.run.failures import Service
from fgtools.run.hub import Repository, commit_files, limit_silence, read_repository
from fgtools.run.login import REMEDY, Token, find_token
from fgtools.run.publish_plan import PublishPlan, plan_changes
from fgtools.run.uploads import PublishError, report_progress, try_repeatedly

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MESSAGE = "Add the tuned model"
"""The commit's first line."""


def plan_for_hub(plan: PublishPlan, contents: Mapping[str, Path | bytes], private: bool) -> PublishPlan:
    """Return what an upload would mean for the repository; where the hub cannot say, a note tells why."""
    token = find_token()
    api = _open_client(token)
    try:
        repository = try_repeatedly(
            lambda: read_repository(api, plan.repo_id), _list_errors(), _name_hub(token), plan.repo_id, token.value, ()
        )
    except PublishError as error:
        return replace(plan, notes=(*plan.notes, f"not compared with what is there: {error}"))
    compared = _compare(plan, contents, repository, private)
    leave = ("publishing needs REPLACE = True (--replace): files that are there are replaced or removed",)
    return replace(compared, notes=(*compared.notes, *leave)) if compared.overwrites else compared


def upload_to_hub(
    plan: PublishPlan, contents: Mapping[str, Path | bytes], private: bool, replace_files: bool
) -> PublishPlan:
    """Upload in one commit.

    Args:
        plan: The plan, with its repository.
        contents: What is uploaded, by name.
        private: Whether the model is to be private.
        replace_files: Whether files that are there may be replaced or removed.

    Returns:
        The plan that was carried out.

    Raises:
        PublishError: There is no token, the repository's visibility or files forbid it, or the hub refuses.
    """
    token = find_token()
    if not token.value:
        raise PublishError(f"publishing needs a token that may write, but {token.source}: {REMEDY}")
    api = _open_client(token)
    first: list[PublishPlan] = []
    made: list[str] = []

    @limit_silence()
    def attempt() -> None:
        repository = read_repository(api, plan.repo_id)
        compared = _compare(plan, contents, repository, private)
        first.append(compared)
        _require_leave(compared, repository, private, replace_files)
        if repository is None:
            made.append(api.create_repo(plan.repo_id, private=private).url)
            repository = read_repository(api, plan.repo_id)
        by_change = {file.name: file.change for file in compared.files}
        added = {name: content for name, content in contents.items() if by_change[name] in ("added", "replaced")}
        removed = [name for name, change in by_change.items() if change == "removed"]
        if not added and not removed:
            return
        with report_progress(f"uploading {len(added)} files, {compared.size / 1e6:,.1f} MB, to {plan.repo_id}"):
            commit_files(api, plan.repo_id, added, removed, repository.commit if repository else None, MESSAGE)

    try:
        try_repeatedly(attempt, _list_errors(), _name_hub(token), plan.repo_id, token.value)
    except PublishError as error:
        if not made:
            raise
        raise PublishError(f"{error}. The repository {made[0]} was made and is empty: the next run fills it") from None
    done = first[0]
    notes = done.notes if done.size or done.overwrites else (*done.notes, "all files were there already")
    return replace(done, notes=notes, uploaded=True, url=f"{api.endpoint}/{plan.repo_id}")


def _compare(
    plan: PublishPlan, contents: Mapping[str, Path | bytes], repository: Repository | None, private: bool
) -> PublishPlan:
    """Return the plan with what it means for the files that are there, and with a note on who will see them."""
    files = plan_changes(contents, repository).files
    if repository is None:
        note = f"the repository is new and will be {_name_visibility(private)}"
    elif repository.private == private:
        note = f"the repository is there, and it is {_name_visibility(private)}"
    elif repository.private:
        note = "the repository is there and stays private: PRIVATE = False makes none public that is there"
    else:
        note = _explain_public(plan.repo_id)
    return replace(plan, files=files, notes=(*plan.notes, note))


def _require_leave(plan: PublishPlan, repository: Repository | None, private: bool, replace_files: bool) -> None:
    """Raise PublishError where what is there forbids the upload."""
    if repository and private and not repository.private:
        raise PublishError(_explain_public(plan.repo_id))
    if plan.overwrites and not replace_files:
        names = {
            change: [file.name for file in plan.files if file.change == change] for change in ("replaced", "removed")
        }
        what = "; ".join(f"{change}: {', '.join(files)}" for change, files in names.items() if files)
        raise PublishError(
            f"{plan.repo_id!r} holds files that would be replaced or removed ({what}): look at the table, then set "
            "REPLACE = True (--replace), or choose another REPO_ID"
        )


def _explain_public(repo_id: str) -> str:
    return (
        f"{repo_id!r} is public, but PRIVATE is True: set PRIVATE = False (--no-private) to publish there for "
        "everybody, make it private in its settings on the hub, or choose another REPO_ID"
    )


def _name_visibility(private: bool) -> str:
    return "private" if private else "public"


def _open_client(token: Token) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token.value or False)


def _list_errors() -> tuple[type[Exception], ...]:
    """Return what huggingface_hub raises: its own errors, those of httpx, and RuntimeError where an upload is cut."""
    from huggingface_hub.errors import HTTPError

    return (HTTPError, OSError, ValueError, RuntimeError)


def _name_hub(token: Token) -> Service:
    held = f"the token from {token.source}" if token.value else "a request without a token"
    return Service(
        name="the Hugging Face hub",
        token=held,
        renew=f"make one with the role 'write' at https://huggingface.co/settings/tokens and {REMEDY}",
        status="https://status.huggingface.co",
    )
