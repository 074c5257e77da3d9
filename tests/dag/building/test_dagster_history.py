"""Dagster's history is written and read faster than Dagster does, and is the same."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from dagster._core.storage import sql
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from sqlalchemy import Engine, event

from latentlens_dag.dag.building import dagster_history
from latentlens_dag.dag.building.listener import BuildListener
from latentlens_dag.dag.building.runs import BuildError
from latentlens_dag.storage.home import Home
from tests.dag.small_graph import opened, say, small_project


def _build_twice(home: Home, listener: BuildListener | None = None) -> None:
    with opened(home) as project:
        project.build(project.select(), listener=listener)
        say(home, "visual", "2")
        project.build(project.select(), force=True, listener=listener)


def _history(home: Home) -> dict[str, Any]:
    """All runs with their events, and what the databases are made of; ids and times, which differ, aside."""
    with opened(home) as project:
        runs = project.instance.get_runs(ascending=True)
        events = [
            [
                (entry.dagster_event_type, entry.step_key, entry.dagster_event and entry.dagster_event.asset_key)
                for entry in project.instance.all_logs(run.run_id)
            ]
            for run in runs
        ]
        found = {"runs": [(run.status, run.asset_selection, run.tags.get("dagster/partition")) for run in runs]}
    files = [home.dagster / "history" / "runs.db", *sorted((home.dagster / "history" / "runs").glob("*.db"))]
    return {**found, "events": events, "databases": sorted(_schema(file) for file in files)}


def _schema(file: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        tables = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        return [*tables, *connection.execute("SELECT version_num FROM alembic_version")]


def _open_databases(home: Home) -> set[str]:
    descriptors = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    targets = [link.readlink() for link in descriptors if link.is_symlink()]
    return {file.name for file in targets if file.is_relative_to(home.dagster) and file.suffix == ".db"}


@contextmanager
def _connections() -> Iterator[list[object]]:
    """The connections that are made."""
    made: list[object] = []

    def count(connection: object, _: object) -> None:
        made.append(connection)

    event.listen(Engine, "connect", count)
    try:
        yield made
    finally:
        event.remove(Engine, "connect", count)


def test_a_history_is_the_one_that_dagster_writes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = [small_project(tmp_path / name) for name in ("quick", "own")]
    _build_twice(homes[0])
    with monkeypatch.context() as patch:
        patch.setattr(dagster_history, "quick_history", lambda home: nullcontext())
        _build_twice(homes[1])
    quick, own = map(_history, homes)
    assert len(own["runs"]) == 16 and len(own["databases"]) == 16 + 2
    assert quick == own


def test_connections_stay_open_of_the_last_run_alone_and_none_after_the_build(tmp_path: Path) -> None:
    home, seen = small_project(tmp_path / "home"), list[set[str]]()

    class Look(BuildListener):
        def finished(self, step: str, partition: str | None, wall_s: float) -> None:
            seen.append(_open_databases(home) - {"index.db", "runs.db", "schedules.db"})

    with _connections() as made:
        _build_twice(home, Look())
    assert {len(runs) for runs in seen} == {1} and len(set.union(*seen)) == 16
    assert len(made) < 16 * 10  # Dagster itself makes a hundred for each run
    assert _open_databases(home) == set()


def test_the_migrations_are_read_once_for_the_databases_of_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, read = sql.ScriptDirectory.from_config, list[object]()

    def count(config: Any) -> Any:
        read.append(config)
        return own(config)

    monkeypatch.setattr(sql.ScriptDirectory, "from_config", staticmethod(count))
    with opened(small_project(tmp_path / "home")) as project:
        before = len(read)
        assert len(project.build(project.select())) == 8
    assert len(read) - before == 1


def test_dagster_has_its_own_functions_back_after_a_build_that_failed(tmp_path: Path) -> None:
    modules = [vars(sqlite_event_log), vars(sqlite_run_storage)]
    before = [*(module["create_engine"] for module in modules), vars(sql.ScriptDirectory)["from_config"]]
    home = small_project(tmp_path / "home")
    say(home, "visual", "fail")
    with opened(home) as project, pytest.raises(BuildError):
        project.build(project.select())
    after = [*(module["create_engine"] for module in modules), vars(sql.ScriptDirectory)["from_config"]]
    assert before == after
