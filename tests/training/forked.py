"""Trainings that start at once: one process has imported everything, and forks itself for each command.

    python forked.py [--drawn]

It reads requests from standard input, a JSON object a line, and answers each with one; see `Forks.run` for both. The
other ranks of a training are forks of rank zero, with the arguments and the environment that Lightning gives a program.
Pictures are made and not drawn, unless `--drawn`; no step is measured ahead of a training.
"""

import ctypes
import json
import mmap
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any
from unittest import mock

PATIENCE = 240  # seconds, of which only a training that hangs takes as much
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")  # beside what opens a file to write it
SUBREAPER = 36  # of prctl: the processes that a child leaves behind become children of this one


class Forks:
    """The process that forks, seen from a test."""

    def __init__(self, *options: str, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__, *options]
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, *command: object, environment: dict[str, str] | None = None, **strike: Any) -> SimpleNamespace:
        """Runs `ossicle COMMAND`, or the script that the command begins with, to its end and that of its processes.

        Args:
            environment: variables beside those of the process.
            strike: `seconds` of processor time of rank zero or its `write` to the folder of -o, counted from 1 or, with
                `part`, among the paths with that part, at which a `signal`, by default SIGKILL, is sent to rank `to`,
                or to all where there is none.

        Returns: `code`, `out`, `err`, the `seconds` and the `writes` of rank zero, whether it was `struck`, and whether
        it `hung`, so that its processes were killed in the end.
        """
        request = {"command": [*map(str, command)], "environment": environment or {}, "strike": strike}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return SimpleNamespace(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """Ends it."""
        self.process.communicate()


# --- the process itself -----------------------------------------------------------------------------------------------


class Shared(ctypes.Structure):
    """Numbers that a training and the process that forked it both see."""

    _fields_ = (("writes", ctypes.c_long), ("struck", ctypes.c_long), ("other", ctypes.c_long))  # other: rank one, or 0


shared = Shared.from_buffer(mmap.mmap(-1, ctypes.sizeof(Shared)))
request: dict[str, Any] = {}


class Forked:
    """What `subprocess.Popen` gives, of a fork that begins the program anew."""

    def __init__(self, command: list[str], *, env: dict[str, str], cwd: str | None) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os.environ.update(env)
            become()
        shared.other = self.pid

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def become() -> None:
    """Is the program of the request from here on."""
    code: Any = 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in a shell's background is born without
    try:
        script = request["command"][0].endswith(".py")
        sys.argv = request["command"] if script else ["ossicle", *request["command"]]
        if script:
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def count_writes(folder: str, *, part: str = "", write: int = 0, **_: Any) -> None:
    """Counts what this process changes below a folder, and strikes at a write to a path with that part."""
    process, alike = os.getpid(), 0

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        if not (event in CHANGES or event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        if os.getpid() != process or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.fspath(arguments[event == "os.rename"])  # the name that a file gets
        if isinstance(path, str) and path.startswith(folder):
            nonlocal alike
            shared.writes, alike = shared.writes + 1, alike + (part in path)
            if part in path and alike == write:
                shared.struck = 1
                strike(process)

    sys.addaudithook(see)


def strike(rank_zero: int) -> None:
    """Sends the signal of the request."""
    number, to = request["strike"].get("signal", signal.SIGKILL), request["strike"].get("to")
    if to is None:
        os.killpg(rank_zero, number)
    else:
        os.kill(shared.other if to and shared.other else rank_zero, number)


def carry_out() -> dict[str, Any]:
    """Runs the program of the request in a fork, and waits for it and for all that it has started."""
    shared.writes = shared.other = shared.struck = 0
    at = request["strike"].get("seconds")
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        if not (first := os.fork()):
            os.setpgid(0, 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.environ.update(request["environment"])
            command = request["command"]
            if "-o" in command:
                count_writes(command[command.index("-o") + 1], **request["strike"])
            become()
        os.setpgid(first, first)
        code, seconds, hung, until = None, 0.0, False, time.monotonic() + PATIENCE
        while True:
            try:
                pid, status, used = os.wait4(-first, os.WNOHANG)
            except ChildProcessError:  # none is left
                break
            if pid == first:
                code, seconds = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
            elif not pid:
                if code is None and at is not None and not shared.struck and processor_time(first) >= at:
                    shared.struck = 1
                    strike(first)
                if hung := time.monotonic() > until:
                    os.killpg(first, signal.SIGKILL)
                time.sleep(0.001)
        for file in (out, err):
            file.seek(0)
        said = {"out": out.read(), "err": err.read(), "hung": hung}
    return {"code": code, "seconds": seconds, "writes": shared.writes, "struck": bool(shared.struck), **said}


def processor_time(pid: int) -> float:
    """The seconds that a process has computed; a busy machine stretches them not at all."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's number for that clock


def serve() -> None:
    """Answers requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    for line in sys.stdin:
        request.clear()
        request.update(json.loads(line))
        print(json.dumps(carry_out()), file=answers, flush=True)


if __name__ == "__main__":
    import gc

    from lightning.fabric.strategies.launchers import subprocess_script
    from matplotlib.figure import Figure

    import ossicle.report
    from ossicle.cli import main
    from ossicle.training import callbacks, ranks, train_network

    assert ossicle.report and train_network  # what a training imports when it is needed
    if "--drawn" not in sys.argv:
        Figure.savefig = lambda self, file, **_: file.write(b"PNG")  # type: ignore[method-assign]
    callbacks.measure = lambda *_, **__: None  # type: ignore[assignment]
    ranks.LAST_WORDS = 0.5
    mock.patch.object(subprocess_script, "subprocess", SimpleNamespace(Popen=Forked)).start()
    gc.collect()
    gc.freeze()
    serve()
