"""Processes that find torch, Dagster and SciPy imported, which takes a new one four seconds.

`WarmProcess` is a fork of a process that has imported these and done nothing else: no thread was started, nothing of
this package, transformers or huggingface_hub was read, so that all that they read when they are imported is the new
process's own. Note: what Python or a library reads when it *starts* (PYTHONPATH aside) is that of the tests.

As a script, it is that process: it forks once for every request, which is a JSON line with descriptors beside it.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_IMPORTED = (
    *("torch", "torch._dynamo"),  # the latter is what transformers imports
    *("dagster", "sqlalchemy.dialects.sqlite", "alembic.command", "jinja2", "rich.progress"),
    *("scipy.stats", "pandas", "duckdb", "pyarrow.parquet", "PIL.Image"),
)
FIRST_PASSED = 100
"""The descriptor that the first of those that are passed has in the new process."""


class WarmProcess:
    """Python code in a process and session of its own, as `python -c` runs it.

    Args:
        code: what to run; `sys.argv` has the arguments after it.
        folder: its current folder.
        environment: all of its environment.
        passed: open descriptors that it finds at FIRST_PASSED and above.
        within: a command that the process of all these runs under, such as one that makes a namespace.
    """

    def __init__(
        self,
        code: str,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str],
        passed: Sequence[int] = (),
        within: tuple[str, ...] = (),
    ) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        self._status, theirs = socket.socketpair()
        with theirs:
            facts = {"code": code, "arguments": arguments, "folder": str(folder), "environment": dict(environment)}
            descriptors = [theirs.fileno(), *(file.fileno() for file in self._files), *passed]
            _send(_server(within), json.dumps(facts).encode(), descriptors)
        self.pid = int(self._status.recv(32))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """How it ended: the exit code, or the signal's number below zero."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("python -c", timeout or 0)
            with self._status:
                self.returncode = int(self._status.recv(32))
        return self.returncode

    def output(self) -> tuple[str, str]:
        """What it wrote to the standard output and to that for errors; once, after its end."""
        found = []
        for file in self._files:
            with file:
                file.seek(0)
                found.append(file.read().decode())
        return found[0], found[1]

    def kill(self) -> None:
        """End it, with all that it started in its session."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(self.pid, signal.SIGKILL)
            self.wait()


def _send(channel: socket.socket, request: bytes, descriptors: Sequence[int]) -> None:
    """A request of any length: in a file, whose descriptor comes first."""
    with tempfile.TemporaryFile() as file:
        file.write(request)
        file.flush()
        socket.send_fds(channel, [b"."], [file.fileno(), *descriptors])


@functools.cache
def _server(within: tuple[str, ...]) -> socket.socket:
    """The channel to a process that forks; it ends when the channel does."""
    ours, theirs = socket.socketpair()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with theirs:
        process = subprocess.Popen(
            [*within, sys.executable, __file__, str(theirs.fileno())],
            env=environment | {"JE_ARROW_MALLOC_CONF": "background_thread:false"},  # a fork must be of one thread
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    atexit.register(_end, ours, process)
    return ours


def _end(channel: socket.socket, process: subprocess.Popen[bytes]) -> None:
    channel.close()
    process.wait()


def _serve(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for every request until the channel ends; return in each new process, with the request."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for the new processes
    while True:
        sent, descriptors, _, _ = socket.recv_fds(channel, 1, FIRST_PASSED)
        if not sent:
            os._exit(0)
        if os.fork() == 0:
            channel.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _forked(descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _forked(descriptors: list[int]) -> tuple[dict[str, Any], list[int]]:
    """Fork once more; wait for the new process and say how it ended, or return in it."""
    request, status, *others = descriptors
    pid = os.fork()
    if pid == 0:
        with os.fdopen(request, "rb") as file:
            file.seek(0)
            return json.load(file), [status, *others]
    for descriptor in (request, *others):
        os.close(descriptor)
    os.write(status, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Make this process what `python -c` would be, but for what it has imported, and run the code."""
    status, *others = descriptors
    for number, descriptor in zip((1, 2, *range(FIRST_PASSED, FIRST_PASSED + len(others))), others, strict=False):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["-c", *request["arguments"]]
    sys.path[:1] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    os.write(status, str(os.getpid()).encode())
    os.close(status)
    exec(compile(request["code"], "<string>", "exec"), module.__dict__)


if __name__ == "__main__":
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    _become(*_serve(socket.socket(fileno=int(sys.argv[1]))))
