"""Observed sources: files, folders, models and commits of the Hub, each with its version."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from latentlens_dag.dag.resources import HomeResource
from latentlens_dag.dag.versions import SOURCE_MODEL, SOURCE_PATH, SOURCE_VERSION, source_version
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.inputs import texts as core
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.storage.hashing import hash_values


def text_source(key: dg.AssetKey, source: core.TextSource, group: str) -> dg.SourceAsset:
    """A source of text: a file as it is now, or a commit of the Hub."""
    if isinstance(source, core.TextFile):
        return file_source(key, source.path, group)
    return hub_source(key, source, group)


def file_source(key: dg.AssetKey, path: Path, group: str, model: ModelRef | None = None) -> dg.SourceAsset:
    """A file or folder that others change: its data version is the hash of its content; of a model, of its files."""
    what: dict[str, Any] = {SOURCE_PATH: str(path), **({} if model is None else {SOURCE_MODEL: model.to_json()})}

    @dg.observable_source_asset(
        key=key,
        group_name=group,
        metadata=what,
        tags=_kind("file"),
        description=f"The source `{path.name}`, as it is now: its version is the hash of its content.",
    )
    def source(home: HomeResource) -> dg.DataVersion:
        version = source_version(what, home.home.warehouse.observed(".".join(key.path)))
        assert version is not None
        return dg.DataVersion(version)

    return source


def model_source(key: dg.AssetKey, model: ModelRef, group: str) -> dg.SourceAsset:
    """A model: its folder as it is now, or a commit of the Hub."""
    if model.path is not None:
        return file_source(key, model.path, group, model)
    return pinned_source(key, model.version, f"{model.repo} of the Hub at commit {model.revision}", group)


def hub_source(key: dg.AssetKey, source: HubColumn, group: str) -> dg.SourceAsset:
    """A split of a dataset of the Hub, at its commit."""
    version = hash_values([source.dataset, source.config, source.split, source.revision])
    return pinned_source(key, version, f"{source} at commit {source.revision}", group)


def pinned_source(key: dg.AssetKey, version: str, what: str, group: str) -> dg.SourceAsset:
    """What nobody can change, such as a commit: its data version is known without looking at it."""

    @dg.observable_source_asset(
        key=key,
        group_name=group,
        metadata={SOURCE_VERSION: version},
        tags=_kind("huggingface"),
        description=f"{what}. It never changes, so its version is the hash of its name.",
    )
    def source() -> dg.DataVersion:
        return dg.DataVersion(version)

    return source


def _kind(name: str) -> dict[str, str]:
    """What the UI shows as a kind; sources do not take `kinds` as assets do."""
    return {f"dagster/kind/{name}": ""}


def source_fields(source: core.TextSource) -> dict[str, Any]:
    """What of the YAML decides the texts; a file's name does not, its content has a version of its own."""
    if isinstance(source, core.TextFile):
        return {"kind": source.kind, "column": source.column}
    return {"kind": "hub", **asdict(source)}
