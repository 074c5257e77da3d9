"""The rows of layer tables as blocks for the exact search, and which of them may be neighbors of which query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from latentlens_dag.index.lance_files import READ_ROWS, Table, count_rows, is_in_filter, matrix_of, open_table
from latentlens_dag.index.layer_tables import sink_norm_of, width_of
from latentlens_dag.index.memory_map import flat_pages, mapped_rows
from latentlens_dag.search.exact import EVERY_QUERY, Block, Exclusions
from latentlens_dag.storage.hashing import fraction_end, ids_to_integers

if TYPE_CHECKING:
    import lance
    import pyarrow as pa
    from numpy.typing import NDArray

_MAPPED_BYTES = 12 << 20  # of a block that is mapped from a file
_SCANNED_BYTES = 4 << 20  # of a block that is scanned: larger ones are no faster, and cost memory several times over
_KEYS_HELD = 1 << 20  # rows of a table whose keys may be held, 8 MiB
_FEW_KEYS = 1 / 16  # of a table's keys; once more were requested, it is quicker to read all
_AHEAD_BYTES = 2 << 20  # that Lance may read ahead


class OwnRows(NamedTuple):
    """Rows of the sentences that queries were taken from: [n] pairs of a key and the query that may not have it."""

    keys: NDArray[np.uint64]
    queries: NDArray[np.int64]


class RowFilter(NamedTuple):
    """Which rows of a layer table may be neighbors."""

    words: Sequence[str] | None = None
    """Only rows whose `word` is spelled as one of these."""
    own: OwnRows | None = None
    """Rows that are excluded for some queries."""
    sinks: bool = False
    """Whether attention sinks may; else they are excluded, where the table says which they are."""
    fraction: float = 1.0
    """Only rows of this part of all sentences, chosen by their ids (`hashing.within_fraction`)."""
    beyond: float = 0.0
    """Without the rows of this smaller part."""

    @property
    def reads_all(self) -> bool:
        """Whether a whole table is read, with the rows that are excluded."""
        return self.words is None and self.fraction == 1 and self.beyond == 0

    def in_parts(self, fractions: Sequence[float]) -> list[RowFilter]:
        """Rows of nested parts of all sentences, the smallest first: each without those of the parts before it."""
        return [
            self._replace(fraction=end, beyond=start) for start, end in zip((0.0, *fractions), fractions, strict=False)
        ]

    def expression(self, dataset: lance.LanceDataset) -> str | None:
        """The rows that are neighbors of any query, as a filter of Lance's scanner."""
        limit = None if self.sinks else sink_norm_of(dataset)
        conditions = [] if self.words is None else [is_in_filter("word", self.words)]
        conditions += [] if self.beyond == 0 else [f"sentence_id >= '{fraction_end(self.beyond)}'"]
        conditions += [] if self.fraction == 1 else [f"sentence_id < '{fraction_end(self.fraction)}'"]
        conditions += [] if limit is None else [f"norm <= {limit!r}"]
        return " AND ".join(conditions) or None


DEFAULT_ROWS = RowFilter()
"""All rows but attention sinks."""


class BlockReader:
    """Reads the layer tables of one search, and reports the rows read of all of them."""

    def __init__(
        self, tables: Mapping[int, Table], parts: Sequence[RowFilter], progress: Callable[[int, int], None]
    ) -> None:
        """Take the tables by contextual layer, and which of their rows are read in turn, none of them twice.

        `progress` is called with the rows read and all rows.
        """
        self._tables, self._progress = tables, progress
        counts = (
            count_rows(table) if rows.reads_all else count_searched_rows(table, rows)
            for rows in parts
            for table in tables.values()
        )
        self._rows_read, self._total = 0, sum(counts)

    def read(self, layers: Iterable[int], rows: RowFilter) -> Iterator[Block]:
        """The rows of one part of some of the tables."""
        for layer in layers:
            for block in blocks(self._tables[layer], layer, rows):
                yield block
                self._rows_read += len(block.vectors)
                self._progress(self._rows_read, self._total)


