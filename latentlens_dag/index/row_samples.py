"""Samples of the rows of a layer table, and of tokens: those with the smallest mixed hashes.

The sample depends on what is sampled, not on the order in which it lies or on how it is cut into files, and a smaller
sample is part of a larger one. Note: the keys of a table are mixed first, since the smallest ones are not a fair
sample of the rows that a cap of occurrences per token left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from latentlens_dag.index.lance_files import Table, open_table
from latentlens_dag.storage.hashing import ids_to_integers

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS = 1 << 16


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers of 64 bits, shuffled: different ones stay different (the finalizer of SplitMix64)."""
    value = numbers + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)


def smallest(parts: Iterable[NDArray[np.uint64]], count: int) -> NDArray[np.int64]:
    """Where the `count` smallest numbers are, ascending, counted over all parts; all where there are fewer.

    Args:
        parts: arrays [n], one at a time in memory.
        count: at least 1.
    """
    best, places, start = np.empty(0, np.uint64), np.empty(0, np.int64), 0
    for numbers in parts:
        best = np.concatenate([best, numbers])
        places = np.concatenate([places, np.arange(start, start + len(numbers))])
        start += len(numbers)
        if len(best) > count:
            kept = np.argpartition(best, count - 1)[:count]
            best, places = best[kept], places[kept]
    return np.sort(places)


def sampled_rows(table: Table, count: int, longest: float = np.inf) -> NDArray[np.int64]:
    """Up to `count` rows [n] of a layer table, ascending, none with a norm above `longest`."""
    dataset = open_table(table)
    scanner = dataset.scanner(columns=["key", "norm"], batch_size=_ROWS)
    parts = ((mixed(ids_to_integers(part["key"])), part["norm"].to_numpy()) for part in scanner.to_batches())
    last = np.uint64(np.iinfo(np.uint64).max)  # for rows that are not taken
    rows = smallest((np.where(norms > np.float32(longest), last, keys) for keys, norms in parts), count)
    norms = dataset.take(rows.tolist(), columns=["norm"])["norm"].to_numpy() if len(rows) else np.empty(0, np.float32)
    return rows[norms <= np.float32(longest)]
