"""Answers that are asked for again, as many of the last used ones as so many bytes hold.

What a newcomer gets wrong: a number of answers is no limit. One token's are 20 KB, one frequent word's in a large
study are 10 MB, and a server that runs for a week remembers both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


class FrameCache:
    """Frames by key; may be used by several threads at once."""

    def __init__(self, most_bytes: int) -> None:
        """Nothing is remembered yet."""
        self._most_bytes = most_bytes
        self._bytes = 0
        self._frames: OrderedDict[Hashable, pl.DataFrame] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """The frame of a key, made where it is not known; an error is not remembered."""
        with self._lock:
            if key in self._frames:
                self._frames.move_to_end(key)
                return self._frames[key]
        frame = make()  # two threads may make the same, rather than wait for each other
        with self._lock:
            if key not in self._frames:
                self._frames[key] = frame
                self._bytes += int(frame.estimated_size())
            while self._bytes > self._most_bytes and len(self._frames) > 1:
                self._bytes -= int(self._frames.popitem(last=False)[1].estimated_size())
        return frame
