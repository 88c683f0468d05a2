"""Why the Hugging Face hub gave no data set or model: its clients' errors in one sentence, with what helps.

Knows the errors of huggingface_hub, datasets and their HTTP clients by the names of their classes; asks no hub. A login
is named as a remedy only where a token can help. The text of an error is not quoted: it may hold a token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

_UNREACHABLE = {
    *("ConnectError", "ConnectTimeout", "ProxyError", "SSLError", "gaierror", "ConnectionError", "TransportError"),
    *("TimeoutError", "Timeout", "LocalEntryNotFoundError"),
}
_MISSING = {"RepositoryNotFoundError", "DatasetNotFoundError"}
_NAMELESS = {"HFValidationError"}


def explain_hub_error(error: BaseException, name: str, kind: str = "model") -> str:
    """Return why the hub did not give something, and what to do.

    Args:
        error: The error of a client; those that it was raised from are looked at too.
        name: What was asked for, owner/name.
        kind: What it is: "model" or "data set".

    Returns:
        A sentence without a full stop at the end.
    """
    chain = list(_list_causes(error))
    names = {base.__name__ for one in chain for base in type(one).__mro__}
    page = f"https://huggingface.co/{'datasets/' if kind == 'data set' else ''}{name}"
    local = f"or give the path of a local {'file or folder' if kind == 'data set' else 'folder'}"
    text = " ".join(str(one) for one in chain)
    if "OfflineModeIsEnabled" in names or (names & _UNREACHABLE and is_offline()):
        return (
            f"the {kind} {name!r} is not in this machine's cache, and the variable HF_HUB_OFFLINE forbids to ask the "
            f"hub: unset it, {local}"
        )
    if "GatedRepoError" in names or "gated" in text.lower():
        return (
            f"the hub gives the {kind} {name!r} only to those who accepted its terms: accept them at {page}, and set "
            f"HUGGINGFACE_TOKEN to a token of that account, {local}"
        )
    if "RevisionNotFoundError" in names:
        return f"the {kind} {name!r} of the hub has no such revision: see the names of its branches and tags at {page}"
    if names & _MISSING:
        return (
            f"the hub has no {kind} {name!r} that may be read here: check the spelling; if it is private, set "
            "HUGGINGFACE_TOKEN to a token that may read it"
        )
    if names & _NAMELESS:
        return f"{name!r} can be no name on the hub: give owner/name, {local}"
    if any(getattr(getattr(one, "response", None), "status_code", 0) == 401 for one in chain):
        return (
            f"the hub refuses the token it was sent for the {kind} {name!r} (401): renew HUGGINGFACE_TOKEN, or remove "
            "it where the repository is public"
        )
    if names & _UNREACHABLE:
        return (
            f"the hub cannot be reached for the {kind} {name!r}: check the internet connection (on Kaggle switch "
            f"Internet on in the notebook's settings), {local}"
        )
    return f"the hub could not give the {kind} {name!r} ({type(error).__name__}): check its name, {local}"


def is_offline() -> bool:
    """Return whether a variable of the environment forbids requests to the hub."""
    values = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"))
    return any(value.upper() in ("1", "ON", "YES", "TRUE") for value in values)


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those it was raised from, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
