import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag import search
from latentlens_dag.search import Block, Neighbors, cosine_top_k


def _slow_definition(queries: np.ndarray, blocks: list[Block], k: int) -> list[list[tuple[float, int, int]]]:
    """A full float64 comparison, sorted by (-cosine, contextual layer, key)."""
    answers = []
    for query in queries.astype(np.float64):
        scored = []
        for block in blocks:
            rows = block.vectors.astype(np.float64)
            cosine = (rows * (query / np.linalg.norm(query))).sum(1) / np.sqrt((rows * rows).sum(1))
            scored += [
                (-c, block.contextual_layer, key) for c, key in zip(cosine.astype(np.float32), block.keys, strict=True)
            ]
        answers.append([(float(-c), layer, int(key)) for c, layer, key in sorted(scored)[:k]])
    return answers


def _found(result: Neighbors) -> list[list[tuple[float, int, int]]]:
    rows = zip(result.cosine, result.contextual_layer, result.key, strict=True)
    return [[(float(c), int(v), int(x)) for c, v, x in zip(*row, strict=True)] for row in rows]


def _unit_float16(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def _corpus(seed: int, rows: int, width: int, layers: int = 2) -> list[Block]:
    random = np.random.default_rng(seed)
    vectors = [random.standard_normal((rows, width)) for _ in range(layers)]
    for matrix in vectors:  # equal rows are ordinary: sentences share beginnings
        matrix[rows // 2 :] = matrix[random.integers(0, rows // 2 or 1, rows - rows // 2)]
    keys = random.permutation(rows).astype(np.uint64)
    return [Block(layer + 1, keys, _unit_float16(matrix)) for layer, matrix in enumerate(vectors)]


def _cut(blocks: list[Block], size: int, order: np.random.Generator) -> list[Block]:
    pieces = [
        Block(b.contextual_layer, b.keys[i : i + size], b.vectors[i : i + size])
        for b in blocks
        for i in range(0, len(b.keys), size)
    ]
    return [pieces[i] for i in order.permutation(len(pieces))]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 300),
    size=st.integers(1, 300),
    k=st.integers(1, 7),
    width=st.integers(2, 48),
)
def test_any_cut_gives_the_answers_of_a_full_comparison(seed: int, rows: int, size: int, k: int, width: int) -> None:
    blocks, random = _corpus(seed, rows, width), np.random.default_rng(seed)
    queries = random.standard_normal((5, width)).astype(np.float32)
    queries[0] = blocks[0].vectors[0]  # a query that is a row
    found = _found(cosine_top_k(queries, _cut(blocks, size, random), k))
    slow = _slow_definition(queries, blocks, k)
    assert [row[: len(expected)] for row, expected in zip(found, slow, strict=True)] == slow


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 300),
    size=st.integers(1, 300),
    k=st.integers(1, 7),
    labels=st.integers(1, 40),
)
def test_with_labels_the_answers_are_the_first_of_each_label(
    seed: int, rows: int, size: int, k: int, labels: int
) -> None:
    blocks, random = _corpus(seed, rows, 8), np.random.default_rng(seed)
    label_of = random.integers(0, labels, rows)
    queries = random.standard_normal((5, 8)).astype(np.float32)
    found = _found(cosine_top_k(queries, _cut(blocks, size, random), k, lambda keys: label_of[keys.astype(int)]))
    for answers, everything in zip(found, _slow_definition(queries, blocks, 2 * rows), strict=True):
        first = {int(label_of[key]): (cosine, layer, key) for cosine, layer, key in reversed(everything)}
        expected = sorted(first.values(), key=lambda answer: (-answer[0], *answer[1:]))[:k]
        assert answers[: len(expected)] == expected
        assert all(cosine == -np.inf for cosine, _, _ in answers[len(expected) :])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 40))
