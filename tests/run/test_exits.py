"""How commands end: statuses and last words of every command, and that nothing it has started lives on."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from papermill.exceptions import PapermillExecutionError
from safetensors import SafetensorError
from tqdm import tqdm

from fgtools.__main__ import main
from fgtools.files import FgtoolsError, FileError, is_watched, write_text
from fgtools.run import commands, draft_command, kaggle_commands
from fgtools.run.exits import find_shortage, render_way_on, use_utf8
from fgtools.run.notebooks import StageError, run_series
from fgtools.run.processes import LaunchError, ShortageError, launch, stop_processes
from fgtools.run.stages import Stage
from tests.run.test_notebooks import write_notebook

COMMANDS = {
    "run": "run --out o",
    "check": "check --model m",
    "draft": "draft --tools t --out o",
    "prepare": "prepare --data d --out o",
    "audit": "audit --data d --model m --out o",
    "train": "train --rows r --model m --out o",
    "evaluate": "evaluate --model m --rows r --out o",
    "score": "score --rows r --replies p",
    "export": "export --model m --out o",
    "publish": "publish --run o",
    "call": "call --model m request",
    **{f"kaggle {action}": f"kaggle {action} --out o" for action in ("build", "push", "status", "output")},
}


def test_every_command_is_here():
    from fgtools.__main__ import _build_parser

    words = " ".join(_build_parser().format_help().split())
    assert all(command.split()[0] in words for command in COMMANDS) and len(commands_of_help()) == 12


def commands_of_help():
    from fgtools.__main__ import _build_parser

    (added,) = (action for action in _build_parser()._actions if action.dest == "name_of_command")
    return set(added.choices)


def let_fail(monkeypatch, command, fail):
    monkeypatch.setattr("fgtools.__main__.log_in_for", lambda *_: None)
    rooms = {"draft": draft_command, **dict.fromkeys(("build", "push", "status", "output"), kaggle_commands)}
    name = command.split()[-1]
    monkeypatch.setattr(rooms.get(name, commands), name, fail)


def raising(error):
    def fail(_):
        raise error

    return fail


def terminate(_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_ends_a_command_is_one_sentence_with_a_remedy_and_how_to_go_on(command, monkeypatch, capsys):
    words = COMMANDS[command].split()
    typed = f"python -m fgtools {COMMANDS[command]}" + (" --resume" if command in ("run", "train") else "")
    goes_on = command in ("run", "train", "evaluate", "publish")
    way_on = f"to go on, run: {typed}" if goes_on else f"to start again, run: {typed}"
    if command.startswith("kaggle"):
        way_on = "what Kaggle runs goes on there, see `python -m fgtools kaggle status`"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "o/model.safetensors")
    for fail, status, said in (
        (raising(KeyboardInterrupt()), 130, f"stopped: {way_on}\n"),
        (terminate, 143, f"stopped by SIGTERM: {way_on}\n"),
        (
            raising(full),
            1,
            "error: the disk is full: o/model.safetensors could not be written (No space left on device",
        ),
        (
            raising(SafetensorError("I/O error: Disk quota exceeded (os error 122)")),
            1,
            "error: the disk is full: a file",
        ),
        (raising(MemoryError()), 1, "error: the memory is full (MemoryError): "),
        (raising(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")), 1, "error: the memory is full (OutOf"),
    ):
        let_fail(monkeypatch, command, fail)
        assert main(words) == status
        shown = capsys.readouterr()
        assert shown.out == "" and shown.err.startswith(said)
        assert shown.err.endswith(f"{way_on}\n") and shown.err.count("\n") == (1 if status > 1 else 2)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_command_to_go_on_with_can_be_pasted():
    assert render_way_on("run", ["run", "--out", "my runs/a", "--resume"]).endswith("run --out 'my runs/a' --resume")
    assert render_way_on("train", ["--debug", "train"]).endswith("fgtools --debug train --resume")


def caused(error, cause):
    error.__cause__ = cause
    return error


def in_a_cell(name, value):
    return caused(StageError("x"), PapermillExecutionError(3, 2, "", name, value, []))


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (FileError("x must be written"), ""),
        (caused(FileError("x must be written"), OSError(errno.EDQUOT, "quota")), "disk"),
        (RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0: file write failed"), "disk"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (in_a_cell("MemoryError", ""), "memory"),
        (in_a_cell("OSError", "[Errno 28] No space left on device"), "disk"),
        (in_a_cell("RuntimeError", "CUDA out of memory"), "memory"),
        (in_a_cell("ValueError", "rows are bad"), ""),
        (ShortageError("x", "memory"), "memory"),
        (LaunchError("x"), ""),
        (ValueError("out of memory"), ""),
    ],
)
def test_a_full_disk_and_a_full_memory_are_known_whoever_says_so(error, what):
    assert find_shortage(error) == what


def test_an_error_that_names_a_file_is_a_message_and_others_of_the_system_keep_their_traceback(monkeypatch, capsys):
    let_fail(monkeypatch, "score", raising(OSError(errno.EACCES, os.strerror(errno.EACCES), "figures/a.png")))
    assert main(COMMANDS["score"].split()) == 1
    assert capsys.readouterr().err == "error: figures/a.png: Permission denied\n"
    let_fail(monkeypatch, "score", raising(OSError("x")))
    with pytest.raises(OSError, match="x"):
        main(COMMANDS["score"].split())


def test_a_full_disk_is_named_without_talk_of_permissions(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "os.replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
    )
    with pytest.raises(
        FileError, match=r"a must be written, but No space left on device: free some space on that disk$"
    ):
        write_text(tmp_path / "a", "text")
    assert not list(tmp_path.iterdir())


def test_an_error_begins_a_line_where_a_bar_is_drawn(monkeypatch, capsys):
    def fail(_):
        bar = tqdm(total=3, file=sys.stderr, disable=False)
        bar.update()
        bar.refresh()
        raise FgtoolsError("r.jsonl must be read")

    let_fail(monkeypatch, "score", fail)
    assert main(COMMANDS["score"].split()) == 1
    lines = capsys.readouterr().err.split("\n")
    assert "1/3" in lines[-3] and lines[-2:] == ["error: r.jsonl must be read", ""]


def test_a_terminal_that_cannot_draw_over_a_line_gets_no_bars(monkeypatch):
    monkeypatch.delenv("FGTOOLS_BATCH", raising=False)
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setenv("TERM", "xterm")
    assert is_watched()
    monkeypatch.setenv("TERM", "dumb")
    assert not is_watched()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_any_text_is_written_as_utf8_whatever_the_system_says(encoding, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    use_utf8()
    for stream in (sys.stdout, sys.stderr):
        print("→ 天気 \ud800", file=stream, flush=True)
        assert stream.buffer.getvalue().decode("utf-8") == f"→ 天気 \\ud800{os.linesep}"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("echo '  exitcode  : -9 (pid: 7)'; exit 1", ShortageError, "failed with status 1.*the memory was full"),
        ("kill -9 $$", ShortageError, "failed with status -9.*the memory was full"),
        (
            "echo 'error: the disk is full: x'; exit 1",
            ShortageError,
            "failed with status 1; see above: free some space",
        ),
        ("exit 3", LaunchError, "failed with status 3; see above$"),
    ],
)
def test_several_processes_that_fail_for_want_of_room_say_so(script, kind, message, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("fgtools.run.processes.sys.executable", str(program))
    with pytest.raises(LaunchError, match=message) as caught:
        launch("train", 2, [])
    assert type(caught.value) is kind


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_an_error_of_several_processes_is_shown_once_and_the_launchers_report_when_asked(tmp_path, monkeypatch, capfd):
    program = tmp_path / "python"
    said = ["step 1", "error: no rows", "in a.jsonl", "error: no rows", "in a.jsonl"]
    said += ["E1128 13:00:00.000000 71 torch/x.py:9] failed", "Traceback (most recent call last):", "  a", "error: x"]
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in said) + "exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("fgtools.run.processes.sys.executable", str(program))
    for debug, shown in ((False, "step 1\nerror: no rows\nin a.jsonl\nerror: x\n"), (True, None)):
        with pytest.raises(LaunchError):
            launch("train", 2, [], debug)
        out = capfd.readouterr().out
        assert out == shown if shown else out.count("no rows") == 2 and "Traceback" in out


def wait_until(condition):
    deadline = time.monotonic() + 1800  # how long it takes is not measured: a busy machine is slow
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid):
    """Whether a process has ended; one that nobody has asked about counts as ended, too."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_processes_that_do_not_listen_are_ended_with_all_they_have_started(tmp_path):
    deaf = f"trap '' TERM INT; setsid sleep 3600 & sleep 3600 & touch {tmp_path / 'ready'}; wait; wait; wait"
    job = subprocess.Popen(["bash", "-c", deaf])
    wait_until((tmp_path / "ready").exists)
    below = psutil.Process(job.pid).children(recursive=True)
    assert len(below) == 2
    stop_processes(job)
    assert job.returncode is not None  # the shell is killed, or ends by itself when all it waits for has been
    wait_until(lambda: all(is_gone(one.pid) for one in below))
    stop_processes(job)  # again: nothing to do


