"""The fast product that selects which rows may be neighbors, and the bound that makes sure it misses none.

A search knows, per query, the cosine that a neighbor must reach (the *floor* f: its k-th best so far). For a query of
unit length u and a row x of length n the question is whether u x - f n >= 0. One matrix product answers it for a block
of rows and all queries, in bfloat16 where the processor is fast at that: x and n stand in one matrix, u and -f in the
other, n and f each as two numbers of the product's type, whose sum is nearly exact. The product adds the bound of its
own error, so a row is a candidate where the sum is not negative. Rounding the sum costs nothing, for it keeps the sign;
only the rounding of u and x counts, and that is bounded.

The bound. Let e be the unit roundoff of the type (2^-8 for bfloat16, 2^-24 for float32), u' and x' the rounded
vectors, K the columns of the product. By Cauchy-Schwarz
    |u x - u' x'| <= |u - u'| |x'| + |u| |x - x'| <= (|u - u'| (1 + e) + |u| e) |x|
where |u - u'| is computed, not estimated. Two parts of n and f leave 4 e^2 n; summing K products in float32, even with
truncation, at most 5 K 2^-24 n; n itself is wrong by at most d 2^-24.

Outlier dimensions. The states of language models have a few dimensions that hold most of the energy, so that all
cosines are alike and the bound lets everything through. Where the 8 largest dimensions hold more than half of the
energy they are split into parts as n is, at 40 more columns; then only the rest of u and x counts in the bound.

Note: with more rows of the same cosine than the bound can tell apart, every row is a candidate. Then float32 is used
instead (`Prefilter.candidate_pairs` gives None), which costs time and never a neighbor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from latentlens_dag.device import has_bfloat16

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Arithmetic = Literal["bfloat16", "float32"]

GROUP = 64
"""Rows whose maximum is compared first: a maximum over groups costs a tenth of a sort."""
_MOST_OUTLIERS = 8  # dimensions that may be split off
_PADDING = 16  # the product's columns are a multiple of this
_FEW_QUERIES = 8  # below, a product is bound by reading the rows, and float32 saves a conversion
_TOO_MANY = 1 / 4  # of all (group, query): with more candidates, float32 is cheaper
_ELEMENTS = 1 << 18  # converted at a time: 1 MiB of float32 stays in the cache


class BlockMatrix(NamedTuple):
    """A block of rows, ready for the product."""

    matrix: Tensor
    """[B, K], of the product's type."""
    norms: Tensor
    """[B] float32."""
    residual_norms: Tensor
    """[B] float32: the lengths without the outlier dimensions."""


