"""Fast access to Dagster's history: a whole asset at a time, with its SQLite files opened once.

Dagster itself queries the history partition by partition, with a new database engine for each query. For a small study
that is over a thousand queries, which took most of a build that had nothing to do. `latest_events.py` reads many assets
at once.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.storage import sql
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from sqlalchemy import Engine, event
from sqlalchemy.pool import QueuePool

from latentlens_dag.storage.home import Home

_SHARED = ("/index.db", "/runs.db")  # files of all runs


def latest_by_partition(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Iterable[str] | None = None
) -> dict[str, dg.EventLogRecord]:
    """The last materialization of each partition that has one; of all partitions by default."""
    kind, named = dg.DagsterEventType.ASSET_MATERIALIZATION, None if partitions is None else set(partitions)
    ids = instance.event_log_storage.get_latest_storage_id_by_partition(key, kind, named)
    if not ids:
        return {}
    chosen = dg.AssetRecordsFilter(asset_key=key, storage_ids=list(ids.values()))
    records = instance.fetch_materializations(chosen, limit=len(ids)).records
    return {str(record.partition_key): record for record in records}


@contextmanager
def quick_history(home: Home) -> Iterator[None]:
    """Keep one engine open for each of Dagster's SQLite files, and sync them less often.

    Dagster makes an engine for every query, and opens and closes a connection for every event. The last connection to
    close a database in WAL mode copies the log back and syncs, which took half of a small build's time; opening and
    closing alone took a tenth. For the database of every run it reads its own migrations twice, 90 files, which took
    a quarter of Dagster's own time in a run. A kill loses nothing; a power failure may lose the last events, never
    more, and the next build runs those steps again.
    """
    history = home.dagster / "history"
    held = [sqlite3.connect(file) for file in (history / "runs.db", history / "runs" / "index.db") if file.is_file()]
    for connection in held:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    event.listen(Engine, "connect", _sync_less)
    engines = _Engines(vars(sqlite_event_log)["create_engine"])
    modules = [vars(sqlite_event_log), vars(sqlite_run_storage)]
    for module in modules:
        module["create_engine"] = engines
    try:
        with _migrations_read_once():
            yield
    finally:
        for module in modules:
            module["create_engine"] = engines.make
        engines.close()
        event.remove(Engine, "connect", _sync_less)
        for connection in held:
            connection.close()


class _Engines:
    """One engine per database, whose connections stay open; of the databases of single runs, only the last one's."""

    def __init__(self, make: Callable[..., Engine]) -> None:
        self.make = make
        self._made: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def __call__(self, url: str, **options: Any) -> Engine:
        with self._lock:
            if url not in self._made:
                self._close_runs()
                self._made[url] = self.make(url, **{**options, "poolclass": QueuePool})
                vars(self._made[url])["dispose"] = _stay_open
            return self._made[url]

    def close(self) -> None:
        for engine in self._made.values():
            Engine.dispose(engine)

    def _close_runs(self) -> None:
        """Of a long history, the databases of all runs would be more files than a process may open."""
        for url in [url for url in self._made if not url.endswith(_SHARED)]:
            Engine.dispose(self._made.pop(url))


def _stay_open() -> None:
    """Instead of an engine's `dispose`, which Dagster calls after every query, and which closes its connections."""


@contextmanager
def _migrations_read_once() -> Iterator[None]:
    """Give alembic the migrations that it read before, whenever it is to read them anew."""
    scripts = vars(sql)["ScriptDirectory"]
    own, read = vars(scripts)["from_config"], scripts.from_config
    found: dict[tuple[str, str], Any] = {}

    def from_config(config: Any) -> Any:
        place = (config.config_file_name, config.get_main_option("script_location"))
        if place not in found:
            found[place] = read(config)
        return found[place]

    scripts.from_config = staticmethod(from_config)
    try:
        yield
    finally:
        scripts.from_config = own


def _sync_less(connection: Any, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=NORMAL")
