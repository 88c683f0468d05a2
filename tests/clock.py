"""Processor time of a block, for tests that say "linear" or "at once"."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class ProcessorTime:
    """What a block took: seconds of this thread's processor time, set when the block ends."""

    seconds: float = 0.0


@contextmanager
def measure_time() -> Iterator[ProcessorTime]:
    """Yield a ProcessorTime; other threads and the garbage collector do not count.

    A collection goes through every object of the process: with torch and transformers loaded and thousands of
    tests before it takes about a second, in whatever block happens to allocate the next object.
    """
    took, enabled = ProcessorTime(), gc.isenabled()
    gc.disable()
    start = time.thread_time()
    try:
        yield took
    finally:
        took.seconds = time.thread_time() - start
        if enabled:
            gc.enable()
