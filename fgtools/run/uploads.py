"""Uploads to a service: tried again where a failure passes, with a line now and then while they last.

Knows waits and how an upload is watched; not which service it is or what is sent. An error that leaves this module is a
PublishError that stands alone: the client's own error, whose text and frames may hold a token, is not chained to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fgtools.files import FgtoolsError, is_watched
from fgtools.run.failures import Service, classify_error, render_failure
from fgtools.run.hub import UnansweredError

WAITS = (2.0, 8.0, 30.0)
"""Seconds before the second, third and fourth try; longer where the service asks for it."""

REPORT_EVERY = 30.0
"""Seconds between two lines that say an upload goes on, where nobody watches progress bars."""

Result = TypeVar("Result")


class PublishError(FgtoolsError, ValueError):
    """The model cannot be published as asked; the message says what to do."""


def try_repeatedly(
    attempt: Callable[[], Result],
    errors: tuple[type[Exception], ...],
    service: Service,
    place: str,
    secret: str = "",
    waits: tuple[float, ...] = WAITS,
) -> Result:
    """Call a function, and call it again after a wait where it fails in a way that passes.

    Args:
        attempt: What to do. It must look anew at what is there each time: an upload may arrive whose answer is lost.
        errors: What the service's client raises.
        service: The service that it speaks to.
        place: What it writes, such as "you/model".
        secret: The token that it sends, which no message may hold.
        waits: Seconds before the second try, the third, and so on; () for one try.

    Returns:
        What the function returned.

    Raises:
        PublishError: It failed for good, or once more than there are waits.
        FgtoolsError: The function raised it; it is not tried again.
    """
    for tries, wait in enumerate((*waits, None), start=1):
        try:
            return attempt()
        except UnansweredError as error:
            failure = classify_error(error, secret)
        except FgtoolsError:
            raise
        except errors as error:
            failure = classify_error(error, secret)
        if wait is None or not failure.is_passing:
            tried = f" (tried {tries} times)" if tries > 1 else ""
            raise PublishError(render_failure(failure, service, place) + tried)
        seconds = max(wait, failure.wait)
        print(
            f"{service.name}: {failure.kind} ({failure.detail or 'no reason given'}); trying again in {seconds:.0f} s"
        )
        time.sleep(seconds)
    raise AssertionError("the last try returns or raises")


@contextmanager
def report_progress(what: str) -> Iterator[None]:
    """Say what is uploaded; where nobody watches the client's progress bars, say now and then that it goes on."""
    print(what, flush=True)
    if is_watched():
        yield
        return
    began, ended = time.monotonic(), threading.Event()

    def report() -> None:
        while not ended.wait(REPORT_EVERY):
            print(f"{what}: goes on, {time.monotonic() - began:.0f} s so far", flush=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
