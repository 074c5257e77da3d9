"""The assets of an image set: its source, its images in batches, their annotated regions.

Note: the images of a table get files of their own (`originals`); those of a folder stay there, and `names` lists them
with the hashes that the observation of the source has computed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.captions import captions_assets, names_of
from latentlens_dag.dag.assets.common import InputSpec, parquet_asset, split_asset
from latentlens_dag.dag.assets.reporting import tell_left_out
from latentlens_dag.dag.assets.sources import data_source, file_source, observed_file
from latentlens_dag.dag.recording import last_observed_version
from latentlens_dag.dag.specs import ImageSetSpec
from latentlens_dag.dag.versions import hashes_version, version_fields
from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn
from latentlens_dag.inputs import images as core
from latentlens_dag.inputs.captions import CaptionFolder
from latentlens_dag.inputs.image_tables import (
    TableSource,
    extract_images,
    extracted_batch,
    extracted_files,
)
from latentlens_dag.schema import IMAGES, REGIONS
from latentlens_dag.storage.file_hashes import file_hashes, forget_hash
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.shapes import ImageSetShape
from latentlens_dag.storage.split_input import NumberedRows
from latentlens_dag.storage.warehouse import Warehouse

_NAMES, _ORIGINALS, _PICTURES, _REGIONS = 1, 1, 2, 2  # algorithms


def image_definitions(images: ImageSetSpec) -> dg.Definitions:
    """source -> names, or originals -> pictures[batch].

    Where there are regions, regions_source -> regions[batch]; where there are captions, captions_source ->
    captions[batch].
    """
    source = images.source
    assets: list[Any] = [data_source(keys.images(images.name, "source"), source), _pictures(images)]
    assets.append(_names(images, source) if isinstance(source, Path) else _originals(images, source))
    if images.regions is not None:
        regions_source = file_source(keys.images(images.name, "regions_source"), images.regions)
        assets += [regions_source, _regions(images, images.regions)]
    if images.captions is not None:
        assets += captions_assets(images, images.captions)
    return dg.Definitions(assets=assets)


@contextmanager
def read_again_if_changed(paths: Warehouse, images: ImageSetSpec) -> Iterator[None]:
    """Where the file of an image proves to be changed, have the next build read the image from its source again.

    The file's size and time may be as before, and then no observation would see it, nor a second build help.

    Raises:
        UserError: for the `ChangedFileError` of such a file.
    """
    try:
        yield
    except core.ChangedFileError as error:
        if isinstance(images.source, Path):
            forget_hash(error.path, observed_file(paths, keys.images(images.name, "source")))
        else:
            store = ArtifactStore(paths.root)
            originals = store.read(keys.images(images.name, "originals").to_user_string(), None)
            if originals is not None:
                store.mark_damaged(originals, f"{error.path.relative_to(paths.root)} was changed or removed")
        raise UserError(str(error)) from error


def files_of(images: ImageSetSpec, paths: Warehouse, pictures: pa.Table) -> list[core.ImageFile]:
    """The files of some pictures of a set, in their order."""
    if isinstance(images.source, Path):
        return core.original_files(pictures, images.source)
    return extracted_files(pictures, paths.originals(images.name))


def _check_observed(source: dg.AssetKey, folder: Path, hashes: Mapping[str, str]) -> None:
    """Refuse hashes of another state of the folder than the one that is recorded as the input.

    Otherwise names with ids of a state in between would count as fresh once the folder is changed back.
    """
    observed = last_observed_version(dg.AssetExecutionContext.get().instance, source)
    if observed is not None and observed != hashes_version(hashes, folder):
        raise UserError(
            f"The image folder {folder} was changed after it was last observed, perhaps while the study was being "
            f"built. Build again; in Dagster's UI, observe {source.to_user_string()} first."
        )


def _tell_left_out(report: core.FolderReport) -> None:
    """Say in the step's log and metadata what of the folder is no image of the set, and why."""
    context = dg.AssetExecutionContext.get()
    tell_left_out(context, str(report))
    counts = {"other_files": sum(report.others.values()), "linked_folders": len(report.linked_folders)}
    counts |= {"repeated_images": report.repeated, "hidden_images": report.hidden}
    context.add_output_metadata(counts)


