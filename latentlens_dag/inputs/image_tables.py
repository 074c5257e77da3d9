"""From a table of pictures, a Parquet file or a dataset of the Hub, to files of their own.

A model is shown the original bytes, and a table is read once only, so every distinct picture is written to a file
named by its id, beside a table of names; from there on it is a picture of a folder (`images.py`). What a newcomer
gets wrong: the files are named by content, whatever the table calls its pictures, so no name of the table becomes a
path of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn, column_values
from latentlens_dag.inputs.images import ImageFile, check_unchanged
from latentlens_dag.storage.files import atomic_path
from latentlens_dag.storage.hashing import hash_bytes, shard_of
from latentlens_dag.storage.parquet import write_parquet

NAMES = pa.schema([("image_id", pa.string()), ("file_name", pa.string())])
_NAMES_FILE = "names.parquet"
_BATCH = 32  # rows at a time: pictures are large


@dataclass(frozen=True)
class ImageColumn:
    """A column of a Parquet file that holds pictures: bytes, or bytes with a path as `datasets` writes them."""

    path: Path
    column: str
    name: str | None = None
    """The column of their names, where there is one."""

    def __str__(self) -> str:
        """What it is called in a message."""
        return str(self.path)


TableSource = ImageColumn | HubColumn


class ImageRow(NamedTuple):
    """One row of a source."""

    content: bytes
    name: str | None


def read_image_rows(source: TableSource) -> Iterator[ImageRow]:
    """The pictures of a source in its order, never all in memory.

    Raises:
        UserError: where the file is missing or no Parquet, a column is missing, or a row holds no bytes; of the Hub,
            as `column_values`.
    """
    rows = _hub_rows(source) if isinstance(source, HubColumn) else _parquet_rows(source)
    for number, (value, name) in enumerate(rows, 1):
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if not isinstance(content, bytes) or not content:
            held = f"only the path {path}" if path else f"{type(content).__name__ if content is not None else 'null'}"
            raise UserError(
                f"{source}, row {number}: {source.column} holds no bytes of a picture ({held}). It must be a column of "
                "bytes, or of bytes and paths as the library `datasets` writes them."
            )
        yield ImageRow(content, name or path)


def extract_images(source: TableSource, folder: Path) -> Path:
    """Write the distinct pictures of a source as files named by their ids; give the table of their names (NAMES).

    A picture without a name has the number of its row, from 1. Of equal pictures one is kept, with the first of their
    names in the order of the alphabet. The folder is there whole or not at all.

    Raises:
        UserError: as `read_image_rows`, and where there is no row.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        names = _write_files(source, temporary)
        if not names:
            raise UserError(f"{source} holds no picture: it has no rows.")
        rows = [{"image_id": image_id, "file_name": names[image_id]} for image_id in sorted(names)]
        write_parquet(pa.Table.from_pylist(rows, NAMES), temporary / _NAMES_FILE)
    return folder / _NAMES_FILE


def extracted_batch(folder: Path, batch: int, batches: int) -> list[ImageFile]:
    """The written pictures of one batch, in order of id."""
    names = pq.read_table(folder / _NAMES_FILE).to_pylist()
    mine = [row for row in names if shard_of(row["image_id"], batches) == batch]
    return [ImageFile(row["image_id"], folder / row["image_id"], row["file_name"]) for row in mine]


def extracted_files(images: pa.Table, folder: Path) -> list[ImageFile]:
    """The written pictures of a table of pictures (IMAGES); errors as `images.original_files`."""
    rows = zip(images["image_id"].to_pylist(), images["file_name"].to_pylist(), strict=True)
    return check_unchanged([ImageFile(image_id, folder / image_id, name) for image_id, name in rows])


def check_unique_names(folder: Path, source: TableSource) -> None:
    """Refuse pictures of equal names, where something is to be found by their names.

    Raises:
        UserError: naming the first.
    """
    names = pq.read_table(folder / _NAMES_FILE)["file_name"].to_pylist()
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise UserError(
            f"Regions are found by the names of pictures, but {source} calls {names.count(twice[0])} of them "
            f"{twice[0]}. Give every picture a name of its own."
        )


def _write_files(source: TableSource, folder: Path) -> dict[str, str]:
    """Write the files; give the name of each id."""
    best: dict[str, tuple[bool, Any]] = {}  # names before numbers
    for number, (content, name) in enumerate(read_image_rows(source), 1):
        image_id = hash_bytes(content)
        called = (True, number) if name is None else (False, PurePosixPath(name))
        if image_id not in best:
            (folder / image_id).write_bytes(content)
        best[image_id] = min(best.get(image_id, called), called)
    return {image_id: str(called) for image_id, (_, called) in best.items()}


def _hub_rows(source: HubColumn) -> Iterator[tuple[Any, None]]:
    return ((value, None) for value in column_values(source, _BATCH))


def _parquet_rows(source: ImageColumn) -> Iterator[tuple[Any, str | None]]:
    columns = [source.column, *([source.name] if source.name else [])]
    try:
        with pq.ParquetFile(source.path) as file:
            _check_columns(source, columns, file.schema_arrow.names)
            for batch in file.iter_batches(_BATCH, columns=columns):
                names = batch[source.name].to_pylist() if source.name else [None] * len(batch)
                yield from zip(batch[source.column].to_pylist(), map(_as_name, names), strict=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{source} cannot be read as Parquet ({error}): it is missing, damaged or no Parquet."
        ) from error


def _as_name(name: object) -> str | None:
    return None if name is None else str(name)


def _check_columns(source: ImageColumn, columns: Sequence[str], existing: Sequence[str]) -> None:
    for field, column in zip(("column", "name"), columns, strict=False):
        if column not in existing:
            raise UserError(
                f"{source} has no column {column!r}; it has {', '.join(existing)}. Correct `{field}` of the image "
                "set's source."
            )
