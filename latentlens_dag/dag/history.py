"""What Dagster recorded of assets, read a whole asset at a time, and its SQLite files opened once.

What a newcomer gets wrong: Dagster asks its history partition by partition, with a new database engine for
each question. Of a small study that is over a thousand questions, which took most of a build that has
nothing to do.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from sqlalchemy import Engine, event

from latentlens_dag.home import Home


def latest_by_partition(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Iterable[str] | None = None
) -> dict[str, dg.EventLogRecord]:
    """The last materialization of each partition of an asset that has one; of all partitions by default."""
    kind, named = dg.DagsterEventType.ASSET_MATERIALIZATION, None if partitions is None else set(partitions)
    ids = instance.event_log_storage.get_latest_storage_id_by_partition(key, kind, named)
    if not ids:
        return {}
    chosen = dg.AssetRecordsFilter(asset_key=key, storage_ids=list(ids.values()))
    found = instance.fetch_materializations(chosen, limit=len(ids)).records
    return {str(record.partition_key): record for record in found}


@contextmanager
def quick_history(home: Home) -> Iterator[None]:
    """Let Dagster's SQLite files be read with one engine each, and wait for the disk less often.

    Dagster makes an engine for every question, and opens and closes a connection for every event; the last
    one to close a database in WAL mode copies the log back and syncs, which took half of a small build's
    time. One idle connection to each database prevents that. A kill loses nothing; a power failure may lose
    the last events, never more, and the next build runs those steps again.
    """
    history = home.dagster / "history"
    held = [sqlite3.connect(file) for file in (history / "runs.db", history / "runs" / "index.db") if file.is_file()]
    for connection in held:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    event.listen(Engine, "connect", _sync_less)
    module = vars(sqlite_event_log)
    make = module["create_engine"]
    module["create_engine"] = partial(_engine, make, {})
    try:
        yield
    finally:
        module["create_engine"] = make
        event.remove(Engine, "connect", _sync_less)
        for connection in held:
            connection.close()


def _engine(make: Any, made: dict[str, Engine], url: str, **options: Any) -> Engine:
    """The engine of a database: made once, so that it remembers how its questions are put in SQL."""
    if url not in made:
        made[url] = make(url, **options)
    return made[url]


def _sync_less(connection: Any, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=NORMAL")
