"""The assets of a text set: its source, and its texts in batches.

Note: every batch reads the whole source and keeps its own texts. A dataset of the Hub is streamed each time, so give it
few batches.
"""

from pathlib import Path

import dagster as dg

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.common import parquet_asset
from latentlens_dag.dag.assets.sources import data_source, source_fields
from latentlens_dag.dag.specs import TextSetSpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.inputs import texts as core
from latentlens_dag.storage.shapes import TextSetShape
from latentlens_dag.storage.warehouse import Warehouse

_TEXTS = 1  # algorithm


def text_definitions(texts: TextSetSpec) -> dg.Definitions:
    """source -> texts[batch]."""
    source = keys.texts(texts.name, "source")

    def write(paths: Warehouse, batch: int) -> list[Path]:
        TextSetShape(parts=texts.batches).write(paths.shape("texts", texts.name))
        out = paths.texts(texts.name, batch)
        core.write_batch(texts.source, batch, texts.batches, out)
        return [out, paths.shape("texts", texts.name)]

    batches = parquet_asset(
        keys.texts(texts.name, "texts"),
        [source],
        version_fields(_TEXTS, batches=texts.batches, **source_fields(texts.source)),
        "The distinct texts whose ids fall into the batch, in order of their ids.",
        write,
        texts.batches,
    )
    return dg.Definitions(assets=[data_source(source, texts.source), batches])
