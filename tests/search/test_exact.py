import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentlens_dag.search import exact
from latentlens_dag.search.exact import EVERY_QUERY, Block, Exclusions, cosine_top_k, nested_top_k
from latentlens_dag.search.prefilter import (
    GROUP,
    Arithmetic,
    BlockMatrix,
    Prefilter,
    fastest_arithmetic,
    outlier_dimensions,
)
from latentlens_dag.search.top_k import Neighbors

ARITHMETICS: list[Arithmetic] = ["bfloat16", "float32"]


@pytest.fixture(autouse=True)
def few_opening_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_OPENING_ROWS", 8)  # so that small corpora reach the coarse product


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
    arithmetic=st.sampled_from(ARITHMETICS),
)
def test_any_cut_gives_the_answers_of_a_full_comparison(
    seed: int, rows: int, size: int, k: int, width: int, arithmetic: Arithmetic
) -> None:
    blocks, random = _corpus(seed, rows, width), np.random.default_rng(seed)
    queries = random.standard_normal((5, width)).astype(np.float32)
    queries[0] = blocks[0].vectors[0]  # a query that is a row
    found = _found(cosine_top_k(queries, _cut(blocks, size, random), k, arithmetic=arithmetic))
    slow = _slow_definition(queries, blocks, k)
    assert [row[: len(expected)] for row, expected in zip(found, slow, strict=True)] == slow


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 300),
    size=st.integers(1, 300),
    k=st.integers(1, 7),
    labels=st.one_of(st.none(), st.integers(1, 40)),
    share=st.sampled_from([0.02, 0.3, 0.9]),
    arithmetic=st.sampled_from(ARITHMETICS),
)
def test_excluded_rows_are_no_answers_and_hide_none(
    seed: int, rows: int, size: int, k: int, labels: int | None, share: float, arithmetic: Arithmetic
) -> None:
    blocks, random = _corpus(seed, rows, 8), np.random.default_rng(seed)
    queries = random.standard_normal((5, 8)).astype(np.float32)
    queries[:3] = blocks[0].vectors[random.integers(0, rows, 3)]  # whose own rows are excluded among others
    no_answer = {block.contextual_layer: random.random((5, rows)) < share / 2 for block in blocks}
    for block in blocks:
        no_answer[block.contextual_layer] |= random.random(rows) < share / 2  # for every query
        cosine = queries @ block.vectors.astype(np.float32).T
        np.put_along_axis(no_answer[block.contextual_layer], cosine.argmax(1)[:, None], True, axis=1)

    label_of = random.integers(0, labels or 1, rows)
    labels_of = None if labels is None else (lambda keys: label_of[keys.astype(int)])
    cut = []
    for block in blocks:
        pairs = no_answer[block.contextual_layer]
        for i in range(0, rows, size):
            here = pairs[:, i : i + size]
            for_all = here.all(0)
            query, row = np.nonzero(here & ~for_all)
            excluded = Exclusions(
                np.concatenate([np.flatnonzero(for_all), row]),
                np.concatenate([np.full(for_all.sum(), EVERY_QUERY), query]),
            )
            cut.append(
                Block(block.contextual_layer, block.keys[i : i + size], block.vectors[i : i + size], 0, excluded)
            )
    found = _found(
        cosine_top_k(queries, [cut[i] for i in random.permutation(len(cut))], k, labels_of, None, arithmetic)
    )
    place = {int(key): row for row, key in enumerate(blocks[0].keys)}
    for query, everything in enumerate(_slow_definition(queries, blocks, 2 * rows)):
        allowed = [one for one in everything if not no_answer[one[1]][query, place[one[2]]]]
        first = {int(label_of[one[2]]) if labels else one: one for one in reversed(allowed)}
        expected = sorted(first.values(), key=lambda answer: (-answer[0], *answer[1:]))[:k]
        assert found[query][: len(expected)] == expected
        assert all(cosine == -np.inf for cosine, _, _ in found[query][len(expected) :])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 300),
    size=st.integers(1, 300),
    k=st.integers(1, 7),
    labels=st.integers(1, 40),
    arithmetic=st.sampled_from(ARITHMETICS),
)
def test_with_labels_the_answers_are_the_first_of_each_label(
    seed: int, rows: int, size: int, k: int, labels: int, arithmetic: Arithmetic
) -> None:
    blocks, random = _corpus(seed, rows, 8), np.random.default_rng(seed)
    label_of = random.integers(0, labels, rows)
    queries = random.standard_normal((5, 8)).astype(np.float32)
    labels_of = lambda keys: label_of[keys.astype(int)]  # noqa: E731
    found = _found(cosine_top_k(queries, _cut(blocks, size, random), k, labels_of, arithmetic=arithmetic))
    for answers, everything in zip(found, _slow_definition(queries, blocks, 2 * rows), strict=True):
        first = {int(label_of[key]): (cosine, layer, key) for cosine, layer, key in reversed(everything)}
        expected = sorted(first.values(), key=lambda answer: (-answer[0], *answer[1:]))[:k]
        assert answers[: len(expected)] == expected
        assert all(cosine == -np.inf for cosine, _, _ in answers[len(expected) :])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    queries=st.integers(1, 23),
    rows=st.integers(1, 200),
    labels=st.one_of(st.none(), st.integers(8, 40)),
    arithmetic=st.sampled_from(ARITHMETICS),
)
def test_any_number_of_threads_gives_the_same_answers(
    monkeypatch: pytest.MonkeyPatch, seed: int, queries: int, rows: int, labels: int | None, arithmetic: Arithmetic
) -> None:
    random, k = np.random.default_rng(seed), 3
    asked = random.standard_normal((queries, 8)).astype(np.float32)
    blocks = [
        block._replace(excluded=Exclusions(random.integers(0, rows, 9), random.integers(EVERY_QUERY, queries, 9)))
        for block in _corpus(seed, rows, 8)
    ]
    labels_of = None if labels is None else lambda keys: (keys % np.uint64(labels)).astype(np.int64)
    alone = _found(cosine_top_k(asked, blocks, k, labels_of, arithmetic=arithmetic))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(exact, "_QUERIES_PER_PRODUCT", 4)
            patched.setattr(exact, "_SCORES", 1)
            assert len(exact._parts_for_threads(queries, "cpu")) == max(1, min(3, queries // 4))
            assert _found(cosine_top_k(asked, blocks, k, labels_of, arithmetic=arithmetic)) == alone
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_a_query_without_direction_is_named_by_its_row_in_all_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_parts_for_threads", lambda queries, device: [slice(0, 2), slice(2, queries)])
    queries = np.ones((6, 8), np.float32)
    queries[4] = 0
    with pytest.raises(ValueError, match="query at row 4 "):
        cosine_top_k(queries, _corpus(0, 9, 8), 1)


def test_what_is_wrong_with_a_block_is_raised_out_of_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_parts_for_threads", lambda queries, device: [slice(0, 2), slice(2, queries)])
    damaged = Block(1, np.arange(3, dtype=np.uint64), np.zeros((3, 8), np.float16))
    with pytest.raises(ValueError, match="has no direction"):
        cosine_top_k(np.ones((4, 8), np.float32), [damaged], 1)


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


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("apart", [1e-3, 0.0])
def test_rows_that_are_nearly_equal_are_told_apart(arithmetic: Arithmetic, apart: float) -> None:
    random = np.random.default_rng(0)
    base = random.standard_normal((1, 64))
    rows = _unit_float16(base + apart * random.standard_normal((5000, 64)))
    blocks = [Block(1, np.arange(5000, dtype=np.uint64), rows)]
    queries = (base + 1e-3 * random.standard_normal((6, 64))).astype(np.float32)
    found = cosine_top_k(queries, _cut(blocks, 512, random), 5, arithmetic=arithmetic)
    assert _found(found) == _slow_definition(queries, blocks, 5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    width=st.integers(9, 96),
    loudness=st.sampled_from([1.0, 40.0, 1000.0]),
    lengths=st.sampled_from([0.0, 1.0, 4.0]),
    arithmetic=st.sampled_from(ARITHMETICS),
)
def test_outlier_dimensions_and_rows_of_any_length_lose_no_neighbor(
    seed: int, width: int, loudness: float, lengths: float, arithmetic: Arithmetic
) -> None:
    random = np.random.default_rng(seed)
    blocks, loud = _adversarial(random, 700, width, loudness, lengths)
    queries = (random.standard_normal((9, width)) * loud).astype(np.float32)
    found = cosine_top_k(queries, _cut(blocks, 300, random), 5, arithmetic=arithmetic)
    assert _found(found) == _slow_definition(queries, blocks, 5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), loud=st.lists(st.booleans(), min_size=2, max_size=4))
def test_layers_with_outlier_dimensions_and_without_are_searched_in_any_order(seed: int, loud: list[bool]) -> None:
    random = np.random.default_rng(seed)
    parts = [_adversarial(random, 300, 32, 40.0 if is_loud else 1.0, 0.0)[0][0] for is_loud in loud]
    blocks = [block._replace(contextual_layer=layer) for layer, block in enumerate(parts)]
    queries = random.standard_normal((9, 32)).astype(np.float32)
    assert _found(cosine_top_k(queries, blocks, 5, arithmetic="bfloat16")) == _slow_definition(queries, blocks, 5)


def test_the_queries_matrix_is_made_once_for_layers_without_outlier_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int | None] = []

    class Counted(Prefilter):
        def __init__(self, unit: torch.Tensor, arithmetic: Arithmetic, outliers: torch.Tensor | None = None) -> None:
            if arithmetic == "bfloat16":  # float32 steps in where that lets too many rows through
                made.append(None if outliers is None else len(outliers))
            super().__init__(unit, arithmetic, outliers)

    monkeypatch.setattr(exact, "Prefilter", Counted)
    random = np.random.default_rng(0)
    plain, loud = (_adversarial(random, 400, 64, loudness, 0.0)[0][0] for loudness in (1.0, 40.0))
    layers = [plain, plain, plain, loud, loud, plain, plain]
    blocks = [block._replace(contextual_layer=layer) for layer, block in enumerate(layers)]
    cosine_top_k(random.standard_normal((9, 64)).astype(np.float32), blocks, 5, arithmetic="bfloat16")
    assert made == [None, 8, 8, None]


