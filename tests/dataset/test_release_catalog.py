"""The catalog of a release: made once, beside nothing of anybody's, and read in place of its files."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from latentlens_dag.browse.browser_data import open_browser_data, source_fingerprint
from latentlens_dag.dataset import release_catalog
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.dataset.named_queries import named_queries
from latentlens_dag.dataset.release_catalog import (
    build_catalog,
    build_in_background,
    find_catalog,
    list_catalogs,
    remove_unused_catalogs,
)
from latentlens_dag.release.reader import ReleaseTables, read_release
from latentlens_dag.schema import TABLES
from tests.helpers.small_release import write_release
from tests.release.test_reader import PARAMETERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("releases") / "small")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where catalogs go."""
    monkeypatch.setattr(release_catalog, "_folder", lambda: tmp_path)
    return tmp_path


def _release(folder: Path) -> ReleaseTables:
    return read_release(folder, "user/small")


def _make(folder: Path) -> None:
    release = _release(folder)
    build_catalog(release_catalog._catalog_of(release), str(folder), release.listed, release.views)


def test_a_release_is_read_from_its_catalog_and_answers_as_its_files_do(folder: Path, cache: Path) -> None:
    before = sorted(folder.rglob("*"))
    with open_dataset(folder) as files:
        found = {name: files.collect(name, **PARAMETERS[name]) for name in named_queries()}
        tables = {table: files.sql(f"FROM {table}").types for table in TABLES}
        everything = {table: sorted(map(repr, files.sql(f"FROM {table}").fetchall())) for table in TABLES}
    _make(folder)
    assert sorted(folder.rglob("*")) == before and len(list_catalogs()) == 1
    with open_dataset(folder) as opened:
        assert not opened.sql("FROM duckdb_views() WHERE sql LIKE '%read_parquet%'").fetchall()
        assert all(opened.collect(name, **PARAMETERS[name]).equals(found[name]) for name in named_queries())
        assert {table: opened.sql(f"FROM {table}").types for table in TABLES} == tables
        assert {table: sorted(map(repr, opened.sql(f"FROM {table}").fetchall())) for table in TABLES} == everything
        assert opened.release is not None and opened.release.name == "small"
        assert opened.scan("neighbors").collect().height == 300


def test_a_catalog_is_of_one_content_and_another_release_has_none(folder: Path, cache: Path, tmp_path: Path) -> None:
    _make(folder)
    other = write_release(tmp_path / "other", lambda tables: tables.pop("diversity"))
    assert find_catalog(_release(folder)) == list_catalogs()[0]
    assert find_catalog(_release(other)) is None


def test_a_folder_in_which_something_was_changed_takes_no_catalog_and_gives_none_to_the_release(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    _make(copy)
    assert find_catalog(_release(copy)) is not None
    assert find_catalog(_release(folder)) is None  # by the same manifest, and yet of files that nobody compared with it
    changed = min(copy.rglob("*.parquet"))
    os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 1))
    assert find_catalog(_release(copy)) is None


def test_while_a_browser_runs_the_catalog_is_made_and_an_open_page_gets_to_know_of_it(
    folder: Path, cache: Path
) -> None:
    stamps = [source_fingerprint(folder)]
    with build_in_background(open_browser_data(folder).full_dataset.release_tables) as process:
        assert process is not None and process.wait(timeout=60) == 0
    stamps += [source_fingerprint(folder), source_fingerprint(folder)]
    assert stamps[0] != stamps[1] == stamps[2] and len(list_catalogs()) == 1
    with build_in_background(_release(folder)) as again:
        assert again is None
    open_browser_data(folder).close()
    assert source_fingerprint(folder) == stamps[2]  # that it was used is no change


def test_a_browser_that_ends_stops_the_making_and_leaves_nothing(folder: Path, cache: Path) -> None:
    with build_in_background(_release(folder)) as process:
        (cache / f".x.duckdb.{process and process.pid}.0123abcd.tmp").touch()
    assert process is not None and process.returncode < 0
    assert not list(cache.iterdir())


def test_what_nobody_has_used_for_a_month_goes_and_what_a_kill_has_left(cache: Path) -> None:
    old, used, left = cache / "old.duckdb", cache / "used.duckdb", cache / ".x.duckdb.999999999.0123abcd.tmp"
    month_ago = time.time() - 31 * 86_400
    for path in (old, used, left):
        path.write_bytes(b"x")
    os.utime(old, (month_ago, month_ago))
    os.utime(used, (time.time(), month_ago))
    remove_unused_catalogs()
    assert sorted(cache.iterdir()) == [used]


def test_what_goes_wrong_is_told_and_leaves_the_browser_as_it_was(
    folder: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    release = _release(folder)
    views = {**release.views, "images": "SELECT error('no room')"}
    with build_in_background(ReleaseTables(folder, release.manifest, views, {}, {})) as process:
        assert process is not None and process.wait(timeout=60) == 1
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("No catalog was made, so look-ups stay slow")
    assert not list(cache.iterdir()) and open_dataset(folder).collect("studies").height == 2