SERIES = """
import sys
from functools import partial
from pathlib import Path
from fgtools.run import notebooks
from fgtools.run.stages import Stage
notebooks.STAGES = {"01_setup": Stage()}
notebooks.run_series = partial(notebooks.run_series, folder=Path(sys.argv[1]))
from fgtools.__main__ import main
sys.exit(main(["run", "--out", sys.argv[2]]))
"""

CELL_THAT_TRAINS = """
import os, subprocess, time
from pathlib import Path
job = subprocess.Popen(["sleep", "3600"])
try:
    Path(RUN_DIR, ".scratch").touch()
    Path(RUN_DIR, "pids").write_text(f"{os.getpid()} {job.pid}")
    time.sleep(3600)
finally:
    Path(RUN_DIR, ".scratch").unlink()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_series_that_is_stopped_leaves_no_kernel_behind(number, tmp_path):
    write_notebook(tmp_path, "01_setup", CELL_THAT_TRAINS)
    out = tmp_path / "out"
    command = [sys.executable, "-c", SERIES, str(tmp_path), str(out)]
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs do not
    with (tmp_path / "errors").open("w") as file:  # a pipe would end with the last process that holds it
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, preexec_fn=listen)
    wait_until(lambda: (out / "pids").exists() and len((out / "pids").read_text().split()) == 2)
    kernel, grandchild = map(int, (out / "pids").read_text().split())
    job.send_signal(number)
    assert job.wait() == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    wait_until(lambda: is_gone(kernel))
    if number == signal.SIGKILL:
        psutil.Process(grandchild).kill()  # the kernel could not
        return
    wait_until(lambda: is_gone(grandchild))
    said = (tmp_path / "errors").read_text()
    assert said.splitlines()[-1].endswith(f"to go on, run: python -m fgtools run --out {out} --resume")
    assert "Traceback" not in said and not (out / ".scratch").exists()  # the cell could clean up


def test_a_kernelspec_named_python3_that_starts_something_else_is_not_used(tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    kernel = {"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setattr("fgtools.run.notebooks.STAGES", {"01_setup": Stage()})
    source = "import sys\nfrom pathlib import Path\nPath(RUN_DIR, 'python').write_text(sys.executable)"
    write_notebook(tmp_path, "01_setup", source)
    run_series(tmp_path / "out", folder=tmp_path)
    assert (tmp_path / "out" / "python").read_text() == sys.executable


POOL = """
import os, signal, sys, time
from pathlib import Path
from fgtools.rows.preparation import _open_pool
if __name__ == "__main__":
    with _open_pool(2) as run:
        Path(sys.argv[1]).write_text(" ".join(map(str, {*run(abs, [1, 2])})))
        time.sleep(3600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_processes_that_build_rows_end_with_the_one_that_started_them(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    job = subprocess.Popen([sys.executable, str(script), str(tmp_path / "ready")])
    wait_until((tmp_path / "ready").exists)
    below = psutil.Process(job.pid).children(recursive=True)
    assert len(below) >= 2
    job.kill()
    job.wait()
    wait_until(lambda: all(is_gone(one.pid) for one in below))


def test_nothing_that_windows_lacks_is_asked_of_it_and_no_colours_are_written():
    lacking = (
        "import resource\n",
        "import fcntl",
        "import pwd",
        "preexec_fn",
        "os.fork",
        "os.killpg",
        "signal.SIGKILL",
    )
    lacking += ("\\x1b[", "\\033[")  # so NO_COLOR asks for nothing
    allowed = {
        "import fcntl": ["lock.py"],  # where it is missing, nothing is locked
        "import resource\n": ["device.py", "template.py"],  # on Linux and macOS only
        "preexec_fn": ["processes.py"],
        "\\x1b[": ["progress.py"],  # no colour
    }
    package = Path(commands.__file__).parents[1]
    for words in lacking:
        found = [path.name for path in sorted(package.rglob("*.py")) if words in path.read_text(encoding="utf-8")]
        assert found == allowed.get(words, []), words
