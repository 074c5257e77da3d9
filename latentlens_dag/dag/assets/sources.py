"""Observed sources: files, folders, models and commits of the Hub, each with its version."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from latentlens_dag.dag.resources import HomeResource
from latentlens_dag.dag.versions import SOURCE_MODEL, SOURCE_PATH, SOURCE_VERSION, source_version
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.inputs.image_tables import TableSource
from latentlens_dag.inputs.texts import TextFile, TextSource
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.storage.hashing import hash_values
from latentlens_dag.storage.warehouse import Warehouse


def data_source(key: dg.AssetKey, source: Path | TextSource | TableSource) -> dg.SourceAsset:
    """A source of texts or images: a file or folder as it is now, or a commit of the Hub."""
    if isinstance(source, HubColumn):
        version = hash_values([source.dataset, source.config, source.split, source.revision])
        return _pinned_source(key, version, f"{source} at commit {source.revision}")
    return file_source(key, source if isinstance(source, Path) else source.path)


def model_source(key: dg.AssetKey, model: ModelRef) -> dg.SourceAsset:
    """A model: its folder as it is now, or a commit of the Hub."""
    if model.path is not None:
        return file_source(key, model.path, model)
    return _pinned_source(key, model.version, f"{model.repo} of the Hub at commit {model.revision}", model)


def file_source(key: dg.AssetKey, path: Path, model: ModelRef | None = None) -> dg.SourceAsset:
    """A file or folder that others change, with the hash of its content as data version; of a model, of its files."""
    metadata: dict[str, Any] = {SOURCE_PATH: str(path), **({} if model is None else {SOURCE_MODEL: model.to_json()})}

    @dg.observable_source_asset(
        key=key,
        group_name=_group(key),
        metadata=metadata,
        tags=_kind("file"),
        description=f"The source `{path.name}`, as it is now: its version is the hash of its content.",
    )
    def source(home: HomeResource) -> dg.DataVersion:
        version = source_version(metadata, observed_file(home.home.warehouse, key))
        assert version is not None
        return dg.DataVersion(version)

    return source


def observed_file(paths: Warehouse, key: dg.AssetKey) -> Path:
    """The file in which the observation of a source keeps the hashes of its files."""
    return paths.observed(".".join(key.path))


def _pinned_source(key: dg.AssetKey, version: str, name: str, model: ModelRef | None = None) -> dg.SourceAsset:
    """A source that nobody can change, such as a commit."""
    metadata: dict[str, Any] = {SOURCE_VERSION: version, **({} if model is None else {SOURCE_MODEL: model.to_json()})}

    @dg.observable_source_asset(
        key=key,
        group_name=_group(key),
        metadata=metadata,
        tags=_kind("huggingface"),
        description=f"{name}. It never changes, so its version is the hash of its name.",
    )
    def source() -> dg.DataVersion:
        return dg.DataVersion(version)

    return source


def source_fields(source: TextSource) -> dict[str, Any]:
    """The fields of the YAML that decide the texts. A file's name does not: its content has a version of its own."""
    if isinstance(source, TextFile):
        return {"kind": source.kind, "column": source.column}
    return {"kind": "hub", **asdict(source)}


def _group(key: dg.AssetKey) -> str:
    return "/".join(key.path[:2])


def _kind(name: str) -> dict[str, str]:
    """The tag that the UI shows as a kind; sources do not take `kinds` as assets do."""
    return {f"dagster/kind/{name}": ""}