def _adversarial(
    random: np.random.Generator, rows: int, width: int, loudness: float, lengths: float
) -> tuple[list[Block], np.ndarray]:
    """Rows with three loud dimensions, of lengths over `lengths` powers of ten, half of them twice."""
    loud = np.ones(width)
    loud[random.permutation(width)[:3]] = loudness
    vectors = random.standard_normal((rows, width)) * loud
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors *= 10 ** random.uniform(-lengths, lengths, (rows, 1))
    vectors[rows // 2 :] = vectors[: rows - rows // 2][::-1] * random.choice([1, 1.001], (rows - rows // 2, 1))
    return [Block(1, random.permutation(rows).astype(np.uint64), vectors.astype(np.float16))], loud


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    width=st.integers(9, 300),
    loudness=st.sampled_from([1.0, 40.0, 1000.0]),
    lengths=st.sampled_from([0.0, 4.0]),
    arithmetic=st.sampled_from(ARITHMETICS),
)
def test_the_product_is_no_further_from_the_truth_than_its_bound(
    seed: int, width: int, loudness: float, lengths: float, arithmetic: Arithmetic
) -> None:
    random = np.random.default_rng(seed)
    (block,), loud = _adversarial(random, 200, width, loudness, lengths)
    queries = random.standard_normal((8, width)) * loud
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    queries[0] = block.vectors[0].astype(np.float32) / np.linalg.norm(block.vectors[0].astype(np.float32))
    floor = random.uniform(-1, 1, 8).astype(np.float32)
    vectors = torch.from_numpy(block.vectors)
    coarse = Prefilter(torch.from_numpy(queries), arithmetic, outlier_dimensions(vectors))
    rows = coarse.rows(vectors)
    scores = coarse.scores(rows, 0, slice(0, 8), torch.from_numpy(floor)).double().numpy()
    x, u = block.vectors.astype(np.float64), queries.astype(np.float64)
    truth = x @ (u / np.linalg.norm(u, axis=1, keepdims=True)).T - np.linalg.norm(x, axis=1)[:, None] * floor
    bound = coarse.bound(slice(0, 8), rows.norms[:, None], rows.residual_norms[:, None]).double().numpy()
    rounding = np.abs(scores) * 2.0 ** (-8 if arithmetic == "bfloat16" else -24)
    assert (np.abs(scores - bound - truth) <= bound + rounding).all()
    assert (scores[truth >= 0] >= 0).all()  # what counts is proposed


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    width=st.integers(9, 300),
    loudness=st.sampled_from([1.0, 40.0, 1000.0]),
    lengths=st.sampled_from([0.0, 4.0]),
    arithmetic=st.sampled_from(ARITHMETICS),
    too_high=st.booleans(),
)
def test_a_row_of_each_group_reaches_the_cosine_that_the_product_proves(
    seed: int, width: int, loudness: float, lengths: float, arithmetic: Arithmetic, too_high: bool
) -> None:
    random = np.random.default_rng(seed)
    (block,), loud = _adversarial(random, 200, width, loudness, lengths)
    queries = random.standard_normal((8, width)) * loud
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    vectors, everyone = torch.from_numpy(block.vectors), slice(0, 8)
    coarse = Prefilter(torch.from_numpy(queries), arithmetic, outlier_dimensions(vectors))
    rows = coarse.rows(vectors)
    x, u = block.vectors.astype(np.float64), queries.astype(np.float64)
    product = x @ (u / np.linalg.norm(u, axis=1, keepdims=True)).T
    truth = product / np.linalg.norm(x, axis=1)[:, None]
    scores = coarse.scores(rows, 0, everyone, torch.zeros(8))
    if too_high:  # by all that the bound allows: a product is seldom so wrong by itself
        bound = coarse.bound(everyone, rows.norms[:, None], rows.residual_norms[:, None])
        scores = (torch.from_numpy(product) + 2 * bound.double() * (1 - 1e-6)).to(scores.dtype)
    row, proved = (found.numpy() for found in coarse.nearest_of_groups(scores, rows, everyone))
    assert (row // GROUP == np.arange(3)[:, None]).all()  # 200 rows are three whole groups
    assert (proved <= np.take_along_axis(truth, row, 0)).all()
    if not too_high and loudness == 1:
        assert (np.take_along_axis(truth, row, 0) - proved < (0.1 if arithmetic == "bfloat16" else 1e-3)).all()


def test_splitting_loud_dimensions_makes_the_bound_small() -> None:
    random = np.random.default_rng(0)
    (block,), _ = _adversarial(random, 200, 384, 40.0, 0.0)
    vectors = torch.from_numpy(block.vectors)
    queries = vectors.float()[:8] / vectors.float()[:8].norm(dim=1, keepdim=True)
    bounds = []
    for loud in (None, outlier_dimensions(vectors)):
        coarse = Prefilter(queries, "bfloat16", loud)
        rows = coarse.rows(vectors)
        bounds.append(float(coarse.bound(slice(0, 8), rows.norms[:, None], rows.residual_norms[:, None]).mean()))
    assert bounds[1] < bounds[0] / 4


def test_only_dimensions_that_hold_most_of_the_energy_are_loud() -> None:
    random = np.random.default_rng(0)
    assert outlier_dimensions(torch.from_numpy(_adversarial(random, 200, 384, 1.0, 0.0)[0][0].vectors)) is None
    (block,), loud = _adversarial(random, 200, 384, 40.0, 0.0)
    found = outlier_dimensions(torch.from_numpy(block.vectors))
    assert found is not None
    assert set(np.flatnonzero(loud > 1)) <= set(found.tolist())


def test_where_bfloat16_tells_nothing_apart_float32_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    scores = Prefilter.scores
    monkeypatch.setattr(Prefilter, "scores", lambda self, *a: used.append(str(self._dtype)[6:]) or scores(self, *a))
    random = np.random.default_rng(0)
    rows = _unit_float16(random.standard_normal((1, 64)) + 1e-3 * random.standard_normal((5000, 64)))
    blocks = [Block(1, np.arange(i, i + 500, dtype=np.uint64), rows[i : i + 500]) for i in range(0, 5000, 500)]
    cosine_top_k(rows[:6].astype(np.float32), blocks, 5, arithmetic="bfloat16")
    # The first block is multiplied twice: for floors, and for candidates.
    # A failure, one block in float32; a failure, two; a failure, four.
    first, again = ["bfloat16", "bfloat16", "float32", "float32"], ["bfloat16", "float32"]
    assert used == [*first, "float32", *again, *["float32"] * 2, *again, *["float32"] * 4]


def test_the_measured_choice_is_one_of_the_two_and_few_queries_take_float32() -> None:
    assert fastest_arithmetic(1000, "cpu") in ARITHMETICS
    assert fastest_arithmetic(1, "cpu") == "float32"


def test_a_process_that_allows_lower_precision_loses_no_neighbor() -> None:
    random = np.random.default_rng(0)
    blocks = [Block(1, np.arange(900, dtype=np.uint64), _unit_float16(random.standard_normal((900, 512))))]
    queries = random.standard_normal((20, 512)).astype(np.float32)
    torch.set_float32_matmul_precision("medium")  # float32 products in bfloat16, where the processor can
    try:
        found = cosine_top_k(queries, blocks, 5, arithmetic="float32")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert _found(found) == _slow_definition(queries, blocks, 5)


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


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), sizes=st.lists(st.integers(0, 90), min_size=1, max_size=4), k=st.integers(1, 6))
@pytest.mark.parametrize("arithmetic", ["bfloat16", "float32"])
def test_after_each_part_the_neighbors_are_those_of_all_rows_so_far(
    arithmetic: Arithmetic, seed: int, sizes: list[int], k: int
) -> None:
    random = np.random.default_rng(seed)
    parts = [_corpus(seed + number, rows, 8) for number, rows in enumerate(sizes)]
    parts = [
        [block._replace(keys=np.asarray(block.keys) + np.uint64(1000 * number)) for block in part]
        for number, part in enumerate(parts)
    ]
    queries = random.standard_normal((9, 8)).astype(np.float32)
    found = nested_top_k(queries, parts, k, arithmetic=arithmetic)
    for end, one in enumerate(found, 1):
        rows = [block for part in parts[:end] for block in part]
        assert _found(one) == _found(cosine_top_k(queries, rows, k, arithmetic=arithmetic))
    assert len(found) == len(parts)


