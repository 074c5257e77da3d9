"""Attention sinks: tokens whose state has an outlying norm and says nothing.

Language models park attention that they do not need on a few tokens: the first one, whatever it is, and some others
(a short first word's successor, a repeated "the"). From some layer on the states of all of them are one vector of many
times the usual length (Xiao et al., arXiv 2309.17453; Sun et al., "Massive activations", arXiv 2402.17762). In
SmolLM2-135M the first token has norm 22,664 at layer 16 where the median is 176, and two sinks of unrelated sentences
have cosine .9999, so they would be each other's best answers.

A state is a sink of its layer where its norm is above the median by more than 10 median absolute deviations, and above
3 times the median: where nearly all norms are equal (after a connector that normalizes), the first alone would call
tiny differences outliers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DEVIATIONS = 10
_TIMES_MEDIAN = 3


def sink_norm(norms: NDArray[np.float32]) -> float:
    """The norm above which a state is a sink, of the norms [N] of one layer; infinite where there are none."""
    if not len(norms):
        return float("inf")
    median = float(np.median(norms))
    deviation = float(np.median(np.abs(norms - np.float32(median))))
    return float(np.float32(max(median + _DEVIATIONS * deviation, _TIMES_MEDIAN * median)))
