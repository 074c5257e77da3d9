"""Records of what a step wrote, in the warehouse, beside Dagster's own history.

Note: a record is written while the step runs, before Dagster has its event. For `building/staleness.py` an artifact is
built only where the two agree.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from latentlens_dag.dag.run_tags import BUILD_ID
from latentlens_dag.dag.versions import settings_of
from latentlens_dag.storage.package_versions import package_versions
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, FileFacts, FirstBuild, label
from latentlens_dag.storage.study_versions import VERSIONED_PARTS
from latentlens_dag.storage.warehouse import Warehouse


def record(
    key: dg.AssetKey | None,
    data_version: str,
    files: Iterable[Path],
    rows: int | None = None,
    known: Iterable[FileFacts] = (),
) -> None:
    """Record an artifact of the step that runs now.

    Args:
        key: the asset; None for the only one of the step.
        data_version: as reported to Dagster.
        files: the files of the artifact; a folder stands for all files in it.
        rows: of a table.
        known: facts of files that were recorded before, which are not hashed again.
    """
    context = dg.AssetExecutionContext.get()
    key = key or context.asset_key
    spec = context.assets_def.specs_by_key[key]
    store, now = store_of(context), datetime.now(UTC).isoformat(timespec="seconds")
    store.write(
        ArtifactRecord(
            asset=key.to_user_string(),
            partition=context.partition_key if context.has_partition_key else None,
            data_version=data_version,
            code_version=spec.code_version or "",
            settings=settings_of(spec.metadata),
            inputs=dict(_inputs(context, key, store)),
            files=store.file_facts(files, known),
            rows=rows,
            run=context.run_id,
            build=_build_of(context),
            created_at=now,
            first_built=FirstBuild(_build_of(context), now),
            packages=package_versions(),
        ),
        keep=key.path[0] == "study" and key.path[2] in VERSIONED_PARTS,
    )


def can_reuse(context: dg.AssetExecutionContext, key: dg.AssetKey, model: dg.AssetKey) -> bool:
    """Whether an asset of this step was stored whole, with the present settings, model and packages."""
    store = store_of(context)
    record = store.read(key.to_user_string(), context.partition_key)
    return (
        record is not None
        and record.damaged is None
        and record.code_version == context.assets_def.specs_by_key[key].code_version
        and record.inputs.get(model.to_user_string()) == last_observed_version(context.instance, model)
        and record.packages == package_versions()
        and not store.problems(record)
    )


def warehouse_of(context: dg.AssetExecutionContext) -> Warehouse:
    """The warehouse that a step writes to."""
    paths: Warehouse = context.resources.original_resource_dict["warehouse"].paths
    return paths


def store_of(context: dg.AssetExecutionContext) -> ArtifactStore:
    """The records of the warehouse that a step writes to."""
    return ArtifactStore(warehouse_of(context).root)


def _build_of(context: dg.AssetExecutionContext) -> str:
    tags = context.run_tags
    return tags.get(BUILD_ID) or tags.get("dagster/backfill") or context.run_id


def _inputs(context: dg.AssetExecutionContext, key: dg.AssetKey, store: ArtifactStore) -> Iterator[tuple[str, str]]:
    """The artifacts that an asset was made from, with their versions."""
    graph = context.job_def.asset_layer.asset_graph
    for dep in sorted(graph.get(key).parent_keys):
        source = last_observed_version(context.instance, dep)
        if source is not None:
            yield dep.to_user_string(), source
        for partition in _partitions_read(context, key, dep, graph.get(dep).partitions_def):
            record = store.read(dep.to_user_string(), partition)
            if record is not None:
                yield label(dep.to_user_string(), partition), record.data_version


def _partitions_read(
    context: dg.AssetExecutionContext, key: dg.AssetKey, dep: dg.AssetKey, partitions: dg.PartitionsDefinition | None
) -> list[str] | list[None]:
    if partitions is None:
        return [None]
    mapping = context.job_def.asset_layer.asset_graph.get(key).partition_mappings.get(dep)
    if not context.has_partition_key or isinstance(mapping, dg.AllPartitionMapping):
        return list(partitions.get_partition_keys())
    return [context.partition_key]


def last_observed_version(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The version of a source when it was last observed."""
    record = instance.get_latest_data_version_record(key, is_source=True)
    observation = record.event_log_entry.asset_observation if record else None
    return observation.tags.get(DATA_VERSION_TAG) if observation else None
