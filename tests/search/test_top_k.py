import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.search.top_k import TopK


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    queries=st.integers(1, 20),
    k=st.integers(1, 6),
    labels=st.one_of(st.none(), st.integers(1, 12), st.just(2**31)),
    different=st.integers(1, 9),
)
def test_the_nearest_rows_are_the_first_by_cosine_layer_and_key_whatever_the_order_and_size_of_parts(
    seed: int, queries: int, k: int, labels: int | None, different: int
) -> None:
    random = np.random.default_rng(seed)
    values = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2**-140, -(2**-140), 0.7], np.float32)[:different]  # many tie
    best = TopK(queries, k)
    offered: list[list[tuple[float, int, int, int]]] = [[] for _ in range(queries)]
    for layer in random.permutation(4):
        keys = random.permutation(60).astype(np.uint64)
        label_of = random.integers(0, labels or 1, 60)
        pairs = random.permutation(np.argwhere(random.random((queries, 60)) < random.choice([0.02, 0.3])))
        for query, row in (part.T for part in np.array_split(pairs, 3)):
            cosine = random.choice(values, len(query)).astype(np.float32)
            best.add(query, cosine, int(layer), keys, row, None if labels is None else label_of[row])
            for q, c, r in zip(query, cosine, row, strict=True):
                label = int(label_of[r]) if labels else len(offered[q])
                offered[q].append((-float(c), int(layer), int(keys[r]), label))
    found = best.neighbors()
    for query, answers in enumerate(offered):
        first = {label: (cosine, layer, key) for cosine, layer, key, label in sorted(answers, reverse=True)}
        expected = sorted(first.values())[:k]
        assert [
            (-float(c), int(layer), int(key))
            for c, layer, key in zip(found.cosine[query], found.contextual_layer[query], found.key[query], strict=True)
        ][: len(expected)] == expected
        assert np.isneginf(found.cosine[query, len(expected) :]).all()
