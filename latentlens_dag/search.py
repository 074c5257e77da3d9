"""Exact cosine nearest neighbors over layer tables too large for memory.

Blocks of rows come from an iterable, so this module does not know where rows are kept. One pass serves
any number of queries. The product of a block with all queries, in float32, only *proposes*: a row is a
candidate where its score comes within an error bound of the k-th best answer so far. Candidates are
scored again in float64, rounded to float32 and compared as (cosine, contextual layer, key), so that the
answer depends neither on how rows were cut into blocks nor on how the product was computed.

The bound. The float32 dot product of unit vectors of width d is wrong by at most d u / (1 - d u) with
u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, eq. 3.5, with |q| |x| = 1 by
Cauchy-Schwarz); normalizing in float32 adds a few u. `_slack` takes twice that, so no neighbor is missed.

With labels (the word or the sentence of a row) only the best row of each label is an answer. The k-th best
label's row is then the floor, and no row below it can be the best of a label among the first k.

What a newcomer gets wrong: stored vectors are float16 and so only nearly of unit length. Cosines are
taken to what is stored, divided by its true length; ignoring that loses neighbors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_GROUP = 64  # rows whose best score is looked at first: a maximum over groups costs a tenth of a sort
LabelsOf = Callable[["NDArray[np.uint64]"], "NDArray[np.int64]"]
"""The label of each key, at least 0; rows of equal labels count once."""
_QUERIES_PER_PRODUCT = 4096  # with blocks of 4,096 rows, a score buffer of 64 MiB


class Block(NamedTuple):
    """Some rows of a contextual layer."""

    contextual_layer: int
    keys: NDArray[np.uint64]  # [B]
    vectors: NDArray[np.float16]  # [B, d]


@dataclass(frozen=True)
class Neighbors:
    """The nearest rows of each of Q queries, nearest first; equal cosines in order of (layer, key).

    A query has as many answers as there are rows, at most k: where there are fewer, `cosine` is -inf.
    """

    cosine: NDArray[np.float32]  # [Q, k]
    contextual_layer: NDArray[np.int32]  # [Q, k]
    key: NDArray[np.uint64]  # [Q, k]


def cosine_top_k(
    queries: NDArray[np.floating], blocks: Iterable[Block], k: int, labels_of: LabelsOf | None = None
) -> Neighbors:
    """Find the k rows with the highest cosine to each query.

    Args:
        queries: [Q, d], any floating type; need not be normalized.
        blocks: the rows, in any order and cut in any way; keys are distinct within a contextual layer.
        k: answers per query.
        labels_of: where given, of the rows of one label only the first is an answer.

    Raises:
        ValueError: if k < 1, a width differs, or a query or row has no direction (zero, infinite, NaN).

    Memory grows with Q (d + k) and the size of a block; the corpus itself is never held.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    exact = _unit_float64(queries, "query")
    best = _empty(len(exact), k)
    coarse = exact.astype(np.float32)
    for block in blocks:
        if block.vectors.shape[1] != exact.shape[1]:
            raise ValueError(
                f"Queries have width {exact.shape[1]} but the block of contextual layer {block.contextual_layer} has "
                f"width {block.vectors.shape[1]}: were both made by the same language model?"
            )
        for start in range(0, len(exact), _QUERIES_PER_PRODUCT):
            part = slice(start, start + _QUERIES_PER_PRODUCT)
            _search_block(exact[part], coarse[part], block, _view(best, part), labels_of)
    return best


def _search_block(
    exact: NDArray[np.float64],
    coarse: NDArray[np.float32],
    block: Block,
    best: Neighbors,
    labels_of: LabelsOf | None,
) -> None:
    """Put what is better in the block into `best`, in place."""
    import torch

    rows = block.vectors.astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(
            f"The row with key {block.keys[bad]:016x} of contextual layer {block.contextual_layer} has no direction "
            "(zero, infinite or NaN): the table is damaged. Rebuild it."
        )
    scores = torch.from_numpy(rows) @ torch.from_numpy(coarse).T  # [B, Q]
    labels = None if labels_of is None else labels_of(block.keys)
    floor = torch.from_numpy(_floor(scores, best, exact.shape[1], labels))
    query, row = _proposed(scores, floor)
    if len(query):
        cosine = _exact_cosine(exact, block.vectors, query, row)
        _merge(best, query, cosine, block.contextual_layer, block.keys[row], labels_of)


