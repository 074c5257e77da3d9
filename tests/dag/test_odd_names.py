"""Homes under any name: their tables and Dagster's history, of small data written by hand."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from hypothesis import example, given, settings

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.storage.home import Home
from latentlens_dag.storage.paths import plain_path
from tests.helpers.small_dataset import write_warehouse
from tests.storage.test_paths import ODD_NAMES

COUNT = "SELECT study, count(*) AS rows FROM neighbors GROUP BY study ORDER BY study"


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """A new folder of this name, and the check that nothing was written beside it."""
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside) / name
        folder.mkdir()
        yield folder
        assert [path.name for path in Path(outside).iterdir()] == [name]


@settings(max_examples=6, deadline=None)
@given(ODD_NAMES)
@example("what?x")
@example("[a]*{b}'\"%20#")
def test_the_tables_of_a_home_and_a_catalog_are_the_same_under_any_name(name: str) -> None:
    with tempfile.TemporaryDirectory() as plain, _folder(name) as folder:
        write_warehouse(Path(plain) / "warehouse")
        shutil.copytree(Path(plain) / "warehouse", folder / "warehouse")
        write_catalog(Home(folder).warehouse, "one", Home(folder).warehouse.catalog("one"))
        with open_dataset(plain) as one, open_dataset(folder) as other:
            assert one.collect(COUNT).equals(other.collect(COUNT))
            assert one.scan("neighbors").collect().equals(other.scan("neighbors").collect())
            rows = dict(one.collect(COUNT).iter_rows())
        with open_dataset(Home(folder).warehouse.catalog("one")) as catalog:
            assert dict(catalog.collect(COUNT).iter_rows()) == {"one": rows["one"]}


@settings(max_examples=2, deadline=None)
@given(ODD_NAMES)
@example("what?x")
@example("a%20b")
@example("per%cent")
def test_the_history_of_a_home_lies_in_the_home_under_any_name(name: str) -> None:
    with _folder(name) as folder:
        home = Home(folder)
        home.prepare()
        for count in (1, 2):
            with plain_path(home.dagster) as history, dg.DagsterInstance.from_config(str(history)) as instance:
                instance.report_runless_asset_event(dg.AssetObservation("x"))
                assert len(instance.fetch_observations(dg.AssetKey("x"), limit=9).records) == count
        assert [*home.dagster.rglob("*.db")]
