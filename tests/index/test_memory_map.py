import shutil
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from latentlens_dag.index import memory_map, table_blocks
from latentlens_dag.index.lance_files import open_table
from latentlens_dag.index.layer_tables import commit_fragments, write_fragments
from latentlens_dag.index.memory_map import flat_pages, mapped_rows
from latentlens_dag.index.table_blocks import blocks
from latentlens_dag.schema import OCCURRENCES
from latentlens_dag.storage.hashing import ids_to_integers

WIDTH = 384


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, each of several pages."""
    folder = tmp_path_factory.mktemp("mapped")
    records = []
    for shard, rows in enumerate((30_000, 50_001)):
        random = np.random.default_rng(shard)
        vectors = random.standard_normal((rows, WIDTH), np.float32).astype(np.float16)
        keys = [f"{number * 2 + shard:016x}" for number in range(rows)]
        columns = {**{f.name: pa.nulls(rows, f.type) for f in OCCURRENCES}, "key": keys}
        records.append(folder / f"{shard}.json")
        occurrences = pa.table(columns, schema=OCCURRENCES)
        write_fragments(folder / "layer_01.lance", records[-1], occurrences, vectors, np.ones(rows, np.float32))
    commit_fragments(folder / "layer_01.lance", records, "a test")
    return folder / "layer_01.lance"


def _scanned(table: Path) -> np.ndarray:
    column = lance.dataset(str(table)).to_table(columns=["vector"])["vector"].combine_chunks()
    return column.flatten().to_numpy().reshape(-1, WIDTH)


@pytest.mark.parametrize("rows", [1000, 4096, 1 << 20])
def test_mapped_rows_are_those_that_lance_reads_in_its_order(table: Path, rows: int) -> None:
    pages = flat_pages(open_table(table), "vector")
    assert pages is not None
    assert len(pages) > 2
    parts = list(mapped_rows(pages, WIDTH, rows))  # held: their memory was given back, and is read again
    assert max(map(len, parts)) <= rows
    assert np.concatenate(parts).tobytes() == _scanned(table).tobytes()


def test_blocks_are_the_same_mapped_and_scanned_with_their_keys(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> tuple[bytes, list[int]]:
        found = list(blocks(table, 1))
        keys = [int(key) for b in found for key in b.keys[b.first + np.arange(len(b.vectors))]]
        return np.concatenate([b.vectors for b in found]).tobytes(), keys

    one = read()
    monkeypatch.setattr(table_blocks, "flat_pages", lambda *_: None)
    assert read() == one
    assert one[1] == [*range(0, 60_000, 2), *range(1, 100_002, 2)]


def test_a_table_that_is_not_flat_is_left_to_the_scanner(table: Path, tmp_path: Path) -> None:
    copy = tmp_path / "layer_01.lance"
    shutil.copytree(table, copy)
    lance.dataset(str(copy)).delete("key = '0000000000000007'")
    assert flat_pages(open_table(copy), "vector") is None
    assert sum(len(block.vectors) for block in blocks(copy, 1)) == 80_000
    nulls = pa.array([None if row % 3 else [1.0] * WIDTH for row in range(999)], pa.list_(pa.float16(), WIDTH))
    lance.write_dataset(pa.table({"vector": nulls}), str(tmp_path / "nulls.lance"), data_storage_version="2.1")
    assert flat_pages(open_table(tmp_path / "nulls.lance"), "vector") is None


def test_pages_whose_rows_are_not_lances_are_not_believed(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = memory_map._fragment_pages

    def shifted(*arguments: object) -> list[memory_map.Page] | None:
        pages = real(*arguments)  # type: ignore[arg-type]
        return pages and [page._replace(position=page.position + 2 * WIDTH) for page in pages]

    monkeypatch.setattr(memory_map, "_fragment_pages", shifted)
    assert flat_pages(open_table(table), "vector") is None


def test_narrow_vectors_that_lance_packs_otherwise_are_left_to_the_scanner(tmp_path: Path) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(50_000 * 8, np.float16)), 8)
    lance.write_dataset(pa.table({"vector": vectors}), str(tmp_path / "narrow.lance"), data_storage_version="2.1")
    assert flat_pages(open_table(tmp_path / "narrow.lance"), "vector") is None


@pytest.mark.parametrize("held", [0, 1 << 20])
def test_keys_are_those_of_the_table_whether_a_few_or_all_are_read(
    table: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_blocks, "_KEYS_HELD", held)
    expected = ids_to_integers(lance.dataset(str(table)).to_table(columns=["key"])["key"])
    keys = next(iter(blocks(table, 1))).keys
    few, repeated = np.array([79_999, 0, 41]), np.random.default_rng(0).choice(len(expected), 30_000)
    for rows in (few, repeated, few, np.arange(0)):
        assert (keys[rows] == expected[rows]).all()


def test_all_keys_of_a_small_table_are_read_once(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    keys = next(iter(blocks(table, 1))).keys
    take, to_table = lance.LanceDataset.take, lance.LanceDataset.to_table
    monkeypatch.setattr(
        lance.LanceDataset, "take", lambda *given, **named: (reads.append("some"), take(*given, **named))[1]
    )
    monkeypatch.setattr(
        lance.LanceDataset, "to_table", lambda *given, **named: (reads.append("all"), to_table(*given, **named))[1]
    )
    for start in range(0, 80_000, 4_000):
        keys[np.arange(start, start + 2_000)]
    assert reads == ["some", "some", "all"]
