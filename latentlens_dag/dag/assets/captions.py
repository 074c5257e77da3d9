"""The assets of an image set's captions: their source, and those of each batch's images."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.common import InputSpec, split_asset
from latentlens_dag.dag.assets.reporting import tell_left_out
from latentlens_dag.dag.assets.sources import file_source
from latentlens_dag.dag.specs import ImageSetSpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.inputs import captions as core
from latentlens_dag.inputs.image_tables import check_unique_names, extracted_names
from latentlens_dag.storage.split_input import NumberedRows
from latentlens_dag.storage.warehouse import Warehouse

_CAPTIONS = 1  # algorithm


def captions_assets(images: ImageSetSpec, source: core.CaptionSource) -> list[Any]:
    """captions_source, unless the captions are in the source of the images -> captions[batch]."""
    names = keys.images(images.name, "names" if isinstance(images.source, Path) else "originals")
    if isinstance(source, core.CaptionColumn):
        key, sources = keys.images(images.name, "source"), list[dg.SourceAsset]()
    else:
        key = keys.images(images.name, "captions_source")
        sources = [file_source(key, source.path)]

    def read(paths: Warehouse) -> Iterator[NumberedRows]:
        unknown = core.UnknownImages()
        yield from core.captions_by_batch(source, names_of(images, paths, source), images.batches, unknown)
        tell_left_out(dg.AssetExecutionContext.get(), str(unknown))

    def write(paths: Warehouse, batch: int, rows: Iterable[pa.Table]) -> list[Path]:
        core.write_captions(rows, out := paths.captions(images.name, batch))
        return [out]

    captions = split_asset(
        keys.images(images.name, "captions"),
        [keys.images(images.name, "pictures"), names, key],
        version_fields(_CAPTIONS, **_fields(source)),
        "The captions of the batch's pictures, which connectors learn from.",
        InputSpec([names, key], read),
        write,
        images.batches,
    )
    return [*sources, captions]


def names_of(images: ImageSetSpec, paths: Warehouse, captions: core.CaptionSource | None = None) -> pa.Table:
    """Id and name of every image of a set (`inputs.images.NAMES`); those of a table must differ to refer to them."""
    if isinstance(images.source, Path):
        return pq.read_table(paths.image_names(images.name))
    names = extracted_names(paths.originals(images.name))
    if not isinstance(captions, core.CaptionColumn):
        check_unique_names(names, images.source)
    return names


def _fields(source: core.CaptionSource) -> dict[str, Any]:
    """The fields of the YAML that decide the captions. The names of files do not: their content has a version."""
    if isinstance(source, core.CaptionColumn):
        return {"kind": "column", "column": source.column}
    fields = {name: value for name, value in asdict(source).items() if name != "path"}
    return {"kind": "folder", **fields}
