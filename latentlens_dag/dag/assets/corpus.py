"""The assets of a corpus: its observed source, its distinct sentences, its shards, and their order where one asks."""

import dagster as dg

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.reporting import parquet_result
from latentlens_dag.dag.assets.sources import source_fields, text_source
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.specs import CorpusSpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.inputs import texts as core

_SENTENCES, _SHARDS, _ORDER = 1, 1, 1  # algorithms


def corpus_definitions(corpus: CorpusSpec, ordered: bool) -> dg.Definitions:
    """source -> sentences -> shards[shard]; where an index is to know the source's order, source -> order too."""
    order = [_order(corpus)] if ordered else []
    observed_source = text_source(keys.corpus(corpus.name, "source"), corpus.source, f"corpus/{corpus.name}")
    return dg.Definitions(assets=[observed_source, _sentences(corpus), _shards(corpus), *order])


def _sentences(corpus: CorpusSpec) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.corpus(corpus.name, "sentences"),
        deps=[keys.corpus(corpus.name, "source")],
        group_name=f"corpus/{corpus.name}",
        kinds={"parquet"},
        **version_fields(_SENTENCES, **source_fields(corpus.source)),
        description="The distinct sentences of the source, in order of their ids.",
    )
    def sentences(warehouse: WarehouseResource) -> dg.MaterializeResult:
        out = warehouse.paths.sentences(corpus.name)
        core.write_sentences(corpus.source, out)
        return parquet_result(out)

    return sentences


def _order(corpus: CorpusSpec) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.corpus(corpus.name, "order"),
        deps=[keys.corpus(corpus.name, "source")],
        group_name=f"corpus/{corpus.name}",
        kinds={"parquet"},
        **version_fields(_ORDER, **source_fields(corpus.source)),
        description="Where each distinct sentence first comes in the source, for indexes with `sampling: first`.",
    )
    def order(warehouse: WarehouseResource) -> dg.MaterializeResult:
        out = warehouse.paths.order(corpus.name)
        core.write_order(corpus.source, out)
        return parquet_result(out)

    return order


def _shards(corpus: CorpusSpec) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.corpus(corpus.name, "shards"),
        deps=[keys.corpus(corpus.name, "sentences")],
        partitions_def=keys.partitions(corpus.shards),
        group_name=f"corpus/{corpus.name}",
        kinds={"parquet"},
        **version_fields(_SHARDS, shards=corpus.shards),
        description="The sentences whose ids fall into the shard.",
    )
    def shards(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        shard = int(context.partition_key)
        out = warehouse.paths.shard(corpus.name, shard)
        core.write_shard(warehouse.paths.sentences(corpus.name), shard, corpus.shards, out)
        return parquet_result(out)

    return shards
