"""An input that is read once gives every partition the rows that it gives a partition alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.storage.leftovers import interrupted_writes
from latentlens_dag.storage.split_input import NumberedRows, SharedInput, remove_untaken_rows, rows_of_part, split_rows


class Source:
    """Rows 0, 1, ... with their partitions, some at a time, and how often they were read."""

    def __init__(self, chunks: list[list[int]], version: str = "1") -> None:
        self.chunks, self.version, self.readings = chunks, version, 0

    def shared(self) -> SharedInput:
        return SharedInput(self.read, self.version)

    def read(self) -> Iterator[NumberedRows]:
        self.readings += 1
        number = 0
        for parts in self.chunks:
            numbers = range(number, number + len(parts))
            number += len(parts)
            rows = {"number": numbers, "text": [f"row {one}" for one in numbers], "runs": [[one] for one in numbers]}
            yield NumberedRows(pa.table({name: list(column) for name, column in rows.items()}), np.array(parts, int))

    def rows_of(self, part: int) -> list[int]:
        """By definition."""
        return [number for number, of in enumerate(of for parts in self.chunks for of in parts) if of == part]


def _numbers(tables: Iterator[pa.Table]) -> list[int]:
    return [number for table in tables for number in table["number"].to_pylist()]


def _take(source: Source, beside: Path, part: int, parts: int) -> list[int]:
    with split_rows(source.shared(), beside, part, parts) as rows:
        tables = list(rows)
        assert all(row["text"] == f"row {row['number']}" for table in tables for row in table.to_pylist())
        return _numbers(iter(tables))


@settings(deadline=None)
@given(data=st.data(), parts=st.integers(1, 7))
def test_every_partition_gets_its_rows_in_their_order_and_the_input_is_read_once(
    data: st.DataObject, parts: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    row = st.integers(-1, parts - 1)
    source = Source(data.draw(st.lists(st.lists(row, min_size=1, max_size=20), min_size=1, max_size=5)))
    folder = tmp_path_factory.mktemp("split")
    order = data.draw(st.permutations(range(parts)))
    assert {part: _take(source, folder / "rows", part, parts) for part in order} == {
        part: source.rows_of(part) for part in order
    }
    assert source.readings == 1
    assert list(folder.iterdir()) == []
    assert all(_numbers(rows_of_part(source.read, part)) == source.rows_of(part) for part in range(parts))


def test_an_input_without_rows_gives_none(tmp_path: Path) -> None:
    assert [_take(Source([]), tmp_path / "rows", part, 3) for part in range(3)] == [[], [], []]


def test_a_partition_that_is_built_again_gets_its_rows_again(tmp_path: Path) -> None:
    source = Source([[0, 1, 2], [2, 1]])
    assert [_take(source, tmp_path / "rows", 1, 3) for _ in range(3)] == [[1, 4]] * 3
    assert _take(source, tmp_path / "rows", 2, 3) == [2, 3]


def test_the_only_partition_leaves_nothing_while_it_is_read(tmp_path: Path) -> None:
    source = Source([[0, -1, 0], [0]])
    with split_rows(source.shared(), tmp_path / "rows", 0, 1) as rows:
        assert _numbers(rows) == source.rows_of(0) == [0, 2, 3]
        assert list(tmp_path.iterdir()) == []
    assert source.readings == 1


def test_a_partition_that_failed_finds_its_rows_where_they_were(tmp_path: Path) -> None:
    source = Source([[0, 1, 0]])
    with pytest.raises(RuntimeError), split_rows(source.shared(), tmp_path / "rows", 0, 2):
        raise RuntimeError
    assert [_take(source, tmp_path / "rows", part, 2) for part in range(2)] == [[0, 2], [1]]
    assert source.readings == 1


def test_a_changed_input_and_another_number_of_partitions_are_read_anew(tmp_path: Path) -> None:
    assert _take(Source([[0, 1]]), tmp_path / "rows", 0, 2) == [0]
    assert _take(Source([[1, 1]], version="2"), tmp_path / "rows", 1, 2) == [0, 1]
    assert _take(Source([[1, 2]]), tmp_path / "rows", 1, 3) == [0]
    assert _take(Source([[0, 1]]), tmp_path / "rows", 1, 2) == [1]


def test_rows_that_no_partition_took_are_removed_below_one_folder_and_read_again(tmp_path: Path) -> None:
    sources = {name: Source([[0, 1, 2]]) for name in ("a", "b")}
    for name, source in sources.items():
        (tmp_path / name).mkdir()
        assert _take(source, tmp_path / name / "rows", 1, 3) == [1]
    remove_untaken_rows(tmp_path / "a")
    assert [len(list((tmp_path / name).iterdir())) for name in sources] == [0, 1]
    remove_untaken_rows(tmp_path / "a")
    assert [_take(source, tmp_path / name / "rows", 2, 3) for name, source in sources.items()] == [[2], [2]]
    assert [source.readings for source in sources.values()] == [2, 1]


def test_an_input_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def read() -> Iterator[NumberedRows]:
        yield from Source([[0, 1]]).read()
        raise OSError("the line was cut")

    with pytest.raises(OSError, match="the line"), split_rows(SharedInput(read, "1"), tmp_path / "rows", 0, 2):
        pass
    assert list(tmp_path.iterdir()) == []


_OTHER = """
import os, signal, sys
from pathlib import Path
from latentlens_dag.storage import split_input
from tests.storage.test_split_input import Source, _take

def killed(shared, folder, parts, split=split_input._split):
    split(shared, folder, parts)
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "in between":
    split_input._split = killed
_take(Source([[0, 1, 2]]), Path(sys.argv[1]) / "rows", 0, 3)
if sys.argv[2] == "after one":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["in between", "after one", "at its end"])
def test_what_a_process_leaves_is_removed_and_used_by_no_other(tmp_path: Path, when: str) -> None:
    code = subprocess.run([sys.executable, "-c", _OTHER, str(tmp_path), when], env=os.environ, check=False).returncode
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert (code, len(left)) == ((0, 0) if when == "at its end" else (-9, 1))
    assert interrupted_writes(tmp_path) == left
    source = Source([[0, 1, 2]])
    assert [_take(source, tmp_path / "rows", part, 3) for part in range(3)] == [[0], [1], [2]]
    assert source.readings == 1
    assert list(tmp_path.iterdir()) == left
