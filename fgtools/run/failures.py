"""Why a service did not take an upload: its errors, told apart, each in one sentence with its remedy.

Knows the errors of HTTP clients (httpx, requests), of huggingface_hub, kagglehub and the operating system by what they
carry: a status, an errno, the names of their classes. Does not know what was to be uploaded. What a service answered is
quoted, but for tokens.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MAX_QUOTED = 300
"""Longest quotation of a service's answer, in characters."""

RETRIED = frozenset({"cut", "unreachable", "unreadable", "408", "425", "429", "5xx"})
"""Kinds of failures after which the same request may well succeed. A service that fell silent is not among them: it has
been waited for."""

MAX_WAIT = 120.0
"""Longest wait that a service may ask for, in seconds; where it asks for more, the user is told instead."""

_STATUS_OF_XET = re.compile(r"HTTP status (?:client|server) error \((\d{3}) ")
"""How hf_xet's errors, which carry no status, tell it in their text."""

_TOKEN = re.compile(r"(hf|api_org|KGAT)_\w+|\beyJ[\w.-]+|(?i:bearer)\s+\S+")
"""What tokens of the hub, of Kaggle and of logins look like."""


@dataclass(frozen=True)
class Service:
    """Where an upload goes, in the words of its failures.

    Attributes:
        name: Its name.
        token: The token or key, and where it comes from.
        renew: How a new one is made, and what it must be allowed to do.
        status: Where the service says how it is; "" if nowhere.
    """

    name: str
    token: str
    renew: str
    status: str = ""


@dataclass(frozen=True)
class Failure:
    """Why an upload failed.

    Attributes:
        kind: An HTTP status such as "401", "5xx", "cut", "silent", "unreachable", "unreadable", "offline",
            "disk full", "file" or "other".
        detail: What the service or the operating system said, tokens removed; "" for nothing.
        wait: Seconds that the service asks to wait; 0 where it does not say.
    """

    kind: str
    detail: str = ""
    wait: float = 0.0

    @property
    def is_passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.kind in RETRIED and self.wait <= MAX_WAIT


def classify_error(error: BaseException, secret: str = "") -> Failure:
    """Return what kind of failure an error is.

    Args:
        error: The error of a client; the errors that it was raised from are looked at too.
        secret: The token that was sent, which is not quoted, whatever it looks like.
    """
    chain = list(list_causes(error))
    for one in chain:
        status = _find_status(one)
        if status:
            kind = "5xx" if 500 <= status < 600 else str(status)
            return Failure(kind, _quote(_find_answer(one), secret), _find_wait(one))
    for one in chain:
        kind = _classify_by_class(one)
        if kind:
            return Failure(kind, _quote(_describe_plainly(one), secret))
    return Failure("other", _quote(f"{type(error).__name__}: {error}", secret))


def render_failure(failure: Failure, service: Service, place: str) -> str:
    """Return the sentence for people: what happened, and what helps.

    Args:
        failure: What classify_error returned.
        service: The service.
        place: What was to be written, such as "you/model".

    Returns:
        One or two sentences, without a full stop at the end.
    """
    sentence = _SENTENCES.get(failure.kind)
    if sentence is None:
        sentence = _SENTENCES["4xx" if re.fullmatch("4..", failure.kind) else "other"]
    wait = f"wait {failure.wait:.0f} s" if failure.wait else "wait some minutes"
    status = f"; {service.status} tells how it is" if service.status else ""
    words = {"kind": failure.kind, "name": service.name, "token": service.token, "renew": service.renew}
    text = sentence.format(**words, place=repr(place), wait=wait, status=status)
    if not failure.detail or failure.kind not in _QUOTED:
        return text
    return f"{text} ({failure.detail})" if failure.kind.isalpha() else f"{text}. It said: {failure.detail}"