def _floor(scores: Tensor, best: Neighbors, width: int, labels: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """What a score must reach to be a candidate, per query: the k-th best known, less the bound."""
    import torch

    k = best.cosine.shape[1]
    floor = best.cosine[:, -1]
    if np.isneginf(floor).any():
        # Nothing is known yet: the k-th best of the maxima by group or label is a floor, for k of them reach it.
        maxima = _group_maxima(scores) if labels is None else _label_maxima(scores, labels)
        if len(maxima) >= k:
            floor = np.maximum(floor, torch.topk(maxima, k, dim=0).values[-1].numpy())
    return (floor - _slack(width)).astype(np.float32)


def _proposed(scores: Tensor, floor: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Queries and rows of the scores that reach the floor: groups first, then the rows of the groups that do."""
    import torch

    groups, queries = torch.nonzero(_group_maxima(scores) >= floor, as_tuple=True)
    rows = groups[:, None] * _GROUP + torch.arange(_GROUP)
    inside = rows < len(scores)
    hit = inside & (scores[rows.clamp_max(len(scores) - 1), queries[:, None]] >= floor[queries][:, None])
    which, offset = torch.nonzero(hit, as_tuple=True)
    return queries[which].numpy(), rows[which, offset].numpy()


def _group_maxima(scores: Tensor) -> Tensor:
    """The highest score of every 64 rows: [B / 64, Q]."""
    import torch

    whole = len(scores) // _GROUP * _GROUP
    maxima = scores[:whole].unflatten(0, (-1, _GROUP)).amax(1) if whole else scores[:0]
    rest = scores[whole:]
    return torch.cat([maxima, rest.amax(0, keepdim=True)]) if len(rest) else maxima


def _label_maxima(scores: Tensor, labels: NDArray[np.int64]) -> Tensor:
    """The highest score of every label: [labels, Q]."""
    import torch

    known, slot = np.unique(labels, return_inverse=True)
    lowest = scores.new_full((len(known), scores.shape[1]), -torch.inf)
    return lowest.scatter_reduce_(0, torch.from_numpy(slot)[:, None].expand_as(scores), scores, "amax")


def _exact_cosine(
    exact: NDArray[np.float64], vectors: NDArray[np.float16], query: NDArray[np.int64], row: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Cosines of pairs, in float64, rounded to float32; each depends on its own two vectors alone."""
    cosine = np.empty(len(query), np.float32)
    for start in range(0, len(query), 4096):
        part = slice(start, start + 4096)
        x = vectors[row[part]].astype(np.float64)
        cosine[part] = (exact[query[part]] * x).sum(1) / np.sqrt((x * x).sum(1))
    return cosine


def _merge(
    best: Neighbors,
    query: NDArray[np.int64],
    cosine: NDArray[np.float32],
    layer: int,
    keys: NDArray[np.uint64],
    labels_of: LabelsOf | None,
) -> None:
    touched, slot = np.unique(query, return_inverse=True)
    k = best.cosine.shape[1]
    owner = np.concatenate([np.repeat(np.arange(len(touched)), k), slot])
    all_cosine = np.concatenate([best.cosine[touched].ravel(), cosine])
    all_layer = np.concatenate([best.contextual_layer[touched].ravel(), np.full(len(query), layer, np.int32)])
    all_key = np.concatenate([best.key[touched].ravel(), keys])
    order = np.lexsort((all_key, all_layer, -all_cosine, owner))
    if labels_of is not None:
        order = order[_first_of_label(owner[order], all_cosine[order], all_key[order], labels_of)]
    rank = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])
    kept = order[rank < k]
    best.cosine[touched] = all_cosine[kept].reshape(-1, k)
    best.contextual_layer[touched] = all_layer[kept].reshape(-1, k)
    best.key[touched] = all_key[kept].reshape(-1, k)


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


def _slack(width: int) -> float:
    unit = 2.0**-24
    return 2 * (width + 8) * unit / (1 - (width + 8) * unit)


def _unit_float64(rows: NDArray[np.floating], what: str) -> NDArray[np.float64]:
    rows = np.asarray(rows, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = ~(np.isfinite(norms) & (norms > 0)).ravel()
    if bad.any():
        raise ValueError(
            f"The {what} at row {int(np.flatnonzero(bad)[0])} has no direction: it is zero, infinite or NaN."
        )
    return rows / norms


def _empty(queries: int, k: int) -> Neighbors:
    far = np.iinfo(np.int32).max
    return Neighbors(
        np.full((queries, k), -np.inf, np.float32),
        np.full((queries, k), far, np.int32),
        np.full((queries, k), np.iinfo(np.uint64).max, np.uint64),
    )


def _view(best: Neighbors, part: slice) -> Neighbors:
    return Neighbors(best.cosine[part], best.contextual_layer[part], best.key[part])
