"""Which artifacts are missing or out of date, and why, in plain words.

Dagster has this in private API only (`CachingStaleStatusResolver`), which is why pyproject.toml holds dagster below
1.14. Note: the UI shows partitioned assets as fresh whatever happened upstream; the resolver, asked partition by
partition, does not.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import (
    DATA_VERSION_TAG,
    CachingStaleStatusResolver,
    DataProvenance,
    StaleCause,
    StaleCauseCategory,
    StaleStatus,
)
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.loader import LoadingContext
from dagster._core.storage.event_log.base import AssetRecord

from latentlens_dag.dag.building.dagster_history import latest_by_partition
from latentlens_dag.dag.building.steps import AssetPartition
from latentlens_dag.dag.keys import label
from latentlens_dag.dag.recording import last_observed_version
from latentlens_dag.dag.versions import SETTINGS, settings_of, source_version
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, changed_settings, problem_summary
from latentlens_dag.storage.warehouse import Warehouse

NOT_BUILT = "not built yet"


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

    def __str__(self) -> str:
        """`study/demo/judgements/V08[2]: not built yet`."""
        return f"{label(self.key, self.partition)}: {self.reason}"


def observe_sources(
    graph: AssetGraph, instance: dg.DagsterInstance, warehouse: Warehouse, keys: Sequence[dg.AssetKey]
) -> list[dg.AssetKey]:
    """Observe the sources among `keys`; report those that changed to Dagster, and give them."""
    changed = []
    for key in keys:
        version = source_version(graph.get(key).metadata, warehouse.observed(".".join(key.path)))
        if version is not None and version != last_observed_version(instance, key):
            instance.report_runless_asset_event(dg.AssetObservation(key, tags={DATA_VERSION_TAG: version}))
            changed.append(key)
    return changed


def find_stale(
    graph: AssetGraph, instance: dg.DagsterInstance, store: ArtifactStore, targets: Sequence[AssetPartition]
) -> dict[AssetPartition, StaleTarget]:
    """The targets that are missing, stale or damaged now, in their order."""
    resolver = _Resolver(instance, graph)
    stale = {target: _stale_target(resolver, graph, store, *target) for target in targets}
    return {target: why for target, why in stale.items() if why is not None}


def _stale_target(
    resolver: CachingStaleStatusResolver,
    graph: AssetGraph,
    store: ArtifactStore,
    key: dg.AssetKey,
    partition: str | None,
) -> StaleTarget | None:
    status = resolver.get_status(key, partition)
    if status == StaleStatus.MISSING:
        return StaleTarget(key, partition, NOT_BUILT)
    metadata = graph.get(key).metadata
    record = store.read(key.to_user_string(), partition)
    if status == StaleStatus.FRESH:
        if SETTINGS not in metadata:
            return None  # no asset of this package: nothing is recorded of it
        damage = _damage(store, record, resolver.get_current_data_version(key, partition).value)
        return None if damage is None else StaleTarget(key, partition, damage, damaged=True)
    changes = changed_settings(record.settings, settings_of(metadata)) if record else []
    causes = resolver.get_stale_causes(key, partition)
    reason = "; ".join(dict.fromkeys(_reason(cause, changes) for cause in causes))
    return StaleTarget(key, partition, reason, damaged=record is not None and record.damaged is not None)


def _damage(store: ArtifactStore, record: ArtifactRecord | None, version: str) -> str | None:
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


def _reason(cause: StaleCause, changes: list[str]) -> str:
    if cause.category == StaleCauseCategory.CODE:
        return _code_reason(changes)
    if cause.category == StaleCauseCategory.DEPENDENCIES:
        return f"it {cause.reason}"
    dependency = cause.dependency
    return f"{label(dependency.asset_key, dependency.partition_key)} changed" if dependency else cause.reason


def _code_reason(changes: list[str]) -> str:
    settings = [change for change in changes if not change.startswith("algorithm: ")]
    if settings:
        return ", ".join(settings)
    algorithm = "this version of the package computes it otherwise"
    return algorithm if changes else "its settings in the YAML, or the algorithm, changed"


class _Resolver(CachingStaleStatusResolver):
    """Dagster's resolver, which reads all assets, and all partitions of an asset, at once."""

    def __init__(self, instance: dg.DagsterInstance, graph: AssetGraph) -> None:
        context = _Context(instance)
        super().__init__(instance, graph, context)
        AssetRecord.blocking_get_many(context, graph.materializable_asset_keys)
        self._partitions: dict[dg.AssetKey, dict[str, dg.EventLogRecord]] = {}

    def _get_latest_data_version_record(self, key: AssetKeyPartitionKey) -> dg.EventLogRecord | None:
        if key.partition_key is None or not self.asset_graph.get(key.asset_key).is_materializable:
            return super()._get_latest_data_version_record(key=key)
        if key.asset_key not in self._partitions:
            self._partitions[key.asset_key] = latest_by_partition(self._instance, key.asset_key)
        return self._partitions[key.asset_key].get(key.partition_key)

    def _is_dep_updated(self, provenance: DataProvenance, dep_key: AssetKeyPartitionKey) -> bool:
        """Whether a dependency has another content than the one read; where nothing is newer, without a query."""
        read = provenance.input_storage_ids.get(dep_key.asset_key)
        last = self._get_latest_data_version_record(key=dep_key) if dep_key.partition_key is not None else None
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
