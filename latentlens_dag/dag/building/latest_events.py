"""The last event of every partition in Dagster's history, for many assets at once.

Dagster reads its history asset by asset and makes objects of whole events, of which staleness needs only the tags: for
40,000 partitions, that took half a minute. Here SQLite gives the tags of all in two queries. Note: this knows how
Dagster 1.13 stores events, to which pyproject.toml holds it; a test compares it with Dagster's own answers. Those are
taken where the history is not in SQLite.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from latentlens_dag.dag.building.dagster_history import latest_by_partition
from latentlens_dag.dag.building.steps import AssetPartition

_MATERIALIZED, _OBSERVED = "ASSET_MATERIALIZATION", "ASSET_OBSERVATION"


class Event(NamedTuple):
    """The materialization of a partition of an asset, or the observation of a source."""

    storage_id: int
    timestamp: float
    """Seconds since 1970."""
    tags: Mapping[str, str]
    figures: Mapping[str, Any]
    """Numbers among the metadata, such as `size_bytes`, where they were requested."""

    @property
    def version(self) -> str | None:
        """The data version of what was built or observed."""
        return self.tags.get(DATA_VERSION_TAG)

    def as_record(self, key: dg.AssetKey, partition: str | None) -> dg.EventLogRecord:
        """The event as Dagster has it, as far as staleness looks at it."""
        materialization = StepMaterializationData(dg.AssetMaterialization(key, partition=partition, tags=self.tags))
        event = DagsterEvent(_MATERIALIZED, "", event_specific_data=materialization)
        entry = dg.EventLogEntry(None, logging.DEBUG, "", "", self.timestamp, dagster_event=event)
        return dg.EventLogRecord(self.storage_id, entry)


class LatestEvents:
    """The last event of every partition of assets, as it was when it was first needed."""

    def __init__(
        self,
        graph: AssetGraph,
        instance: dg.DagsterInstance,
        keys: Collection[dg.AssetKey],
        names: Collection[str],
        figures: bool = False,
    ) -> None:
        """Read those of some assets at once, and of their partitions of these names; others when they are needed."""
        self._graph, self._instance, self._names, self._figures = graph, instance, {*names}, figures
        self._events: dict[AssetPartition, Event] = {}
        self._read: set[dg.AssetKey] = set()
        self._read_whole: set[dg.AssetKey] = set()
        self._add(keys, self._names)

    def get(self, key: dg.AssetKey, partition: str | None) -> Event | None:
        """The last event of a partition; for None, that of the asset, whatever its partition."""
        if key not in self._read:
            self._add([key], self._names)
        if partition is not None and partition not in self._names and key not in self._read_whole:
            self._add([key], None)
        return self._events.get((key, partition))

    def _add(self, keys: Collection[dg.AssetKey], names: Collection[str] | None) -> None:
        """Read assets with their partitions of these names, or with all of them."""
        others, storage = keys, self._instance.event_log_storage
        if isinstance(storage, SqliteEventLogStorage):
            with storage.index_connection() as connection:
                history = _SqliteHistory(connection.connection.driver_connection, self._graph, keys, self._figures)
                self._events.update(history.events(names))
            others = history.others
        for key in others:
            self._events.update(_by_dagster(self._graph, self._instance, key))
        self._read.update(keys)
        if names is None:
            self._read_whole.update(keys)


# The last column says whether an early version of Dagster wrote the row. Of a wiped asset, there is no event left.
_OF_ASSETS = """
SELECT asset_key, json_extract(last_materialization, '$.storage_id'),
    json_extract(last_materialization, '$.event_log_entry.timestamp'),
    json_extract(last_materialization, '$.event_log_entry.{content}.tags'),
    {figures},
    json_extract(last_materialization, '$.__class__') != 'EventLogRecord'
FROM asset_keys WHERE asset_key IN (SELECT value FROM json_each(?))
"""
_OF_PARTITIONS = """
SELECT event_logs.asset_key, event_logs.partition, event_logs.id,
    json_extract(event, '$.timestamp'), json_extract(event, '$.{content}.tags'), {figures}
