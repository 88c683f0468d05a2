"""Publishing: what would be uploaded, and the upload itself.

Knows the model folder, the card and the hub client; a dry run never touches the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fgtools.files import FgtoolsError, write_text

REQUIRED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
"""What plain transformers needs to load a published folder."""


class PublishError(FgtoolsError, ValueError):
    """The model cannot be published as asked; the message says what to do."""


@dataclass(frozen=True)
class PlannedFile:
    """A file of an upload: its name in the repository and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class PublishPlan:
    """What a publication uploads.

    Attributes:
        repo_id: The hub repository, such as "you/functiongemma-my-tools"; "" while none is chosen.
        files: The files, in the order of their names.
        uploaded: Whether they were uploaded; False after a dry run.
        url: Where the model lies; "" after a dry run.
    """

    repo_id: str
    files: tuple[PlannedFile, ...]
    uploaded: bool
    url: str

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


def publish_model(
    folder: str | Path, card: str, repo_id: str = "", dry_run: bool = True, private: bool = True
) -> PublishPlan:
    """Publish a tuned folder with its card on the Hugging Face hub, or say what would be published.

    Args:
        folder: The tuned model, as `train` saved it.
        card: Text of README.md, the model card.
        repo_id: "owner/name"; may be empty in a dry run.
        dry_run: Whether only to list the files: nothing is written or uploaded.
        private: Whether a repository that does not exist yet is made private.

    Returns:
        The PublishPlan.

    Raises:
        PublishError: The folder is incomplete, holds the stand-in, repo_id is malformed, or the hub refuses.
    """
    folder = Path(folder)
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        raise PublishError(
            f"the folder {folder.name!r} must hold {', '.join(REQUIRED)}, but lacks {', '.join(missing)}"
        )
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    sizes["README.md"] = len(card.encode())
    files = tuple(PlannedFile(name, sizes[name]) for name in sorted(sizes))
    if dry_run:
        return PublishPlan(repo_id, files, uploaded=False, url="")
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise PublishError(f"REPO_ID must be 'owner/name', got {repo_id!r}")
    if sizes["model.safetensors"] < 100_000_000:
        raise PublishError(
            "the offline stand-in is a toy and is not published: train FunctionGemma itself (PROFILE 'kaggle')"
        )
    write_text(folder / "README.md", card)
    return PublishPlan(repo_id, files, uploaded=True, url=_upload(folder, repo_id, private))


def _upload(folder: Path, repo_id: str, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Add the tuned model")
    except (HTTPError, LocalTokenNotFoundError, OSError) as error:
        raise PublishError(
            f"the hub refused {repo_id!r} ({type(error).__name__}): check that HUGGINGFACE_TOKEN may write there and "
            "that the notebook's internet is on; the model folder is untouched"
        ) from error
    return str(url)
