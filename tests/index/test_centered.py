"""The search by centered cosine, against its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.errors import UserError
from latentlens_dag.index import table_blocks
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.storage.hashing import text_id, within_fraction
from tests.helpers.planted_index import plant_index, stored

ROWS, WIDTH, LAYERS = 120, 24, (1, 4)
SINKS = 12


def _planted() -> dict[int, np.ndarray]:
    """Layers of different lengths with an outlier dimension each; the first rows of one are sinks."""
    source = np.random.default_rng(0)
    states = {layer: 10.0**layer * source.standard_normal((ROWS, WIDTH)) for layer in LAYERS}
    for layer in LAYERS:
        states[layer][:, layer] += 8 * 10.0**layer
    states[4][:SINKS] = 1e7 * np.eye(WIDTH)[[9]] + states[4][:SINKS]
    return states


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ContextualIndex:
    return plant_index(tmp_path_factory.mktemp("index"), _planted())


def _kept(layer: int) -> range:
    return range(SINKS if layer == 4 else 0, ROWS)


def _slow(query: np.ndarray, mean: np.ndarray, layers: tuple[int, ...] = LAYERS) -> list[tuple[float, int, int]]:
    """The definition: every centered cosine, in float32, in order of (cosine, layer, key)."""
    found = []
    for layer in layers:
        rows = stored(_planted()[layer])[_kept(layer)]
        centered = (rows - rows.mean(0)).astype(np.float32).astype(np.float64)
        one = (query - mean) @ centered.T / np.linalg.norm(query - mean) / np.linalg.norm(centered, axis=1)
        found += [(-float(c), layer, row) for c, row in zip(one.astype(np.float32), _kept(layer), strict=True)]
    return [(-negative, layer, row) for negative, layer, row in sorted(found)]


QUERIES = 3 + np.random.default_rng(5).standard_normal((7, WIDTH))
MEAN = QUERIES.mean(0) + 0.1


def _check(found: Any, expected: list[list[tuple[float, int, int]]]) -> None:
    for number, rows in enumerate(expected):
        assert found.contextual_layer[number].tolist() == [layer for _, layer, _ in rows]
        assert found.key[number].tolist() == [row for *_, row in rows]
        assert found.cosine[number] == pytest.approx([cosine for cosine, *_ in rows], abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 130), st.integers(1, 8))
def test_a_centered_search_is_its_definition_however_the_rows_are_cut(
    index: ContextualIndex, rows: int, k: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_blocks, "_whole_table_blocks", _cut(table_blocks._whole_table_blocks, rows))
        found = index.search(QUERIES, k, similarity="centered", query_mean=MEAN)
    _check(found, [_slow(query, MEAN)[:k] for query in QUERIES])
    assert found.method == "exact, by centered cosine"


def _cut(whole: Any, rows: int) -> Any:
    """Blocks of a table, of another number of rows each."""

    def blocks(dataset: Any, layer: int, matrices: Any, excluded: Any) -> Any:
        every = np.concatenate(list(matrices))
        parts = (every[start : start + rows] for start in range(0, len(every), rows))
        return whole(dataset, layer, parts, excluded)

    return blocks


def test_words_layers_and_answers_of_each_layer_are_as_in_the_plain_search(index: ContextualIndex) -> None:
    how: dict[str, Any] = {"similarity": "centered", "query_mean": MEAN}
    of_word = index.search(QUERIES, 2, word="word50", **how)
    _check(of_word, [[one for one in _slow(query, MEAN) if one[2] == 50] for query in QUERIES])
    each = index.search(QUERIES, 3, merge=False, **how)
    _check(each, [_slow(query, MEAN, (1,))[:3] + _slow(query, MEAN, (4,))[:3] for query in QUERIES])
    other = index.search(QUERIES, 3, [4], exact=False, **how)
    _check(other, [_slow(query, MEAN, (4,))[:3] for query in QUERIES])
    assert other.method.startswith("exact, by centered cosine: ")


def test_of_a_part_of_the_sentences_the_rows_are_centered_by_the_mean_of_all(index: ContextualIndex) -> None:
    found = index.search(QUERIES, 3, fraction=0.5, similarity="centered", query_mean=MEAN)
    half = {row for row in range(ROWS) if within_fraction(text_id(f"sentence {row % (ROWS // 4)}"), 0.5)}
    assert 0 < len(half) < ROWS
    _check(found, [[one for one in _slow(query, MEAN) if one[2] in half][:3] for query in QUERIES])


def test_many_queries_in_bfloat16_find_what_few_find(index: ContextualIndex) -> None:
    queries = np.random.default_rng(8).standard_normal((300, WIDTH))
    found = index.search(queries, 4, similarity="centered", query_mean=np.zeros(WIDTH))
    _check(found, [_slow(query, np.zeros(WIDTH))[:4] for query in queries])


def test_the_mean_of_a_layer_is_that_of_its_rows_without_sinks(index: ContextualIndex) -> None:
    for layer in LAYERS:
        expected = stored(_planted()[layer])[_kept(layer)].mean(0)
        assert index.mean_state(layer) == pytest.approx(expected, rel=1e-9, abs=1e-9 * 10**layer)
    with pytest.raises(UserError, match="no contextual layer 2"):
        index.mean_state(2)


def test_what_all_states_share_counts_in_the_plain_search_and_not_in_the_centered_one(index: ContextualIndex) -> None:
    rows = stored(_planted()[1])
    query = rows[[30]] + 5 * rows.mean(0)
    assert index.search(query, 1, [1]).key[0, 0] != 30
    assert index.search(query, 1, [1], similarity="centered", query_mean=6 * rows.mean(0)).key[0, 0] == 30


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"similarity": "dot"}, "`similarity='dot'` must be 'cosine' or 'centered'"),
        ({"similarity": "centered"}, "needs `query_mean`"),
        ({"query_mean": MEAN}, "pass `similarity='centered'` too"),
        ({"similarity": "centered", "query_mean": MEAN[:5]}, "width 5"),
    ],
)
def test_a_wrong_similarity_or_mean_is_told(index: ContextualIndex, how: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        index.search(QUERIES, 1, **how)


def test_a_layer_whose_rows_are_all_equal_has_no_centered_answers(tmp_path: Path) -> None:
    same = plant_index(tmp_path, {1: np.ones((5, 4))})
    with pytest.raises(UserError, match="has no centered direction"):
        same.search(np.ones((1, 4)), 1, similarity="centered", query_mean=np.zeros(4))
