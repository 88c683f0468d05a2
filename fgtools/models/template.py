"""A chat template that a model's folder brings: that it renders a request with a tool, and that rendering it ends.

Knows a tokenizer's template and a clock; not rows. A chat template is a program of whoever made the folder. Jinja's
sandbox, in which transformers runs it, keeps it from files and from Python's internals, but not from loops that never
end. So a second thread watches every rendering, and stops one that takes longer than any template needs.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from transformers import PreTrainedTokenizerBase

from fgtools.models.errors import ModelError

RENDER_SECONDS = 10.0
"""How long one prompt may take to render; FunctionGemma's template takes about a millisecond."""

PROBE_CHARACTERS = 100_000
"""How long the prompt of one short request with one tool may be; FunctionGemma's has about 300 characters."""

_REMEDY = "put the chat_template.jinja of google/functiongemma-270m-it there"
_PROBE = [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}]
_PROBE_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}, "required": []}},
}

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
    """Render messages with a tokenizer's chat template; stop it where it does not end.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: Messages as the template takes them.
        tools: Function schemas, or None.
        add_generation_prompt: Whether the text ends where the model is to write.

    Returns:
        The text.

    Raises:
        ModelError: Rendering took longer than RENDER_SECONDS.
        TemplateError: The template refuses the messages.
    """
    _start_watcher()
    thread = threading.get_ident()
    try:
        _ends[thread] = time.monotonic() + RENDER_SECONDS
        try:
            return tokenizer.apply_chat_template(
                messages, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=False
            )
        finally:
            with _lock:  # once it is free, the watcher has stopped this thread or will not
                del _ends[thread]
    except _EndlessError as error:
        raise ModelError(
            f"the chat template must render a prompt within {RENDER_SECONDS:g} seconds, but did not and was stopped: "
            f"a loop in it does not end; {_REMEDY}"
        ) from error


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
        ModelError: The template cannot be read, refuses the request, does not end or writes far too much.
    """
    try:
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
