"""Python's garbage collector, switched off while there is no garbage.

Imports no Dagster, so that it can be off while Dagster is imported.

Note: imports, definitions and a plan make only what stays, hundreds of thousands of objects, and the collector looks at
them again and again: 0.35 s of the 1.6 s of CPU of a build of the demo with nothing to do.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_RARE = (100_000, 20, 50)


def collect_rarely() -> None:
    """As `rare_collections`, to the end of a process that builds and then ends.

    Back at the usual thresholds, the collector looks at once at all that the build made: 0.4 s after one of the demo.
    """
    gc.set_threshold(*_RARE)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the collector look for garbage less often: by default, a build of the demo spent 6 % of its time on that.

    Models of some size, whose modules lie in reference cycles, are collected before the next (`models/checkpoints.py`).
    """
    before = gc.get_threshold()
    gc.set_threshold(*_RARE)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def no_collector() -> Iterator[None]:
    """Switch the collector off; afterwards what was made meanwhile is not looked at again.

    That is done once per process (`gc.freeze`), since it keeps what is garbage by then too.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        _freeze()
        gc.enable()


@cache
def _freeze() -> None:
    """Freeze once. (`gc.get_freeze_count` would count all that is frozen, which takes 30 ms.)"""
    gc.freeze()
