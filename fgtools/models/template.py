"""A chat template that a model's folder brings: that it renders a request with a tool, and that rendering it ends.

Knows a tokenizer's template, a clock and the memory of this process; not rows. A chat template is a program of whoever
made the folder. Jinja's sandbox, in which transformers runs it, keeps it from files and from Python's internals, but
not from loops that never end, nor from texts that fill the memory. So a second thread watches every rendering, and
stops one that takes longer than any template needs; on Linux, the system refuses it more memory than any needs.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

from jinja2 import Environment
from transformers import PreTrainedTokenizerBase

from fgtools.models.errors import ModelError

RENDER_SECONDS = 10.0
"""How long one prompt may take to render; FunctionGemma's template takes about a millisecond."""

RENDER_BYTES = 2**29
"""How much memory the process may take on while one prompt is rendered."""

PROBE_CHARACTERS = 100_000
"""How long the prompt of one short request with one tool may be; FunctionGemma's has about 300 characters."""

_REMEDY = "put the chat_template.jinja of google/functiongemma-270m-it there"
_PROBE = [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}]
_PROBE_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}, "required": []}},
}

_MEMORY_FILE = "/proc/self/statm"
"""Where Linux says how many pages of memory this process has."""

_CHECK_SECONDS = 0.25
_ends: dict[int, float] = {}
_pause = threading.Event()  # never set
_lock = threading.Lock()
_watcher: threading.Thread | None = None
"""By the number of a thread that renders, the time at which it must have ended; what guards that; and who watches."""


class _EndlessError(Exception):
    """Raised inside of a rendering that takes too long."""


def render_within_limits(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    add_generation_prompt: bool = True,
) -> str:
    """Render messages with a tokenizer's chat template; stop it where it does not end or fills the memory.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: Messages as the template takes them.
        tools: Function schemas, or None.
        add_generation_prompt: Whether the text ends where the model is to write.

    Returns:
        The text.

    Raises:
        ModelError: Rendering took longer than RENDER_SECONDS, or asked for more than RENDER_BYTES.
        TemplateError: The template refuses the messages.
    """
    _start_watcher()
    with _limit_memory():
        try:
            with _limit_time():
                return tokenizer.apply_chat_template(
                    messages, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=False
                )
        except _EndlessError as error:
            with _lock:  # it may have been raised before the rendering was struck from the list
                _ends.pop(threading.get_ident(), None)
            raise ModelError(
                f"the chat template must render a prompt within {RENDER_SECONDS:g} seconds, but did not and was "
                f"stopped: a loop in it does not end; {_REMEDY}"
            ) from error
        except MemoryError:
            raise ModelError(
                f"the chat template must render a prompt in {RENDER_BYTES / 2**30:g} GiB of memory, but asked for more "
                f"and was stopped; {_REMEDY}"
            ) from None  # this machine has memory enough


@contextmanager
def _limit_time() -> Iterator[None]:
    """Let the watcher raise _EndlessError in this thread once RENDER_SECONDS are over."""
    thread = threading.get_ident()
    _ends[thread] = time.monotonic() + RENDER_SECONDS
    try:
        yield
    finally:
        with _lock:  # once it is free, the watcher has stopped this thread or will not
            del _ends[thread]


@contextmanager
def _limit_memory() -> Iterator[None]:
    """Let the operating system refuse this process more than RENDER_BYTES beside what it has.

    On Linux only, and in the main thread only: the limit is one of the whole process, and a program with more threads
    that render, such as a server, may need memory in another one at the same moment.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        yield
        return
    import resource

    before, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = _measure_memory() + RENDER_BYTES
    if before != resource.RLIM_INFINITY and before <= limit:  # a user's own limit is lower
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def _measure_memory() -> int:
    """Return the address space that this process has, in bytes; as fast as it can be known, in some microseconds."""
    file = os.open(_MEMORY_FILE, os.O_RDONLY)
    try:
        return int(os.read(file, 64).split()[0]) * mmap.PAGESIZE
    finally:
        os.close(file)


def _start_watcher() -> None:
    global _watcher
    if _watcher is None or not _watcher.is_alive():  # a forked process has no thread but its own
        with _lock:
            if _watcher is None or not _watcher.is_alive():
                _watcher = threading.Thread(target=_watch, name="chat templates", daemon=True)
                _watcher.start()


def _watch() -> None:
    while True:
        _pause.wait(_CHECK_SECONDS)
        if not _ends:
            continue
        with _lock:
            now = time.monotonic()
            for thread, end in list(_ends.items()):
                if now > end:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_EndlessError))


def check_template(tokenizer: PreTrainedTokenizerBase, file: str) -> None:
    """Check that a tokenizer's chat template renders a short request with a tool.

    Args:
        tokenizer: A tokenizer with a chat template.
        file: Where the template comes from, for messages.

    Raises:
        ModelError: The template cannot be read, refuses the request, does not end, fills the memory, writes far too
            much, or raises a number to a power.
    """
    try:
        _require_no_power(tokenizer.get_chat_template(tools=[_PROBE_TOOL]))
        text = render_within_limits(tokenizer, _PROBE, [_PROBE_TOOL])
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error
    except Exception as error:  # a template may raise whatever Python raises
        reason = shorten(str(error), 200, placeholder=" ...")
        line = getattr(error, "lineno", None)
        raise ModelError(
            f"{file} must hold a chat template that renders a request with a tool, but {type(error).__name__}: {reason}"
            + (f" (line {line})" if line else "")
            + f"; {_REMEDY}"
        ) from error
    if len(text) > PROBE_CHARACTERS:
        raise ModelError(
            f"{file} must render a short request with a tool in at most {PROBE_CHARACTERS:,} characters, but writes "
            f"{len(text):,}; {_REMEDY}"
        )


def _require_no_power(template: str) -> None:
    """Raise ModelError where a template raises to a power: `9 ** 9 ** 9` is one step, which nothing can interrupt."""
    before = ""
    for line, kind, text in Environment().lex(template):
        if (kind, text) == ("operator", "**") and before not in ("(", ","):  # there it hands on arguments by name
            raise ModelError(f"the chat template must not raise numbers to a power, but does in line {line}; {_REMEDY}")
        before = before if kind == "whitespace" else text