def _read_as_captions(images: ImageSetSpec) -> list[str]:
    """The suffix of the texts that lie beside the pictures and are read as captions."""
    beside = isinstance(images.captions, CaptionFolder) and images.captions.path == images.source
    return [".txt"] if beside else []


def _names(images: ImageSetSpec, folder: Path) -> dg.AssetsDefinition:
    source = keys.images(images.name, "source")

    def write(paths: Warehouse, _: int) -> list[Path]:
        hashes = file_hashes(folder, observed_file(paths, source), hidden=True)
        names = core.image_names(folder, hashes)
        _check_observed(source, folder, hashes)
        write_parquet(names, out := paths.image_names(images.name))
        _tell_left_out(core.report_folder(folder, hashes, _read_as_captions(images)))
        return [out]

    return parquet_asset(
        keys.images(images.name, "names"),
        [source],
        version_fields(_NAMES),
        "The distinct pictures of the source, by their ids, and their names.",
        write,
    )


def _originals(images: ImageSetSpec, source: TableSource) -> dg.AssetsDefinition:
    # A file's name does not decide the images; its content has a version of its own.
    fields = asdict(source) if isinstance(source, HubColumn) else {"column": source.column, "name": source.name}

    def write(paths: Warehouse, _: int) -> list[Path]:
        folder = paths.originals(images.name)
        return [extract_images(source, folder), folder]

    return parquet_asset(
        keys.images(images.name, "originals"),
        [keys.images(images.name, "source")],
        version_fields(_ORIGINALS, **fields),
        "The distinct pictures of the source, as files named by their ids, and their names.",
        write,
    )


def _pictures(images: ImageSetSpec) -> dg.AssetsDefinition:
    source = images.source
    # Files of regions and captions that the set had before may still exist; no reader is to count them. A set without
    # captions has the shape and version that it had before there were any.
    beside: dict[str, Any] = {} if images.regions is not None else {"regions": False}
    beside |= {} if images.captions is None else {"captions": True}

    def write(paths: Warehouse, batch: int) -> list[Path]:
        ImageSetShape(parts=images.batches, **beside).write(paths.shape("images", images.name))
        out = paths.pictures(images.name, batch)
        if isinstance(source, Path):
            names = core.files_of_batch(pq.read_table(paths.image_names(images.name)), batch, images.batches)
            folder, files = source, core.original_files(names, source)
        else:
            folder = paths.originals(images.name)
            files = extracted_batch(folder, batch, images.batches)
        with read_again_if_changed(paths, images):
            write_parquet(core.image_table(files, folder), out, IMAGES)
        return [out, paths.shape("images", images.name)]

    return parquet_asset(
        keys.images(images.name, "pictures"),
        [keys.images(images.name, "names" if isinstance(source, Path) else "originals")],
        version_fields(_PICTURES, batches=images.batches, **beside),
        "Ids, names, sizes and thumbnails of the pictures whose ids fall into the batch.",
        write,
        images.batches,
    )


def _regions(images: ImageSetSpec, file: Path) -> dg.AssetsDefinition:
    def read(paths: Warehouse) -> Iterator[NumberedRows]:
        from latentlens_dag.inputs.regions import regions_by_batch

        names = names_of(images, paths)
        return regions_by_batch(file, names, images.batches)

    def write(paths: Warehouse, batch: int, rows: Iterable[pa.Table]) -> list[Path]:
        from latentlens_dag.inputs.regions import read_regions

        columns = ["file_name", "image_id", "width", "height"]  # not the thumbnails
        pictures = pq.read_table(paths.pictures(images.name, batch), columns=columns)
        ids = {row["file_name"]: (row["image_id"], row["width"], row["height"]) for row in pictures.to_pylist()}
        out = paths.regions(images.name, batch)
        write_parquet(read_regions(file, rows, ids), out, REGIONS)
        return [out]

    decided_by = [keys.images(images.name, "names" if isinstance(images.source, Path) else "originals")]
    decided_by.append(keys.images(images.name, "regions_source"))
    return split_asset(
        keys.images(images.name, "regions"),
        [keys.images(images.name, "pictures"), keys.images(images.name, "regions_source")],
        version_fields(_REGIONS),
        "The annotated regions of the batch's pictures: what can be seen where, in words.",
        InputSpec(decided_by, read),
        write,
        images.batches,
    )