def test_more_queries_and_candidates_than_one_step_takes_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_SCORES", 1)
    monkeypatch.setattr(exact, "_QUERIES_PER_PRODUCT", 17)  # and 17 x 300 candidates, scored 4096 at a time
    blocks = _corpus(0, 300, 16)
    queries = np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)
    assert _found(cosine_top_k(queries, blocks, 600)) == _slow_definition(queries, blocks, 600)


@pytest.mark.parametrize("labeled", [False, True])
@pytest.mark.parametrize("too_high", [False, True])
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_a_product_as_wrong_as_its_bound_allows_loses_no_neighbor(
    monkeypatch: pytest.MonkeyPatch, arithmetic: Arithmetic, too_high: bool, labeled: bool
) -> None:
    random, begin, read = np.random.default_rng(0), Prefilter.__init__, Prefilter.rows
    seen: dict[str, torch.Tensor] = {}

    def beginning(self: Prefilter, unit: torch.Tensor, *rest: object) -> None:
        seen["unit"] = unit.double()
        begin(self, unit, *rest)

    def reading(self: Prefilter, vectors: torch.Tensor) -> object:
        seen["rows"] = vectors.double()
        return read(self, vectors)

    def spoiled(self: Prefilter, rows: BlockMatrix, start: int, queries: slice, floor: torch.Tensor) -> torch.Tensor:
        """As far from the truth as is allowed: a product is seldom so wrong by itself."""
        x = seen["rows"][start:]
        truth = x @ seen["unit"][queries].T - x.norm(dim=1, keepdim=True) * floor
        bound = self.bound(queries, rows.norms[start:, None], rows.residual_norms[start:, None])
        return (truth + bound * (1 - 1e-6) * (1 if too_high else -1) + bound).to(self._dtype)

    monkeypatch.setattr(Prefilter, "__init__", beginning)
    monkeypatch.setattr(Prefilter, "rows", reading)
    monkeypatch.setattr(Prefilter, "scores", spoiled)
    base, spread = random.standard_normal((1, 256)), 1 if labeled else 1e-2
    rows = _unit_float16(base + spread * random.standard_normal((3000, 256)))
    blocks = [Block(1, np.arange(3000, dtype=np.uint64), rows)]
    queries = (base + spread * random.standard_normal((6, 256))).astype(np.float32)
    label_of = np.where(np.arange(3000) % 100 < 6, np.arange(3000) % 100, 9) if labeled else np.arange(3000)
    labels_of = (lambda keys: label_of[keys.astype(int)]) if labeled else None  # nearly all have label 9
    found = _found(cosine_top_k(queries, _cut(blocks, 512, random), 5, labels_of, arithmetic=arithmetic))
    for answers, everything in zip(found, _slow_definition(queries, blocks, 3000), strict=True):
        first = {int(label_of[key]): (cosine, layer, key) for cosine, layer, key in reversed(everything)}
        assert answers == sorted(first.values(), key=lambda answer: (-answer[0], *answer[1:]))[:5]


