"""A project of any number of studies and partitions as if it were built: records, files of a byte, Dagster's events.

Real steps would take hours for ten studies of 96 batches; what a plan reads of them is the same here, in kind and size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
)

from latentlens_dag.dag.building.project import Project
from latentlens_dag.dag.building.steps import each_partition
from latentlens_dag.dag.recording import last_observed_version
from latentlens_dag.dag.versions import settings_of
from latentlens_dag.storage.records import ArtifactRecord, FileFacts, FirstBuild, label
from latentlens_dag.testing import tiny_project

_VERSION = "1"
_COLUMNS = dg.TableSchema([dg.TableColumn(f"column_{number}", "string") for number in range(12)])
_METADATA = {"dagster/row_count": 4, "size_bytes": 1, "dagster/column_schema": _COLUMNS, "preview": "| a | b |\n" * 80}


def large_project(folder: Path, studies: int, partitions: int) -> Path:
    """Write a tiny project with many studies of one model, image set and index, in as many shards as batches.

    It has the layers of the demo, 8 visual ones and 7 contextual ones; the model has weights for fewer.
    """
    tiny_project(folder, partitions, partitions)
    config = folder / "assets" / "tiny" / "model" / "config.json"
    facts = json.loads(config.read_text())
    facts["text_config"]["num_hidden_layers"] = 8
    config.write_text(json.dumps(facts))
    file = folder / "assets" / "tiny" / "defs.yaml"
    text = file.read_text().replace("[0, 1, 2]", str([*range(8)])).replace("[1, 2]", str([*range(1, 8)]))
    *shared, study = text.split("---\n")
    named = [study.replace("name: tiny", f"name: tiny_{number}") for number in range(studies)]
    file.write_text("---\n".join([*shared, *named]))
    return folder


def simulate_build(project: Project) -> int:
    """Record every partition of every step as built now; give their number. The home must be empty."""
    project.observe(project.select())
    ids: dict[dg.AssetKey, int] = {}
    built = 0
    for step in project.steps:
        for partition in each_partition(step.partitions):
            for key in step.keys:
                _record(project, key, partition)
                ids[key] = _report(project, key, partition, ids)
                built += 1
    return built


def _record(project: Project, key: dg.AssetKey, partition: str | None) -> None:
    name = f"simulated/{key.to_user_string()}/{partition}.bin"
    file = project.store.warehouse / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    node = project.graph.get(key)
    inputs = project.lineage.parents(key, partition)
    project.store.write(
        ArtifactRecord(
            asset=key.to_user_string(),
            partition=partition,
            data_version=_VERSION,
            code_version=node.code_version or "",
            settings=settings_of(node.metadata),
            inputs={label(parent.to_user_string(), part): _VERSION for parent, part in inputs},
            files=[FileFacts(name, 1, "0")],
            rows=4,
            run="simulated",
            build="simulated",
            created_at="2026-01-31T12:00:00+00:00",
            first_built=FirstBuild("simulated", "2026-01-31T12:00:00+00:00"),
            packages={},
        )
    )


def _report(project: Project, key: dg.AssetKey, partition: str | None, ids: dict[dg.AssetKey, int]) -> int:
    """Report the event of a part to Dagster; give its number."""
    tags = {
        DATA_VERSION_TAG: _VERSION,
        CODE_VERSION_TAG: project.graph.get(key).code_version or "",
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
        **dict(_input_tags(project, key, ids)),
    }
    project.instance.report_runless_asset_event(dg.AssetMaterialization(key, None, _METADATA, partition, tags))
    record = project.instance.get_latest_data_version_record(key, partition_key=partition)
    assert record is not None
    return record.storage_id


def _input_tags(project: Project, key: dg.AssetKey, ids: dict[dg.AssetKey, int]) -> Iterator[tuple[str, str]]:
    for parent in project.graph.get(key).parent_keys:
        version = _VERSION if parent in ids else last_observed_version(project.instance, parent)
        yield f"{INPUT_DATA_VERSION_TAG_PREFIX}/{parent.to_user_string()}", str(version)
        yield f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{parent.to_user_string()}", str(ids.get(parent, "NULL"))
