"""Which artifacts are missing or out of date, and why, in plain words.

Dagster has this in private API only (`CachingStaleStatusResolver`), which is why pyproject.toml holds dagster below
1.14. Its resolver takes some 0.2 ms per partition and input, so it is asked only about what is not plainly fresh
(`_Asset.is_plainly_fresh`). Note: the UI shows partitioned assets as fresh whatever happened upstream; the resolver,
asked partition by partition, does not.
"""

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph, AssetNode
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
    CachingStaleStatusResolver,
    DataProvenance,
    StaleCause,
    StaleCauseCategory,
    StaleStatus,
)
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.loader import LoadingContext
from dagster._utils.cached_method import cached_method

from latentlens_dag.dag.building.latest_events import Event, LatestEvents
from latentlens_dag.dag.building.steps import AssetPartition, Edge, Lineage
from latentlens_dag.dag.keys import label
from latentlens_dag.dag.recording import last_observed_version
from latentlens_dag.dag.versions import settings_of, source_version
from latentlens_dag.storage.file_hashes import content_hash
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, changed_settings, problem_summary
from latentlens_dag.storage.warehouse import Warehouse

NOT_BUILT = "not built yet"
FORCED_REASON = "forced"


class StaleTarget(NamedTuple):
    """A partition of an asset that is to be built, and why."""

    key: dg.AssetKey
    partition: str | None
    reason: str
    damaged: bool = False
    """Whether its files cannot be trusted, so that nothing of them may be reused."""

    @property
    def missing(self) -> bool:
        """Whether it was never built."""
        return self.reason == NOT_BUILT

    @property
    def computed_anew(self) -> bool:
        """Whether nothing that is stored of it may be used."""
        return self.damaged or self.reason == FORCED_REASON

    def __str__(self) -> str:
        """`study/demo/judgements/V08[2]: not built yet`."""
        return f"{label(self.key, self.partition)}: {self.reason}"


def observe_sources(
    graph: AssetGraph, instance: dg.DagsterInstance, warehouse: Warehouse, keys: Sequence[dg.AssetKey]
) -> list[dg.AssetKey]:
    """Observe the sources among `keys`; report those that changed to Dagster, and give them."""
    changed, hasher = [], cache(content_hash)  # an index and its studies share a model of many gigabytes
    for key in keys:
        version = source_version(graph.get(key).metadata, warehouse.observed(".".join(key.path)), hasher)
        if version is not None and version != last_observed_version(instance, key):
            instance.report_runless_asset_event(dg.AssetObservation(key, tags={DATA_VERSION_TAG: version}))
            changed.append(key)
    return changed


def find_stale(
    lineage: Lineage, instance: dg.DagsterInstance, store: ArtifactStore, targets: Sequence[AssetPartition]
) -> dict[AssetPartition, StaleTarget]:
    """The targets that are missing, stale or damaged now, in their order."""
    keys = {key for key, _ in targets}
    keys |= {edge.parent for key in keys for edge in lineage.edges(key)}
    names = {name for _, name in targets if name is not None}
    staleness = _Staleness(lineage, instance, store, LatestEvents(lineage.graph, instance, keys, names))
    stale = {target: staleness.of(*target) for target in targets}
    return {target: why for target, why in stale.items() if why is not None}


class _Staleness:
    """Why partitions are stale."""

    def __init__(
        self, lineage: Lineage, instance: dg.DagsterInstance, store: ArtifactStore, events: LatestEvents
    ) -> None:
        self._lineage, self._instance, self._store, self._events = lineage, instance, store, events
        self._assets: dict[dg.AssetKey, _Asset] = {}

    @cached_property
    def _resolver(self) -> CachingStaleStatusResolver:
        return _Resolver(self._instance, self._lineage.graph, self._events)

    def of(self, key: dg.AssetKey, partition: str | None) -> StaleTarget | None:
        """Why a partition is to be built; None where it is not."""
        event = self._events.get(key, partition)
        if event is None:
            return StaleTarget(key, partition, NOT_BUILT)
        if key not in self._assets:
            self._assets[key] = _Asset(self._lineage, self._events, key)
        asset = self._assets[key]
        record = self._store.read(asset.name, partition)
        if asset.is_plainly_fresh(partition, event) or self._resolver.get_status(key, partition) == StaleStatus.FRESH:
            if not asset.settings:
                return None  # no asset of this package: nothing is recorded of it
            damage = _damage(self._store, record, _version_of(event))
            return None if damage is None else StaleTarget(key, partition, damage, damaged=True)
        changes = changed_settings(record.settings, asset.settings) if record else []
        causes = self._resolver.get_stale_causes(key, partition)
        reason = "; ".join(dict.fromkeys(_reason(cause, changes) for cause in causes))
        return StaleTarget(key, partition, reason, damaged=record is not None and record.damaged is not None)


