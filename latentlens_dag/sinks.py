"""Attention sinks: tokens whose state has an outlying norm and says nothing.

Language models park attention that they do not need on a few tokens: the first one, whatever it is, and some others
(a short first word's successor, a repeated "the"). From some layer on the states of all of them are one vector of many
times the usual length (Xiao et al., arXiv 2309.17453; Sun et al., "Massive activations", arXiv 2402.17762). In
SmolLM2-135M the first token has norm 22,664 at layer 16 where the median is 176, and two sinks of unrelated sentences
have cosine .9999, so they would be each other's best answers.

A state is a sink of its layer where

- its norm is an outlier: above the median by more than 10 median absolute deviations, and above 3 times the median
  (where nearly all norms are equal, as after a connector that normalizes, the first would find tiny differences), and
- it shares its direction with the others of such a norm: the mean of their unit vectors is at least .9 long. Long
  states that point in different directions are words that mean something (in the demo's layer 1 "candle", "shoe" and
  "octopus": .75; the sinks of SmolLM2: .98 and more). Where they do not share one, limits of twice, four times, ... the
  norm are tried, since sinks may be far above other long states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = tuple[NDArray[np.float32], NDArray[np.floating]]

_DEVIATIONS = 10
_TIMES_MEDIAN = 3
_SHARED = 0.9


def sink_norm(norms: NDArray[np.float32], rows_above: Callable[[float], Iterable[Rows]]) -> float:
    """The norm above which a state is a sink; infinite where none is.

    Args:
        norms: [N], of all states of a layer.
        rows_above: gives the norms [n] and the states [n, d], of any length, whose norm is above a limit, in parts.
    """
    lowest = outlier_norm(norms)
    limits = _limits(lowest, float(norms.max(initial=0)))
    count, total = np.zeros(len(limits)), None
    for part, states in rows_above(lowest) if limits else ():
        unit = states.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        above = part[None] > np.array(limits, np.float32)[:, None]
        total = above @ unit + (0 if total is None else total)
        count += above.sum(1)
    if total is None:
        return float("inf")
    shared = np.linalg.norm(total, axis=1) / np.maximum(count, 1)
    return next((limit for limit, length in zip(limits, shared, strict=True) if length >= _SHARED), float("inf"))


def outlier_norm(norms: NDArray[np.float32]) -> float:
    """The norm above which a norm [N] is an outlier; infinite where there are none."""
    if not len(norms):
        return float("inf")
    median = float(np.median(norms))
    deviation = float(np.median(np.abs(norms - np.float32(median))))
    return float(np.float32(max(median + _DEVIATIONS * deviation, _TIMES_MEDIAN * median)))


def _limits(lowest: float, highest: float) -> list[float]:
    """`lowest` and its doubles, as far as some norm is above."""
    found = []
    while lowest < highest:
        found.append(lowest)
        lowest *= 2
    return found
