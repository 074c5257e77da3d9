"""What DuckDB reads through: one handle, many threads."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from latentlens_dag.sql.sandbox import ReadOnlyFolder, SharedFile, open_file

CONTENT = bytes(range(256)) * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "table.parquet"
    file.write_bytes(CONTENT)
    return file


def test_a_thread_reads_from_where_it_sought_whatever_another_sought_in_between(path: Path) -> None:
    sought = threading.Barrier(2)

    def read(start: int) -> bytes:
        file.seek(start)
        sought.wait(timeout=10)
        return file.read(16)

    with SharedFile(path) as file, ThreadPoolExecutor(2) as pool:
        found = list(pool.map(read, [0, 1000]))
    assert found == [CONTENT[:16], CONTENT[1000:1016]]


def test_alone_it_is_read_like_any_file(path: Path) -> None:
    with path.open("rb") as plain, SharedFile(path) as file:
        assert file.readable() and file.seekable() and not file.writable()
        steps = [(10, os.SEEK_SET, 7), (5, os.SEEK_CUR, 3), (-4, os.SEEK_END, 9), (0, os.SEEK_SET, -1)]
        for offset, whence, size in steps:
            assert file.seek(offset, whence) == plain.seek(offset, whence)
            assert file.read(size) == plain.read(size)
            assert file.tell() == plain.tell()
    assert file.closed


def test_the_mounted_folder_opens_such_files(path: Path) -> None:
    with ReadOnlyFolder(path.parent).open("warehouse://table.parquet") as file:
        assert isinstance(file, SharedFile)
        assert file.read() == CONTENT


def test_a_file_that_was_replaced_is_opened_anew_while_the_old_one_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "catalog.duckdb"
    opened = []
    for number in (1, 2):
        fresh = tmp_path / f"fresh_{number}.duckdb"
        with duckdb.connect(str(fresh)) as connection:
            connection.execute(f"CREATE TABLE t AS SELECT {number} AS n")
        fresh.replace(path)
        opened.append(open_file(path, tmp_path / f"spill_{number}"))
    assert [connection.cursor().sql("FROM t").fetchall() for connection in opened] == [[(1,)], [(2,)]]
