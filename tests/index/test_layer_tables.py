import json
from datetime import timedelta
from pathlib import Path

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.index import layer_tables
from latentlens_dag.index.lance_files import count_rows
from latentlens_dag.index.layer_tables import (
    commit_fragments,
    drop_old_versions,
    provenance_of,
    unit_problems,
    write_fragments,
)
from latentlens_dag.index.state_tables import read_states, write_states
from latentlens_dag.index.table_blocks import blocks
from latentlens_dag.schema import OCCURRENCES


def _shard(seed: int, rows: int, width: int = 8) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    states = random.standard_normal((rows, width))
    norms = np.linalg.norm(states, axis=1)
    keys = sorted(f"{int(k):016x}" for k in random.integers(0, 2**63, rows))
    columns = {field.name: pa.nulls(rows, field.type) for field in OCCURRENCES}
    table = pa.table({**columns, "key": keys}, schema=OCCURRENCES)
    return table, (states / norms[:, None]).astype(np.float16), norms.astype(np.float32)


def _rows(table: Path) -> dict[int, bytes]:
    return {
        int(key): vector.tobytes()
        for block in blocks(table, 1)
        for key, vector in zip(block.keys[block.first + np.arange(len(block.vectors))], block.vectors, strict=True)
    }


def test_a_table_has_all_shards_rows_and_nothing_before_the_commit(tmp_path: Path) -> None:
    table = tmp_path / "layer_01.lance"
    records, expected = [], {}
    for number in range(3):
        rows, vectors, norms = _shard(number, 5000 * number)  # the first shard is empty
        records.append(tmp_path / f"{number}.json")
        write_fragments(table, records[-1], rows, vectors, norms)
        expected |= {int(k, 16): v.tobytes() for k, v in zip(rows["key"].to_pylist(), vectors, strict=True)}
        assert not (table / "_versions").exists()
    facts = commit_fragments(table, records, "a test")
    assert facts.rows == count_rows(table) == len(expected)
    assert _rows(table) == expected


def test_a_shard_that_is_written_again_replaces_its_rows_in_the_next_version(tmp_path: Path) -> None:
    table, records = tmp_path / "layer_01.lance", [tmp_path / "0.json", tmp_path / "1.json"]
    for number, record in enumerate(records):
        write_fragments(table, record, *_shard(number, 100))
    before = commit_fragments(table, records, "first")
    write_fragments(table, records[1], *_shard(7, 40))
    after = commit_fragments(table, records, "second")
    assert (before.rows, after.rows) == (200, 140)
    assert set(_rows(table)) == {
        int(k, 16) for seed, n in ((0, 100), (7, 40)) for k in _shard(seed, n)[0]["key"].to_pylist()
    }


def test_equal_content_has_an_equal_hash_and_other_content_another(tmp_path: Path) -> None:
    facts = [
        write_fragments(tmp_path / f"{i}.lance", tmp_path / f"{i}.json", *_shard(s, 50))
        for i, s in enumerate((0, 0, 1))
    ]
    assert facts[0].content == facts[1].content != facts[2].content


def test_lancedb_opens_and_searches_the_table(tmp_path: Path) -> None:
    rows, vectors, norms = _shard(0, 300)
    write_fragments(tmp_path / "layer_01.lance", tmp_path / "0.json", rows, vectors, norms)
    commit_fragments(tmp_path / "layer_01.lance", [tmp_path / "0.json"], "a test")
    found = lancedb.connect(tmp_path).open_table("layer_01").search(vectors[17]).metric("cosine").limit(1).to_list()
    assert found[0]["key"] == rows["key"][17].as_py()


@pytest.mark.parametrize("bad", [0.0, np.inf, np.nan])
def test_vectors_without_direction_are_refused_by_name(tmp_path: Path, bad: float) -> None:
    rows, vectors, norms = _shard(0, 20)
    vectors[13] = bad
    norms[13] = bad
    with pytest.raises(ValueError, match=rows["key"][13].as_py()):
        write_fragments(tmp_path / "layer_01.lance", tmp_path / "0.json", rows, vectors, norms)
    assert not (tmp_path / "0.json").exists()


def test_an_index_without_any_row_is_told(tmp_path: Path) -> None:
    write_fragments(tmp_path / "layer_01.lance", tmp_path / "0.json", *_shard(0, 0))
    with pytest.raises(UserError, match="keeps no occurrence"):
        commit_fragments(tmp_path / "layer_01.lance", [tmp_path / "0.json"], "a test")


def test_vectors_that_are_not_of_unit_length_are_found() -> None:
    _, vectors, _ = _shard(0, 5000)
    assert unit_problems(vectors) == []
    vectors[4321] *= 1.1
    vectors[4322] = np.nan
    assert [problem.split()[1] for problem in unit_problems(vectors)] == ["4321", "4322"]


def test_states_are_read_as_they_were_written(tmp_path: Path) -> None:
    states = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32) * 1e3
    ids, index = ["a"] * 3 + ["b"] * 3, np.arange(6, dtype=np.int32) % 3
    for _ in range(2):  # the second time over the first
        write_states(tmp_path / "batch.lance", ids, index, states)
    found = read_states(tmp_path / "batch.lance")
    assert (found.image_ids, found.token_index.tolist()) == (ids, index.tolist())
    assert (found.states == states).all()
    with pytest.raises(ValueError, match="b token 1"):
        write_states(tmp_path / "batch.lance", ids, index, np.where(np.arange(6)[:, None] == 4, 0, states))
    assert (read_states(tmp_path / "batch.lance").states == states).all()