class Prefilter:
    """The queries of a search in one arithmetic, and the buffers of its products."""

    def __init__(self, unit: Tensor, arithmetic: Arithmetic, outliers: Tensor | None = None) -> None:
        """Take the queries [Q, d], float32 of unit length, and the dimensions to split off."""
        import torch

        self._dtype = getattr(torch, arithmetic)
        self._outliers = (
            unit.new_zeros(0, dtype=torch.int64) if outliers is None or arithmetic == "float32" else outliers
        )
        self._width = unit.shape[1]
        self._columns = -(-(self._width + 5 * len(self._outliers) + 5) // _PADDING) * _PADDING
        self._queries = self._prepared(unit)
        self._buffers: dict[str, Tensor] = {}

    @property
    def _unit_roundoff(self) -> float:
        import torch

        return torch.finfo(self._dtype).eps / 2

    def _prepared(self, unit: Tensor) -> Tensor:
        """The queries' matrix [Q, K], but for the floors."""
        import torch

        matrix = torch.zeros(len(unit), self._columns, dtype=self._dtype, device=unit.device)
        for part in slices(len(unit), self._width):
            matrix[part, : self._width] = unit[part]
            high, middle, low = _parts(unit[part][:, self._outliers], self._dtype, 3)
            self._put_outliers(matrix[part], [high, middle, middle, low, low])
            residual_norms, wrong = unit[part].clone(), unit[part] - matrix[part, : self._width].float()
            residual_norms[:, self._outliers] = wrong[:, self._outliers] = 0
            e = self._unit_roundoff
            slack = wrong.norm(dim=1) * (1 + e) + residual_norms.norm(dim=1) * e
            matrix[part, self._floor_column + 4] = self._rounded_up(slack)
        return matrix

    def rows(self, vectors: Tensor) -> BlockMatrix:
        """A block [B, d] of rows; it lies in a buffer that the next block overwrites."""
        import torch

        matrix = self._buffer("rows", len(vectors), self._columns)
        norms, residual_norms = (torch.empty(len(vectors), device=vectors.device) for _ in range(2))
        for part in slices(len(vectors), self._width):
            x = self._buffer("float32", part.stop - part.start, self._width, torch.float32)
            x.copy_(vectors[part])
            matrix[part, : self._width] = x
            torch.linalg.vector_norm(x, dim=1, out=norms[part])
            if len(self._outliers):
                high, low = _parts(x[:, self._outliers], self._dtype, 2)
                self._put_outliers(matrix[part], [low, high, low, high, low])
                x[:, self._outliers] = 0
                torch.linalg.vector_norm(x, dim=1, out=residual_norms[part])
        residual_norms = residual_norms if len(self._outliers) else norms
        high, low = _parts(norms, self._dtype, 2)
        tail = torch.stack((high, high, low, low, self._rounded_up(residual_norms)), dim=1)
        matrix[:, self._floor_column : self._floor_column + 5] = tail
        return BlockMatrix(matrix, norms, residual_norms)

    def candidate_pairs(
        self, rows: BlockMatrix, start: int, queries: slice, floor: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Pairs of query and row that may reach the floor; no other can.

        Args:
            rows: a block.
            start: the first row to compare.
            queries: which of the queries to compare.
            floor: [q] float32, all finite: the cosine that a neighbor must reach.

        Returns:
            Indices of queries (of all) and rows (of the block), or None where float32 is quicker.
        """
        import torch

        scores = self.scores(rows, start, queries, floor)
        groups, query = torch.nonzero(group_maxima(_ordered(scores)) >= 0, as_tuple=True)
        if self._dtype != torch.float32 and len(groups) > _TOO_MANY * scores.numel() / GROUP:
            return None
        pairs = [_expand_groups(scores, groups[part], query[part]) for part in slices(len(groups), GROUP)]
        query, row = (torch.cat(part) for part in zip(*pairs, strict=True)) if pairs else (query, groups)
        return query + queries.start, row + start

    def scores(self, rows: BlockMatrix, start: int, queries: slice, floor: Tensor) -> Tensor:
        """About u x - f n and the bound, of rows from `start` on and some queries [B - start, q].

        Nowhere negative where u x - f n is not. The next call overwrites it.
        """
        import torch

        self._put_floor(queries, floor)
        matrix = rows.matrix[start:]
        scores = self._buffer("scores", len(matrix), queries.stop - queries.start)
        return torch.mm(matrix, self._queries[queries].T, out=scores)

    def nearest_of_groups(self, scores: Tensor, rows: BlockMatrix, queries: slice) -> tuple[Tensor, Tensor]:
        """One row of each whole group of 64, for each of some queries, and a cosine that it is sure to reach.

        Args:
            scores: [B, q], of a block's rows and these queries with floors of zero; minus infinity leaves a row out.
            rows: the block.
            queries: which of the queries they are.

        Returns:
            Rows [B // 64, q] int64 and cosines [B // 64, q] float32, minus infinity where all of a group are left out.
        """
        import torch

        whole = scores[: len(scores) // GROUP * GROUP].unflatten(0, (-1, GROUP))
        score, row = whole.max(1)
        row += torch.arange(0, len(whole) * GROUP, GROUP, device=row.device)[:, None]
        score, e = score.float(), self._unit_roundoff
        # The score is above u x by what was added, at most the bound, and by its error, at most the bound. It was
        # rounded to its type; what is left is the rounding of n and of these lines.
        bound = (2 + 8 * e) * self.bound(queries, rows.norms[row], rows.residual_norms[row])
        rounding = (2 * e + (self._width + 8) * 2.0**-24) * score.abs()
        return row, (score - bound - rounding) / rows.norms[row]

    def bound(self, queries: slice, norms: Tensor, residual_norms: Tensor) -> Tensor:
        """How much `scores` add: what they may be wrong by, for rows of these lengths."""
        return self._queries[queries, self._floor_column + 4].float() * residual_norms + self._share_of_norm * norms

    @property
    def _share_of_norm(self) -> float:
        """The part of the bound that grows with a row's whole length."""
        e = self._unit_roundoff
        return (8 * e * e + (5 * self._columns + self._width + 64) * 2.0**-24) * (1 + 2 * e)

    def _rounded_up(self, values: Tensor) -> Tensor:
        """Numbers of the product's type that are no smaller."""
        return (values * (1 + 2 * self._unit_roundoff)).to(self._dtype)

    @property
    def _floor_column(self) -> int:
        return self._width + 5 * len(self._outliers)

    def _put_floor(self, queries: slice, floor: Tensor) -> None:
        high, low = _parts(self._share_of_norm - floor, self._dtype, 2)
        for column, values in enumerate((high, low, high, low)):
            self._queries[queries, self._floor_column + column] = values

    def _put_outliers(self, matrix: Tensor, parts: list[Tensor]) -> None:
        if len(self._outliers):
            columns = matrix[:, self._width : self._floor_column].unflatten(1, (5, -1))
            for number, values in enumerate(parts):
                columns[:, number] = values

    def _buffer(self, name: str, rows: int, columns: int, dtype: torch.dtype | None = None) -> Tensor:
        """Memory that is reused from block to block: fresh pages cost more than the work on them.

        It is zero at first, and columns that only pad stay so: a block has as many columns as the one before.
        """
        import torch

        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < rows * columns:
            buffer = torch.zeros(rows * columns, dtype=dtype or self._dtype, device=self._queries.device)
            self._buffers[name] = buffer
        return buffer[: rows * columns].view(rows, columns)


def outlier_dimensions(vectors: Tensor) -> Tensor | None:
    """The few dimensions that hold more than half of the energy of the rows [B, d]; None where there are none."""
    energy = vectors[:1024].float().square().sum(0)
    largest = energy.topk(min(_MOST_OUTLIERS, len(energy)))
    return largest.indices if largest.values.sum() > energy.sum() / 2 else None


def _ordered(scores: Tensor) -> Tensor:
    """Integers that are negative where the scores are, and else in their order: quicker to compare than bfloat16."""
    import torch

    return scores.view(torch.int16 if scores.dtype == torch.bfloat16 else torch.int32)


def _expand_groups(scores: Tensor, groups: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of the groups that are not negative, and their queries."""
    import torch

    width = scores.shape[1]
    place = (groups * (GROUP * width) + query)[:, None] + torch.arange(0, GROUP * width, width, device=groups.device)
    hit = scores.take(place.clamp_(max=scores.numel() - 1)) >= 0
    group, offset = torch.nonzero(hit, as_tuple=True)
    query, row = query[group], groups[group] * GROUP + offset
    inside = row < len(scores)  # the last group may be shorter
    return query[inside], row[inside]


def group_maxima(scores: Tensor) -> Tensor:
    """The highest score of every 64 rows: [B / 64, Q]."""
    import torch

    whole = len(scores) // GROUP * GROUP
    maxima = scores[:whole].unflatten(0, (-1, GROUP)).amax(1) if whole else scores[:0]
    rest = scores[whole:]
    return torch.cat([maxima, rest.amax(0, keepdim=True)]) if len(rest) else maxima


def fastest_arithmetic(queries: int, device: str) -> Arithmetic:
    """The arithmetic that a search of so many queries should use: the faster one on the device."""
    return "bfloat16" if queries >= _FEW_QUERIES and has_bfloat16(device) else "float32"


def _parts(values: Tensor, dtype: object, count: int) -> list[Tensor]:
    """float32 values as a sum of numbers of another type, largest first; each takes what the last ones left."""
    parts = []
    for _ in range(count):
        parts.append(values.to(dtype))  # type: ignore[call-overload]
        values = values - parts[-1].float()
    return parts


def slices(rows: int, width: int) -> list[slice]:
    """Parts of some rows of a matrix [.., width], small enough to stay in the cache in float32."""
    step = max(1, _ELEMENTS // width)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
