"""The assets of an image set: its observed source, its pictures in batches, their annotated regions."""

from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow.parquet as pq

from latentlens_dag import images as core
from latentlens_dag.dag import keys
from latentlens_dag.dag.corpus_assets import observed
from latentlens_dag.dag.reporting import written
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.versions import version_of
from latentlens_dag.schema import IMAGES, REGIONS
from latentlens_dag.warehouse import write_json, write_parquet

if TYPE_CHECKING:
    from pathlib import Path

    from latentlens_dag.dag.components import ImageSet

_PICTURES, _REGIONS = 1, 1  # algorithms


def image_definitions(images: "ImageSet") -> dg.Definitions:
    """source -> pictures[batch]; regions_source -> regions[batch], where there are regions."""
    group = f"images_{images.name}"
    assets: list[Any] = [observed(keys.images(images.name, "source"), images.source.folder, group), _pictures(images)]
    if images.regions is not None:
        file = images.regions.masks
        assets += [observed(keys.images(images.name, "regions_source"), file, group), _regions(images, file)]
    return dg.Definitions(assets=assets)


def _pictures(images: "ImageSet") -> dg.AssetsDefinition:
    folder = images.source.folder

    @dg.asset(
        key=keys.images(images.name, "pictures"),
        deps=[keys.images(images.name, "source")],
        partitions_def=keys.partitions(images.batches),
        group_name=f"images_{images.name}",
        kinds={"parquet"},
        code_version=version_of(_PICTURES, batches=images.batches),
        description="Ids, names, sizes and thumbnails of the pictures whose ids fall into the batch.",
    )
    def pictures(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        batch = int(context.partition_key)
        write_json({"parts": images.batches}, warehouse.paths.shape("images", images.name))
        out = warehouse.paths.pictures(images.name, batch)
        write_parquet(core.image_table(core.batch_of_images(folder, batch, images.batches), folder), out, IMAGES)
        return written(out)

    return pictures


def _regions(images: "ImageSet", file: "Path") -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.images(images.name, "regions"),
        deps=[keys.images(images.name, "pictures"), keys.images(images.name, "regions_source")],
        partitions_def=keys.partitions(images.batches),
        group_name=f"images_{images.name}",
        kinds={"parquet"},
        code_version=version_of(_REGIONS),
        description="The annotated regions of the batch's pictures: what can be seen where, in words.",
    )
    def regions(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        from latentlens_dag.annotations import read_regions

        batch = int(context.partition_key)
        pictures = pq.read_table(warehouse.paths.pictures(images.name, batch))
        ids = {row["file_name"]: (row["image_id"], row["width"], row["height"]) for row in pictures.to_pylist()}
        out = warehouse.paths.regions(images.name, batch)
        write_parquet(read_regions(file, ids), out, REGIONS)
        return written(out)

    return regions
