"""llama.cpp's server over a GGUF file, in a process of its own, and the two requests that measuring a file needs.

Knows the package xllamacpp, which holds llama.cpp ready built, and HTTP; not prompts or scores. The server stands in
another process, so that one that fails takes nothing with it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fgtools.files import FgtoolsError, InputError

LOAD_SECONDS = 600
"""How long a server may take to load a model."""

REPLY_SECONDS = 1800
"""How long one reply may take."""

_SERVE = """
import json, sys, xllamacpp
options = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.port = options["file"], options["n_ctx"], options["port"]
params.force_pure_content_parser = True  # llama-server's --skip-chat-parsing
params.n_parallel, params.warmup, params.ui, params.verbosity = 1, False, False, 1
if options["threads"]:
    params.cpuparams.n_threads = options["threads"]
server = xllamacpp.Server(params)
print("listening", server.listening_address, flush=True)
sys.stdin.read()
"""
"""What the other process runs: replies are passed on as text, as the parser that llama.cpp makes of the chat template
expects JSON in a call and refuses others with status 500. It ends when its standard input is closed, at the latest when
this process ends."""


class LlamaError(FgtoolsError, RuntimeError):
    """llama.cpp's server did not start, died or refused a request; the message holds what it said last."""


@dataclass(frozen=True)
class Completion:
    """A reply of the server.

    Attributes:
        text: The reply, without the token that ended it.
        tokens: Its length, in tokens.
        ended: Whether the model ended it, and not the budget.
    """

    text: str
    tokens: int
    ended: bool


class LlamaServer:
    """A running server; a context manager that stops it.

    Attributes:
        address: Its address, such as "http://127.0.0.1:40711"; an OpenAI client uses it with "/v1".
    """

    def __init__(self, file: str | Path, n_ctx: int = 0, port: int = 0) -> None:
        """Start a server and wait until it has loaded the model.

        Args:
            file: A GGUF file.
            n_ctx: Most tokens of a prompt and its reply; 0: as many as the model can.
            port: The port to listen on; 0: one that is free.

        Raises:
            InputError: The file does not exist, or xllamacpp is not installed.
            LlamaError: The server does not start, such as on a port in use.
        """
        if not Path(file).is_file():
            raise InputError(f"llama.cpp must be given an existing GGUF file, got {str(file)!r}: check the path")
        llama_version()  # before a process is started for nothing
        threads = os.environ.get("OMP_NUM_THREADS", "")
        options = {"file": str(file), "n_ctx": n_ctx, "port": port, "threads": int(threads) if threads.isdigit() else 0}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        timer = threading.Timer(LOAD_SECONDS, self._process.kill)
        timer.start()
        try:
            self.address = self._read_address()
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a local address has no proxy

    def __enter__(self) -> LlamaServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server."""
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def tokenize(self, text: str) -> list[int]:
        """Return the ids that llama.cpp splits a text into, control tokens read as such, no <bos> added."""
        return self._post("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]

    def complete(self, prompt: Sequence[int], max_new_tokens: int) -> Completion:
        """Return the greedy reply to a prompt.

        Args:
            prompt: Token ids.
            max_new_tokens: Budget of the reply, in tokens.

        Raises:
            LlamaError: The server died or refused the request.
        """
        body = {"prompt": list(prompt), "n_predict": max_new_tokens, "temperature": 0, "cache_prompt": False}
        answer = self._post("/completion", body)
        return Completion(answer["content"], answer["tokens_predicted"], answer["stop_type"] != "limit")

    def _read_address(self) -> str:
        for line in self._process.stdout:
            if line.startswith("listening "):
                return line.split()[1]
        self._process.wait()
        raise LlamaError(self._describe("llama.cpp's server must start, but ended"))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with self._opener.open(request, timeout=REPLY_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")[:300]
            raise LlamaError(f"llama.cpp's server must answer {path}, but says {error.code}: {said}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it may be about to end
                self._process.wait(2)
            raise LlamaError(self._describe(f"llama.cpp's server must answer {path}, but {error}")) from error

    def _describe(self, what: str) -> str:
        """Return an error's text with the server's exit status and the last lines it wrote."""
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        status = self._process.poll()
        state = "still runs" if status is None else f"exit status {status}"
        remedy = "is the port free, the file whole, the memory enough?"
        return f"{what} ({state}): {' | '.join(lines[-4:]) or 'it wrote nothing'}: {remedy}"


def llama_version() -> str:
    """Return the version of the package that holds llama.cpp; raises InputError where it is not installed."""
    try:
        return f"xllamacpp {metadata.version('xllamacpp')}"
    except metadata.PackageNotFoundError as error:
        raise InputError(
            "GGUF files are run by the package xllamacpp, which is not installed: pip install 'fgtools[gguf]'"
        ) from error
