"""The patches behind differences, against the table of differences itself."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import polars as pl
import pytest

from latentlens_dag.browse.browser_data import BrowserData, open_browser_data
from latentlens_dag.browse.difference_examples import Counted, LensAtLayer, one_sided
from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.study.differences import lens_differences
from latentlens_dag.study.regions_judge import VERDICTS
from tests.helpers.small_dataset import TOP_K, write_warehouse


@pytest.fixture(scope="module")
def random_verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserData]:
    """Study `one` with verdicts and groups drawn at random, sinks at one of its layers, and their differences."""
    house = write_warehouse(tmp_path_factory.mktemp("home") / "warehouse")
    write_catalog(house, "one", house.catalog("one"))
    with duckdb.connect(house.catalog("one")) as catalog:
        judged = pl.DataFrame(catalog.sql("FROM judgements ORDER BY ALL").to_arrow_table())
        drawn = {
            name: pl.Series([VERDICTS[number % 4] for number in judged.hash_rows(seed=seed)])
            for seed, name in enumerate(("verdict", "first_verdict"))
        }
        judged = judged.with_columns(**drawn)
        groups = pl.Series(["object", "background", "padding"]).gather(
            judged.select("image_id", "token_index").hash_rows(seed=9) % 3
        )
        judged = judged.with_columns(patch_group=groups)
        sinks = catalog.sql("FROM sinks").to_arrow_table()
        parts = judged.partition_by("visual_layer", as_dict=True)
        found = lens_differences("one", {layer: [part.lazy()] for (layer,), part in parts.items()}, TOP_K, sinks)
        for name, table in (("judgements", judged.to_arrow()), ("lens_differences", found)):
            catalog.register("found", table)
            catalog.execute(f"CREATE OR REPLACE TABLE {name} AS FROM found")
    data = open_browser_data(house.root.parent)
    yield data
    data.close()


def test_the_patches_of_either_side_alone_make_up_every_difference_of_the_table(random_verdicts: BrowserData) -> None:
    rows = random_verdicts.dataset("one").collect("FROM lens_differences").to_dicts()
    assert {row["comparison"] for row in rows} == {"lenses", "layers"} and len({row["tokens"] for row in rows}) > 2
    for row in rows:
        sides = [LensAtLayer(row[f"{other}lens"], row[f"{other}visual_layer"]) for other in ("", "other_")]
        counted = Counted(row["measure"], row["k"] == 1, row["patch_group"])
        here = one_sided(random_verdicts, "one", sides[0], sides[1], counted, 3)
        there = one_sided(random_verdicts, "one", sides[1], sides[0], counted, 3)
        assert here.patches - there.patches == pytest.approx(row["difference"] * row["tokens"])
        assert [len(one.examples) for one in (here, there)] == [min(3, one.patches) for one in (here, there)]


def test_examples_have_the_verdicts_the_nearest_words_and_the_places_of_their_patches(
    random_verdicts: BrowserData,
) -> None:
    one, other = LensAtLayer("latentlens", 8), LensAtLayer("embeddinglens", 8)
    found = one_sided(random_verdicts, "one", one, other, Counted("concrete", False, "all"), 99)
    verdicts = random_verdicts.dataset("one").collect("FROM judgements WHERE visual_layer = 8")
    of = {(row["lens"], row["image_id"], row["token_index"]): row["verdict"] for row in verdicts.to_dicts()}
    assert found.patches == len(found.examples) > 0
    for row in found.examples.to_dicts():
        place = row["image_id"], row["token_index"]
        assert of["latentlens", *place] == "concrete" != of["embeddinglens", *place]
        assert row["other_word"] == "tree" and row["word"] in ("grass", "dog", "cat", "owl", "fox")
        assert row["x1"] - row["x0"] == row["y1"] - row["y0"] == 16
    images = found.examples["image_id"].to_list()
    assert len(set(images[: len(set(images))])) == len(set(images))  # one of each image before a second one
