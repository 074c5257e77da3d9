"""One build of a home at a time, and no step of the UI beside it: the lock, and who holds it.

The lock is the kernel's (flock), so that it dies with its owner, however that ends; a build holds it alone, steps that
were started in Dagster's UI share it. What a newcomer gets wrong: the file `build.lock` stays when no build is running;
what it says is only true while it is locked.
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

_ASK_EVERY_S = 0.2
_LOOK_S = 0.6  # someone who only looks whether a build is running holds the lock for a moment


class LockOwner(NamedTuple):
    """The process that builds a home."""

    pid: int
    """0 where nobody said."""
    host: str
    since: str
    """Local time, ISO 8601."""

    def __str__(self) -> str:
        """process 4711 on HOST, since 2026-01-31 12:00:00."""
        return (
            "one or more steps that were started in Dagster's UI, or a build that has just begun"
            if not self.pid
            else f"process {self.pid} on {self.host}, since {self.since.replace('T', ' ')}"
        )


@contextmanager
def build_lock(home: Home, wait: bool = False, tell: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Hold the home for one build.

    Args:
        home: what is built.
        wait: whether to wait for another build, or for steps of the UI, as long as it takes.
        tell: is told once for whom it waits.

    Raises:
        UserError: where somebody else holds the home and `wait` is not asked for.
    """
    with _open(home) as file:
        _acquire(file, home, wait, tell)
        _write(file, LockOwner(os.getpid(), socket.gethostname(), datetime.now().isoformat(timespec="seconds")))
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def step_lock(home: Home, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the home for steps that no build started, together with others like them; wait for a build that is running.

    Args:
        home: what is written to.
        tell: is told once for whom it waits.
    """
    with _open(home) as file:
        told = False
        while not _try(file, fcntl.LOCK_SH):
            if not told:
                tell(f"Waiting: {home.root} is being built ({_read(file)}).")
            told = True
            time.sleep(_ASK_EVERY_S)
        yield


def lock_owner(home: Home) -> LockOwner | None:
    """Who builds the home now; None where nobody does."""
    path = _path(home)
    if not path.is_file():
        return None
    with path.open() as file:
        return None if _try(file, fcntl.LOCK_SH) else _read(file)


def _acquire(file: IO[str], home: Home, wait: bool, tell: Callable[[str], None]) -> None:
    start, told = time.monotonic(), False
    while not _try(file, fcntl.LOCK_EX):
        if time.monotonic() - start > _LOOK_S and not told:
            owner = _read(file)
            if not wait:
                raise UserError(
                    f"{home.root} is being built ({owner}). Wait for the end with --wait, or use another home."
                )
            tell(f"Waiting: {home.root} is being built ({owner}).")
            told = True
        time.sleep(_ASK_EVERY_S)


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


def _write(file: IO[str], owner: LockOwner) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(owner._asdict()))
    file.flush()


def _read(file: IO[str]) -> LockOwner:
    """The owner that a locked file names; it may just have been locked and say nothing yet."""
    file.seek(0)
    try:
        facts: dict[str, Any] = json.loads(file.read())
        return LockOwner(int(facts["pid"]), str(facts["host"]), str(facts["since"]))
    except (ValueError, KeyError, TypeError):
        return LockOwner(0, "?", "?")
