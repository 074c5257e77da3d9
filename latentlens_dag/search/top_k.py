"""The best answers that a search has found so far, in their one order: (cosine, contextual layer, key).

What a newcomer gets wrong: keys are strings in a table, and reading those of all candidates costs a tenth of a search,
though most candidates are soon replaced. An answer is therefore remembered by where its key stands, and keys are read
for the answers that remain, for those that tie, and where labels are made of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LabelsOf = Callable[["NDArray[np.uint64]"], "NDArray[np.int64]"]
"""The label of each key, at least 0; rows of equal labels count once."""
_ROW_BITS = 40  # of a place: its row; above them the number of the column


class Keys(Protocol):
    """The keys of a table's rows; an array, or what makes one only for the rows that are asked for."""

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The keys of some rows."""
        ...


@dataclass(frozen=True)
class Neighbors:
    """The nearest rows of each of Q queries, nearest first; equal cosines in order of (layer, key).

    A query has as many answers as there are rows, at most k: where there are fewer, `cosine` is -inf.
    """

    cosine: NDArray[np.float32]  # [Q, k]
    contextual_layer: NDArray[np.int32]  # [Q, k]
    key: NDArray[np.uint64]  # [Q, k]


class TopK:
    """The k best answers of each of Q queries so far; with labels, of the rows of one label only the first is one."""

    def __init__(self, queries: int, k: int, labels_of: LabelsOf | None) -> None:
        """Nothing found yet."""
        self.cosine = np.full((queries, k), -np.inf, np.float32)
        """[Q, k], highest first."""
        self._layer = np.full((queries, k), np.iinfo(np.int32).max, np.int32)
        self._place = np.full((queries, k), np.iinfo(np.int64).max, np.int64)
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
        """Put in what is better.

        Args:
            query, cosine, rows: [n], one entry per candidate; `rows` says where its key stands in `keys`.
            layer: contextual layer of all of them.
            keys: kept, where it is not the one of the call before, until the search ends.
        """
        touched, slot = np.unique(query, return_inverse=True)
        k = self.cosine.shape[1]
        owner = np.concatenate([np.repeat(np.arange(len(touched)), k), slot])
        all_cosine = np.concatenate([self.cosine[touched].ravel(), cosine])
        all_layer = np.concatenate([self._layer[touched].ravel(), np.full(len(query), layer, np.int32)])
        place = np.concatenate([self._place[touched].ravel(), self._number(keys) << _ROW_BITS | rows])
        order = self._order(owner, all_cosine, all_layer, place)
        rank = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])
        kept = order[rank < k]
        self.cosine[touched] = all_cosine[kept].reshape(-1, k)
        self._layer[touched] = all_layer[kept].reshape(-1, k)
        self._place[touched] = place[kept].reshape(-1, k)

    def neighbors(self) -> Neighbors:
        """The answers, with their keys."""
        return Neighbors(self.cosine, self._layer, self._keys_of(self._place.ravel()).reshape(self._place.shape))

    def _number(self, keys: Keys) -> int:
        if not self._columns or self._columns[-1] is not keys:
            self._columns.append(keys)
        return len(self._columns) - 1

    def _keys_of(self, place: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The keys that stand at some places; the largest number where there is no answer."""
        keys = np.full(len(place), np.iinfo(np.uint64).max, np.uint64)
        column, row = place >> _ROW_BITS, place & ((1 << _ROW_BITS) - 1)
        for number in np.unique(column[column < len(self._columns)]):
            mine = column == number
            keys[mine] = self._columns[number][row[mine]]
        return keys

    def _order(
        self,
        owner: NDArray[np.int64],
        cosine: NDArray[np.float32],
        layer: NDArray[np.int32],
        place: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """The answers in order: of each owner the best first; with labels, only the first of each label."""
        if self._labels_of is not None:
            keys = self._keys_of(place)
            order = np.lexsort((keys, layer, -cosine, owner))
            return order[_first_of_label(owner[order], cosine[order], keys[order], self._labels_of)]
        order = np.lexsort((layer, -cosine, owner))
        same = np.all([np.diff(values[order]) == 0 for values in (owner, layer)], axis=0)
        same &= (cosine[order][1:] == cosine[order][:-1]) & np.isfinite(cosine[order][1:])
        if not same.any():
            return order
        tied = order[np.concatenate([[False], same]) | np.concatenate([same, [False]])]
        keys = np.zeros(len(place), np.uint64)
        keys[tied] = self._keys_of(place[tied])
        return np.lexsort((keys, layer, -cosine, owner))


def _first_of_label(
    owner: NDArray[np.int64], cosine: NDArray[np.float32], keys: NDArray[np.uint64], labels_of: LabelsOf
) -> NDArray[np.int64]:
    """Where each label of each owner comes first, in order; empty places (cosine -inf) all stay."""
    filled = ~np.isneginf(cosine)
    labels = -1 - np.arange(len(keys))
    labels[filled] = labels_of(keys[filled])
    order = np.lexsort((np.arange(len(keys)), labels, owner))
    same = (np.diff(owner[order]) == 0) & (np.diff(labels[order]) == 0)
    return np.sort(order[np.concatenate([[True], ~same])])
