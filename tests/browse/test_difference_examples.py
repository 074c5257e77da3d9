"""The patches behind differences, against the table of differences itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import duckdb
import polars as pl
import pytest

from latentlens_dag.browse.browser_data import BrowserData, open_browser_data
from latentlens_dag.browse.difference_examples import Counted, LensAtLayer, one_sided
from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.schema import DECLARED_LENSES
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
    for row in rows[::7]:
        sides = [LensAtLayer(row[f"{other}lens"], row[f"{other}visual_layer"]) for other in ("", "other_")]
        counted = Counted(row["measure"], row["k"] == 1, row["patch_group"])
        here = one_sided(random_verdicts, "one", sides[0], sides[1], counted, 3)
        there = one_sided(random_verdicts, "one", sides[1], sides[0], counted, 3)
        assert here.patches - there.patches == pytest.approx(row["difference"] * row["tokens"])
        assert [len(one.examples) for one in (here, there)] == [min(3, one.patches) for one in (here, there)]


def test_examples_are_the_patches_with_such_verdicts_with_their_nearest_words_and_places(
    random_verdicts: BrowserData,
) -> None:
    verdicts = random_verdicts.dataset("one").collect("FROM judgements WHERE visual_layer = 0").to_dicts()
    of = {(row["lens"], row["image_id"], row["token_index"]): row for row in verdicts}
    pictures, found_any = {row["image_id"] for row in verdicts}, 0
    for lens, other in permutations(DECLARED_LENSES, 2):
        counted, sides = Counted("concrete", False, "all"), (LensAtLayer(lens, 0), LensAtLayer(other, 0))
        expected = {
            tuple(place)
            for (name, *place), row in of.items()
            if name == lens and row["verdict"] == "concrete" != of[other, *place]["verdict"]
            if row["patch_group"] != "padding"
        }
        found = one_sided(random_verdicts, "one", *sides, counted, 99).examples.to_dicts()
        assert {(row["image_id"], row["token_index"]) for row in found} == expected and len(found) == len(expected)
        images = [row["image_id"] for row in found]
        assert len(set(images[: len(set(images))])) == len(set(images)) <= len(pictures)
        few = one_sided(random_verdicts, "one", *sides, counted, 3)
        assert few.examples.to_dicts() == found[:3] and few.patches == len(found)
        for row in found:
            assert (row["word"] is None) is (row["other_word"] is None) is False
            assert (row["x0"] is None) is (row["token_index"] == 4)  # the newline
            words = {name: row[column] for name, column in ((lens, "word"), (other, "other_word"))}
            assert words.get("embeddinglens", "tree") == "tree" and words.get("logitlens", "grass") == "grass"
        found_any += len(found) > 3
    assert found_any
