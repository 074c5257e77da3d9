from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.index import row_samples
from latentlens_dag.index.row_samples import mixed, sampled_rows, smallest
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.planted_index import plant_index


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=6), max_size=5), st.integers(1, 12))
def test_the_smallest_numbers_are_those_of_all_parts_together(parts: list[list[int]], count: int) -> None:
    every = np.array([number for part in parts for number in part], np.uint64)
    found = smallest([np.array(part, np.uint64) for part in parts], count)
    assert found.tolist() == sorted(found.tolist()) and len(set(found.tolist())) == min(count, len(every))
    assert sorted(every[found]) == sorted(every)[:count]


def test_mixed_numbers_are_different_and_spread() -> None:
    found = mixed(np.arange(10_000, dtype=np.uint64))
    assert len(np.unique(found)) == 10_000
    assert np.histogram(found, 10, (0, 2.0**64))[0].min() > 900


def test_a_sample_of_rows_is_nested_and_leaves_out_those_of_larger_norms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = np.random.default_rng(0).standard_normal((50, 8))
    states[::5] *= 100
    plant_index(tmp_path, {1: states})
    table = Warehouse(tmp_path).layer_table("words", 1)
    few, more, every = (sampled_rows(table, count) for count in (5, 20, 50))
    assert set(few) < set(more) < set(every) and every.tolist() == list(range(50))
    usual = sampled_rows(table, 45, 50.0)
    assert usual.tolist() == [row for row in range(50) if row % 5]
    assert len(sampled_rows(table, 10, 50.0)) == 10 and set(sampled_rows(table, 10, 50.0)) < set(usual)
    monkeypatch.setattr(row_samples, "_ROWS", 7)
    assert sampled_rows(table, 20).tolist() == more.tolist()
