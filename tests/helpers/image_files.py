"""The images of a folder, for tests that need no project."""

from pathlib import Path

import pyarrow as pa

from latentlens_dag.inputs.images import ImageFile, image_names, original_files
from latentlens_dag.storage.file_hashes import file_states
from latentlens_dag.storage.hashing import hash_file, shard_of


def list_names(folder: Path) -> pa.Table:
    """The names of the distinct images of a folder, every file of which is read."""
    return image_names(folder, {str(file): hash_file(file) for file in file_states(folder, hidden=True)})


def list_images(folder: Path) -> list[ImageFile]:
    """The distinct images of a folder, sorted by id."""
    return original_files(list_names(folder), folder)


def batch_of_images(folder: Path, batch: int, batches: int) -> list[ImageFile]:
    """Those of one batch, by definition."""
    return [file for file in list_images(folder) if shard_of(file.image_id, batches) == batch]
