"""Captions of images, which a connector learns from: beside the pictures, in a file, or in the table of the pictures.

A caption belongs to an image by the name that the image has in the set (`images.NAMES`), or by its row in the table
that the images come from. Of images with equal bytes a folder counts the first name, a table all rows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.errors import UserError
from latentlens_dag.inputs.image_tables import TableSource, read_rows_beside_images
from latentlens_dag.inputs.texts import (
    check_column,
    checked_text,
    file_errors,
    read_json_lines,
    read_lines,
    stripped_text,
)
from latentlens_dag.schema import CAPTIONS
from latentlens_dag.storage.arrow_values import values_or_lists
from latentlens_dag.storage.file_hashes import files_below
from latentlens_dag.storage.hashing import shards_of
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.split_input import NumberedRows
from latentlens_dag.storage.untrusted_parquet import ParquetReadError, read_batches, read_footer

MOST_CAPTIONS = 1000
"""Of an image."""
_ROWS = 2048  # read at a time
_PAIRS = pa.schema([field for field in CAPTIONS if field.name != "caption_index"])


@dataclass(frozen=True)
class CaptionFolder:
    """A folder with a text per image: a/b.txt for a/b.png, a caption on each line."""

    path: Path


@dataclass(frozen=True)
class CaptionFile:
    """A file with an image's name and a caption, or a list of captions, in each row."""

    kind: Literal["jsonl", "parquet"]
    path: Path
    name: str = "file_name"
    """The column of names."""
    column: str = "caption"
    patches: str | None = None
    """The column with the numbers of the patches that a caption is about, null for the whole image."""
    grid: tuple[int, int] | None = None
    """Rows and columns of the patches, which are numbered row by row from 0."""


@dataclass(frozen=True)
class CaptionColumn:
    """A column of the table that the images come from."""

    images: TableSource
    column: str = "caption"


CaptionSource = CaptionFolder | CaptionFile | CaptionColumn


class Caption(NamedTuple):
    """A caption of an image, or of some of its patches."""

    text: str
    patches: tuple[int, ...] | None = None
    """Their numbers, ascending; None for the whole image."""
    grid: tuple[int, int] | None = None
    """Rows and columns of the patches; None for the whole image."""


class UnknownImages(Counter[str]):
    """Names in a file of captions that are no images of the set, and how often each comes."""

    def __str__(self) -> str:
        """A sentence; empty where there are none."""
        if not self:
            return ""
        first = ", ".join(repr(name) for name in sorted(self)[:3])
        return f"Left out, since the set has no images of these names: {self.total():,} captions, such as of {first}."


def captions_by_batch(
    source: CaptionSource, names: pa.Table, batches: int, unknown: UnknownImages
) -> Iterator[NumberedRows]:
    """All captions in the order of the source, with the batch of each one's image.

    Args:
        source: where they are.
        names: id and name of every image of the set (`images.NAMES`).
        batches: their number.
        unknown: receives the names that are none of the set's, which are left out.

    Raises:
        UserError: if the source cannot be read, a column is missing, a caption is no text, too long or no UTF-8, or no
            caption is of an image of the set.
    """
    ids = dict(zip(names["file_name"].to_pylist(), names["image_id"].to_pylist(), strict=True))
    pairs, found = _pairs(source, ids, unknown), 0
    while some := list(islice(pairs, _ROWS)):
        rows = pa.Table.from_pylist([{"image_id": image, **_columns(caption)} for image, caption in some], _PAIRS)
        found += len(rows)
        yield NumberedRows(rows, shards_of(rows["image_id"], batches))
    if not found:
        raise UserError(_none_found(source, unknown, list(ids)))


def write_captions(rows: Iterable[pa.Table], out: Path) -> int:
    """Write the captions of a batch's images (CAPTIONS), each once for an image; return their number.

    Raises:
        UserError: if an image has more than MOST_CAPTIONS.
    """
    of_image: dict[str, dict[Caption, None]] = {}
    for table in rows:
        for row in table.to_pylist():
            of_image.setdefault(row["image_id"], {})[_caption(row)] = None
    if crowded := next((image for image, texts in of_image.items() if len(texts) > MOST_CAPTIONS), None):
        raise UserError(
            f"Image {crowded} has {len(of_image[crowded]):,} captions, and {MOST_CAPTIONS:,} are the most. Is `name` "
            "the column of the images' names?"
        )
    found = [
        {"image_id": image, "caption_index": number, **_columns(caption)}
        for image in sorted(of_image)
        for number, caption in enumerate(of_image[image])
    ]
    write_parquet(pa.Table.from_pylist(found, CAPTIONS), out, CAPTIONS)
    return len(found)


def read_captions(files: Sequence[Path]) -> dict[str, list[Caption]]:
    """The captions of each image, in order, from files that `write_captions` wrote."""
    found: dict[str, list[Caption]] = {}
    for file in files:
        for row in pq.read_table(file).to_pylist():
            found.setdefault(row["image_id"], []).append(_caption(row))
    return found


def _columns(caption: Caption) -> dict[str, object]:
    return {"caption": caption.text, "patches": caption.patches, "grid": caption.grid}


def _caption(row: Mapping[str, Any]) -> Caption:
    patches, grid = (None if row[name] is None else tuple(row[name]) for name in ("patches", "grid"))
    return Caption(row["caption"], patches, grid)  # type: ignore[arg-type]


