"""A time limit that really ends what runs too long, and a stopwatch for the parts of a run.

Knows signals and clocks; not models or what is measured.
"""

from __future__ import annotations

import functools
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

AGAIN = 10.0
"""Seconds after which the signal comes again, should it have been lost where Python drops exceptions."""


class OutOfTime(BaseException):
    """The time limit has passed; no `except Exception` of a library holds it back."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End the body by raising OutOfTime in it once a time has passed; the main thread alone can be ended so.

    Python looks at signals between its own instructions: a call into a library's compiled code ends first. Limits may
    lie within each other: an outer one that passes while an inner one lasts is told as the inner one, then as itself.

    Args:
        seconds: The limit, above 0.
    """

    def end(*_: Any) -> None:
        raise OutOfTime

    started, handler = time.monotonic(), signal.signal(signal.SIGALRM, end)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    signal.setitimer(signal.ITIMER_REAL, min(seconds, outer) if outer else seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, outer - (time.monotonic() - started)), AGAIN)


class Stopwatch:
    """Seconds spent inside of some functions, by what they are for.

    Attributes:
        seconds: By purpose. A function that another one of them calls counts as a part of that one.
    """

    def __init__(self, synchronize: Callable[[], None] = lambda: None) -> None:
        """Make a stopwatch.

        Args:
            synchronize: Waits for the device, so that work begun before a function is not counted as its own.
        """
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._synchronize, self._inside = synchronize, False

    @contextmanager
    def watch(self, places: Mapping[str, Sequence[tuple[Any, str]]]) -> Iterator[None]:
        """Time calls while the context lasts.

        Args:
            places: By purpose, modules or classes and the name of a function in each; a class that inherits it counts
                through the class that defines it.
        """
        with ExitStack() as stack:
            for purpose, functions in places.items():
                for owner, name in functions:
                    for one in [part for part in getattr(owner, "__mro__", [owner]) if name in vars(part)]:
                        stack.enter_context(mock.patch.object(one, name, self._timed(purpose, getattr(one, name))))
            yield

    def _timed(self, purpose: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            if self._inside:
                return function(*args, **options)
            self._synchronize()
            self._inside, started = True, time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.seconds[purpose] += time.perf_counter() - started
                self._inside = False

        return call
