"""The assets of an image set: its source, its pictures in batches, their annotated regions.

What a newcomer gets wrong: pictures of a table get files of their own (`originals`), those of a folder stay there.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.reporting import parquet_result
from latentlens_dag.dag.assets.sources import hub_source, observed
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.specs import ImageSetSpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.inputs import images as core
from latentlens_dag.inputs.image_tables import TableSource, check_unique_names, extract_images, extracted_batch
from latentlens_dag.schema import IMAGES, REGIONS
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.shapes import ImageSetShape

_ORIGINALS, _PICTURES, _REGIONS = 1, 2, 1  # algorithms


def image_definitions(images: ImageSetSpec) -> dg.Definitions:
    """source (-> originals) -> pictures[batch]; regions_source -> regions[batch], where there are regions."""
    group = f"images/{images.name}"
    assets: list[Any] = [_source(images, group), _pictures(images)]
    if not isinstance(images.source, Path):
        assets.append(_originals(images, images.source))
    if images.regions is not None:
        file = images.regions
        assets += [observed(keys.images(images.name, "regions_source"), file, group), _regions(images, file)]
    return dg.Definitions(assets=assets)


def _source(images: ImageSetSpec, group: str) -> dg.SourceAsset:
    key, source = keys.images(images.name, "source"), images.source
    if isinstance(source, HubColumn):
        return hub_source(key, source, group)
    return observed(key, source if isinstance(source, Path) else source.path, group)


def _originals(images: ImageSetSpec, source: TableSource) -> dg.AssetsDefinition:
    # A file's name does not decide the pictures; its content has a version of its own.
    fields = asdict(source) if isinstance(source, HubColumn) else {"column": source.column, "name": source.name}

    @dg.asset(
        key=keys.images(images.name, "originals"),
        deps=[keys.images(images.name, "source")],
        group_name=f"images/{images.name}",
        kinds={"parquet"},
        **version_fields(_ORIGINALS, **fields),
        description="The distinct pictures of the source, as files named by their ids, and their names.",
    )
    def originals(warehouse: WarehouseResource) -> dg.MaterializeResult:
        folder = warehouse.paths.originals(images.name)
        return parquet_result(extract_images(source, folder), beside=[folder])

    return originals


def _pictures(images: ImageSetSpec) -> dg.AssetsDefinition:
    source = images.source
    # Regions that a set had before may lie about; no reader is to count them.
    without: dict[str, Literal[False]] = {} if images.regions is not None else {"regions": False}

    @dg.asset(
        key=keys.images(images.name, "pictures"),
        deps=[keys.images(images.name, "source" if isinstance(source, Path) else "originals")],
        partitions_def=keys.partitions(images.batches),
        group_name=f"images/{images.name}",
        kinds={"parquet"},
        **version_fields(_PICTURES, batches=images.batches, **without),
        description="Ids, names, sizes and thumbnails of the pictures whose ids fall into the batch.",
    )
    def pictures(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        batch = int(context.partition_key)
        ImageSetShape(parts=images.batches, **without).write(warehouse.paths.shape("images", images.name))
        out = warehouse.paths.pictures(images.name, batch)
        if isinstance(source, Path):
            folder, files = source, core.batch_of_images(source, batch, images.batches)
        else:
            folder = warehouse.paths.originals(images.name)
            files = extracted_batch(folder, batch, images.batches)
        write_parquet(core.image_table(files, folder), out, IMAGES)
        return parquet_result(out, beside=[warehouse.paths.shape("images", images.name)])

    return pictures


def _regions(images: ImageSetSpec, file: Path) -> dg.AssetsDefinition:
    source = images.source

    @dg.asset(
        key=keys.images(images.name, "regions"),
        deps=[keys.images(images.name, "pictures"), keys.images(images.name, "regions_source")],
        partitions_def=keys.partitions(images.batches),
        group_name=f"images/{images.name}",
        kinds={"parquet"},
        **version_fields(_REGIONS),
        description="The annotated regions of the batch's pictures: what can be seen where, in words.",
    )
    def regions(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        from latentlens_dag.inputs.regions import read_regions

        if not isinstance(source, Path):
            check_unique_names(warehouse.paths.originals(images.name), source)
        batch = int(context.partition_key)
        pictures = pq.read_table(warehouse.paths.pictures(images.name, batch))
        ids = {row["file_name"]: (row["image_id"], row["width"], row["height"]) for row in pictures.to_pylist()}
        out = warehouse.paths.regions(images.name, batch)
        write_parquet(read_regions(file, ids), out, REGIONS)
        return parquet_result(out)

    return regions