def blocks(table: Table, layer: int, rows: RowFilter = DEFAULT_ROWS) -> Iterator[Block]:
    """The rows of a layer table as blocks named `layer`, at most 4,096 rows each; at most two are held."""
    dataset, width = open_table(table), width_of(table)
    scanned = max(512, min(READ_ROWS, _SCANNED_BYTES // (2 * width)))
    if not rows.reads_all:
        yield from _filtered_blocks(dataset, layer, scanned, rows)
        return
    excluded = _excluded_rows(dataset, rows)
    if pages := flat_pages(dataset, "vector"):
        mapped = max(512, min(READ_ROWS, _MAPPED_BYTES // (2 * width)))
        matrices = mapped_rows(pages, width, mapped)
    else:
        matrices = (matrix_of(batch["vector"]) for batch in _scan(dataset, ["vector"], scanned))
    yield from _whole_table_blocks(dataset, layer, matrices, excluded)


def count_searched_rows(table: Table, rows: RowFilter = DEFAULT_ROWS) -> int:
    """The number of a layer table's rows that may be neighbors of some query."""
    dataset = open_table(table)
    return int(dataset.count_rows(filter=rows.expression(dataset)))


def count_sinks(table: Table) -> int:
    """The number of a layer table's rows that are attention sinks, and so no neighbors by default."""
    dataset = open_table(table)
    limit = sink_norm_of(dataset)
    return 0 if limit is None else int(dataset.count_rows(filter=f"norm > {limit!r}"))


class _TableKeys:
    """The keys of a layer table's rows, each read when it is asked for; those of a small table all, if many are."""

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._dataset, self._rows = dataset, int(dataset.count_rows())
        self._requested = 0

    @cached_property
    def _all(self) -> NDArray[np.uint64]:
        return ids_to_integers(self._dataset.to_table(columns=["key"])["key"])

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        self._requested += rows.size
        if self._rows <= _KEYS_HELD and self._requested > self._rows * _FEW_KEYS:
            return self._all[rows]
        distinct, positions = np.unique(rows, return_inverse=True)
        keys = [
            ids_to_integers(self._dataset.take(distinct[start : start + READ_ROWS].tolist(), columns=["key"])["key"])
            for start in range(0, len(distinct), READ_ROWS)
        ]
        return np.concatenate([np.empty(0, np.uint64), *keys])[positions]


def _whole_table_blocks(
    dataset: lance.LanceDataset, layer: int, matrices: Iterator[NDArray[np.float16]], excluded: Exclusions
) -> Iterator[Block]:
    """All rows of a table, in its order; `excluded` rows are counted in the table, ascending."""
    start, keys = 0, _TableKeys(dataset)
    for vectors in matrices:
        part = slice(*np.searchsorted(excluded.rows, [start, start + len(vectors)]))
        of_block = Exclusions(excluded.rows[part] - start, excluded.queries[part])
        yield Block(layer, keys, vectors, start, of_block if len(of_block.rows) else None)
        start += len(vectors)


def _filtered_blocks(dataset: lance.LanceDataset, layer: int, batch_rows: int, rows: RowFilter) -> Iterator[Block]:
    """The rows of some words or sentences, as blocks with keys of their own."""
    for batch in _scan(dataset, ["key", "vector"], batch_rows, rows.expression(dataset)):
        if len(batch):
            keys = ids_to_integers(batch["key"])
            yield Block(layer, keys, matrix_of(batch["vector"]), excluded=_own_pairs(keys, rows.own))


def _scan(
    dataset: lance.LanceDataset, columns: list[str], batch_rows: int, expression: str | None = None
) -> Iterator[pa.RecordBatch]:
    ahead = {"io_buffer_size": _AHEAD_BYTES}
    scanner = dataset.scanner(columns=columns, filter=expression, batch_size=batch_rows, batch_readahead=1, **ahead)
    return scanner.to_batches()


def _excluded_rows(dataset: lance.LanceDataset, rows: RowFilter) -> Exclusions:
    """The rows of a whole table that are excluded for some or all queries, ascending."""
    pairs = [Exclusions(np.empty(0, np.int64), np.empty(0, np.int64))]
    limit = None if rows.sinks else sink_norm_of(dataset)
    own = rows.own if rows.own is not None and len(rows.own.keys) else None
    columns = [*(["norm"] if limit is not None else []), *(["key"] if own is not None else [])]
    start = 0
    for batch in _scan(dataset, columns, 1 << 16) if columns else ():
        if limit is not None:
            sinks = np.flatnonzero(batch["norm"].to_numpy() > np.float32(limit))
            pairs.append(Exclusions(start + sinks, np.full(len(sinks), EVERY_QUERY)))
        if own is not None and (of_batch := _own_pairs(ids_to_integers(batch["key"]), own)) is not None:
            pairs.append(Exclusions(start + of_batch.rows, of_batch.queries))
        start += len(batch)
    excluded, queries = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    order = np.argsort(excluded, kind="stable")
    return Exclusions(excluded[order], queries[order])


def _own_pairs(keys: NDArray[np.uint64], own: OwnRows | None) -> Exclusions | None:
    """Which of the rows with these keys are of a query's own sentence."""
    if own is None or not len(own.keys):
        return None
    order = np.argsort(keys)
    position = order[np.searchsorted(keys, own.keys, sorter=order).clip(max=len(keys) - 1)]
    listed = keys[position] == own.keys
    return Exclusions(position[listed], own.queries[listed]) if listed.any() else None
