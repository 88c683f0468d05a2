"""The one place a Hugging Face token is looked for, and what the hub says of it.

Knows where tokens are kept: the environment, Kaggle's Secrets, Colab's secrets, and what `hf auth login` stored; not
what a token is for. It is handed to huggingface_hub alone, through the variable HF_TOKEN of this process and of those
that it starts: nothing is written to a disk, and a token is never printed, nor part of an error or of a run's file.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgtools.rows.hub_errors import is_offline
from fgtools.run.hub import UnansweredError, limit_silence
from fgtools.run.processes import LAUNCHED

NAMES = ("HUGGINGFACE_TOKEN", "HF_TOKEN")
"""The names under which a token is looked for, the first one first, in every place."""

_USED = "HF_TOKEN"
"""The variable that huggingface_hub reads."""

_SOURCE = "FGTOOLS_TOKEN_SOURCE"
"""Says, for later calls and other processes, where the token came from that `log_in` put into HF_TOKEN: a hash of it,
then the place. With another hash HF_TOKEN was set by somebody else since."""

_FORM = re.compile(r"[\x21-\x7e]+")
"""What can be a token: others cannot be sent, and the error of the library that tries would show them."""

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[^:]+\.gguf)?\Z")
"""What the hub calls a model, a data set, or a GGUF file of a model."""

REMEDY = f"set the secret {NAMES[0]} (or {NAMES[1]})"


@dataclass(frozen=True)
class Token:
    """A token, and where it was found.

    Attributes:
        value: The token, which is not part of the repr; "" where none was found.
        source: The place, for people; where none was found, the places that were searched.
    """

    value: str = field(repr=False)
    source: str


@dataclass(frozen=True)
class Login:
    """How the login went.

    Attributes:
        logged_in: Whether the hub accepted a token.
        message: What that means, for people.
        user: The account's name; "" where it is not known.
    """

    logged_in: bool
    message: str
    user: str = ""


def find_token() -> Token:
    """Look for a token: in the environment, Kaggle's Secrets, Colab's secrets, then where `hf auth login` stores it.

    Returns:
        The first Token found; one with an empty value, and a source that says what was searched, if there is none.
    """
    kept = _read_source()  # the place that HF_TOKEN was filled from may hold a newer one
    searched = [_search_environment([name for name in NAMES if not (kept and name == _USED)])]
    if not searched[0].value:
        searched += [_search_kaggle(), _search_colab()]
    if found := next((token for token in searched if token.value), None):
        return found
    if kept:
        return Token(os.environ[_USED].strip(), kept)
    from huggingface_hub import get_token

    if value := (get_token() or "").strip():
        return Token(value, "the login that `hf auth login` stored")
    return Token("", "; ".join(filter(None, [token.source for token in searched])))


def log_in() -> Login:
    """Log in to the Hugging Face hub if a token can be found, and ask the hub whose it is.

    What was found is put into the variable HF_TOKEN, which every library reads first: so the token that is named in the
    message is the one that is used. A token that the hub refuses is taken out of it again, since public models cannot
    be loaded with it.

    Returns:
        The Login; a missing or refused token is no error.
    """
    token = find_token()
    if not token.value:
        return Login(
            False,
            f"no login: {token.source}. Public models and data work; gated models of the hub and publishing need a "
            f"token: {REMEDY}.",
        )
    previous = os.environ.get(_USED, "").strip()
    other = ""
    if previous not in ("", token.value) and not _read_source():
        other = f"; {_USED} holds another token, which is not used"
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        with limit_silence():
            account = HfApi(token=token.value).whoami()
    except (OSError, ValueError, HTTPError) as error:  # its text may quote the token
        reason = _describe_error(error)
        if getattr(getattr(error, "response", None), "status_code", 0) == 401:
            if previous == token.value:
                del os.environ[_USED]
            return Login(False, f"no login: the hub refuses the token from {token.source} (401). Going on without.")
        _use(token)
        return Login(False, f"the token from {token.source} is used, but the hub could not be asked ({reason}){other}")
    _use(token)
    user = str(account.get("name", ""))
    may = ". It may read only: publishing needs one that may write" if _find_role(account) == "read" else ""
    return Login(
        True, f"logged in to the Hugging Face hub as {user!r} with the token from {token.source}{other}{may}", user
    )


def log_in_for(*names: str) -> None:
    """Log in where a command takes something from the hub, and say on standard error how that went.

    Args:
        names: Models and data sets of the command. One that is a path here, or has no hub's form, needs no login.
    """
    needs_hub = any(_HUB_NAME.match(name) and not Path(name).exists() for name in names)
    started_alone = LAUNCHED not in os.environ  # processes that were started together have the token of the first
    if needs_hub and started_alone and not is_offline():
        print(log_in().message, file=sys.stderr, flush=True)


def _use(token: Token) -> None:
    if os.environ.get(_USED, "").strip() != token.value:
        os.environ |= {_USED: token.value, _SOURCE: f"{_hash(token.value)} {token.source}"}


def _read_source() -> str:
    """Return where the token in HF_TOKEN came from, if `log_in` put it there; else ""."""
    known, _, source = os.environ.get(_SOURCE, "").partition(" ")
    return source if known == _hash(os.environ.get(_USED, "").strip()) else ""


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", errors="replace")).hexdigest()[:16]


def _describe_error(error: Exception) -> str:
    """Return the kind of an error, and its HTTP status where it has one; its text may quote the token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "the variable HF_HUB_OFFLINE forbids it"
    name = type(error.__cause__ if isinstance(error, UnansweredError) else error).__name__
    return f"{name} {status}" if status else name


def _find_role(account: dict) -> str:
    """Return what a token may do: "read", "write" or "fineGrained"; "" where the hub does not say."""
    return str(((account.get("auth") or {}).get("accessToken") or {}).get("role", ""))


def _search_environment(names: Sequence[str]) -> Token:
    return _search(lambda name: os.environ.get(name, ""), names, "the environment")


def _search_kaggle() -> Token:
    try:
        from kaggle_secrets import UserSecretsClient
    except ImportError:
        return Token("", "")
    return _search(lambda name: UserSecretsClient().get_secret(name), NAMES, "Kaggle's Secrets")


def _search_colab() -> Token:
    # Colab's kernel has loaded google.colab; elsewhere, and in a notebook that papermill runs, its secrets never come
    if "google.colab" not in sys.modules or os.environ.get("FGTOOLS_BATCH"):
        return Token("", "")
    try:
        from google.colab import userdata
    except ImportError:
        return Token("", "")
    return _search(userdata.get, NAMES, "Colab's secrets")


def _search(get_secret: Callable[[str], str | None], names: Sequence[str], place: str) -> Token:
    """Ask a place for each name; where it gives no token, `source` says how it answered."""
    answers = []
    for name in names:
        try:
            value = (get_secret(name) or "").strip()
        except Exception as error:  # each service has its own errors, whose text may quote a secret
            answers.append(f"{name} ({type(error).__name__})")
            continue
        if _FORM.fullmatch(value):
            return Token(value, f"{place} ({name})")
        answers.append(f"{name} (holds what cannot be a token)" if value else name)
    return Token("", f"{place} gave no {' or '.join(answers)}")
