"""The assets of vision features: the frozen encoder, and what it gives for the images of each batch."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.images import files_of, read_again_if_changed
from latentlens_dag.dag.assets.reporting import ProgressLog
from latentlens_dag.dag.assets.sources import model_source
from latentlens_dag.dag.recording import result
from latentlens_dag.dag.resources import ModelResource, WarehouseResource
from latentlens_dag.dag.specs import FeaturesSpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.storage.hashing import hash_file

if TYPE_CHECKING:
    from PIL.Image import Image

    from latentlens_dag.training.vision_encoder import VisionEncoder

_FEATURES = 1  # algorithm
_IMAGES_AT_ONCE = 64


def features_definitions(features: FeaturesSpec) -> dg.Definitions:
    """vision_encoder, and of the image set pictures -> features[batch]."""
    encoder = model_source(keys.features(features.name, "vision_encoder"), features.encoder)
    return dg.Definitions(assets=[encoder, _features(features)])


def encoder_of(features: FeaturesSpec) -> "VisionEncoder":
    """The frozen encoder, loaded; in float32, in which the order of images changes its features by rounding alone."""
    from latentlens_dag.training.vision_encoder import load_vision_encoder

    return load_vision_encoder(features.encoder, features.layer, features.pool)


def _features(features: FeaturesSpec) -> dg.AssetsDefinition:
    images = features.images

    @dg.asset(
        key=keys.features(features.name, "features"),
        deps=[keys.images(images.name, "pictures"), keys.features(features.name, "vision_encoder")],
        partitions_def=keys.partitions(images.batches),
        group_name=f"features/{features.name}",
        kinds={"torch", "transformers"},
        **version_fields(_FEATURES, layer=features.layer, pool=features.pool),
        description="What the frozen vision encoder gives for the visual tokens of the batch's pictures.",
    )
    def asset(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, models: ModelResource
    ) -> dg.MaterializeResult:
        from latentlens_dag.inputs.images import read_in_chunks, without_metadata_warnings
        from latentlens_dag.training.feature_files import write_features

        paths, batch = warehouse.paths, int(context.partition_key)
        files = files_of(images, paths, pq.read_table(paths.pictures(images.name, batch)))
        progress, encoder = (
            ProgressLog(context.log.info, "images"),
            models.cache.kept(
                features.encoder, "float32", f"features {features.layer} {features.pool}", partial(encoder_of, features)
            ),
        )

        def pictures() -> "Iterator[Image]":
            done = 0
            for some in read_in_chunks(files, _IMAGES_AT_ONCE):
                yield from some
                progress(done := done + len(some), len(files))

        out = paths.features(features.name, batch)
        with read_again_if_changed(paths, images), without_metadata_warnings():
            count = write_features(encoder, pictures(), out)
        rows, columns = encoder.grid
        metadata = {"images": count, "visual_tokens": f"{rows} x {columns}", "width": encoder.hidden}
        return result(None, hash_file(out), {**metadata, "size_bytes": out.stat().st_size}, [out])

    return asset
