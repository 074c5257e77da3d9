"""Where two sides disagree: the measure against its definition, within a study and across two sources."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, open_browser_data
from latentlens_dag.browse.disagreement import Side, StudyEntry, StudyRegistry
from latentlens_dag.dataset.dataset import Dataset
from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.schema import NEIGHBORS, TEXT_TOKENS, VISUAL_TOKENS
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers import released, small_dataset
from tests.helpers.small_dataset import image_id

COARSE = 4
"""Patches a side of the other source's region map, where the first has 6."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Study `one` of random answers to 6 x 6 patches, in words that differ in case and blanks too."""
    root = tmp_path_factory.mktemp("first") / "home"
    house = released.write_warehouse(root / "warehouse")
    for file in house.study("one").glob("*lens/*/*.parquet"):
        words = pl.when(pl.col("rank") == 2).then(pl.col("word").str.to_uppercase() + " ").otherwise(pl.col("word"))
        write_parquet(pl.read_parquet(file).with_columns(word=words).to_arrow(), file, NEIGHBORS)
    write_catalog(house, "one", house.catalog("one"))
    return root


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another study `one` of the same images: the whole image, then 4 x 4 patches, the last one twice."""
    root = tmp_path_factory.mktemp("other") / "coarse"
    house = released.write_warehouse(root / "warehouse")
    for file in house.study("one").glob("visual_tokens/*.parquet"):
        tokens = pl.read_parquet(file).filter(pl.col("token_index") <= COARSE * COARSE + 1).to_dicts()
        rows = pl.DataFrame([{**row, **_box(row["token_index"])} for row in tokens])
        write_parquet(rows.to_arrow(), file, VISUAL_TOKENS)
    write_catalog(house, "one", house.catalog("one"))
    return root


def _box(token: int) -> dict[str, Any]:
    """The whole image for token 0, then patch by patch."""
    if token == 0:
        return {"view": "whole", "x0": 0, "y0": 0, "x1": released.SIDE, "y1": released.SIDE}
    (row, col), side = divmod(min(token, COARSE * COARSE) - 1, COARSE), released.SIDE / COARSE
    place = {"x0": col * side, "y0": row * side, "x1": (col + 1) * side, "y1": (row + 1) * side}
    return {"view": "tile", "row": row, "col": col, **place}


@pytest.fixture(scope="module")
def registry(home: Path, coarse: Path) -> StudyRegistry:
    return StudyRegistry(open_browser_data(home), open_browser_data(coarse))


@cache
def answers_of(library: BrowserData) -> dict[tuple[str, int, str, int], list[tuple[int, str]]]:
    found: dict[tuple[str, int, str, int], list[tuple[int, str]]] = {}
    sql = "SELECT image_id, token_index, lens, visual_layer, rank, word FROM neighbors"
    for *patch, rank, word in library.full_dataset.collect(sql).iter_rows():
        found.setdefault(tuple(patch), []).append((rank, word.strip().lower()))
    return found


def words_of(library: BrowserData, image: str, token: int, lens: str, layer: int, top: int) -> set[str]:
    return {word for rank, word in answers_of(library)[image, token, lens, layer] if rank <= top}


def apart(one: set[str], other: set[str]) -> float:
    return 1 - len(one & other) / len(one | other)


def linked(box: dict[str, Any], others: list[dict[str, Any]]) -> int | None:
    """The definition, pair by pair: the other box that holds the center; of those, the one that overlaps most."""
    best, found = (False, 0.0), None
    x, y = (box["x0"] + box["x1"]) / 2, (box["y0"] + box["y1"]) / 2
    for other in others:
        across = min(box["x1"], other["x1"]) - max(box["x0"], other["x0"])
        down = min(box["y1"], other["y1"]) - max(box["y0"], other["y0"])
        if across <= 0 or down <= 0:
            continue
        areas = sum((one["x1"] - one["x0"]) * (one["y1"] - one["y0"]) for one in (box, other))
        inside = other["x0"] <= x < other["x1"] and other["y0"] <= y < other["y1"]
        rank = (inside, across * down / (areas - across * down))
        if found is None or rank > best:
            best, found = rank, other["token_index"]
    return found


def boxes_of(library: BrowserData, image: str) -> list[dict[str, Any]]:
    return library.full_dataset.collect(
        "FROM visual_tokens WHERE image_id = $i ORDER BY token_index", i=image
    ).to_dicts()


@pytest.mark.parametrize("top", [1, 3, 5])
def test_within_a_study_it_is_the_share_of_words_that_only_one_has(registry: StudyRegistry, top: int) -> None:
    study = registry.entries["home: one"]
    for sides in ((("latentlens", 0), ("logitlens", 4)), (("latentlens", 0), ("latentlens", 4))):
        one, other = (Side(study, lens, layer) for lens, layer in sides)
        for image in registry.shared_images(study, study):
            found = registry.by_patch(one, other, image, top)
            assert len(found) == released.GRID**2
            for token, patch in found.items():
                mine, theirs = (words_of(study.data, image, token, *side, top) for side in sides)
                assert patch.disagreement == pytest.approx(apart(mine, theirs))
                assert patch[1:] == (sorted(mine & theirs), sorted(mine - theirs), sorted(theirs - mine))


def test_across_sources_a_patch_is_compared_with_the_one_that_holds_its_center_and_overlaps_most(
    registry: StudyRegistry,
) -> None:
    fine, coarse = registry.entries["home: one"], registry.entries["coarse: one"]
    for one, other in ((fine, coarse), (coarse, fine)):
        sides = Side(one, "latentlens", 4), Side(other, "embeddinglens", 0)
        for image in registry.shared_images(one, other):
            others = boxes_of(other.data, image)
            expected = {box["token_index"]: linked(box, others) for box in boxes_of(one.data, image)}
            assert registry.linked_tokens(one, other, image) == expected
            for token, patch in registry.by_patch(*sides, image, 5).items():
                mine = words_of(one.data, image, token, "latentlens", 4, 5)
                theirs = words_of(other.data, image, expected[token] or 0, "embeddinglens", 0, 5)
                assert patch.disagreement == pytest.approx(apart(mine, theirs))


def test_images_are_ranked_by_the_mean_over_their_patches(registry: StudyRegistry) -> None:
    fine, coarse = registry.entries["home: one"], registry.entries["coarse: one"]
    for one, other in ((fine, fine), (fine, coarse)):
        sides = Side(one, "latentlens", 0), Side(other, "logitlens", 4)
        found = registry.by_image(*sides, 5)
        assert found["disagreement"].to_list() == sorted(found["disagreement"], reverse=True)
        assert sorted(found["image_id"]) == list(registry.shared_images(one, other))
        for row in found.to_dicts():
            values = [patch.disagreement for patch in registry.by_patch(*sides, row["image_id"], 5).values()]
            assert row["disagreement"] == pytest.approx(sum(values) / len(values))
            assert (row["patches"], row["disjoint"]) == (len(values), pytest.approx(values.count(1) / len(values)))


def test_the_curve_takes_both_at_the_same_layer_or_one_lens_at_its_layer_with_every_layer(
    registry: StudyRegistry,
) -> None:
    study = registry.entries["home: one"]
    image = registry.shared_images(study, study)[0]
    mean = lambda a, b: registry.by_image(a, b, 5).filter(image_id=image)["disagreement"].item()  # noqa: E731
    one, other = Side(study, "latentlens", 4), Side(study, "logitlens", 0)
    curve = dict(registry.by_layer(one, other, 5, image).iter_rows())
    assert curve == {n: pytest.approx(mean(Side(study, "latentlens", n), Side(study, "logitlens", n))) for n in (0, 4)}
    curve = dict(registry.by_layer(one, Side(study, "latentlens", 0), 5, image).iter_rows())
    assert curve == {0: pytest.approx(mean(one, Side(study, "latentlens", 0))), 4: 0.0}


def test_a_study_with_itself_is_one_query(registry: StudyRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    collect = Dataset.collect

    def counted(self: Dataset, text: str, **params: Any) -> pl.DataFrame:
        asked.append(text)
        return collect(self, text, **params)

    monkeypatch.setattr(Dataset, "collect", counted)
    study = registry.entries["home: one"]
    registry.by_image(Side(study, "embeddinglens", 0), Side(study, "embeddinglens", 4), 4)
    assert len(asked) == 1


def test_tokens_without_a_place_are_compared_by_their_numbers_where_the_maps_are_equal(tmp_path: Path) -> None:
    libraries = []
    for name in ("a", "b"):
        house = small_dataset.write_warehouse(tmp_path / name / "warehouse")
        write_catalog(house, "one", house.catalog("one"))
        libraries.append(open_browser_data(tmp_path / name))
    registry = StudyRegistry(*libraries)
    one, other = registry.entries["a: one"], registry.entries["b: one"]
    assert registry.linked_tokens(one, other, image_id("dog")) == {token: token for token in range(5)}
    found = registry.by_patch(Side(one, "latentlens", 8), Side(other, "logitlens", 8), image_id("dog"), 2)
    assert [patch.disagreement for patch in found.values()] == [pytest.approx(2 / 3), 0, 0, 0, 0]


def _study_of_texts(house: Warehouse, pieces: tuple[tuple[str, int, int], ...]) -> StudyEntry:
    """A study of one text, cut into pieces: each with the first and last character of its word."""
    rows = [("texts", "0" * 16, place, place, 7, *piece) for place, piece in enumerate((p[0], *p) for p in pieces)]
    table = pl.DataFrame(rows, schema=TEXT_TOKENS.names, orient="row").to_arrow()
    write_parquet(table, house.text_tokens("texts", 0), TEXT_TOKENS)
    nowhere = dict.fromkeys(VISUAL_TOKENS.names, None)
    tokens = [
        {**nowhere, "study": "texts", "image_id": "0" * 16, "token_index": n, "view": "text"} for n in range(len(rows))
    ]
    write_parquet(pa.Table.from_pylist(tokens, schema=VISUAL_TOKENS), house.visual_tokens("texts", 0), VISUAL_TOKENS)
    return StudyEntry(
        str(house.root), open_browser_data(house.root), StudyFacts("texts", 0, 1, 4, 0, (0,), ("latentlens",))
    )


def test_tokens_of_a_text_are_compared_by_their_words(tmp_path: Path) -> None:
    one = _study_of_texts(Warehouse(tmp_path / "a" / "warehouse"), (("A", 0, 1), ("brown", 2, 7), ("dog", 8, 11)))
    pieces = (("A", 0, 1), ("bro", 2, 7), ("wn", 2, 7), ("dog", 8, 11))
    other = _study_of_texts(Warehouse(tmp_path / "b" / "warehouse"), pieces)
    assert StudyRegistry().linked_tokens(one, other, "0" * 16) == {0: 0, 1: 1, 2: 3}
    assert StudyRegistry().linked_tokens(other, one, "0" * 16) == {0: 0, 1: 1, 2: 1, 3: 2}


def test_names_are_told_apart_only_where_they_clash(home: Path, tmp_path: Path) -> None:
    assert list(StudyRegistry(open_browser_data(home)).entries) == ["one"]
    house = Warehouse(tmp_path / ".latentlens" / "warehouse")
    small_dataset.write_shared(house, "pictures", "corpus", (("dog",),))
    for name in ("one", "two"):
        small_dataset.write_study(house, name, (("dog",),))
    registry = StudyRegistry(open_browser_data(home), open_browser_data(tmp_path / ".latentlens"))
    assert list(registry.entries) == ["home: one", f"{tmp_path.name}: one", "two"]
    assert registry.shared_images(registry.entries["home: one"], registry.entries["two"]) == ()
