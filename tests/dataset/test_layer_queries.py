"""What the page Layers asks: examples of a point, and histograms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import pytest

from latentlens_dag.dataset.dataset import Dataset, open_dataset
from tests.helpers.released import GRID, LAYERS, TOP_K, write_warehouse

IMAGES = 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """One study of three images of 36 patches, with random answers."""
    with open_dataset(write_warehouse(tmp_path_factory.mktemp("random") / "warehouse", IMAGES)) as opened:
        yield opened


def test_examples_are_one_of_each_image_in_turn_always_the_same_and_another_at_another_place(dataset: Dataset) -> None:
    found = dataset.collect("examples", layer=4, top=7)
    assert found.equals(dataset.collect("examples", layer=4, top=7))
    images = found["image_id"].to_list()
    assert [len(set(images[at : at + IMAGES])) for at in (0, 3)] == [IMAGES, IMAGES] and len(images) == 7
    everything = dataset.collect("examples", layer=4, top=1000)
    assert len(everything) == IMAGES * GRID * GRID and everything[:7].equals(found)
    assert found["token_index"][:IMAGES].to_list() != [0] * IMAGES


def test_an_example_shows_the_nearest_answer_its_verdict_and_its_place(dataset: Dataset) -> None:
    for row in dataset.collect("examples", layer=0, lens="logitlens", top=9).to_dicts():
        where = "image_id = $image AND token_index = $token AND visual_layer = 0 AND lens = 'logitlens'"
        at = {"image": row["image_id"], "token": row["token_index"]}
        answers = dataset.collect(f"FROM neighbors WHERE {where} ORDER BY rank", **at)
        assert (row["word"], row["logit"], row["cosine"]) == (answers["word"][0], answers["logit"][0], None)
        assert row["verdict"] == dataset.collect(f"FROM judgements WHERE {where}", **at)["verdict"][0]
        places = dataset.collect("FROM visual_tokens WHERE image_id = $image AND token_index = $token", **at)
        assert row["x0"] == places["x0"][0]


def test_interpretability_is_by_all_answers_unless_it_is_asked_of_the_nearest(dataset: Dataset) -> None:
    every, first = (dataset.collect("interpretability", measure="abstract", k=k) for k in (TOP_K, 1))
    assert dataset.collect("interpretability", measure="abstract").equals(every) and not every.equals(first)
    wanted = "k = 1 AND lens = 'logitlens' AND measure = 'abstract' AND patch_group = 'all' ORDER BY visual_layer"
    shares = dataset.collect(f"SELECT round(100 * share, 1) FROM interpretability WHERE {wanted}").to_series()
    assert first["logitlens"].to_list() == shares.to_list()


def test_examples_keep_to_contextual_layer_range_and_group(dataset: Dataset) -> None:
    near = "FROM neighbors WHERE lens = 'latentlens' AND visual_layer = 4"
    of_layer = {(r["image_id"], r["token_index"]) for r in _rows(dataset, f"{near} AND contextual_layer = 2")}
    found = dataset.collect("examples", layer=4, contextual_layer=2, top=1000).to_dicts()
    assert {(row["image_id"], row["token_index"]) for row in found} == of_layer
    best = {(r["image_id"], r["token_index"]): r["cosine"] for r in _rows(dataset, f"{near} AND rank = 1")}
    low, high = sorted(best.values())[20], sorted(best.values())[60]
    found = dataset.collect("examples", layer=4, low=low, high=high, top=1000).to_dicts()
    assert {(r["image_id"], r["token_index"]) for r in found} == {t for t, v in best.items() if low <= v < high}
    grouped = [len(dataset.collect("examples", layer=4, patch_group=g, top=1000)) for g in ("object", "background")]
    assert sum(grouped) == len(best) and min(grouped) > 0


@pytest.mark.parametrize("lens", ["latentlens", "logitlens"])
def test_a_histogram_counts_every_nearest_answer_once_in_bins_of_a_round_width(dataset: Dataset, lens: str) -> None:
    bins = dataset.collect("similarity_histogram", lens=lens).to_dicts()
    widths = {round(row["high"] - row["low"], 6) for row in bins}
    assert len(widths) == 1 and round(widths.pop() * 10**6) in {m * 10**e for m in (1, 2, 5) for e in range(9)}
    answers = _rows(
        dataset, f"SELECT *, coalesce(cosine, logit) AS s FROM neighbors WHERE lens = '{lens}' AND rank = 1"
    )
    for layer in LAYERS:
        mine = [row for row in bins if row["visual_layer"] == layer]
        slow = Counter(
            next(row["low"] for row in mine if row["low"] - 1e-9 <= one["s"] < row["high"] - 1e-9)
            for one in answers
            if one["visual_layer"] == layer
        )
        assert {row["low"]: row["tokens"] for row in mine} == slow
        assert math.isclose(sum(row["share"] for row in mine), 1)
    assert 20 <= len({row["low"] for row in bins}) <= 41


def _rows(dataset: Dataset, sql: str) -> list[dict]:
    return dataset.collect(sql).to_dicts()
