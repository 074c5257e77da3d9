"""Parquet files of strangers: read as pyarrow reads them, or refused, and this process neither ends nor grows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.storage import parquet_child, untrusted_parquet
from latentlens_dag.storage.untrusted_parquet import ParquetReadError, read_batches, read_footer

CASES = Path(__file__).parents[1] / "cases" / "files"
PEAK = """
import resource, sys
from pathlib import Path
from latentlens_dag.storage import untrusted_parquet as reader
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(sum(map(len, reader.read_batches(Path(sys.argv[1]), [sys.argv[2]], 2048))))
except reader.ParquetReadError as error:
    print("refused", error)
reader._close_all()
here, child = (resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(here - (before >> 10), child)
"""


def _write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd", **options)
    return path


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.none() | st.text(max_size=20), max_size=40),
    rows=st.integers(1, 50),
    group=st.integers(1, 50),
    dictionary=st.booleans(),
)
def test_what_is_read_is_what_pyarrow_reads(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str | None], rows: int, group: int, dictionary: bool
) -> None:
    table = pa.table({"a": pa.array(texts, pa.string()), "b": pa.array([[1, 2]] * len(texts), pa.list_(pa.int32()))})
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    pq.write_table(table, path, row_group_size=group, use_dictionary=dictionary)
    assert [value for batch in read_batches(path, ["a"], rows) for value in batch["a"].to_pylist()] == texts
    footer, right = read_footer(path), pq.read_metadata(path)
    assert footer.schema.equals(right.schema.to_arrow_schema())
    assert (footer.rows, sum(footer.group_rows)) == (len(texts), len(texts))


def _one_value_for_all(path: Path) -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 60_000, pa.int32()), pa.array(["x" * 50_000_000]))
    _write(path, {"x": values}, dictionary_pagesize_limit=1 << 30)


def _one_sentence_for_all(path: Path) -> None:
    _write(path, {"x": pa.DictionaryArray.from_arrays(pa.array([0] * 900_000, pa.int32()), pa.array(["x" * 90_000]))})


def _lists_of_one_sentence(path: Path) -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 90_000, pa.int32()), pa.array(["x" * 90_000]))
    _write(path, {"x": pa.ListArray.from_arrays(pa.array(range(0, 90_001, 9), pa.int32()), values)})


def _one_long_value(path: Path) -> None:
    _write(path, {"x": ["y" * 280_000_000]}, write_statistics=False, use_dictionary=False)


def _long_lists(path: Path) -> None:
    values = pa.array(np.ones(40_000_000, np.int64))
    _write(path, {"x": pa.ListArray.from_arrays(pa.array([0, 40_000_000], pa.int32()), values)})


@pytest.mark.parametrize(
    "make", [_one_value_for_all, _one_sentence_for_all, _lists_of_one_sentence, _one_long_value, _long_lists]
)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_few_bytes_that_become_very_many_take_limited_memory(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "bomb.parquet"
    make(path)
    assert path.stat().st_size < 50_000
    run = subprocess.run([sys.executable, "-c", PEAK, str(path), "x"], capture_output=True, text=True, check=True)
    answer, peaks = run.stdout.splitlines()
    assert answer.startswith("refused")
    here, child = map(int, peaks.split())
    assert here < (4 * parquet_child.PIECE_BYTES) >> 20
    assert child < (parquet_child.MEMORY_BYTES >> 20) + 200  # what the process holds before it reads


def test_rows_without_any_bytes_are_refused(tmp_path: Path) -> None:
    one_page = {"row_group_size": 8_000_000, "max_rows_per_page": 8_000_000}
    path = _write(tmp_path / "nulls.parquet", {"x": pa.nulls(8_000_000, pa.string())}, **one_page)
    assert path.stat().st_size < 7_000
    with pytest.raises(ParquetReadError, match="would become 8,000,000 rows"):
        list(read_batches(path, ["x"], 2048))


@pytest.mark.parametrize("name", ["definition_levels.parquet", "abort_histogram.parquet"])
def test_a_footer_that_ends_its_reader_is_refused_and_the_next_file_is_read(tmp_path: Path, name: str) -> None:
    right = _write(tmp_path / "right.parquet", {"x": ["a"]})
    with pytest.raises(ParquetReadError, match=signal.SIGABRT.name):
        read_footer(CASES / name)
    assert read_footer(right).rows == 1


def test_damage_behind_the_footer_is_refused_after_the_rows_before_it() -> None:
    with pytest.raises(ParquetReadError, match="out of bounds"):
        list(read_batches(CASES.parents[1] / "inputs/files/dictionary_index.parquet", ["text"], 2048))


def test_one_process_reads_file_after_file_and_none_that_was_left_half_read(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", {"x": [*range(10_000)]})
    read_footer(path)
    first = untrusted_parquet._waiting[-1]
    assert sum(map(len, read_batches(path, ["x"], 100))) == 10_000
    assert untrusted_parquet._waiting[-1] is first
    half = read_batches(path, ["x"], 100)
    next(half)
    half.close()
    assert first not in untrusted_parquet._waiting
    assert next(read_batches(path, ["x"], 100))["x"][0].as_py() == 0


def test_a_process_of_another_owner_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "a.parquet", {"x": [1]})
    read_footer(path)
    known = untrusted_parquet._waiting[-1]
    monkeypatch.setattr(known, "owner", os.getpid() + 1)
    assert read_footer(path).rows == 1
    known.close()
