"""The assets of a corpus: its source, its distinct sentences, their shards, and their order where an index needs it."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.common import InputSpec, parquet_asset, split_asset
from latentlens_dag.dag.assets.sources import data_source, source_fields
from latentlens_dag.dag.specs import CorpusSpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.inputs import texts as core
from latentlens_dag.storage.split_input import NumberedRows
from latentlens_dag.storage.warehouse import Warehouse

_SENTENCES, _SHARDS, _ORDER = 1, 1, 1  # algorithms


def corpus_definitions(corpus: CorpusSpec, ordered: bool) -> dg.Definitions:
    """source -> sentences -> shards[shard]; where an index samples in the source's order, source -> order too."""
    key = partial(keys.corpus, corpus.name)
    fields = source_fields(corpus.source)

    def write_sentences(paths: Warehouse, _: int) -> list[Path]:
        core.write_sentences(corpus.source, out := paths.sentences(corpus.name))
        return [out]

    def write_order(paths: Warehouse, _: int) -> list[Path]:
        core.write_order(corpus.source, out := paths.order(corpus.name))
        return [out]

    def read_sentences(paths: Warehouse) -> Iterator[NumberedRows]:
        return core.sentences_by_shard(paths.sentences(corpus.name), corpus.shards)

    def write_shard(paths: Warehouse, shard: int, sentences: Iterable[pa.Table]) -> list[Path]:
        core.write_shard(sentences, out := paths.shard(corpus.name, shard))
        return [out]

    assets: list[Any] = [
        data_source(key("source"), corpus.source),
        parquet_asset(
            key("sentences"),
            [key("source")],
            version_fields(_SENTENCES, **fields),
            "The distinct sentences of the source, in order of their ids.",
            write_sentences,
        ),
        split_asset(
            key("shards"),
            [key("sentences")],
            version_fields(_SHARDS, shards=corpus.shards),
            "The sentences whose ids fall into the shard.",
            InputSpec([key("sentences")], read_sentences),
            write_shard,
            corpus.shards,
        ),
    ]
    if ordered:
        description = "Where each distinct sentence first comes in the source, for indexes with `sampling: first`."
        version = version_fields(_ORDER, **fields)
        assets.append(parquet_asset(key("order"), [key("source")], version, description, write_order))
    return dg.Definitions(assets=assets)
