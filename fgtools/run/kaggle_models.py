"""Publishing on Kaggle Models, through kagglehub.

Knows kagglehub's call and its errors. kagglehub uploads one folder, so the files are gathered in a temporary one, as
links: a read-only input is neither written nor copied.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fgtools.files import name_file
from fgtools.run.failures import Service
from fgtools.run.publish_plan import PublishPlan
from fgtools.run.uploads import report_progress, try_repeatedly

LICENCE = "Gemma"
"""Kaggle's name of the licence that a tuned Gemma model has to carry."""

VERSION_NOTES = "The tuned model, its card and its scores"

KAGGLE = Service(
    name="Kaggle",
    token="the Kaggle account or its API key",
    renew=(
        "outside Kaggle put a new API token into the variable KAGGLE_API_TOKEN (https://www.kaggle.com/settings); the "
        "owner must be you or an organization of yours"
    ),
)
"""Kaggle in the words of its failures."""


def plan_for_kaggle(plan: PublishPlan, private: bool) -> PublishPlan:
    """Return the plan with what Kaggle does; it is not asked what is there: each upload is a version of its own."""
    notes = [*plan.notes, "Kaggle keeps every upload as a version of its own: nothing that is there is replaced"]
    if private:
        notes.append("a new model is private on Kaggle; one that is there keeps its visibility, which is not looked up")
    else:
        notes.append("a new model is private on Kaggle whatever PRIVATE says: make it public on its page")
    return replace(plan, notes=tuple(notes))


def upload_to_kaggle(plan: PublishPlan, contents: Mapping[str, Path | bytes]) -> PublishPlan:
    """Upload a model, or a new version of it, to Kaggle Models.

    Args:
        plan: The plan; its repo_id is "owner/model/framework/variation".
        contents: What is uploaded, by name.

    Returns:
        The plan, carried out.

    Raises:
        PublishError: Kaggle refuses.
        FileError: The temporary folder cannot be filled.
    """
    import kagglehub
    from kagglehub import exceptions

    errors = (exceptions.BackendError, exceptions.CredentialError, exceptions.UnauthenticatedError)
    secret = os.environ.get("KAGGLE_API_TOKEN") or os.environ.get("KAGGLE_KEY", "")
    with tempfile.TemporaryDirectory() as scratch:
        folder = stage_files(contents, Path(scratch) / "model")

        def attempt() -> None:
            with report_progress(f"uploading {len(contents)} files, {plan.size / 1e6:,.1f} MB, to {plan.repo_id}"):
                kagglehub.model_upload(plan.repo_id, str(folder), license_name=LICENCE, version_notes=VERSION_NOTES)

        try_repeatedly(attempt, (*errors, OSError, ValueError, RuntimeError), KAGGLE, plan.repo_id, secret)
    owner, model, framework, variation = plan.repo_id.split("/")
    url = f"https://www.kaggle.com/models/{owner}/{model}/{framework}/{variation}"
    return replace(plan, uploaded=True, url=url)


def stage_files(contents: Mapping[str, Path | bytes], folder: Path) -> Path:
    """Gather files in a folder: links to them where the system allows it, else copies; bytes are written.

    Raises:
        FileError: The folder cannot be written, such as on a full disk.
    """
    for name, content in contents.items():
        path = folder / name
        with name_file(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
                continue
            try:
                os.symlink(content.resolve(), path)
            except OSError:  # a system without links
                shutil.copyfile(content, path)
    return folder