def test_equal_cosines_go_to_the_lower_layer_then_key(seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    axes = np.eye(4, dtype=np.float16)[random.integers(0, 4, 60)] * random.choice([-1, 1], (60, 1)).astype(np.float16)
    keys = random.permutation(60).astype(np.uint64)
    blocks = [Block(2, keys, axes), Block(1, keys, axes)]
    queries = np.eye(4, dtype=np.float32)
    assert _found(cosine_top_k(queries, _cut(blocks, size, random), 9)) == _slow_definition(queries, blocks, 9)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_length_of_a_query_does_not_matter(scale: float) -> None:
    blocks = _corpus(0, 200, 16)
    queries = np.random.default_rng(1).standard_normal((8, 16))
    one, other = (cosine_top_k(q, blocks, 5) for q in (queries, queries * scale))
    assert (one.key == other.key).all()


def test_rows_that_are_nearly_equal_are_told_apart() -> None:
    random = np.random.default_rng(0)
    base = random.standard_normal((1, 64))
    rows = _unit_float16(base + 1e-3 * random.standard_normal((5000, 64)))
    blocks = [Block(1, np.arange(5000, dtype=np.uint64), rows)]
    queries = (base + 1e-3 * random.standard_normal((6, 64))).astype(np.float32)
    assert _found(cosine_top_k(queries, _cut(blocks, 512, random), 5)) == _slow_definition(queries, blocks, 5)


def test_outlier_dimensions_lose_no_neighbor() -> None:
    random = np.random.default_rng(0)
    loud = np.ones(96)
    loud[[3, 40, 71]] = 40.0
    rows = _unit_float16(random.standard_normal((4000, 96)) * loud)
    blocks = [Block(1, np.arange(4000, dtype=np.uint64), rows)]
    queries = (random.standard_normal((16, 96)) * loud).astype(np.float32)
    assert _found(cosine_top_k(queries, _cut(blocks, 777, random), 5)) == _slow_definition(queries, blocks, 5)


def test_fewer_rows_than_k_leave_places_empty() -> None:
    found = cosine_top_k(
        np.eye(3, dtype=np.float32), [Block(1, np.arange(2, dtype=np.uint64), np.eye(3, dtype=np.float16)[:2])], 5
    )
    assert np.isneginf(found.cosine[:, 2:]).all()
    assert (found.cosine[0, :2] == [1, 0]).all()


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_query_without_direction_is_refused(bad: float) -> None:
    queries = np.ones((3, 4), np.float32)
    queries[1] = bad
    with pytest.raises(ValueError, match="query at row 1 has no direction"):
        cosine_top_k(queries, _corpus(0, 10, 4), 1)


def test_a_row_without_direction_a_wrong_width_and_a_wrong_k_are_refused() -> None:
    zero = Block(3, np.arange(2, dtype=np.uint64), np.zeros((2, 4), np.float16))
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=r"key 0{16} of contextual layer 3"):
        cosine_top_k(np.ones((1, 4)), [zero], 1)
    with pytest.raises(ValueError, match=r"Queries have width 5 but .* layer 1 has width 4"):
        cosine_top_k(np.ones((1, 5)), _corpus(0, 10, 4), 1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        cosine_top_k(np.ones((1, 4)), _corpus(0, 10, 4), 0)


def test_more_queries_and_candidates_than_one_step_takes_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_QUERIES_PER_PRODUCT", 17)  # and 17 x 300 candidates, scored 4096 at a time
    blocks = _corpus(0, 300, 16)
    queries = np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)
    assert _found(cosine_top_k(queries, blocks, 600)) == _slow_definition(queries, blocks, 600)


def test_a_product_as_wrong_as_float32_allows_loses_no_neighbor(monkeypatch: pytest.MonkeyPatch) -> None:
    random, width = np.random.default_rng(0), 256
    allowed = width * 2.0**-24 / (1 - width * 2.0**-24)  # Higham, eq. 3.5; a product is seldom so wrong by itself
    floor = search._floor

    def spoiled(scores: torch.Tensor, best: Neighbors, width: int, labels: None) -> np.ndarray:
        scores += torch.from_numpy(random.choice([-allowed, allowed], scores.shape).astype(np.float32))
        return floor(scores, best, width, labels)

    monkeypatch.setattr(search, "_floor", spoiled)
    base = random.standard_normal((1, width))
    rows = _unit_float16(base + 1e-3 * random.standard_normal((3000, width)))
    blocks = [Block(1, np.arange(3000, dtype=np.uint64), rows)]
    queries = (base + 1e-3 * random.standard_normal((6, width))).astype(np.float32)
    assert _found(cosine_top_k(queries, _cut(blocks, 512, random), 5)) == _slow_definition(queries, blocks, 5)


def test_few_rows_are_scored_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, score = [], search._exact_cosine
    monkeypatch.setattr(search, "_exact_cosine", lambda *args: pairs.append(len(args[2])) or score(*args))
    queries = np.random.default_rng(1).standard_normal((50, 16)).astype(np.float32)
    cosine_top_k(queries, _cut(_corpus(0, 4000, 16), 1000, np.random.default_rng(0)), 5)
    assert sum(pairs) < 50 * 8000 / 50
