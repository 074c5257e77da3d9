"""Exact cosine nearest neighbors over layer tables too large for memory.

Blocks of rows come from an iterable, so this module does not know where rows are stored. One pass serves any number of
queries. The product of a block with all queries (`search/prefilter.py`) only selects candidates: rows whose score comes
within a proved error bound of the k-th nearest row so far. Candidates are scored again in float64 (where they are very
many, only those that float32 does not rule out), rounded to float32 and compared as (cosine, contextual layer, key), so
the result depends neither on how rows were cut into blocks nor on how or where the product was computed.

The float32 dot product of unit vectors of width d is wrong by at most d u / (1 - d u) with u = 2^-24 (Higham, Accuracy
and Stability of Numerical Algorithms, eq. 3.5, with |q| |x| = 1 by Cauchy-Schwarz); normalizing in float32 adds a few
u. `_slack` takes twice that.

Rows may be excluded, for all queries (attention sinks) or for some (the sentence that a query was taken from). They
become candidates like others and are then dropped, so they never count towards a floor.

With labels (the word or the sentence of a row) only the nearest row of each label is a neighbor. The floor is then the
score of the k-th best label, and no row below it can be the best of a label among the first k.

Note: stored vectors are float16 and so only nearly of unit length. The cosine divides by their true length; ignoring
it would lose neighbors.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from latentlens_dag.device import default_device, full_precision, worker_threads
from latentlens_dag.search.prefilter import GROUP, Arithmetic, Prefilter, fastest_arithmetic, outlier_dimensions, slices
from latentlens_dag.search.top_k import Keys, LabelsOf, Neighbors, TopK, concat_neighbors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from latentlens_dag.search.prefilter import BlockMatrix

_QUERIES_PER_PRODUCT = 1024  # with blocks of 4,096 rows, a buffer of 8 MiB of bfloat16
_SCORES = 1 << 20  # of a product at least: of a small block, more queries at once
_OPENING_ROWS = 2048  # compared in float32 while queries lack k neighbors, so there is no floor
_MANY = 16  # candidates per query and block


class Exclusions(NamedTuple):
    """Rows of a block that are no neighbors: [n] pairs of a row and the query that excludes it."""

    rows: NDArray[np.int64]
    """Counted from the block's first row."""
    queries: NDArray[np.int64]
    """Indices of queries, or EVERY_QUERY."""


EVERY_QUERY = -1


class Block(NamedTuple):
    """Some rows of a contextual layer."""

    contextual_layer: int
    keys: Keys
    """Of the block's rows, or of all rows of its table."""
    vectors: NDArray[np.float16] | NDArray[np.float32]  # [B, d]
    first: int = 0
    """The position in `keys` of the key of the block's first row."""
    excluded: Exclusions | None = None


def cosine_top_k(
    queries: NDArray[np.floating],
    blocks: Iterable[Block],
    k: int,
    labels_of: LabelsOf | None = None,
    device: str | None = None,
    arithmetic: Arithmetic | None = None,
) -> Neighbors:
    """Find the k rows with the highest cosine to each query.

    Args:
        queries: [Q, d], any floating type; need not be normalized.
        blocks: the rows, in any order and cut in any way; keys are distinct within a contextual layer.
        k: neighbors per query.
        labels_of: gives the label of each key; only the nearest row of each label is a neighbor.
        device: a torch device for the products; CUDA where there is one, else the CPU.
        arithmetic: of the products; by default bfloat16 where the device has instructions for it and there are at
            least 8 queries, else float32. The result is the same.

    Raises:
        ValueError: if k < 1, a width differs, or a query or row has no direction (zero, infinite, NaN).

    Memory grows with Q (d + k) and, for every thread, with the size of a block; the corpus itself is never held.
    """
    (found,) = nested_top_k(queries, [blocks], k, labels_of, device, arithmetic)
    return found


