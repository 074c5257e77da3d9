"""The categories that annotated regions know."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.schema import REGIONS
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.small_dataset import AWKWARD, image_id, region, write_warehouse


def _found(warehouse: Warehouse, **params: str) -> list[tuple[str, str, list[str]]]:
    with open_dataset(warehouse) as dataset:
        rows = dataset.collect("categories", **params).to_dicts()
    assert all(row["size"] == len(row["words"]) for row in rows)
    return [(row["of"], row["category"], row["words"]) for row in rows]


def test_a_word_that_regions_of_several_names_share_has_these_names_and_a_name_has_its_words(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "warehouse")
    names = ["cat", "dog", "fox", "owl"]
    own = [("name", name, ["animal", name] if name > "animal" else [name, "animal"]) for name in names]
    assert _found(warehouse, study="one") == [("shared", "animal", names), ("shared", "farm", names), *own]


def test_only_regions_of_the_studys_own_images_count(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "warehouse")
    assert _found(warehouse, study=AWKWARD) == [("name", "dog", ["animal", "dog"])]


def test_the_words_of_a_name_are_those_of_more_than_half_of_its_regions_in_any_case(tmp_path: Path) -> None:
    warehouse = write_warehouse(tmp_path / "warehouse")
    lists = [["dog", "Puppy", "brown"], ["Dog", "puppy", "white"], ["dog", "puppy"], ["dog", "white"]]
    rows = [region(image_id("dog"), str(n), "object", words, []) | {"name": "Dog"} for n, words in enumerate(lists)]
    rows.append(region(image_id("dog"), "9", "object", ["cloud", "white"], ["sky"]))
    for file in (tmp_path / "warehouse" / "images").rglob("regions_*.parquet"):
        write_parquet(pa.Table.from_pylist([], schema=REGIONS), file, REGIONS)
    write_parquet(pa.Table.from_pylist(rows, schema=REGIONS), file, REGIONS)
    assert _found(warehouse) == [
        ("shared", "white", ["cloud", "dog"]),
        ("name", "cloud", ["cloud", "white"]),
        ("name", "dog", ["dog", "puppy"]),
    ]
    assert _found(warehouse, least="3") == []
