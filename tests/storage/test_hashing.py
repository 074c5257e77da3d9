"""Content hashes: what is on disk under a name today must have the same name tomorrow."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.storage.hashing import (
    fraction_end,
    hash_bytes,
    hash_file,
    hash_values,
    ids_to_integers,
    integers_to_ids,
    shard_of,
    shards_of,
    text_id,
    within_fraction,
)


def test_ids_are_those_of_every_warehouse_that_was_ever_built() -> None:
    assert hash_bytes(b"") == "e4a6a0577479b2b4"
    assert text_id("Zwei Hündchen.") == hashlib.blake2b("Zwei Hündchen.".encode(), digest_size=8).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 5 * 2**19])
def test_the_hash_of_a_file_is_that_of_all_its_bytes(tmp_path: Path, size: int) -> None:
    content = (b"0123456789" * (size // 10 + 1))[:size]
    (tmp_path / "file").write_bytes(content)
    assert hash_file(tmp_path / "file") == hash_bytes(content)


def test_values_are_combined_with_their_borders_and_in_their_order() -> None:
    lists = [["ab"], ["a", "b"], ["b", "a"], ["", "ab"], ["ab", ""], ["a,b"], ['a", "b'], [], [""]]
    assert len({hash_values(parts) for parts in lists}) == len(lists)


def test_a_shard_is_chosen_by_the_low_digits_and_a_sample_by_the_high_ones() -> None:
    assert [shard_of(i, 4) for i in ("0000000100000003", "0000000300000001")] == [3, 1]
    assert [within_fraction(i, 0.5) for i in ("7fffffffffffffff", "8000000000000000")] == [True, False]


def test_a_sample_is_everything_or_nothing_at_its_ends() -> None:
    ends = ["0" * 16, "f" * 16]
    assert [within_fraction(i, 1.0) for i in ends] == [True, True]
    assert [within_fraction(i, 0.0) for i in ends] == [False, False]


@given(number=st.integers(0, 2**64 - 1), near=st.integers(-2, 2), fraction=st.floats(0, 1))
def test_the_ids_of_a_sample_are_those_before_its_end(number: int, near: int, fraction: float) -> None:
    at_the_end = min(max(int(fraction * 2**32) + near, 0), 2**32 - 1) << 32
    for content_id in (f"{number:016x}", f"{at_the_end:016x}", f"{at_the_end + 2**32 - 1:016x}"):
        assert (content_id < fraction_end(fraction)) == within_fraction(content_id, fraction)


@pytest.mark.parametrize("ids", [[], ["0" * 16], ["f" * 16, "0123456789abcdef", "0" * 16]])
def test_ids_become_numbers_of_the_same_order_and_come_back(ids: list[str]) -> None:
    numbers = ids_to_integers(pa.array(ids, pa.string()))
    assert numbers.tolist() == [int(one, 16) for one in ids]
    assert integers_to_ids(numbers).to_pylist() == ids


IDS = st.lists(st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}"), max_size=40)


@settings(deadline=None)
@given(chunks=st.lists(IDS, max_size=4), kind=st.sampled_from([pa.string(), pa.large_string()]), data=st.data())
def test_a_column_of_ids_has_the_numbers_and_shards_of_its_ids_however_it_is_cut(
    chunks: list[list[str]], kind: pa.DataType, data: st.DataObject
) -> None:
    whole = pa.chunked_array(chunks, kind)
    start = data.draw(st.integers(0, len(whole)))
    column, parts = whole.slice(start), data.draw(st.integers(1, 100))
    ids = column.to_pylist()
    assert ids_to_integers(column).tolist() == [int(one, 16) for one in ids]
    assert shards_of(column, parts).tolist() == [shard_of(one, parts) for one in ids]
    for chunk in column.chunks:
        assert shards_of(chunk, parts).tolist() == [shard_of(one, parts) for one in chunk.to_pylist()]


@pytest.mark.parametrize("ids", [["0" * 16, None, "1" * 16], [None], [None, "0" * 16]])
def test_ids_that_are_null_are_refused_with_their_number(ids: list[str | None]) -> None:
    with pytest.raises(ValueError, match=rf"1 of {len(ids)} ids are null"):
        ids_to_integers(pa.array(ids, pa.string()))
    with pytest.raises(ValueError, match="1 of 1 ids are null"):
        shards_of(pa.chunked_array([["2" * 16], [None]], pa.string()), 4)
    assert shards_of(pa.array(ids, pa.string()).drop_null(), 1).tolist() == [0] * (len(ids) - 1)