def nested_top_k(
    queries: NDArray[np.floating],
    parts: Iterable[Iterable[Block]],
    k: int,
    labels_of: LabelsOf | None = None,
    device: str | None = None,
    arithmetic: Arithmetic | None = None,
) -> list[Neighbors]:
    """As `cosine_top_k`, for nested sets of rows: the neighbors among the first part, the first two, and so on.

    Args:
        parts: each has the blocks that the set has beyond the sets before it, so that no row is compared twice.

    The other arguments and the errors are those of `cosine_top_k`.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    where = device or default_device()
    chosen = arithmetic or fastest_arithmetic(len(queries), where)
    shares = _parts_for_threads(len(queries), where)
    queries = np.asarray(queries)
    lengths = _lengths(queries)
    searches = [_Search(queries[share], lengths[share], k, labels_of, where, chosen) for share in shares]
    found = []
    with full_precision(), warnings.catch_warnings(), worker_threads(len(shares)) as in_threads:
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # it is only read
        for blocks in parts:
            for block in blocks:
                deque(in_threads(partial(_add_block, searches, shares, block), len(shares)), maxlen=0)
            found.append(concat_neighbors([search.best.neighbors() for search in searches], axis=0))  # copies
    return found


def _add_block(searches: Sequence[_Search], parts: Sequence[slice], block: Block, number: int) -> None:
    """Add a block to the search of one part of the queries."""
    searches[number].block(_for_queries(block, parts[number]))


def _parts_for_threads(queries: int, device: str) -> list[slice]:
    """The queries in consecutive parts, each of which a thread of a CPU compares with every block.

    Most steps between the products take one thread only. A part smaller than a product's would not be worth the
    conversion of every block in every thread.
    """
    import torch

    threads = torch.get_num_threads() if device.startswith("cpu") else 1
    count = max(1, min(threads, queries // _QUERIES_PER_PRODUCT))
    edges = [queries * number // count for number in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


def _for_queries(block: Block, part: slice) -> Block:
    """The block with its exclusions counted from the first query of a part."""
    if block.excluded is None:
        return block
    rows, queries = block.excluded
    own = (queries == EVERY_QUERY) | ((queries >= part.start) & (queries < part.stop))
    shifted = np.where(queries == EVERY_QUERY, EVERY_QUERY, queries - part.start)
    return block._replace(excluded=Exclusions(rows[own], shifted[own]) if own.any() else None)


class _Search:
    """The queries of a search, and their nearest rows so far."""

    def __init__(
        self,
        queries: NDArray[np.floating],
        lengths: NDArray[np.float64],
        k: int,
        labels_of: LabelsOf | None,
        device: str,
        arithmetic: Arithmetic,
    ) -> None:
        import torch

        self._queries, self._lengths = queries, lengths
        self._labels_of = labels_of
        self._labels: _BlockLabels | None = None
        self._unit = torch.from_numpy(_unit_float32(self._queries, self._lengths)).to(device)
        self.best = TopK(len(self._queries), k)
        self._proved = np.full(len(self._queries), -np.inf, np.float32)  # floors, also where there are no k rows yet
        self._arithmetic: Arithmetic = arithmetic
        self._layer: int | None = None
        self._has_outliers = False
        self._prefilters: dict[Arithmetic, Prefilter] = {}
        self._failures, self._wait = 0, 0

    def block(self, block: Block) -> None:
        """Add the nearer rows of the block to `best`, in place."""
        import torch

        width = self._queries.shape[1]
        if block.vectors.shape[1] != width:
            raise ValueError(
                f"Queries have width {width} but the block of contextual layer {block.contextual_layer} has "
                f"width {block.vectors.shape[1]}: were both made by the same language model?"
            )
        if not len(block.vectors) or not len(self._queries):
            return
        vectors = torch.from_numpy(block.vectors).to(self._unit.device)
        self._begin_layer(block.contextual_layer, vectors)
        self._labels = _BlockLabels(block, self._labels_of) if self._labels_of is not None else None
        prefilter = self._next_prefilter()
        rows = prefilter.rows(vectors)
        _check_directions(rows.norms, block)
        step = max(_QUERIES_PER_PRODUCT, _SCORES // len(vectors))
        for first in range(0, len(self._queries), step):
            part = slice(first, min(first + step, len(self._queries)))
            start = self._open(block, vectors, prefilter, rows, part)
            if start == len(vectors):
                continue
            pairs = prefilter.candidate_pairs(rows, start, part, self._floor(part))
            if pairs is None:
                prefilter = self._after_failure()
                rows = prefilter.rows(vectors)
                self._prove_floors(block, prefilter, rows, part)
                pairs = prefilter.candidate_pairs(rows, start, part, self._floor(part))
            assert pairs is not None  # float32 always gives candidates
            self._decide(block, vectors, rows.norms, *pairs)
        if prefilter is self._prefilters[self._arithmetic]:
            self._failures = 0

    def _begin_layer(self, layer: int, vectors: Tensor) -> None:
        """Every contextual layer has outlier dimensions of its own; where there are none, the matrices stay."""
        if layer != self._layer:
            outliers = outlier_dimensions(vectors) if self._arithmetic == "bfloat16" else None
            if self._layer is None or outliers is not None or self._has_outliers:
                self._prefilters = {self._arithmetic: Prefilter(self._unit, self._arithmetic, outliers)}
            self._layer, self._has_outliers = layer, outliers is not None
            self._failures = self._wait = 0

    def _next_prefilter(self) -> Prefilter:
        """The product for the next block: in the requested arithmetic, but in float32 for a while after a failure."""
        if self._wait:
            self._wait -= 1
            return self._prefilter_in("float32")
        return self._prefilter_in(self._arithmetic)

    def _after_failure(self) -> Prefilter:
        """float32, after a product gave too many candidates; after each failure in turn for twice as many blocks."""
        self._wait = 2**self._failures
        self._failures += 1
        return self._prefilter_in("float32")

    def _prefilter_in(self, arithmetic: Arithmetic) -> Prefilter:
        if arithmetic not in self._prefilters:
            self._prefilters[arithmetic] = Prefilter(self._unit, arithmetic)
        return self._prefilters[arithmetic]

    def _floor(self, part: slice) -> Tensor:
        """The cosines that neighbors of some queries must reach, [q] float32; minus infinity where none is known."""
        import torch

        return torch.from_numpy(np.maximum(self.best.cosine[part, -1], self._proved[part])).to(self._unit.device)

    def _open(self, block: Block, vectors: Tensor, prefilter: Prefilter, rows: BlockMatrix, part: slice) -> int:
        """Find a floor for each of some queries; give the first row that was not compared with them on the way."""
        self._prove_floors(block, prefilter, rows, part)
        start = 0
        while start < len(vectors) and bool(self._floor(part).isneginf().any()):
            compared = slice(start, min(start + _OPENING_ROWS, len(vectors)))
            self._compare(block, vectors, rows.norms, compared, part)
            start = compared.stop
        return start

    def _prove_floors(self, block: Block, prefilter: Prefilter, rows: BlockMatrix, part: slice) -> None:
        """Floors from the product alone, for queries that lack k neighbors: no row need be compared for them."""
        k = self.best.cosine.shape[1]
        if len(rows.norms) < k * GROUP or not np.isneginf(self.best.cosine[part, -1]).any():
            return
        scores = prefilter.scores(rows, 0, part, self._unit.new_zeros(part.stop - part.start))
        _mask(scores, block.excluded, 0, part.start)
        row, cosine = prefilter.nearest_of_groups(scores, rows, part)
        if self._labels is not None:
            cosine = _without_repeated(cosine, self._labels[row.cpu().numpy()])
        self._proved[part] = np.maximum(self._proved[part], cosine.topk(k, dim=0).values[-1].cpu().numpy())

    def _compare(self, block: Block, vectors: Tensor, norms: Tensor, rows: slice, part: slice) -> None:
        """Compare some rows with some queries in float32: the k-th best row or label is a floor of its own."""
        import torch

        cosine = (vectors[rows].float() / norms[rows, None]) @ self._unit[part].T  # [rows, queries]
        _mask(cosine, block.excluded, rows.start, part.start)
        floor = self._floor(part)
        k = self.best.cosine.shape[1]
        best = cosine
        if self._labels is not None:
            best = _label_maxima(cosine, self._labels[np.arange(rows.start, rows.stop)])
        if len(best) >= k:
            floor = torch.maximum(floor, best.topk(k, dim=0).values[-1])
        row, query = torch.nonzero(cosine >= floor - _slack(self._queries.shape[1]), as_tuple=True)
        self._decide(block, vectors, norms, query + part.start, row + rows.start)

    def _decide(self, block: Block, vectors: Tensor, norms: Tensor, query: Tensor, row: Tensor) -> None:
        """Score the candidate pairs again, and keep the neighbors among them."""
        if len(query) > _MANY * len(self._queries):  # float32 is quicker where most of them are no neighbors
            close = self._close(vectors, norms, query, row)
            query, row = query[close], row[close]
        queries, rows = _allowed(block, query.cpu().numpy(), row.cpu().numpy())
        if len(queries):
            cosine = self._exact_cosine(block.vectors, queries, rows)
            labels = None if self._labels is None else self._labels[rows]
            self.best.add(queries, cosine, block.contextual_layer, block.keys, block.first + rows, labels)

    def _close(self, vectors: Tensor, norms: Tensor, query: Tensor, row: Tensor) -> Tensor:
        """Which pairs reach the floor in float32, or miss it by no more than float32 is wrong by."""
        import torch

        floor = self._floor(slice(None)) - _slack(self._queries.shape[1])
        # One tensor for all: small ones would lie between the large ones, whose memory could then not be reused.
        close = torch.empty(len(query), dtype=torch.bool, device=query.device)
        for part in slices(len(query), self._queries.shape[1]):
            q, r = query[part], row[part]
            close[part] = (self._unit[q] * vectors[r].float()).sum(1) / norms[r] >= floor[q]
        return close

    def _exact_cosine(
        self, vectors: NDArray[np.float16] | NDArray[np.float32], query: NDArray[np.int64], row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Cosines of pairs, in float64, rounded to float32; each depends on its own two vectors alone."""
        import torch

        cosine = np.empty(len(query), np.float32)
        for part in slices(len(query), vectors.shape[1]):
            x = torch.from_numpy(vectors[row[part]]).float().double().numpy()  # in half the time of NumPy's conversion
            q = self._queries[query[part]].astype(np.float64)
            lengths = self._lengths[query[part]] * np.sqrt(np.einsum("ij,ij->i", x, x))
            cosine[part] = np.einsum("ij,ij->i", q, x) / lengths
        return cosine


