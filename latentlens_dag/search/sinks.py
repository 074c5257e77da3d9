"""Attention sinks: tokens whose state has an outlying norm and carries no meaning.

Language models park attention that they do not need on a few tokens: the first one, whatever it is, and some others
(a short first word's successor, a repeated "the"). From some layer on the states of all of them are one vector of many
times the usual length (Xiao et al., arXiv 2309.17453; Sun et al., "Massive activations", arXiv 2402.17762). In
SmolLM2-135M the first token has norm 22,664 at layer 16 where the median is 176, and two sinks of unrelated sentences
have cosine .9999, so they would be each other's nearest neighbors.

A state is a sink of its layer where

- its norm is an outlier: above the median by more than 10 median absolute deviations, and above twice the median (where
  nearly all norms are equal, as after a connector that normalizes, the first would find tiny differences), and
- the states of such a norm share one direction: the mean of their unit vectors is at least .95 long. Long states that
  point in different directions are words that mean something (in the demo's layer 1 "candle", "shoe" and "octopus":
  .75; the sinks of SmolLM2: .98 and more). Where they do not share one, limits of twice, four times, ... the norm are
  tried, since sinks may be far above other long states.

Fewer than 10 such states may be of one word in like sentences, so they are sinks only above 5 times the median. Note: a
limit of the norm cannot tell a long word among many sinks from them, nor does it find tokens on their way to a sink, of
like direction and usual length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = tuple[NDArray[np.float32], NDArray[np.floating]]

_DEVIATIONS = 10
_TIMES_MEDIAN, _TIMES_MEDIAN_IF_FEW = 2, 5
_MANY = 10  # states that share a direction
_SHARED = 0.95


def sink_norm(norms: NDArray[np.float32], rows_above: Callable[[float], Iterable[Rows]]) -> float:
    """The norm above which a state is a sink; infinite where none is.

    Args:
        norms: [N], of all states of a layer.
        rows_above: gives the norms [n] and the states [n, d], of any length, whose norm is above a limit, in parts.
    """
    lowest = outlier_norm(norms)
    sure = _TIMES_MEDIAN_IF_FEW * float(np.median(norms)) if len(norms) else np.inf
    limits = _limits(lowest, max(sure, lowest), float(norms.max(initial=0)))
    count, total = np.zeros(len(limits)), None
    for part, states in rows_above(lowest) if limits else ():
        unit = states.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        above = part[None] > np.array(limits, np.float32)[:, None]
        total = above @ unit + (0 if total is None else total)
        count += above.sum(1)
    for limit, states_above, sum_of_units in zip(limits, count, () if total is None else total, strict=True):
        shared = float(np.linalg.norm(sum_of_units)) / states_above
        if shared >= _SHARED and (states_above >= _MANY or limit >= np.float32(sure)):
            return limit
    return float("inf")


def outlier_norm(norms: NDArray[np.float32]) -> float:
    """The norm above which a norm [N] is an outlier; infinite where there are none."""
    if not len(norms):
        return float("inf")
    median = float(np.median(norms))
    deviation = float(np.median(np.abs(norms - np.float32(median))))
    return float(np.float32(max(median + _DEVIATIONS * deviation, _TIMES_MEDIAN * median)))


def _limits(lowest: float, sure: float, highest: float) -> list[float]:
    """The limits to try, ascending: `lowest` and its doubles, and `sure`; only those that some norm is above."""
    found = {float(np.float32(sure))}
    while lowest < highest:
        found.add(lowest)
        lowest *= 2
    return sorted(limit for limit in found if limit < highest)
