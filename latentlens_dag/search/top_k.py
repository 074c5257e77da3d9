"""The nearest rows that a search has found so far, in order of (cosine, contextual layer, key).

Keys are strings in a table, and reading those of all candidates costs a tenth of a search, though most candidates are
soon replaced. A row is therefore stored with the position of its key, and keys are read for the rows that remain, for
those that tie, and where labels are made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LabelsOf = Callable[["NDArray[np.uint64]"], "NDArray[np.int64]"]
"""The label of each key, at least 0; rows of equal labels count once."""
_ROW_BITS = 40  # of a key's position: its row; above them the number of the column


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

    def __init__(self, queries: int, k: int, labels_of: LabelsOf | None) -> None:
        """Start without rows."""
        self.cosine = np.full((queries, k), -np.inf, np.float32)
        """[Q, k], highest first."""
        self._layer = np.full((queries, k), np.iinfo(np.int32).max, np.int32)
        self._position = np.full((queries, k), np.iinfo(np.int64).max, np.int64)
        self._labels_of = labels_of
        self._columns: list[Keys] = []

    def add(
        self,
        query: NDArray[np.int64],
        cosine: NDArray[np.float32],
        layer: int,
        keys: Keys,
        rows: NDArray[np.int64],
    ) -> None:
        """Add candidates, and keep the k nearest.

        Args:
            query, cosine, rows: [n], one entry per candidate; `rows` are the positions of the keys in `keys`.
            layer: contextual layer of all of them.
            keys: held until the search ends; pass one object for all calls of a table.
        """
        touched, slot = np.unique(query, return_inverse=True)
        k = self.cosine.shape[1]
        query_of = np.concatenate([np.repeat(np.arange(len(touched)), k), slot])
        all_cosine = np.concatenate([self.cosine[touched].ravel(), cosine])
        all_layer = np.concatenate([self._layer[touched].ravel(), np.full(len(query), layer, np.int32)])
        position = np.concatenate([self._position[touched].ravel(), self._number(keys) << _ROW_BITS | rows])
        order = self._order(query_of, all_cosine, all_layer, position)
        rank = np.arange(len(order)) - np.searchsorted(query_of[order], query_of[order])
        nearest = order[rank < k]
        self.cosine[touched] = all_cosine[nearest].reshape(-1, k)
        self._layer[touched] = all_layer[nearest].reshape(-1, k)
        self._position[touched] = position[nearest].reshape(-1, k)

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
        """The order of the rows: of each query the nearest first; with labels, only the first of each label."""
        if self._labels_of is not None:
            keys = self._keys_of(position)
            order = np.lexsort((keys, layer, -cosine, query_of))
            return order[_first_of_label(query_of[order], cosine[order], keys[order], self._labels_of)]
        order = np.lexsort((layer, -cosine, query_of))
        same = np.all([np.diff(values[order]) == 0 for values in (query_of, layer)], axis=0)
        same &= (cosine[order][1:] == cosine[order][:-1]) & np.isfinite(cosine[order][1:])
        if not same.any():
            return order
        tied = order[np.concatenate([[False], same]) | np.concatenate([same, [False]])]
        keys = np.zeros(len(position), np.uint64)
        keys[tied] = self._keys_of(position[tied])
        return np.lexsort((keys, layer, -cosine, query_of))


def _first_of_label(
    query_of: NDArray[np.int64], cosine: NDArray[np.float32], keys: NDArray[np.uint64], labels_of: LabelsOf
) -> NDArray[np.int64]:
    """The first position of each label of each query, in order; all empty positions (cosine -inf) stay."""
    filled = ~np.isneginf(cosine)
    labels = -1 - np.arange(len(keys))
    labels[filled] = labels_of(keys[filled])
    order = np.lexsort((np.arange(len(keys)), labels, query_of))
    same = (np.diff(query_of[order]) == 0) & (np.diff(labels[order]) == 0)
    return np.sort(order[np.concatenate([[True], ~same])])
