"""Rows of layer tables as they lie around their layer's mean, for the search by centered cosine.

The centered cosine of a query q and a row x of contextual layer c is

    cos(q - m, x - mu_c)

where mu_c is the mean of the layer's rows without attention sinks, and m that of the states at the query's own layer.
Each is centered by its own mean, since layers differ in length: a state of norm 1 minus a mean of norm 100 would be the
mean. Rows are taken as they are stored, x = norm * vector, and centered in float64; the result is float32.

Note: a variant for comparison. It takes away what all states have in common, but on SmolLM2 it found noisy states less
often than the plain cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.index.lance_files import Table, open_table
from latentlens_dag.index.layer_tables import sink_norm_of, width_of
from latentlens_dag.index.table_blocks import DEFAULT_ROWS, RowFilter, blocks
from latentlens_dag.search.exact import Block

if TYPE_CHECKING:
    from numpy.typing import NDArray

Similarity = Literal["cosine", "centered"]


def check_similarity(similarity: str, has_mean: bool) -> None:
    """Refuse a similarity that is none, or a mean that does not go with it.

    Raises:
        UserError: naming the argument of `ContextualIndex.search`.
    """
    if similarity not in get_args(Similarity):
        raise UserError(f"`similarity={similarity!r}` must be 'cosine' or 'centered'.")
    if similarity == "cosine" and has_mean:
        raise UserError("`query_mean` is of the centered similarity: pass `similarity='centered'` too.")
    if similarity == "centered" and not has_mean:
        raise UserError(
            "`similarity='centered'` needs `query_mean`, the mean of the states at the layer that the queries are "
            "of, such as `states.mean(0)` of many of them; of a layer of this index, `mean_state(layer)`."
        )


def mean_of_rows(table: Table) -> NDArray[np.float64]:
    """The mean state [d] of a layer table, without attention sinks; blocks of rows are in memory, and all norms."""
    norms, limit = _norms(table), sink_norm_of(open_table(table))
    usual = norms <= (np.inf if limit is None else np.float32(limit))
    weights, total, start = np.where(usual, norms, 0).astype(np.float64), np.zeros(width_of(table)), 0
    for block in blocks(table, 0):
        total += weights[start : start + len(block.vectors)] @ block.vectors.astype(np.float64)
        start += len(block.vectors)
    return total / usual.sum()


def centered(
    parts: Iterable[Block],
    table_of: Callable[[int], Table],
    rows: RowFilter,
    mean_of: Callable[[int], NDArray[np.float64]],
) -> Iterator[Block]:
    """The blocks of layer tables with their rows minus the mean of their layer, in float32.

    Args:
        parts: as `BlockReader.read` gives them: the rows of each table in order, one table after the other.
        table_of: the table of a contextual layer.
        rows: which of their rows the blocks hold.
        mean_of: the mean [d] of a contextual layer.

    Raises:
        UserError: if a row is the mean of its layer, and so has no direction.
    """
    layer, start = None, 0
    for block in parts:
        if block.contextual_layer != layer:
            layer, start = block.contextual_layer, 0
            norms, mean = _norms(table_of(layer), rows), mean_of(layer)
        end = start + len(block.vectors)
        states = block.vectors.astype(np.float64) * norms[start:end, None] - mean
        vectors, start = states.astype(np.float32), end
        if not vectors.any(axis=1).all():
            raise UserError(
                f"A row of contextual layer {layer} is the mean of its layer, so it has no centered direction: the "
                "layer has one row, or all are equal. Search by `cosine`, or give the index a larger corpus."
            )
        yield block._replace(vectors=vectors)


def _norms(table: Table, rows: RowFilter = DEFAULT_ROWS) -> NDArray[np.float32]:
    """The norms of a table's rows, of those that a search reads: all, or those of some words or sentences."""
    dataset = open_table(table)
    expression = None if rows.reads_all else rows.expression(dataset)
    norms: NDArray[np.float32] = dataset.to_table(columns=["norm"], filter=expression)["norm"].to_numpy()
    return norms
