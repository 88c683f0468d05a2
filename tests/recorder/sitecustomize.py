"""Loaded by each Python process whose PYTHONPATH holds this folder: notes what it opens below a folder.

A line of the log is the process that a notebook began with, "read" or "write", and the first part of the name. The
manifest is left out: it hashes all files of a run.
"""

import os
import sys
from typing import Any

ROOT, LOG = os.environ["FGTOOLS_TEST_ROOT"] + os.sep, os.environ["FGTOOLS_TEST_LOG"]
KERNEL = os.environ.setdefault("FGTOOLS_TEST_KERNEL", str(os.getpid()))


def note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path, action = arguments[0], "write" if arguments[2] & (os.O_WRONLY | os.O_RDWR) else "read"
    elif event in ("os.scandir", "os.listdir") and arguments[0] is not None and not isinstance(arguments[0], int):
        path, action = arguments[0], "read"
    elif event == "os.rename":
        path, action = arguments[1], "write"
    else:
        return
    path = os.path.abspath(os.fsdecode(path))
    if not path.startswith(ROOT):
        return
    frame = sys._getframe()
    while frame:
        if frame.f_code.co_name == "write_manifest" and action == "read":
            return
        frame = frame.f_back
    with open(LOG, "a", encoding="utf-8") as log:
        log.write(f"{KERNEL} {action} {path.removeprefix(ROOT).split(os.sep)[0]}\n")


sys.addaudithook(note)
