"""The nearest rows that a search has found so far, in order of (cosine, contextual layer, key).

Keys are strings in a table, and reading those of all candidates costs a tenth of a search, though most candidates are
soon replaced. A row is therefore stored with the position of its key, and keys are read for the rows that remain and
for those that tie.

Candidates are sorted by one number that holds query and cosine, and those that tie once more: with a number per
criterion, the sort took a third of a search with labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LabelsOf = Callable[["NDArray[np.uint64]"], "NDArray[np.int64]"]
"""The label of each key, from 0 to 2^31; rows of equal labels count once."""
_ROW_BITS = 40  # of a key's position: its row; above them the number of the column
_MOST = 2**32 - 1  # a label is stored in 32 bits of a number, below that of the query


class Keys(Protocol):
    """The keys of a table's rows: an array, or an object that reads only the requested ones."""

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The keys of some rows."""
        ...


@dataclass(frozen=True)
class Neighbors:
    """The nearest rows of each of Q queries, nearest first; equal cosines in order of (layer, key).

    Where there are fewer than k rows, the last columns have cosine -inf.
    """

    cosine: NDArray[np.float32]  # [Q, k]
    contextual_layer: NDArray[np.int32]  # [Q, k]
    key: NDArray[np.uint64]  # [Q, k]


def concat_neighbors(parts: Sequence[Neighbors], axis: int) -> Neighbors:
    """Concatenate the neighbors of several searches: of other queries (axis 0), or more of the same (axis 1)."""
    names = ("cosine", "contextual_layer", "key")
    return Neighbors(*(np.concatenate([getattr(part, name) for part in parts], axis) for name in names))


class TopK:
    """The k nearest rows of each of Q queries so far; with labels, only the first row of each label."""

    def __init__(self, queries: int, k: int) -> None:
        """Start without rows."""
        self.cosine = np.full((queries, k), -np.inf, np.float32)
        """[Q, k], highest first."""
        self._layer = np.full((queries, k), np.iinfo(np.int32).max, np.int32)
        self._position = np.full((queries, k), np.iinfo(np.int64).max, np.int64)
        self._label = np.tile(_MOST - np.arange(k, dtype=np.int64), (queries, 1))  # of a place without a row: its own
        self._columns: list[Keys] = []

    def add(
        self,
        query: NDArray[np.int64],
        cosine: NDArray[np.float32],
        layer: int,
        keys: Keys,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        """Add candidates, and keep the k nearest.

        Args:
            query, cosine, rows: [n], one entry per candidate; `rows` are the positions of the keys in `keys`.
            layer: contextual layer of all of them.
            keys: held until the search ends; pass one object for all calls of a table.
            labels: [n], where only the first row of each label counts: in all calls of a search, or in none.
        """
        near = np.flatnonzero(cosine >= self.cosine[query, -1])
        if not len(near):
            return
        touched, slot = _distinct(query[near])
        k = self.cosine.shape[1]
        query_of = np.concatenate([np.repeat(np.arange(len(touched)), k), slot])
        all_cosine = np.concatenate([self.cosine[touched].ravel(), cosine[near]])
        all_layer = np.concatenate([self._layer[touched].ravel(), np.full(len(near), layer, np.int32)])
        position = np.concatenate([self._position[touched].ravel(), self._number(keys) << _ROW_BITS | rows[near]])
        order = self._order(query_of, all_cosine, all_layer, position)
        if labels is not None:
            label = np.concatenate([self._label[touched].ravel(), labels[near]])
            order = order[_first_of_label(query_of[order], label[order])]
        nearest = _first_of_query(order, query_of, k)
        self.cosine[touched] = all_cosine[nearest].reshape(-1, k)
        self._layer[touched] = all_layer[nearest].reshape(-1, k)
        self._position[touched] = position[nearest].reshape(-1, k)
        if labels is not None:
            self._label[touched] = label[nearest].reshape(-1, k)

    def neighbors(self) -> Neighbors:
        """The nearest rows with their keys."""
        return Neighbors(self.cosine, self._layer, self._keys_of(self._position.ravel()).reshape(self._position.shape))

    def _number(self, keys: Keys) -> int:
        if not self._columns or self._columns[-1] is not keys:
            self._columns.append(keys)
        return len(self._columns) - 1

    def _keys_of(self, position: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The keys at some positions; the largest number where there is no row."""
        keys = np.full(len(position), np.iinfo(np.uint64).max, np.uint64)
        column, row = position >> _ROW_BITS, position & ((1 << _ROW_BITS) - 1)
        for number in np.unique(column[column < len(self._columns)]):
            of_column = column == number
            keys[of_column] = self._columns[number][row[of_column]]
        return keys

    def _order(
        self,
        query_of: NDArray[np.int64],
        cosine: NDArray[np.float32],
        layer: NDArray[np.int32],
        position: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """The order of the rows by (query, cosine, layer, key): of each query the nearest first."""
        codes = query_of.astype(np.uint64) << np.uint64(32) | _descending(cosine)
        order = np.argsort(codes)
        tied = _repeated(codes[order]) & np.isfinite(cosine[order])
        if tied.any():
            rows = order[tied]
            rows = rows[np.lexsort((layer[rows], codes[rows]))]
            same = _repeated(codes[rows], layer[rows])
            keys = np.zeros(len(rows), np.uint64)
            keys[same] = self._keys_of(position[rows[same]])
            order[tied] = rows[np.lexsort((keys, layer[rows], codes[rows]))]
        return order


def _descending(cosine: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Numbers in the opposite order of the cosines, equal where they are equal."""
    bits = (cosine + np.float32(0)).view(np.uint32)  # -0 becomes 0
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, bits, ~bits & np.uint32(0x7FFFFFFF))


def _repeated(*columns: NDArray) -> NDArray[np.bool_]:
    """Which rows of sorted columns equal a neighboring row in all of them."""
    same = np.all([column[1:] == column[:-1] for column in columns], axis=0)
    return np.concatenate([[False], same]) | np.concatenate([same, [False]])


def _distinct(query: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different numbers, ascending, and the place of each number among them; quick where they are close."""
    first = query.min()
    seen = np.zeros(query.max() - first + 1, bool)
    seen[query - first] = True
    place = np.cumsum(seen) - 1
    return np.flatnonzero(seen) + first, place[query - first]


def _first_of_label(query_of: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first position of each label of each query, in order."""
    codes = query_of << 32 | labels
    by_label = np.argsort(codes)
    starts = np.flatnonzero(np.diff(codes[by_label], prepend=-1))
    return np.sort(np.minimum.reduceat(by_label, starts))


def _first_of_query(order: NDArray[np.int64], query_of: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The first k of each query's rows, which are together in `order`; each query has k."""
    counts = np.bincount(query_of[order])
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[rank < k]