_SENTENCES: Mapping[str, str] = {
    "400": "{name} refuses what was sent for {place} (400): correct the card or the name",
    "401": "{name} does not accept {token} (401): {renew}",
    "402": "{name} wants to be paid for {place} (402): make it public, free some storage, or choose another owner",
    "403": "{token} may not write to {place} (403): {renew}, or choose an owner that is yours",
    "404": (
        "{name} has no {place} that {token} may see (404): check the spelling; its owner must be your user name or an "
        "organization that you may write in"
    ),
    "409": "{place} is being made or changed by somebody else at this moment (409): wait a little and run this again",
    "412": (
        "{place} was changed by somebody else since it was compared (412): run this again, and look at what would be "
        "replaced now"
    ),
    "413": "{name} takes no files as large as these (413): check the sizes in the table",
    "429": "{name} has had too many requests from this account (429): {wait} and run this again",
    "4xx": "{name} refuses the upload to {place} ({kind}): what it said is all there is to know",
    "5xx": "{name} has a fault of its own: wait some minutes and run this again{status}",
    "408": "{name} waited too long for what was sent (408): check the connection and run this again",
    "425": "{name} was asked too early (425): wait a little and run this again",
    "cut": (
        "the connection to {name} was cut during the work on {place}: check the internet connection and run this "
        "again; large files that have arrived are not sent again"
    ),
    "silent": (
        "{name} stopped answering during the work on {place}, and the connection was cut: check the internet "
        "connection, wait some minutes and run this again; large files that have arrived are not sent again{status}"
    ),
    "unreachable": (
        "{name} cannot be reached: check the internet connection; on Kaggle, switch Internet on in the notebook's "
        "settings"
    ),
    "unreadable": (
        "{name} gave an answer that cannot be read, as with a fault of its own or a proxy on the way: wait some "
        "minutes and run this again{status}"
    ),
    "offline": "the variable HF_HUB_OFFLINE forbids every request to {name}: unset it and restart",
    "disk full": "this machine's disk is full: free some space and run this again",
    "file": "a file cannot be read or written: check that it is there and its permissions",
    "other": "the upload to {place} failed in a way that is not known here",
}
"""What is said of each kind of failure; 4xx stands for every other status from 400 to 499."""

_QUOTED = {"400", "402", "403", "404", "409", "413", "4xx", "5xx", "cut", "disk full", "file", "other"} | {
    str(status) for status in range(405, 500) if status not in (408, 412, 425, 429)
}
"""Kinds of failures whose detail tells more than the sentence."""


def list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those it was raised from, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _find_status(error: BaseException) -> int:
    """Return the HTTP status that an error carries; 0 for none."""
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "error_code", None)
    if isinstance(status, int) and status >= 400:
        return status
    told = _STATUS_OF_XET.search(str(error))
    return int(told[1]) if told else 0


def _find_answer(error: BaseException) -> str:
    """Return what the service said: huggingface_hub keeps it apart from its own advice."""
    if hasattr(error, "server_message"):
        return str(error.server_message or "")
    return str(error)


def _find_wait(error: BaseException) -> float:
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = str(headers.get("Retry-After", "")).strip()
    return float(asked) if asked.isdigit() else 0.0


def _classify_by_class(error: BaseException) -> str:
    """Return the kind of an error without a status; "" if neither its errno nor its classes tell it.

    httpx, httpx2 and requests have errors of the same names for the same events.
    """
    names = {base.__name__ for base in type(error).__mro__}
    if "OfflineModeIsEnabled" in names:
        return "offline"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk full"
    if names & {"JSONDecodeError"}:
        return "unreadable"
    if names & {"ConnectError", "ConnectTimeout", "ProxyError", "SSLError", "gaierror", "ConnectionRefusedError"}:
        return "unreachable"
    if names & {"ReadTimeout", "WriteTimeout"}:
        return "silent"
    if names & {"TransportError", "ConnectionError", "TimeoutError", "Timeout", "ChunkedEncodingError"}:
        return "cut"
    return "file" if isinstance(error, OSError) and error.errno is not None else ""


def _describe_plainly(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _quote(text: str, secret: str) -> str:
    """Return a text on one line, without tokens, cut to MAX_QUOTED characters."""
    if secret:
        text = text.replace(secret, "<token>")
    line = " ".join(_TOKEN.sub("<token>", text).split())
    return line if len(line) <= MAX_QUOTED else f"{line[:MAX_QUOTED]} ..."