class _BlockLabels:
    """The labels of a block's rows; all are read once more of them were requested than there are."""

    def __init__(self, block: Block, labels_of: LabelsOf) -> None:
        self._block, self._labels_of = block, labels_of
        self._requested = 0
        self._all: NDArray[np.int64] | None = None

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The labels of some rows, counted from the block's first, of any shape."""
        self._requested += rows.size
        if self._all is None and self._requested > len(self._block.vectors):
            self._all = self._read(np.arange(len(self._block.vectors)))
        return self._read(rows.ravel()).reshape(rows.shape) if self._all is None else self._all[rows]

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._labels_of(self._block.keys[self._block.first + rows])


def _mask(cosine: Tensor, excluded: Exclusions | None, first_row: int, first_query: int) -> None:
    """Put excluded pairs of some rows and queries, [rows, queries], below all others, in place."""
    import torch

    if excluded is None:
        return
    rows, queries = excluded.rows - first_row, excluded.queries - first_query
    inside = (rows >= 0) & (rows < cosine.shape[0])
    everyone = excluded.queries == EVERY_QUERY
    cosine[torch.from_numpy(rows[inside & everyone]).to(cosine.device)] = -torch.inf
    own = inside & ~everyone & (queries >= 0) & (queries < cosine.shape[1])
    where = [torch.from_numpy(numbers[own]).to(cosine.device) for numbers in (rows, queries)]
    cosine[where[0], where[1]] = -torch.inf