FROM event_logs JOIN (
    SELECT max(id) AS id FROM event_logs
    WHERE asset_key IN (SELECT value FROM json_each(?)) AND dagster_event_type = '{kind}' {named}
    GROUP BY asset_key, partition
) AS last ON event_logs.id = last.id
"""
_NAMED = "AND partition IN (SELECT value FROM json_each(?))"


_CONTENTS = {
    kind: f"dagster_event.event_specific_data.{name}"
    for kind, name in {_MATERIALIZED: "materialization", _OBSERVED: "asset_observation"}.items()
}


class _SqliteHistory:
    """The events of assets in Dagster's file `index.db`."""

    def __init__(self, connection: Any, graph: AssetGraph, keys: Collection[dg.AssetKey], figures: bool) -> None:
        self._connection, self._figures = connection, figures
        self._nodes = {key.to_string(): graph.get(key) for key in keys}
        self.others: set[dg.AssetKey] = set()
        """Assets whose events only Dagster can find; known once `events` has ended."""

    def events(self, names: Collection[str] | None) -> Iterator[tuple[AssetPartition, Event]]:
        """The last event of every asset, and of its partitions of these names, or of all."""
        content = _CONTENTS[_MATERIALIZED]
        figures = self._figures_of("last_materialization", f"event_log_entry.{content}")
        query = _OF_ASSETS.format(content=content, figures=figures)
        for stored, *event, other in self._connection.execute(query, [json.dumps([*self._nodes])]):
            node = self._nodes[stored]
            if other or (node.is_observable and event[0] is not None):
                self.others.add(node.key)
            elif event[0] is not None:
                yield (node.key, None), _event(*event)
        nodes = {stored: node for stored, node in self._nodes.items() if node.key not in self.others}
        observed = [stored for stored, node in nodes.items() if node.is_observable]
        yield from self._latest(observed, _OBSERVED, None)
        partitioned = [stored for stored, node in nodes.items() if node.is_materializable and node.is_partitioned]
        yield from self._latest(partitioned, _MATERIALIZED, names)

    def _latest(
        self, stored: list[str], kind: str, names: Collection[str] | None
    ) -> Iterator[tuple[AssetPartition, Event]]:
        content, named = _CONTENTS[kind], "" if names is None else _NAMED
        query = _OF_PARTITIONS.format(
            content=content, figures=self._figures_of("event", content), kind=kind, named=named
        )
        parameters = [json.dumps([*one]) for one in (stored, names) if one is not None]
        for asset, partition, *event in self._connection.execute(query, parameters):
            yield (self._nodes[asset].key, partition), _event(*event)

    def _figures_of(self, column: str, content: str) -> str:
        return f"json_extract({column}, '$.{content}.metadata_entries')" if self._figures else "NULL"


def _event(storage_id: int, timestamp: float, tags: str | None, metadata: str | None) -> Event:
    entries = json.loads(metadata or "[]")
    values = {one["label"]: one["entry_data"].get("value") for one in entries}
    return Event(storage_id, timestamp, json.loads(tags or "{}"), _numbers(values))


def _by_dagster(
    graph: AssetGraph, instance: dg.DagsterInstance, key: dg.AssetKey
) -> Iterator[tuple[AssetPartition, Event]]:
    """The same by Dagster's own queries, which take about a millisecond per event."""
    node = graph.get(key)
    whole = [record.asset_entry.last_materialization_record for record in instance.get_asset_records([key])]
    if node.is_observable:
        whole += instance.fetch_observations(key, limit=1).records
    records = sorted(filter(None, whole), key=lambda record: record.timestamp)
    yield from (((key, None), _of_record(record)) for record in records)  # the last one counts
    if node.is_partitioned:
        for partition, record in latest_by_partition(instance, key).items():
            yield (key, partition), _of_record(record)


def _of_record(record: dg.EventLogRecord) -> Event:
    entry = record.event_log_entry
    metadata = entry.asset_materialization.metadata if entry.asset_materialization else {}
    values = {name: one.value for name, one in metadata.items()}
    return Event(record.storage_id, record.timestamp, entry.tags or {}, _numbers(values))


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if type(value) in (int, float)}  # not bool
