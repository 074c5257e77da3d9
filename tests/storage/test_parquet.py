"""Parquet files: rows come back as they were, however their columns are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentlens_dag.schema import NEIGHBORS
from latentlens_dag.storage.parquet import unsynced_parquet_rows

NESTED = pa.schema([("cosine", pa.float32()), ("words", pa.list_(pa.string())), ("logit", pa.float32())])


def _write(path: Path, table: pa.Table, split: tuple[str, ...]) -> pq.FileMetaData:
    with unsynced_parquet_rows(path, table.schema, split=split) as rows:
        rows.write(table)
    return pq.read_metadata(path)


def _cosines(rows: int) -> pa.Table:
    drawn = np.random.default_rng(0).uniform(0.2, 0.9, rows).astype(np.float32)
    words = [[f"word {n % 7}", "other"] for n in range(rows)]
    return pa.table({"cosine": drawn, "words": words, "logit": pa.nulls(rows, pa.float32())}, NESTED)


def test_scores_stored_by_place_come_back_bit_by_bit_and_take_a_tenth_less(tmp_path: Path) -> None:
    table = _cosines(20_000)
    plain = _write(tmp_path / "plain.parquet", table, ())
    split = _write(tmp_path / "split.parquet", table, ("cosine", "logit"))
    assert pq.read_table(tmp_path / "split.parquet").equals(table)
    sizes = [found.row_group(0).column(0).total_compressed_size for found in (plain, split)]
    assert sizes[1] < 0.9 * sizes[0]


def test_the_other_columns_keep_their_dictionaries_also_nested_ones(tmp_path: Path) -> None:
    found = _write(tmp_path / "split.parquet", _cosines(500), ("cosine", "logit", "score")).row_group(0)
    by_path = {found.column(i).path_in_schema: found.column(i) for i in range(found.num_columns)}
    assert "BYTE_STREAM_SPLIT" in by_path["cosine"].encodings and not by_path["cosine"].has_dictionary_page
    assert by_path["words.list.element"].has_dictionary_page


@pytest.mark.parametrize("reader", ["duckdb", "polars"])
def test_the_engines_read_scores_stored_by_place(reader: str, tmp_path: Path) -> None:
    table = _cosines(3_000)
    _write(tmp_path / "split.parquet", table, ("cosine",))
    if reader == "duckdb":
        import duckdb

        with duckdb.connect() as connection:
            found = connection.sql(f"SELECT cosine FROM '{tmp_path}/split.parquet'").fetchnumpy()["cosine"]
    else:
        import polars as pl

        found = pl.read_parquet(tmp_path / "split.parquet")["cosine"].to_numpy()
    np.testing.assert_array_equal(found, table["cosine"].to_numpy())


def test_a_table_that_is_read_whole_is_smaller_and_the_same(tmp_path: Path) -> None:
    table, sizes = _cosines(300), []
    for read_whole in (False, True):
        with unsynced_parquet_rows(path := tmp_path / f"{read_whole}", table.schema, read_whole=read_whole) as rows:
            rows.write(table)
        assert pq.read_table(path).equals(table)
        sizes.append(path.stat().st_size)
    assert sizes[1] < sizes[0]


def test_a_table_without_these_columns_is_written_as_ever(tmp_path: Path) -> None:
    table = _cosines(50).drop_columns(["cosine", "logit"])
    _write(tmp_path / "a.parquet", table, ("cosine", "logit"))
    _write(tmp_path / "b.parquet", table, ())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert {"cosine", "logit"} <= set(NEIGHBORS.names)
