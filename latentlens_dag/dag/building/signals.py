"""SIGINT and SIGTERM during a command or a build: recorded whoever handles them, so that none is lost.

Note: Dagster installs its own handlers during a run, only records a signal that comes between two steps, and forgets it
when the run ends. Here every signal is also written to a pipe.
"""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """The signals since a command or a build began."""

    def __init__(self, pipe: int | None) -> None:
        """Read them from a non-blocking pipe; with None, there are none."""
        self._pipe = pipe
        self._last: int | None = None

    def last(self) -> int | None:
        """The number of the last SIGINT or SIGTERM, or None."""
        try:
            received = os.read(self._pipe, 4096) if self._pipe is not None else b""
        except BlockingIOError:
            received = b""
        self._last = next((number for number in reversed(received) if number in _STOPPING), self._last)
        return self._last


@contextmanager
def catch_signals(numbers: Sequence[int] = _STOPPING) -> Iterator[Signals]:
    """Let SIGINT and SIGTERM, or those named, raise KeyboardInterrupt; record them. Only in the main thread.

    Where one is within another, the inner one records what comes while it lasts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Signals(None)
        return
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield Signals(reading)
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)
