"""The assets of a corpus: its observed source, its distinct sentences, its shards, and their order where one asks."""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from latentlens_dag import corpus as core
from latentlens_dag.dag import keys
from latentlens_dag.dag.reporting import written
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.versions import SOURCE_PATH, observed_version, version_of

if TYPE_CHECKING:
    from latentlens_dag.dag.components import Corpus

_SENTENCES, _SHARDS, _ORDER = 1, 1, 1  # algorithms


def corpus_definitions(corpus: "Corpus", source: core.TextSource, ordered: bool) -> dg.Definitions:
    """source -> sentences -> shards[shard]; where an index is to know the source's order, source -> order too."""
    file = observed(keys.corpus(corpus.name, "source"), source.path, f"corpus_{corpus.name}")
    order = [_order(corpus, source)] if ordered else []
    return dg.Definitions(assets=[file, _sentences(corpus, source), _shards(corpus), *order])


def observed(key: dg.AssetKey, path: Path, group: str) -> dg.SourceAsset:
    """A file or folder that others change: its data version is the hash of its content."""

    @dg.observable_source_asset(
        key=key,
        group_name=group,
        metadata={SOURCE_PATH: str(path)},
        description=f"The source `{path.name}`, as it is now: its version is the hash of its content.",
    )
    def source(warehouse: WarehouseResource) -> dg.DataVersion:
        return dg.DataVersion(observed_version(path, warehouse.paths.observed(".".join(key.path))))

    return source


def _sentences(corpus: "Corpus", source: core.TextSource) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.corpus(corpus.name, "sentences"),
        deps=[keys.corpus(corpus.name, "source")],
        group_name=f"corpus_{corpus.name}",
        kinds={"parquet"},
        code_version=version_of(_SENTENCES, kind=source.kind, column=source.column),
        description="The distinct sentences of the source, in order of their ids.",
    )
    def sentences(warehouse: WarehouseResource) -> dg.MaterializeResult:
        out = warehouse.paths.sentences(corpus.name)
        core.write_sentences(source, out)
        return written(out)

    return sentences


def _order(corpus: "Corpus", source: core.TextSource) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.corpus(corpus.name, "order"),
        deps=[keys.corpus(corpus.name, "source")],
        group_name=f"corpus_{corpus.name}",
        kinds={"parquet"},
        code_version=version_of(_ORDER, kind=source.kind, column=source.column),
        description="Where each distinct sentence first comes in the source, for indexes with `sampling: first`.",
    )
    def order(warehouse: WarehouseResource) -> dg.MaterializeResult:
        out = warehouse.paths.order(corpus.name)
        core.write_order(source, out)
        return written(out)

    return order


def _shards(corpus: "Corpus") -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.corpus(corpus.name, "shards"),
        deps=[keys.corpus(corpus.name, "sentences")],
        partitions_def=keys.partitions(corpus.shards),
        group_name=f"corpus_{corpus.name}",
        kinds={"parquet"},
        code_version=version_of(_SHARDS, shards=corpus.shards),
        description="The sentences whose ids fall into the shard.",
    )
    def shards(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        shard = int(context.partition_key)
        out = warehouse.paths.shard(corpus.name, shard)
        core.write_shard(warehouse.paths.sentences(corpus.name), shard, corpus.shards, out)
        return written(out)

    return shards
