"""The assets of a text set: its source, and its texts in batches.

Note: a batch that is built alone, from the UI, reads the whole source and keeps its own texts; a dataset of the Hub is
then streamed each time.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.common import InputSpec, split_asset
from latentlens_dag.dag.assets.sources import data_source, source_fields
from latentlens_dag.dag.specs import TextSetSpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.inputs import texts as core
from latentlens_dag.storage.shapes import TextSetShape
from latentlens_dag.storage.split_input import NumberedRows
from latentlens_dag.storage.warehouse import Warehouse

_TEXTS = 1  # algorithm


def text_definitions(texts: TextSetSpec) -> dg.Definitions:
    """source -> texts[batch]."""
    source = keys.texts(texts.name, "source")

    def read(_: Warehouse) -> Iterator[NumberedRows]:
        return core.texts_by_batch(texts.source, texts.batches)

    def write(paths: Warehouse, batch: int, rows: Iterable[pa.Table]) -> list[Path]:
        TextSetShape(parts=texts.batches).write(paths.shape("texts", texts.name))
        out = paths.texts(texts.name, batch)
        core.write_batch(rows, out)
        return [out, paths.shape("texts", texts.name)]

    batches = split_asset(
        keys.texts(texts.name, "texts"),
        [source],
        version_fields(_TEXTS, batches=texts.batches, **source_fields(texts.source)),
        "The distinct texts whose ids fall into the batch, in order of their ids.",
        InputSpec([source], read),
        write,
        texts.batches,
    )
    return dg.Definitions(assets=[data_source(source, texts.source), batches])
