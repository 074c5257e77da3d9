"""The assets of a text set: its observed source, and its texts in batches.

What a newcomer gets wrong: every batch reads the whole source and keeps what is its own, so of a dataset of the Hub,
which is streamed from the network each time, take few batches.
"""

import dagster as dg

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.reporting import parquet_result
from latentlens_dag.dag.assets.sources import source_fields, text_source
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.specs import TextSetSpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.inputs import texts as core
from latentlens_dag.storage.shapes import TextSetShape

_TEXTS = 1  # algorithm


def text_definitions(texts: TextSetSpec) -> dg.Definitions:
    """source -> texts[batch]."""
    return dg.Definitions(
        assets=[text_source(keys.texts(texts.name, "source"), texts.source, f"texts/{texts.name}"), _texts(texts)]
    )


def _texts(texts: TextSetSpec) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.texts(texts.name, "texts"),
        deps=[keys.texts(texts.name, "source")],
        partitions_def=keys.partitions(texts.batches),
        group_name=f"texts/{texts.name}",
        kinds={"parquet"},
        **version_fields(_TEXTS, batches=texts.batches, **source_fields(texts.source)),
        description="The distinct texts whose ids fall into the batch, in order of their ids.",
    )
    def batch_of_texts(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        batch = int(context.partition_key)
        TextSetShape(parts=texts.batches).write(warehouse.paths.shape("texts", texts.name))
        out = warehouse.paths.texts(texts.name, batch)
        core.write_batch(texts.source, batch, texts.batches, out)
        return parquet_result(out, beside=[warehouse.paths.shape("texts", texts.name)])

    return batch_of_texts
