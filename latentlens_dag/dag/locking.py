"""One build of a home at a time: the lock, and who holds it.

The lock is the kernel's (flock), so that it dies with its owner, however that ends. What a newcomer gets
wrong: the file `build.lock` stays when no build is running; what it says is only true while it is locked.
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
from latentlens_dag.home import Home

_ASK_EVERY_S = 0.2
_LOOK_S = 0.6  # someone who only looks whether a build is running holds the lock for a moment


class Owner(NamedTuple):
    """The process that builds a home."""

    pid: int
    host: str
    since: str
    """Local time, ISO 8601."""

    def __str__(self) -> str:
        """process 4711 on HOST, since 2026-01-31 12:00:00."""
        return (
            "its process is not known"
            if not self.pid
            else f"process {self.pid} on {self.host}, since {self.since.replace('T', ' ')}"
        )


@contextmanager
def build_lock(home: Home, wait: bool = False, tell: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Hold the home for one build.

    Args:
        home: what is built.
        wait: whether to wait for another build, as long as it takes.
        tell: is told once for whom it waits.

    Raises:
        UserError: where another build holds the home and `wait` is not asked for.
    """
    with _open(home) as file:
        _acquire(file, home, wait, tell)
        _write(file, Owner(os.getpid(), socket.gethostname(), datetime.now().isoformat(timespec="seconds")))
        try:
            yield
        finally:
            file.truncate(0)


def building(home: Home) -> Owner | None:
    """Who builds the home now; None where nobody does."""
    path = _path(home)
    if not path.is_file():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(file)
    return None


def _acquire(file: IO[str], home: Home, wait: bool, tell: Callable[[str], None]) -> None:
    start, told = time.monotonic(), False
    while not _try(file):
        if time.monotonic() - start > _LOOK_S and not told:
            owner = _read(file)
            if not wait:
                raise UserError(
                    f"Another build of {home.root} is running ({owner}). Wait for it with --wait, or use another home."
                )
            tell(f"Waiting for the build of {home.root} that is running ({owner}).")
            told = True
        time.sleep(_ASK_EVERY_S)


def _try(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(home: Home) -> IO[str]:
    return os.fdopen(os.open(_path(home), os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8")


def _path(home: Home) -> Path:
    return home.root / "build.lock"


def _write(file: IO[str], owner: Owner) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(owner._asdict()))
    file.flush()


def _read(file: IO[str]) -> Owner:
    """The owner that a locked file names; it may just have been locked and say nothing yet."""
    file.seek(0)
    try:
        facts: dict[str, Any] = json.loads(file.read())
        return Owner(int(facts["pid"]), str(facts["host"]), str(facts["since"]))
    except (ValueError, KeyError, TypeError):
        return Owner(0, "?", "?")