def test_the_labels_of_a_block_are_read_once_for_many_queries_and_only_those_needed_for_one() -> None:
    random = np.random.default_rng(0)
    blocks = _cut(_corpus(0, 2000, 16, layers=1), 500, random)
    queries = random.standard_normal((300, 16)).astype(np.float32)
    for some, most in ((queries, 2 * 2000), (queries[:1], 2000 / 4)):
        read: list[int] = []
        cosine_top_k(some, blocks, 5, lambda keys, read=read: read.append(len(keys)) or keys.astype(np.int64))
        assert 0 < sum(read) < most


def test_few_rows_are_scored_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_OPENING_ROWS", 200)
    pairs, score = [], exact._Search._exact_cosine
    monkeypatch.setattr(exact._Search, "_exact_cosine", lambda *args: pairs.append(len(args[2])) or score(*args))
    queries = np.random.default_rng(1).standard_normal((50, 16)).astype(np.float32)
    cosine_top_k(queries, _cut(_corpus(0, 4000, 16), 1000, np.random.default_rng(0)), 5)
    assert sum(pairs) < 50 * 8000 / 50


_MANY_PAIRS = """
import resource
import numpy as np
import torch
from latentlens_dag.search.exact import _Search, _lengths

random = np.random.default_rng(0)
queries = random.standard_normal((1800, 576), np.float32)
search = _Search(queries, _lengths(queries), 5, None, "cpu", "float32")
search.best.cosine[:] = 0.5
vectors = torch.from_numpy(random.standard_normal((4096, 576), np.float32).astype(np.float16))
norms = vectors.float().norm(dim=1)
query, row = (torch.from_numpy(random.integers(0, most, 700_000)) for most in (1800, 4096))
search._close(vectors, norms, query[:1000], row[:1000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
search._close(vectors, norms, query, row)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_comparing_many_proposed_pairs_in_float32_takes_no_memory_to_speak_of() -> None:
    """In a process of its own, for that of this one may have been larger before."""
    found = subprocess.run([sys.executable, "-c", _MANY_PAIRS], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 100 << 10  # KiB: a list of small tensors between large ones took 1.3 GB
