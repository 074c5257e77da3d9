"""The assets of a study's own captions: what its VLM says of each image, and which things it names."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.common import dtype_setting, parquet_asset, step_dtype
from latentlens_dag.dag.assets.images import files_of, read_again_if_changed
from latentlens_dag.dag.assets.reporting import ProgressLog, parquet_result
from latentlens_dag.dag.resources import ModelResource, WarehouseResource
from latentlens_dag.dag.specs import StudySpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.schema import CAPTION_OBJECTS, CAPTION_SCORES, GENERATED_CAPTIONS
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse

_CAPTIONS, _OBJECTS, _SCORES = 1, 1, 1  # algorithms


def captioning_assets(study: StudySpec) -> list[dg.AssetsDefinition]:
    """captions[batch]; where the images have regions, caption_objects -> caption_scores."""
    scored = study.images.regions is not None
    return [_captions(study), *([_objects(study), _scores(study)] if scored else [])]


def _captions(study: StudySpec) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.study(study.name, "captions"),
        deps=[study.input_key, study.model_key, keys.study(study.name, "model_checks")],
        partitions_def=keys.partitions(study.batches),
        group_name=study.group,
        kinds={"torch", "parquet"},
        **version_fields(_CAPTIONS, **study.prompt_settings, **dtype_setting(study.dtype)),
        description="What the study's VLM says of each image, greedily.",
    )
    def captions(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, models: ModelResource
    ) -> dg.MaterializeResult:
        from latentlens_dag.inputs.images import read_in_chunks, without_metadata_warnings
        from latentlens_dag.models.captioning import generate_captions

        paths, batch, rows = warehouse.paths, int(context.partition_key), list[dict[str, str]]()
        files = files_of(study.images, paths, pq.read_table(paths.pictures(study.images.name, batch)))
        model = study.model_ref(paths)
        vlm = models.cache.vlm(model, step_dtype(model, study.dtype))
        progress = ProgressLog(context.log.info, "images")
        with read_again_if_changed(paths, study.images), without_metadata_warnings():
            pictures = (picture for some in read_in_chunks(files, 8) for picture in some)
            for file, text in zip(files, generate_captions(vlm, pictures, study.prompt), strict=True):
                rows.append({"study": study.name, "image_id": file.image_id, "caption": text})
                progress(len(rows), len(files))
        out = paths.generated_captions(study.name, batch)
        write_parquet(pa.Table.from_pylist(rows, GENERATED_CAPTIONS), out, GENERATED_CAPTIONS)
        return parquet_result(out)

    return captions


def _objects(study: StudySpec) -> dg.AssetsDefinition:
    def write(paths: Warehouse, _: int) -> list[Path]:
        from latentlens_dag.study.caption_scores import caption_objects

        columns, name = ["image_id", "name", "kind"], study.images.name
        tables = [pq.read_table(paths.regions(name, batch), columns=columns) for batch in range(study.batches)]
        regions = (tuple(row[column] for column in columns) for table in tables for row in table.to_pylist())
        objects = caption_objects(study.name, _captions_of(study, paths), regions)  # type: ignore[arg-type]
        write_parquet(objects, out := paths.summary(study.name, "caption_objects"), CAPTION_OBJECTS)
        return [out]

    return parquet_asset(
        keys.study(study.name, "caption_objects"),
        [keys.study(study.name, "captions"), keys.images(study.images.name, "regions")],
        version_fields(_OBJECTS, batches=study.batches),
        "Which of the things that the images' regions name are in an image, and which its caption names.",
        write,
    )


def _scores(study: StudySpec) -> dg.AssetsDefinition:
    def write(paths: Warehouse, _: int) -> list[Path]:
        from latentlens_dag.study.caption_scores import caption_scores

        objects = pq.read_table(paths.summary(study.name, "caption_objects"))
        table = caption_scores(study.name, objects, sorted(_captions_of(study, paths)))
        write_parquet(table, out := paths.summary(study.name, "caption_scores"), CAPTION_SCORES)
        return [out]

    return parquet_asset(
        keys.study(study.name, "caption_scores"),
        [keys.study(study.name, "captions"), keys.study(study.name, "caption_objects")],
        version_fields(_SCORES, batches=study.batches),
        "How many of the things in an image its caption names, and the other way round, with intervals and chance.",
        write,
    )


def _captions_of(study: StudySpec, paths: Warehouse) -> dict[str, str]:
    """The captions of all images, by image."""
    files = (pq.read_table(paths.generated_captions(study.name, batch)) for batch in range(study.batches))
    return {row["image_id"]: row["caption"] for table in files for row in table.to_pylist()}
