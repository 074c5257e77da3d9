"""How the directions of states are spread: their mean cosine, and the dimensions that hold their squared length.

Of n states x in groups g (the tokens of an image, a text or a sentence), with u = x / |x|:

- *anisotropy*: the mean of u_i . u_j over all pairs of different groups. It follows from sums, without the pairs:
  (|sum_i u_i|^2 - sum_g |sum_{i in g} u_i|^2) / (n^2 - sum_g n_g^2). States of one group are alike for reasons of their
  own, so their pairs are left out.
- *share of dimension d*: the mean of u_id^2, so that long states count no more than others. All shares sum to 1.

Sums are in float64, so the order of the groups changes nothing but rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOP = 10


class Directions(NamedTuple):
    """Figures of n states."""

    states: int
    dimensions: int
    anisotropy: float
    """-1..1; NaN where all states are of one group."""
    top_dimension: int
    """The dimension with the largest share."""
    top_share: float
    top_10_share: float
    """Of the ten dimensions with the largest shares; 1 where there are no more than ten."""


class DirectionSums:
    """The sums over states, which are added block after block."""

    def __init__(self, width: int) -> None:
        """Start without states of this width."""
        self._count, self._total, self._squares = 0, np.zeros(width), np.zeros(width)
        self._pairs_within, self._cosines_within = 0, 0.0
        self._open: object = None  # the group whose states may go on in the next block
        self._open_count, self._open_total = 0, np.zeros(width)

    def add(self, states: NDArray[np.floating], groups: NDArray) -> None:
        """Add states [n, d], none without a direction, and the group of each [n]; a group's states are in a row."""
        if not len(states):
            return
        unit = states.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        self._count += len(unit)
        self._total += unit.sum(0)
        self._squares += np.einsum("nd,nd->d", unit, unit)
        starts = np.concatenate([[0], 1 + np.flatnonzero(groups[1:] != groups[:-1])])
        ends = np.append(starts[1:], len(unit))
        totals, counts = np.add.reduceat(unit, starts, axis=0), ends - starts
        if groups[0] == self._open:
            totals[0] += self._open_total
            counts[0] += self._open_count
        else:
            self._close_groups(self._open_total[None], np.array([self._open_count]))
        self._close_groups(totals[:-1], counts[:-1])
        self._open, self._open_total, self._open_count = groups[-1], totals[-1], int(counts[-1])

    def _close_groups(self, totals: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        self._pairs_within += int((counts**2).sum())
        self._cosines_within += float(np.einsum("gd,gd->", totals, totals))

    def figures(self) -> Directions | None:
        """The figures of all states so far; None without any."""
        if not self._count:
            return None
        within = self._cosines_within + float(self._open_total @ self._open_total)
        pairs = self._count**2 - self._pairs_within - self._open_count**2
        cosines = float(self._total @ self._total) - within
        shares = self._squares / self._squares.sum()
        top = int(np.argmax(shares))
        of_ten = float(np.sort(shares)[-_TOP:].sum())
        anisotropy = cosines / pairs if pairs else float("nan")
        return Directions(self._count, len(shares), anisotropy, top, float(shares[top]), of_ten)
