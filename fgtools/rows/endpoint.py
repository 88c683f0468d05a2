"""One question to a language model behind an OpenAI-compatible address, with retries and errors that say what to do.

Knows HTTP and chat completions; not what is asked. The key comes from the environment and stands in no message.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fgtools.files import FgtoolsError, InputError

KEY_NAMES = ("FGTOOLS_API_KEY", "OPENAI_API_KEY")
"""Environment variables of the key, best first; without one no key is sent, as local servers want it."""

ATTEMPTS = 4
"""Tries of one question, when the server is busy or does not answer."""

SECONDS = 120
"""Longest wait for one answer."""

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_MAX_ANSWER = 5_000_000


class EndpointError(FgtoolsError, RuntimeError):
    """The endpoint gave no answer that can be used; the message names its address and the remedy."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key would go to another address."""

    def redirect_request(self, *given: Any) -> None:
        """Refuse."""
        return None


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address.

    Attributes:
        url: Address of the API, such as "http://localhost:8000/v1", or of its chat/completions.
        model: The model's name there.
        pause: Seconds before the second try; each further one waits twice as long.
    """

    url: str
    model: str
    pause: float = 2.0

    def __post_init__(self) -> None:
        """Check the address; raises InputError."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"an endpoint must be an address such as http://localhost:8000/v1, got {self.url[:60]!r}")
        if not self.model:
            raise InputError("an endpoint needs the name of a model: --model NAME")

    @property
    def shown(self) -> str:
        """The address without what may be secret in it."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the model's answer to a conversation.

        Args:
            messages: {"role", "content"} each.

        Returns:
            The text of the answer.

        Raises:
            EndpointError: There is no answer after ATTEMPTS tries, or it is none of a chat completion.
        """
        pause = self.pause
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._ask_once(messages)
            except urllib.error.HTTPError as error:
                said = f"HTTP {error.code} {error.reason}: {_hide_key(_read_text(error))[:200]}"
                if error.code not in _BUSY:
                    raise EndpointError(f"{self.shown} refused the question ({said}): {_remedy(error.code)}") from None
            except (OSError, TimeoutError) as error:  # URLError is an OSError
                said = _hide_key(str(getattr(error, "reason", error)))[:200]
            if attempt < ATTEMPTS:
                time.sleep(pause)
                pause *= 2
        raise EndpointError(f"{self.shown} gave no answer in {ATTEMPTS} tries ({said}): check address and server")

    def _ask_once(self, messages: Sequence[Mapping[str, str]]) -> str:
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/")
        path = path if path.endswith("/chat/completions") else f"{path}/chat/completions"
        headers = {"Content-Type": "application/json"}
        if key := _find_key():
            headers["Authorization"] = f"Bearer {key}"
        body = json.dumps({"model": self.model, "messages": [*messages]}).encode()
        request = urllib.request.Request(urlunsplit(parts._replace(path=path)), body, headers, method="POST")
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS) as answer:
            text = answer.read(_MAX_ANSWER).decode("utf-8", "replace")
        try:
            content = json.loads(text)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            shown = _hide_key(text)[:200]
            raise EndpointError(f"{self.shown} must answer with a chat completion, got {shown!r}") from None
        return content if isinstance(content, str) else ""


def _find_key() -> str:
    return next((os.environ[name].strip() for name in KEY_NAMES if os.environ.get(name, "").strip()), "")


def _hide_key(text: str) -> str:
    key = _find_key()
    return text.replace(key, "***") if key else text


def _read_text(error: urllib.error.HTTPError) -> str:
    try:
        with error:
            return error.read(10_000).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _remedy(code: int) -> str:
    if code in (401, 403):
        return f"set the key in the environment ({' or '.join(KEY_NAMES)})"
    if 300 <= code < 400:
        return "it sends to another address: give that one"
    return "check the address and the model's name"
