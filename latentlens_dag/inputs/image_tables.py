"""Extracting the images of a table, a Parquet file or a dataset of the Hub, into files.

A model reads the original bytes, and a table is read only once, so every distinct image is written to a file named by
its id, beside a table of names; from then on it is treated like an image of a folder (`images.py`). Because files are
named by content, no name in a table becomes a path on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn, column_values, rows_of_columns
from latentlens_dag.inputs.images import NAMES, ImageFile, files_of_batch, image_files
from latentlens_dag.storage.arrow_values import OtherValue, python_values, values_or_lists
from latentlens_dag.storage.files import atomic_path
from latentlens_dag.storage.hashing import hash_bytes
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.untrusted_parquet import ParquetReadError, read_batches, read_footer
from latentlens_dag.text.display import name_list

_NAMES_FILE = "names.parquet"
_BATCH = 32  # rows read at a time: images are large


@dataclass(frozen=True)
class ImageColumn:
    """A column of images in a Parquet file: bytes, or bytes with a path as the library `datasets` writes them."""

    path: Path
    column: str
    name: str | None = None
    """The column with the names of the images, if there is one."""

    def __str__(self) -> str:
        """The file, for messages."""
        return str(self.path)


TableSource = ImageColumn | HubColumn


class ImageRow(NamedTuple):
    """One row of a source."""

    content: bytes
    name: str | None


def read_image_rows(source: TableSource) -> Iterator[ImageRow]:
    """Stream the images of a source in its order.

    Raises:
        UserError: if the file is missing or not Parquet, a column is missing, or a row has no bytes; for the Hub, see
            `column_values`.
    """
    for number, (value, name) in enumerate(_values_and_names(source), 1):
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if not isinstance(content, bytes) or not content:
            value = f"only the path {path}" if path else _kind(content)
            raise UserError(
                f"{source}, row {number}: {source.column} holds no bytes of an image ({value}). It must be a column of "
                "bytes, or of bytes and paths as the library `datasets` writes them."
            )
        yield ImageRow(content, name or (path if isinstance(path, str) and path else None))


def read_rows_beside_images(source: TableSource, column: str) -> Iterator[tuple[str, str, Any]]:
    """Image id, place and value of another column, of each row of a source.

    Raises:
        UserError: as `read_image_rows`.
    """
    for number, (value, beside) in enumerate(_values(source, column), 1):
        content = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(content, bytes):  # `read_image_rows` refuses the others
            yield hash_bytes(content), f"{source}, row {number}", beside


def _kind(content: object) -> str:
    if isinstance(content, OtherValue):
        return content.kind
    return "null" if content is None else type(content).__name__


def extract_images(source: TableSource, folder: Path) -> Path:
    """Write the distinct images of a source as files named by their ids, and return the table of their names (NAMES).

    An image without a name is called by the number of its row, from 1. Equal images are written once, with the
    alphabetically first of their names. The folder appears complete or not at all.

    Raises:
        UserError: as `read_image_rows`, and if there are no rows.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        names = _write_files(source, temporary)
        if not names:
            raise UserError(f"{source} holds no image: it has no rows.")
        rows = [{"image_id": image_id, "file_name": names[image_id]} for image_id in sorted(names)]
        write_parquet(pa.Table.from_pylist(rows, NAMES), temporary / _NAMES_FILE)
    return folder / _NAMES_FILE


def extracted_names(folder: Path) -> pa.Table:
    """The names of the extracted images (NAMES), sorted by id."""
    return pq.read_table(folder / _NAMES_FILE)


def extracted_batch(folder: Path, batch: int, batches: int) -> list[ImageFile]:
    """The extracted images of one batch, sorted by id."""
    return extracted_files(files_of_batch(extracted_names(folder), batch, batches), folder)


def extracted_files(images: pa.Table, folder: Path) -> list[ImageFile]:
    """The extracted files of a table of images, as `images.original_files`."""
    paths = [folder / image_id for image_id in images["image_id"].to_pylist()]
    return image_files(images, paths, images["file_name"].to_pylist())


def check_unique_names(names: pa.Table, source: TableSource) -> None:
    """Refuse images of equal names (NAMES), because regions refer to images by name.

    Raises:
        UserError: with the alphabetically first name that occurs more than once.
    """
    import pyarrow.compute as pc

    counts = pc.value_counts(names["file_name"])
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = min(repeated.to_pylist(), key=lambda row: row["values"])
        raise UserError(
            f"Regions refer to images by name, but {source} calls {first['counts']} of them {first['values']}. Give "
            "every image a name of its own."
        )


def _write_files(source: TableSource, folder: Path) -> dict[str, str]:
    """Write the files; return the name of each id."""
    names: dict[str, tuple[bool, Any]] = {}  # sorted with names before row numbers
    for number, (content, name) in enumerate(read_image_rows(source), 1):
        image_id = hash_bytes(content)
        candidate = (True, number) if name is None else (False, PurePosixPath(name))
        if image_id not in names:
            (folder / image_id).write_bytes(content)
        names[image_id] = min(names.get(image_id, candidate), candidate)
    return {image_id: str(name) for image_id, (_, name) in names.items()}


def _values_and_names(source: TableSource) -> Iterator[tuple[Any, str | None]]:
    column = None if isinstance(source, HubColumn) else source.name
    for value, name in _values(source, column, "name"):
        yield value, None if name is None else _name(name, source, column)


def _values(source: TableSource, column: str | None, field: str = "captions.column") -> Iterator[tuple[Any, Any]]:
    """The value of the images' column in each row, and of another; `field` is that of the YAML which names it."""
    if isinstance(source, HubColumn):
        rows = ((value, None) for value in column_values(source, _BATCH))
        yield from rows if column is None else rows_of_columns(source, [source.column, column], _BATCH)
        return
    columns = [source.column, *([column] if column else [])]
    try:
        _check_columns(source, columns, read_footer(source.path).schema.names, field)
        for batch in read_batches(source.path, columns, _BATCH):
            beside = values_or_lists(batch[column]) if column else [None] * len(batch)
            yield from zip(python_values(batch[source.column]), beside, strict=True)
    except ParquetReadError as error:
        raise UserError(
            f"{source} cannot be read as Parquet ({error}): it is missing, damaged or not Parquet."
        ) from error
    except ValueError as error:  # of a text that is not UTF-8
        raise UserError(f"{source} has a text that cannot be read ({error}). Write it again, with UTF-8.") from error


def _name(value: object, source: TableSource, column: str | None) -> str:
    """The name of an image: a text or a number."""
    if not isinstance(value, str | int | float):
        raise UserError(f"{source}: the name {value!r:.80} in column {column} is no text. Name another column.")
    return str(value)


def _check_columns(source: ImageColumn, columns: Sequence[str], existing: Sequence[str], other: str) -> None:
    for field, column in zip(("column", other), columns, strict=False):
        if existing.count(column) > 1:
            raise UserError(f"{source} has several columns {column!r}, of which only one would be read. Rename them.")
        if column not in existing:
            raise UserError(
                f"{source} has no column {column!r}; it has {name_list(existing)}. Correct `{field}` of the image "
                "set's source."
            )
