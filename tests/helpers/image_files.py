"""The images of a folder, for tests that need no project."""

from pathlib import Path

from latentlens_dag.inputs.images import ImageFile, image_names, original_files
from latentlens_dag.storage.hashing import shard_of


def list_images(folder: Path) -> list[ImageFile]:
    """The distinct images of a folder, sorted by id."""
    return original_files(image_names(folder), folder)


def batch_of_images(folder: Path, batch: int, batches: int) -> list[ImageFile]:
    """Those of one batch, by definition."""
    return [file for file in list_images(folder) if shard_of(file.image_id, batches) == batch]
