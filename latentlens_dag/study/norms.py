"""The norms of stored states, and which of them are attention sinks (`search/sinks.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from latentlens_dag.index.lance_files import Table, matrix_of, open_table
from latentlens_dag.search.sinks import sink_norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS = 2048


def norms_of(table: Table) -> NDArray[np.float32]:
    """The norms [N] of the states of a Lance dataset, of visual tokens or of a contextual layer."""
    norms: NDArray[np.float32] = open_table(table).to_table(columns=["norm"])["norm"].to_numpy()
    return norms


def states_above(tables: Sequence[Table], norm: float) -> Iterator[tuple[NDArray[np.float32], NDArray[np.floating]]]:
    """Norms and states, of any length, with a norm above the given one, in blocks."""
    for table in tables:
        dataset = open_table(table)
        column = "state" if "state" in dataset.schema.names else "vector"
        scanner = dataset.scanner([column, "norm"], filter=f"norm > {norm!r}", batch_size=_ROWS)
        for batch in scanner.to_batches():
            if len(batch):
                yield batch["norm"].to_numpy(), matrix_of(batch[column])


def sink_norm_of_states(tables: Sequence[Table], norms: NDArray[np.float32]) -> np.float32:
    """The norm above which a state of one layer is a sink; infinite where none is.

    Args:
        tables: of the layer, all batches.
        norms: [N], of all their states.
    """
    return np.float32(sink_norm(norms, lambda least: states_above(tables, least)))