def test_the_record_of_a_shard_is_plain_json(tmp_path: Path) -> None:
    write_fragments(tmp_path / "layer_01.lance", tmp_path / "0.json", *_shard(0, 10))
    assert json.loads((tmp_path / "0.json").read_text())["rows"] == 10


@pytest.mark.parametrize(("what", "bad"), [(1, np.inf), (1, np.nan), (2, 0.0), (2, np.inf), (2, np.nan)])
def test_a_bad_vector_or_a_bad_length_is_enough_to_be_refused_wherever_it_is(
    tmp_path: Path, what: int, bad: float
) -> None:
    shard = _shard(0, 5000)
    shard[what][4321] = bad
    with pytest.raises(ValueError, match=f"The state of {shard[0]['key'][4321].as_py()} is zero, infinite or NaN"):
        write_fragments(tmp_path / "layer_01.lance", tmp_path / "0.json", *shard)


def test_the_hash_of_a_shard_and_of_a_table_is_of_all_that_is_in_them(tmp_path: Path) -> None:
    rows, vectors, norms = _shard(0, 50)
    renamed = rows.set_column(rows.schema.get_field_index("word"), "word", pa.array(["other"] * 50))
    changed = [(rows, vectors, norms), (rows, -vectors, norms), (rows, vectors, 2 * norms), (renamed, vectors, norms)]
    records = [tmp_path / f"{number}.json" for number in range(4)]
    shards = [write_fragments(tmp_path / "a.lance", r, *c) for r, c in zip(records, changed, strict=True)]
    assert len({facts.content for facts in shards}) == 4
    pairs = [[records[0], records[1]], [records[0], records[2]], [records[1], records[0]]]
    assert len({commit_fragments(tmp_path / "a.lance", pair, "a test").content for pair in pairs}) == 3


def test_a_shard_of_many_batches_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_tables, "_WRITE_BYTES", 100 * 2 * 8)  # of the 8 numbers of 100 rows
    rows, vectors, norms = _shard(0, 350)
    write_fragments(tmp_path / "layer_01.lance", tmp_path / "0.json", rows, vectors, norms)
    commit_fragments(tmp_path / "layer_01.lance", [tmp_path / "0.json"], "a test")
    found = lance.dataset(str(tmp_path / "layer_01.lance")).to_table()
    assert found["key"].to_pylist() == rows["key"].to_pylist()
    assert found["norm"].to_numpy().tolist() == norms.tolist()
    assert np.concatenate([block.vectors for block in blocks(tmp_path / "layer_01.lance", 1)]).tobytes() == (
        vectors.tobytes()
    )


def test_the_hash_of_states_is_of_the_states_and_their_images(tmp_path: Path) -> None:
    states, index = np.ones((2, 4), np.float32), np.arange(2, dtype=np.int32)
    hashes = [
        write_states(tmp_path / "x", ids, index, s) for ids in (["a", "a"], ["a", "b"]) for s in (states, -states)
    ]
    assert len(set(hashes)) == 4
    assert write_states(tmp_path / "x", ["a", "a"], index, states) == hashes[0]


def _version(table: Path, folder: Path, seed: int, provenance: str) -> set[int]:
    """Commit one more version, of other rows; give its keys."""
    rows, vectors, norms = _shard(seed, 50)
    write_fragments(table, folder / "0.json", rows, vectors, norms)
    commit_fragments(table, [folder / "0.json"], provenance)
    return {int(key, 16) for key in rows["key"].to_pylist()}


def test_clean_keeps_the_newest_and_tagged_versions_and_what_is_not_committed_yet(tmp_path: Path) -> None:
    table = tmp_path / "layer_01.lance"
    kept = _version(table, tmp_path, 0, "first")
    lance.dataset(str(table)).tags.create("v1", 1)
    _version(table, tmp_path, 1, "second")
    _version(table, tmp_path, 2, "third")
    newest = _version(table, tmp_path, 3, "fourth")
    rows, vectors, norms = _shard(4, 50)
    write_fragments(table, tmp_path / "1.json", rows, vectors, norms)
    assert drop_old_versions(table, timedelta(days=1)) == 0
    assert drop_old_versions(table, timedelta(0)) > 2 * 50 * 8 * 2
    assert [version["version"] for version in lance.dataset(str(table)).versions()] == [1, 4]
    assert set(_rows(table)) == newest
    old = lance.dataset(str(table), version="v1").to_table(columns=["key"])["key"].to_pylist()
    assert {int(key, 16) for key in old} == kept
    commit_fragments(table, [tmp_path / "1.json"], "the interrupted one")
    assert count_rows(table) == 50
    lance.dataset(str(table)).tags.update("v1", 5)
    drop_old_versions(table, timedelta(0))
    assert [version["version"] for version in lance.dataset(str(table)).versions()] == [5]


def test_a_table_says_what_it_was_made_by_even_after_it_was_indexed(tmp_path: Path) -> None:
    table = tmp_path / "layer_01.lance"
    _version(table, tmp_path, 0, "first")
    _version(table, tmp_path, 1, "second")
    lance.dataset(str(table)).tags.create("release", 2)
    lance.dataset(str(table)).create_scalar_index("key", "BTREE")
    assert provenance_of(table) == "second"
