"""Lance datasets of vectors: opening one, its vectors as a matrix, and the refusal of vectors without a direction."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from latentlens_dag.index.memory_map import release_pages
from latentlens_dag.storage.hashing import hash_chunks

os.environ.setdefault("LANCE_LOG", "error")  # read when Lance is loaded; it warns of every table that it creates

if TYPE_CHECKING:
    import lance
    from numpy.typing import NDArray


class OpenTable(Protocol):
    """A Lance dataset that does not lie on this disk."""

    @property
    def dataset(self) -> lance.LanceDataset:
        """The open dataset."""

    @property
    def measurement_file(self) -> Path | None:
        """JSON: the measurement of its index (`approximate.py`); None where it has none."""


Table = Path | OpenTable
"""A layer table: its folder, or an open one (`remote.py`)."""
FILE_VERSION = "2.1"  # of Lance's file format; pinned, so that equal content stays equal bytes
READ_ROWS = 4096
DTYPE = b"dtype"  # in the schema of stored states: in which the model computed them


def count_rows(table: Table) -> int:
    """The number of rows of a Lance dataset."""
    return int(open_table(table).count_rows())


def is_in_filter(column: str, values: Sequence[str]) -> str:
    """A filter of Lance: rows whose value is one of these."""
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"


def check_directions(vectors: NDArray[np.floating], norms: NDArray[np.float32], names: list[str]) -> None:
    """Refuse vectors without a direction.

    Raises:
        ValueError: naming the first one that is zero, infinite or NaN.
    """
    for start, part in row_parts(vectors):
        finite = np.isfinite(part).all(axis=1)
        usable = finite & np.isfinite(norms[start : start + READ_ROWS]) & (norms[start : start + READ_ROWS] > 0)
        if not usable.all():
            row = start + int(np.flatnonzero(~usable)[0])
            raise ValueError(
                f"The state of {names[row]} is zero, infinite or NaN (length {norms[row]}), so it has no direction. "
                "The model's weights are damaged, or its numbers overflow in this dtype: try float32."
            )


def open_table(table: Table, version: int | None = None) -> lance.LanceDataset:
    """A version of a Lance dataset, by default the newest; of one that is open, that one."""
    if not isinstance(table, Path):
        return table.dataset
    import lance

    return lance.dataset(str(table), version=version)


def matrix_digest(vectors: NDArray[np.floating]) -> str:
    """The hash of a matrix's bytes, some thousand rows at a time: it may be a memory map larger than memory."""
    return hash_chunks(part.tobytes() for _, part in row_parts(vectors))


def row_parts(vectors: NDArray[np.floating]) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """Some thousand rows at a time, each with its first row's number; pages of a memory map are not held."""
    for start in range(0, len(vectors), READ_ROWS):
        yield start, vectors[start : start + READ_ROWS]
        release_pages(vectors)


def vector_column(matrix: NDArray[np.floating]) -> pa.FixedSizeListArray:
    """A matrix [N, d] as a column of vectors."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).ravel()), matrix.shape[1])


def matrix_of(column: pa.FixedSizeListArray) -> NDArray:
    """A column of vectors as a matrix [N, d], without a copy."""
    width = column.type.list_size
    return column.flatten().to_numpy(zero_copy_only=True).reshape(-1, width)
