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
from typing import Any, ClassVar
from unittest import mock

AGAIN = 10.0
"""Seconds after which the signal comes again, should it have been lost where Python drops exceptions."""


class OutOfTime(BaseException):
    """A time limit has passed; no `except Exception` of a library holds it back."""

    def __init__(self, limit: TimeLimit) -> None:
        super().__init__(f"over {limit.seconds:.0f} s")
        self.limit = limit


class TimeLimit:
    """Ends the body of a `with` statement once a time has passed, and goes on after it; in the main thread alone.

    Python looks at signals between its own instructions: a call into a library's compiled code ends first. Limits may
    lie within each other: where an outer one passes, the body of the outer one is ended.

    Attributes:
        seconds: The limit, above 0.
        over: Whether the body was ended.
    """

    _active: ClassVar[list[TimeLimit]] = []  # the outermost first
    _handler: ClassVar[Any] = None

    def __init__(self, seconds: float) -> None:
        self.seconds, self.over, self._deadline = seconds, False, 0.0

    def __enter__(self) -> TimeLimit:
        if not self._active:
            TimeLimit._handler = signal.signal(signal.SIGALRM, self._end)
        self._deadline = time.monotonic() + self.seconds
        self._active.append(self)
        self._set_timer()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        self._active.remove(self)
        self._set_timer()
        if not self._active:
            signal.signal(signal.SIGALRM, self._handler)
        self.over = isinstance(error, OutOfTime) and error.limit is self
        return self.over

    @classmethod
    def _set_timer(cls) -> None:
        first = min((one._deadline for one in cls._active), default=None)
        left = 0.0 if first is None else max(0.001, first - time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, left, AGAIN if left else 0.0)

    @classmethod
    def _end(cls, *_: Any) -> None:
        now = time.monotonic()
        passed = [limit for limit in cls._active if limit._deadline <= now]
        if passed:
            raise OutOfTime(passed[0])


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
