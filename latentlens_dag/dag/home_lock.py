"""The lock of a home: one build at a time, and no step of the UI beside it.

The lock is the kernel's (flock), so that it ends with its owner, however that ends. A build holds it alone; steps that
were started in Dagster's UI share it. Note: the file `build.lock` stays when no build is running; its text holds only
while it is locked.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import Home

_POLL_S = 0.2
_PATIENCE_S = 0.6  # `lock_owner` holds the lock for a moment


class LockOwner(NamedTuple):
    """The process that builds a home."""

    pid: int
    """0 where the file does not say."""
    host: str
    since: str
    """Local time, ISO 8601."""

    def __str__(self) -> str:
        """process 4711 on HOST, since 2026-01-31 12:00:00."""
        if not self.pid:
            return "one or more steps that were started in Dagster's UI, or a build that has just begun"
        return f"process {self.pid} on {self.host}, since {self.since.replace('T', ' ')}"


@contextmanager
def build_lock(home: Home, wait: bool = False, log: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Hold the home for one build.

    Args:
        home: what is built.
        wait: whether to wait for another build, or for steps of the UI, as long as it takes.
        log: called once with the owner that it waits for.

    Raises:
        UserError: where another process holds the home, without `wait`.
    """
    with _open(home) as file:
        _acquire(file, fcntl.LOCK_EX, home, log, wait, _PATIENCE_S)
        owner = LockOwner(os.getpid(), socket.gethostname(), datetime.now().isoformat(timespec="seconds"))
        file.seek(0)
        file.truncate()
        file.write(json.dumps(owner._asdict()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def step_lock(home: Home, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the home for steps that no build started, together with others like them; wait for a running build.

    Args:
        home: the home that the steps write to.
        log: called once with the build that it waits for.
    """
    with _open(home) as file:
        _acquire(file, fcntl.LOCK_SH, home, log)
        yield


def lock_owner(home: Home) -> LockOwner | None:
    """The process that builds the home now, or None."""
    path = _path(home)
    if not path.is_file():
        return None
    with path.open() as file:
        return None if _try(file, fcntl.LOCK_SH) else _read(file)


def _acquire(
    file: IO[str], kind: int, home: Home, log: Callable[[str], None], wait: bool = True, patience_s: float = 0.0
) -> None:
    start, logged = time.monotonic(), False
    while not _try(file, kind):
        if time.monotonic() - start >= patience_s and not logged:
            owner = _read(file)
            if not wait:
                raise UserError(
                    f"{home.root} is being built ({owner}). Wait for the end with --wait, or use another home."
                )
            log(f"Waiting: {home.root} is being built ({owner}).")
            logged = True
        time.sleep(_POLL_S)


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(home: Home) -> IO[str]:
    return os.fdopen(os.open(_path(home), os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8")


def _path(home: Home) -> Path:
    return home.root / "build.lock"


def _read(file: IO[str]) -> LockOwner:
    """The owner that a locked file names; a file that was just locked may name none yet."""
    file.seek(0)
    try:
        facts: dict[str, Any] = json.loads(file.read())
        return LockOwner(int(facts["pid"]), str(facts["host"]), str(facts["since"]))
    except (ValueError, KeyError, TypeError):
        return LockOwner(0, "?", "?")
