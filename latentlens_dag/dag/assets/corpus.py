"""The assets of a corpus: its observed source, its distinct sentences, its shards, and their order where one asks."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.reporting import written
from latentlens_dag.dag.resources import HomeResource, WarehouseResource
from latentlens_dag.dag.versions import SOURCE_MODEL, SOURCE_PATH, SOURCE_VERSION, version_now, versioned
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.inputs import texts as core
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.storage.hashing import combined

if TYPE_CHECKING:
    from latentlens_dag.dag.components.studies import Corpus

_SENTENCES, _SHARDS, _ORDER = 1, 1, 1  # algorithms


def corpus_definitions(corpus: "Corpus", source: core.Source, ordered: bool) -> dg.Definitions:
    """source -> sentences -> shards[shard]; where an index is to know the source's order, source -> order too."""
    order = [_order(corpus, source)] if ordered else []
    observed_source = text_source(keys.corpus(corpus.name, "source"), source, f"corpus/{corpus.name}")
    return dg.Definitions(assets=[observed_source, _sentences(corpus, source), _shards(corpus), *order])


def text_source(key: dg.AssetKey, source: core.Source, group: str) -> dg.SourceAsset:
    """A source of text: a file as it is now, or a commit of the Hub."""
    if isinstance(source, core.TextSource):
        return observed(key, source.path, group)
    return hub_column(key, source, group)


def observed(key: dg.AssetKey, path: Path, group: str, model: ModelRef | None = None) -> dg.SourceAsset:
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
        version = version_now(what, home.home.warehouse.observed(".".join(key.path)))
        assert version is not None
        return dg.DataVersion(version)

    return source


def model_source(key: dg.AssetKey, model: ModelRef, group: str) -> dg.SourceAsset:
    """A model: its folder as it is now, or a commit of the Hub."""
    if model.path is not None:
        return observed(key, model.path, group, model)
    return pinned(key, model.version, f"{model.repo} of the Hub at commit {model.revision}", group)


def hub_column(key: dg.AssetKey, source: HubColumn, group: str) -> dg.SourceAsset:
    """A split of a dataset of the Hub, at its commit."""
    version = combined([source.dataset, source.config, source.split, source.revision])
    return pinned(key, version, f"{source} at commit {source.revision}", group)


def pinned(key: dg.AssetKey, version: str, what: str, group: str) -> dg.SourceAsset:
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


def _sentences(corpus: "Corpus", source: core.Source) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.corpus(corpus.name, "sentences"),
        deps=[keys.corpus(corpus.name, "source")],
        group_name=f"corpus/{corpus.name}",
        kinds={"parquet"},
        **versioned(_SENTENCES, **fields_read(source)),
        description="The distinct sentences of the source, in order of their ids.",
    )
    def sentences(warehouse: WarehouseResource) -> dg.MaterializeResult:
        out = warehouse.paths.sentences(corpus.name)
        core.write_sentences(source, out)
        return written(out)

    return sentences


def _order(corpus: "Corpus", source: core.Source) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.corpus(corpus.name, "order"),
        deps=[keys.corpus(corpus.name, "source")],
        group_name=f"corpus/{corpus.name}",
        kinds={"parquet"},
        **versioned(_ORDER, **fields_read(source)),
        description="Where each distinct sentence first comes in the source, for indexes with `sampling: first`.",
    )
    def order(warehouse: WarehouseResource) -> dg.MaterializeResult:
        out = warehouse.paths.order(corpus.name)
        core.write_order(source, out)
        return written(out)

    return order


def fields_read(source: core.Source) -> dict[str, Any]:
    """What of the YAML decides the texts; a file's name does not, its content has a version of its own."""
    if isinstance(source, core.TextSource):
        return {"kind": source.kind, "column": source.column}
    return {"kind": "hub", **asdict(source)}


def _shards(corpus: "Corpus") -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.corpus(corpus.name, "shards"),
        deps=[keys.corpus(corpus.name, "sentences")],
        partitions_def=keys.partitions(corpus.shards),
        group_name=f"corpus/{corpus.name}",
        kinds={"parquet"},
        **versioned(_SHARDS, shards=corpus.shards),
        description="The sentences whose ids fall into the shard.",
    )
    def shards(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        shard = int(context.partition_key)
        out = warehouse.paths.shard(corpus.name, shard)
        core.write_shard(warehouse.paths.sentences(corpus.name), shard, corpus.shards, out)
        return written(out)

    return shards
