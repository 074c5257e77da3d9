"""Parquet files of the warehouse: atomic writes, equal bytes for equal content."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.storage.files import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


ROW_GROUP = 65_536
"""Rows per row group."""
_PARQUET: dict[str, Any] = {"compression": "zstd", "write_page_index": True}
_READ_WHOLE: dict[str, Any] = {"compression_level": 15, "write_page_index": False}


def write_parquet(table: pa.Table, path: Path, schema: pa.Schema | None = None) -> None:
    """Write a table atomically with the settings of this package; equal tables give equal bytes.

    zstd, page index, row groups of ROW_GROUP rows; cast to `schema` first where one is given.
    """
    import pyarrow.parquet as pq

    if schema is not None:
        table = table.select(schema.names).cast(schema)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=ROW_GROUP, **_PARQUET)


class ParquetRows:
    """A writer of rows that gives the same bytes however they are cut into tables."""

    def __init__(self, writer: pq.ParquetWriter, row_group: int = ROW_GROUP) -> None:
        """Write to `writer`, in row groups of `row_group` rows."""
        self.written = 0
        self._row_group = row_group
        self._writer = writer
        self._waiting: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        """Add the rows of `table`, which has the columns of the schema."""
        schema = self._writer.schema
        self._waiting.append(table.select(schema.names).cast(schema))
        self.written += len(table)
        while sum(map(len, self._waiting)) >= self._row_group:
            self._flush()

    def finish(self) -> None:
        """Write the rows that wait for a full row group."""
        while any(map(len, self._waiting)):
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        rows = pa.concat_tables(self._waiting)
        group = rows.slice(0, self._row_group).combine_chunks()
        self._writer.write_table(group, row_group_size=self._row_group)
        self._waiting = [rows.slice(self._row_group)]


@contextmanager
def parquet_rows(path: Path, schema: pa.Schema, row_group: int = ROW_GROUP) -> Iterator[ParquetRows]:
    """As `write_parquet`, for rows that come table by table; the file appears if the block ends without an error.

    `row_group` is the number of rows per row group: up to so many wait in memory.
    """
    with atomic_path(path) as temporary, unsynced_parquet_rows(temporary, schema, row_group) as rows:
        yield rows


@contextmanager
def unsynced_parquet_rows(
    path: Path, schema: pa.Schema, row_group: int = ROW_GROUP, split: Collection[str] = (), read_whole: bool = False
) -> Iterator[ParquetRows]:
    """As `parquet_rows`, in a folder that is itself temporary: neither atomic nor flushed to disk.

    Thousands of small files would take milliseconds each to flush.

    Args:
        path: of the file.
        schema: of its rows.
        row_group: rows per row group.
        split: columns of floats with few equal values: their bytes are stored by place, which takes less, not by a
            dictionary.
        read_whole: whether the table is so small that it is read whole: it needs no page index, and is compressed more.
    """
    import pyarrow.parquet as pq

    settings = _PARQUET | (_READ_WHOLE if read_whole else {})
    if stored_by_place := [name for name in schema.names if name in split]:
        others = [path for path in _leaves(schema) if path not in stored_by_place]
        settings |= {"use_byte_stream_split": stored_by_place, "use_dictionary": others}
    with pq.ParquetWriter(path, schema, **settings) as writer:
        rows = ParquetRows(writer, row_group)
        yield rows
        rows.finish()


def _leaves(schema: pa.Schema) -> list[str]:
    """The paths of a schema's columns in Parquet, such as `words.list.element`."""
    from io import BytesIO

    import pyarrow.parquet as pq

    pq.write_table(schema.empty_table(), file := BytesIO())
    stored = pq.read_metadata(file).schema
    return [stored.column(i).path for i in range(len(stored))]