class _Asset:
    """What is the same for all partitions of an asset."""

    def __init__(self, lineage: Lineage, events: LatestEvents, key: dg.AssetKey) -> None:
        node = lineage.graph.get(key)
        self.name, self.settings = key.to_user_string(), settings_of(node.metadata)
        self._code_version, self._events = node.code_version, events
        self._inputs = [(edge.parent.to_user_string(), edge) for edge in lineage.edges(key)]
        self._whole = {
            name: _version_of(events.get(edge.parent, None)) for name, edge in self._inputs if None in edge.partitions
        }
        known = self._code_version is not None and None not in self._whole.values()
        self._usual = known and all(_is_usual(node, edge) for _, edge in self._inputs)

    def is_plainly_fresh(self, partition: str | None, event: Event) -> bool:
        """Whether a partition that was built is fresh by Dagster's rules, as far as that is seen without Dagster.

        That is: built with the present code version, from these inputs and no others, and from their last events. What
        is not as usual, such as an input that was never built, is left to Dagster.
        """
        tags = event.tags
        versions = sum(tag.startswith(f"{INPUT_DATA_VERSION_TAG_PREFIX}/") for tag in tags)
        return (
            self._usual
            and tags.get(CODE_VERSION_TAG) == self._code_version
            and versions == len(self._inputs)
            and all(self._is_last(name, edge, partition, tags) for name, edge in self._inputs)
        )

    def _is_last(self, name: str, edge: Edge, partition: str | None, tags: Mapping[str, str]) -> bool:
        """Whether an input is as it was read; a part of an asset, if no part that was read has a later event."""
        version = tags.get(f"{INPUT_DATA_VERSION_TAG_PREFIX}/{name}")
        pointer = tags.get(f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{name}")
        if version is None or pointer is None:
            return False
        if name in self._whole:
            return version == self._whole[name]
        last = self._events.get(edge.parent, None if edge.every else partition)
        return last is None or (pointer.isdecimal() and last.storage_id <= int(pointer))


def _is_usual(node: AssetNode, edge: Edge) -> bool:
    """Whether the edge of an asset means to Dagster what it means here."""
    mapping = node.partition_mappings.get(edge.parent)
    if mapping is not None and not isinstance(mapping, dg.AllPartitionMapping):
        return False
    partitions = set(node.partitions_def.get_partition_keys() if node.partitions_def else ())
    return None in edge.partitions or edge.every or partitions == {*edge.partitions}


def _version_of(event: Event | None) -> str | None:
    """The data version of an event, as Dagster understands it; None where there is no event."""
    return None if event is None else event.version or DEFAULT_DATA_VERSION.value


def _damage(store: ArtifactStore, record: ArtifactRecord | None, version: str | None) -> str | None:
    """Why the files of an artifact that counts as built cannot be trusted; of the files, only sizes are compared."""
    if record is None:
        return (
            "nothing says what its files were: its record was deleted, or an earlier version of this package built it"
        )
    if record.damaged is not None:
        return f"damaged: {record.damaged}"
    if record.data_version != version:
        return "its files are not those of the last finished run"
    return problem_summary(store.problems(record))


_REMOVED = "removed dependency"  # how Dagster begins to say it


def _reason(cause: StaleCause, changes: list[str]) -> str:
    if cause.category == StaleCauseCategory.CODE:
        return _code_reason(changes)
    dependency = cause.dependency
    if cause.category == StaleCauseCategory.DEPENDENCIES and dependency is not None:
        reads = "no longer reads" if cause.reason.startswith(_REMOVED) else "now reads"
        return f"{reads} {dependency.asset_key.to_user_string()}"
    return f"{label(dependency.asset_key, dependency.partition_key)} changed" if dependency else cause.reason


def _code_reason(changes: list[str]) -> str:
    settings = [change for change in changes if not change.startswith("algorithm: ")]
    if settings:
        return ", ".join(settings)
    algorithm = "this version of the package computes it otherwise"
    return algorithm if changes else "its settings in the YAML, or the algorithm, changed"


class _Resolver(CachingStaleStatusResolver):
    """Dagster's resolver, which gets the last events from those that were read already."""

    def __init__(self, instance: dg.DagsterInstance, graph: AssetGraph, events: LatestEvents) -> None:
        super().__init__(instance, graph, _Context(instance))
        self._events = events

    @cached_method
    def _get_latest_data_version_record(self, key: AssetKeyPartitionKey) -> dg.EventLogRecord | None:
        event = self._events.get(key.asset_key, key.partition_key)
        return None if event is None else event.as_record(key.asset_key, key.partition_key)

    def _is_dep_updated(self, provenance: DataProvenance, dep_key: AssetKeyPartitionKey) -> bool:
        """Whether a dependency has another content than the one read; where nothing is newer, without a query."""
        read = provenance.input_storage_ids.get(dep_key.asset_key)
        last = self._events.get(dep_key.asset_key, dep_key.partition_key) if dep_key.partition_key is not None else None
        if last is not None and read is not None and last.storage_id <= read:
            return False
        return super()._is_dep_updated(provenance, dep_key)


class _Context(LoadingContext):
    """The loaders of the resolver's records."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._loaders: dict[Any, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[Any, Any]:
        return self._loaders
