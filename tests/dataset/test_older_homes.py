"""Homes whose tables lack columns that were added since: they open, and what is not known is null."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.schema import TABLES
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.small_dataset import AWKWARD, as_first_version, write_warehouse

ADDED = {"interpretability": ["candidates"], "diversity": ["candidates", "images", "low", "high"]}


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return write_warehouse(tmp_path / "home" / "warehouse")


def _without(warehouse: Warehouse, study: str) -> None:
    """Write the summaries of a study as they were before the columns ADDED."""
    for table, columns in ADDED.items():
        path = warehouse.summary(study, table)
        found = pq.read_table(path).drop_columns(columns)
        write_parquet(found, path, found.schema)


def _rows(warehouse: Warehouse, table: str) -> pl.DataFrame:
    with open_dataset(warehouse) as data:
        return data.collect(f"FROM {table} ORDER BY ALL")


@pytest.mark.parametrize("studies", [["one"], ["one", AWKWARD]], ids=["beside a new one", "all"])
def test_columns_that_a_study_lacks_are_null_and_the_rest_is_as_it_was(
    warehouse: Warehouse, studies: list[str]
) -> None:
    before = {table: _rows(warehouse, table) for table in ADDED}
    for study in studies:
        _without(warehouse, study)
    lacks = pl.col("study").is_in(studies)
    for table, columns in ADDED.items():
        found = _rows(warehouse, table)
        assert found.columns == TABLES[table].names
        kept = [name for name in found.columns if name not in columns]
        assert found.select(kept).sort(pl.all()).equals(before[table].select(kept).sort(pl.all()))
        unknown = {"candidates"} if table == "interpretability" else {"images", "low", "high"}
        assert all(found.filter(lacks)[name].null_count() == found.filter(lacks).height for name in unknown)
        new = found.filter(~lacks).sort(pl.all())
        assert new.equals(before[table].filter(~lacks).sort(pl.all()))
    with open_dataset(warehouse) as data:
        assert data.collect("interpretability", study="one").height == 2
        assert data.note is not None and data.note.startswith("An older version of this package made")
        assert "judged" not in data.note and "null" in data.note


def test_a_home_of_the_first_version_says_that_it_is_judged_again(warehouse: Warehouse) -> None:
    as_first_version(warehouse, "one")
    with open_dataset(warehouse) as data:
        assert data.note is not None and "judged one: `latentlens-dag build` judges again" in data.note
    with open_dataset(write_warehouse(warehouse.root.parent / "new" / "warehouse")) as data:
        assert data.note is None
