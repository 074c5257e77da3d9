"""Records of what a step wrote, in the warehouse, beside Dagster's own history.

Note: a record is written while the step runs, before Dagster has its event. For `building/staleness.py` an artifact is
built only where the two agree.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from latentlens_dag.dag.building.steps import Lineage
from latentlens_dag.dag.run_tags import BUILD_ID, FORCED
from latentlens_dag.dag.versions import SOURCE_PATH, fact_of, settings_of, source_version
from latentlens_dag.errors import UserError
from latentlens_dag.storage.package_versions import package_versions
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, FileFacts, FirstBuild, label
from latentlens_dag.storage.study_versions import VERSIONED_PARTS
from latentlens_dag.storage.warehouse import Warehouse

_ANY_DTYPE = {"dtype": None}


def result(
    key: dg.AssetKey | None,
    version: str,
    metadata: Mapping[str, Any],
    files: Iterable[Path],
    checks: Iterable[dg.AssetCheckResult] = (),
    known: Iterable[FileFacts] = (),
) -> dg.MaterializeResult:
    """The result of the step that runs now, which is recorded in the warehouse too.

    Args:
        key: the asset; None for the only one of the step.
        version: its data version.
        metadata: for Dagster; of a table with its rows, of what a model computed with the `dtype`.
        files: the files of the artifact; a folder stands for all files in it.
        checks: the results of its checks.
        known: facts of files that were recorded before, which are not hashed again.
    """
    context = dg.AssetExecutionContext.get()
    recorded = key or context.asset_key
    spec = context.assets_def.specs_by_key[recorded]
    store, now = store_of(context), datetime.now(UTC).isoformat(timespec="seconds")
    store.write(
        ArtifactRecord(
            asset=recorded.to_user_string(),
            partition=_partition_of(context),
            data_version=version,
            code_version=spec.code_version or "",
            settings=settings_of(spec.metadata),
            inputs=dict(_inputs(context, recorded, store)),
            files=store.file_facts(files, known),
            rows=metadata.get("dagster/row_count"),
            dtype=metadata.get("dtype"),
            run=context.run_id,
            build=_build_of(context),
            created_at=now,
            first_built=FirstBuild(_build_of(context), now),
            packages=package_versions(),
        ),
        keep=recorded.path[0] == "study" and recorded.path[2] in VERSIONED_PARTS,
    )
    return dg.MaterializeResult(
        asset_key=key, data_version=dg.DataVersion(version), metadata=dict(metadata), check_results=list(checks)
    )


def other_valid_parts(context: dg.AssetExecutionContext, model: dg.AssetKey) -> Iterator[ArtifactRecord]:
    """The records of the parts of this step that it does not write now, and that hold: same settings, same model."""
    store, present = store_of(context), input_version(context, model)
    specs, definition = context.assets_def.specs_by_key, context.assets_def.partitions_def
    for partition in definition.get_partition_keys() if definition else ():
        for key in sorted(specs):
            if partition == context.partition_key and key in context.selected_asset_keys:
                continue
            record = store.read(key.to_user_string(), partition)
            if record is None:
                break  # nothing of this partition was computed, or not all of it: another one tells as well
            settings = settings_of(specs[key].metadata)
            if record.settings == settings and record.inputs.get(model.to_user_string()) == present:
                yield record


def can_reuse(context: dg.AssetExecutionContext, key: dg.AssetKey, model: dg.AssetKey) -> bool:
    """Whether an asset of this step was stored whole, with the present settings, model and packages.

    `dtype` does not count among the settings: who reuses states compares the one in which they were computed.
    """
    store, present = store_of(context), input_version(context, model)
    record = store.read(key.to_user_string(), context.partition_key)
    return record is not None and is_reusable(store, record, _metadata_of(context, key), model, present)


def is_reusable(
    store: ArtifactStore, record: ArtifactRecord, metadata: Mapping[str, Any], model: dg.AssetKey, version: str | None
) -> bool:
    """Whether a stored artifact is whole and was made as its asset's metadata says now, by the model's `version`."""
    return (
        record.damaged is None
        and {**record.settings, **_ANY_DTYPE} == {**settings_of(metadata), **_ANY_DTYPE}
        and record.inputs.get(model.to_user_string()) == version
        and record.packages == package_versions()
        and not store.problems(record)
    )


def files_as_before(setting: str, inputs: Collection[dg.AssetKey]) -> list[Path]:
    """The files of the artifact that the step makes now, if all that changed is a new setting and inputs for it.

    The caller must know that these change nothing here. None where anything else changed, where the files are not what
    the record says, or where a forced run must compute.
    """
    context = dg.AssetExecutionContext.get()
    key, store, new = context.asset_key, store_of(context), {dep.to_user_string() for dep in inputs}
    record = store.read(key.to_user_string(), _partition_of(context))
    if record is None or record.damaged is not None or context.has_tag(FORCED) or store.problems(record):
        return []
    settings = {name: value for name, value in settings_of(_metadata_of(context, key)).items() if name != setting}
    present = {name: version for name, version in _inputs(context, key, store) if name.partition("[")[0] not in new}
    unchanged = (record.settings, record.inputs) == (settings, present)
    return [store.warehouse / fact.path for fact in record.files] if unchanged else []


def _metadata_of(context: dg.AssetExecutionContext, key: dg.AssetKey) -> Mapping[str, Any]:
    return context.assets_def.specs_by_key[key].metadata


def store_of(context: dg.AssetExecutionContext) -> ArtifactStore:
    """The records of the warehouse that a step writes to."""
    return ArtifactStore(context.resources.original_resource_dict["warehouse"].paths.root)


def _partition_of(context: dg.AssetExecutionContext) -> str | None:
    return context.partition_key if context.has_partition_key else None


def _build_of(context: dg.AssetExecutionContext) -> str:
    tags = context.run_tags
    return tags.get(BUILD_ID) or tags.get("dagster/backfill") or context.run_id


def _inputs(context: dg.AssetExecutionContext, key: dg.AssetKey, store: ArtifactStore) -> Iterator[tuple[str, str]]:
    """The artifacts that an asset was made from, with their versions.

    Raises:
        UserError: where a source is not as it was when it was last observed.
    """
    graph, partition = context.job_def.asset_layer.asset_graph, _partition_of(context)
    for dep, part in Lineage(graph).parents(key, partition):
        version = store.data_version(dep.to_user_string(), part)
        if version is not None:
            yield label(dep.to_user_string(), part), version
        elif part is None and (source := last_observed_version(context.instance, dep)) is not None:
            _check_observed(context, key, store, dep, source)
            yield dep.to_user_string(), source


def _check_observed(
    context: dg.AssetExecutionContext, key: dg.AssetKey, store: ArtifactStore, source: dg.AssetKey, observed: str
) -> None:
    """Refuse what was made from a source that is not as it was observed: the record would name another content.

    What was stored of the artifact before may have been replaced already, so it counts as damaged from now on.
    """
    metadata = context.job_def.asset_layer.asset_graph.get(source).metadata
    memory = Warehouse(store.warehouse).observed(".".join(source.path))
    if source_version(metadata, memory) == observed:
        return
    before = store.read(key.to_user_string(), _partition_of(context))
    if before is not None:
        store.mark_damaged(before, f"{source.to_user_string()} was changed while it was made again")
    place = fact_of(metadata, SOURCE_PATH)
    raise UserError(
        f"{place or source.to_user_string()} was changed after it was last observed, perhaps while it was being read. "
        f"Build again; in Dagster's UI, observe {source.to_user_string()} first."
    )


def input_version(context: dg.AssetExecutionContext, key: dg.AssetKey) -> str | None:
    """The version of an artifact without partitions, or of a source; None where neither is recorded."""
    return version_of_input(store_of(context), context.instance, key)


def version_of_input(store: ArtifactStore, instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """As `input_version`, outside of a step."""
    version = store.data_version(key.to_user_string(), None)
    return last_observed_version(instance, key) if version is None else version


def last_observed_version(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The version of a source when it was last observed."""
    record = instance.get_latest_data_version_record(key, is_source=True)
    observation = record.event_log_entry.asset_observation if record else None
    return observation.tags.get(DATA_VERSION_TAG) if observation else None