def _allowed(
    block: Block, query: NDArray[np.int64], row: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs that are not excluded."""
    if block.excluded is None:
        return query, row
    rows, of_query = block.excluded
    for_all = np.zeros(len(block.vectors), bool)
    for_all[rows[of_query == EVERY_QUERY]] = True
    own = np.isin(query * len(block.vectors) + row, of_query * len(block.vectors) + rows)
    allowed = ~(for_all[row] | own)
    return query[allowed], row[allowed]


def _check_directions(norms: Tensor, block: Block) -> None:
    usable = norms.isfinite() & (norms > 0)
    if not bool(usable.all()):
        bad = block.first + (~usable).nonzero()[0].cpu().numpy()
        raise ValueError(
            f"The row with key {int(block.keys[bad][0]):016x} of contextual layer {block.contextual_layer} has no "
            "direction (zero, infinite or NaN): the table is damaged. Rebuild it."
        )


def _label_maxima(scores: Tensor, labels: NDArray[np.int64]) -> Tensor:
    """The highest score of every label: [labels, Q]."""
    import torch

    known, slot = np.unique(labels, return_inverse=True)
    lowest = scores.new_full((len(known), scores.shape[1]), -torch.inf)
    where = torch.from_numpy(slot).to(scores.device)[:, None].expand_as(scores)
    return lowest.scatter_reduce_(0, where, scores, "amax")


def _without_repeated(scores: Tensor, labels: NDArray[np.int64]) -> Tensor:
    """The scores [n, Q], but minus infinity where a higher or equal one of the same query has the same label [n, Q]."""
    import torch

    scores, order = scores.sort(0, descending=True)
    by_label, back = torch.from_numpy(labels).to(scores.device).gather(0, order).sort(dim=0, stable=True)
    again = torch.nn.functional.pad(by_label.diff(dim=0) == 0, (0, 0, 1, 0))
    return scores.masked_fill(torch.zeros_like(again).scatter(0, back, again), -torch.inf)


def _slack(width: int) -> float:
    unit = 2.0**-24
    return 2 * (width + 8) * unit / (1 - (width + 8) * unit)


def _lengths(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """The lengths of queries [N, d], in float64."""
    lengths = np.empty(len(rows))
    for part in slices(*rows.shape):
        lengths[part] = np.linalg.norm(rows[part].astype(np.float64), axis=1)
    bad = ~(np.isfinite(lengths) & (lengths > 0))
    if bad.any():
        raise ValueError(
            f"The query at row {int(np.flatnonzero(bad)[0])} has no direction: it is zero, infinite or NaN."
        )
    return lengths


def _unit_float32(rows: NDArray[np.floating], lengths: NDArray[np.float64]) -> NDArray[np.float32]:
    unit = np.empty(rows.shape, np.float32)
    for part in slices(*rows.shape):
        unit[part] = rows[part].astype(np.float64) / lengths[part, None]
    return unit