def _pairs(source: CaptionSource, ids: Mapping[str, str], unknown: UnknownImages) -> Iterator[tuple[str, Caption]]:
    """Image and caption, without empty ones."""
    match source:
        case CaptionFolder():
            yield from _beside(source, ids)
        case CaptionColumn():
            for image, place, value in read_rows_beside_images(source.images, source.column):
                yield from ((image, Caption(text)) for text in _texts(value, place, source.column))
        case CaptionFile():
            for place, name, value, patches in _named(source):
                texts, about = _texts(value, place, source.column), _patches(patches, source, place)
                known = ids.get(name)
                if known is None:
                    unknown.update([name] * len(texts))
                else:
                    yield from ((known, Caption(text, about, source.grid if about else None)) for text in texts)


def _beside(source: CaptionFolder, ids: Mapping[str, str]) -> Iterator[tuple[str, Caption]]:
    """The texts that lie below the folder: a name in a table of pictures, as `../a.png`, is never opened as a path."""
    files = _texts_below(source.path)
    for name, image in ids.items():
        if (file := files.get(_without_suffix(name))) is not None:
            with file_errors(file, "text"):
                for place, line in read_lines(file):
                    if text := stripped_text(line, f"{file}, {place}", "caption"):
                        yield image, Caption(text)


def _texts_below(folder: Path) -> dict[str, Path]:
    """The files .txt below a folder, by their paths in it without the suffix."""
    start = len(os.path.join(folder, ""))  # noqa: PTH118 - with the slash
    files = (Path(file) for file in files_below(folder, hidden=True) if file.endswith(".txt"))
    return {str(file)[start:].replace(os.sep, "/").removesuffix(".txt"): file for file in files if file.is_file()}


def _without_suffix(name: str) -> str:
    """A name without its last suffix, as `a/b` of `a/b.png`; of a name without one, the name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + os.path.splitext(file)[0]  # noqa: PTH122 - of no path


def _named(source: CaptionFile) -> Iterator[tuple[str, str, Any, Any]]:
    """Place, name of the image, value and patches of each row."""
    if not source.path.is_file():
        raise UserError(f"The file of captions {source.path} does not exist. Correct `captions` in the defs.yaml.")
    with file_errors(source.path, source.kind):
        for place, row in _json_rows(source) if source.kind == "jsonl" else _parquet_rows(source):
            name = row[source.name]
            if not isinstance(name, str):
                raise UserError(
                    f"{place}: {source.name} is {name!r:.80}, not the name of an image. Correct `name` of `captions`."
                )
            yield place, name, row[source.column], None if source.patches is None else row[source.patches]


def _json_rows(source: CaptionFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for line, row in read_json_lines(source.path):
        place = f"{source.path}, {line}"
        _check_columns(source, row, place)
        yield place, row


def _parquet_rows(source: CaptionFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        existing = read_footer(source.path).schema.names
        _check_columns(source, existing, str(source.path))
        columns, rows = list(dict.fromkeys(filter(None, [source.name, source.column, source.patches]))), 0
        for batch in read_batches(source.path, columns, _ROWS):
            values = zip(*(values_or_lists(batch[column]) for column in columns), strict=True)
            for number, row in enumerate(values, rows + 1):
                yield f"{source.path}, row {number}", dict(zip(columns, row, strict=True))
            rows += len(batch)
    except ParquetReadError as error:
        raise UserError(f"{source.path} is not a Parquet file, or is damaged ({error}). Write it again.") from error


def _check_columns(source: CaptionFile, existing: Iterable[str], place: str) -> None:
    names = list(existing)
    for field in ("name", "column", "patches"):
        if (column := getattr(source, field)) is not None:
            check_column(column, names, place, f"`{field}` of `captions`")


def _patches(value: Any, source: CaptionFile, place: str) -> tuple[int, ...] | None:
    """The numbers of the patches that a caption is about, ascending; None for the whole image."""
    if value is None or source.grid is None:
        return None
    most = source.grid[0] * source.grid[1]
    if not isinstance(value, list) or not value or any(type(one) is not int or not 0 <= one < most for one in value):
        raise UserError(
            f"{place}: {source.patches} is {value!r:.80}, but must be a list of patches, numbered from 0 to {most - 1} "
            f"(`grid` of `captions`), or null for the whole image."
        )
    return tuple(sorted(set(value)))


def _texts(value: Any, place: str, column: str) -> list[str]:
    """The captions of a value: a text, a list of texts, or null; without empty ones."""
    values = value if isinstance(value, list) else [value]
    found = (stripped_text(checked_text(one, place, column), place, "caption") for one in values)
    return [text for text in found if text]


def _none_found(source: CaptionSource, unknown: UnknownImages, known: Sequence[str]) -> str:
    from latentlens_dag.inputs.regions import unknown_images  # imports polars

    if isinstance(source, CaptionFile) and unknown:
        return unknown_images(source.path, Counter(dict(unknown)), known)
    if isinstance(source, CaptionFolder):
        example = f"{_without_suffix(known[0])}.txt" if known else "a/b.txt"
        return (
            f"{source.path} has no caption: each picture's captions are the lines of a text of its name, such as "
            f"{example} for {known[0] if known else 'a/b.png'}. Correct `captions`, or leave it out."
        )
    place = source.path if isinstance(source, CaptionFile) else source.images
    return f"{place} has no caption: every {source.column} is empty. Correct `column` of `captions`."
