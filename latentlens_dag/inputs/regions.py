"""Annotated regions of images: reading and validating a user's file, and measuring how regions cover patches.

A region is a run-length encoded mask or, without one, a box, in pixels of the original image.

Note: a patch need not be aligned to pixels, nor lie inside the image. Processors resize and pad, so the box of a patch
has fractional edges, which weight a pixel by the covered area, and may extend beyond the image, where no region is.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.schema import REGIONS
from latentlens_dag.storage.hashing import shards_of
from latentlens_dag.storage.split_input import NumberedRows
from latentlens_dag.storage.untrusted_parquet import ParquetReadError, read_batches, read_footer
from latentlens_dag.text.display import name_list

Pixels = npt.NDArray[np.bool_] | npt.NDArray[np.float64]
"""[H, W]: whether each pixel belongs to something, or which fraction of it does."""
OBJECT, BACKGROUND = "object", "background"
KINDS = (OBJECT, BACKGROUND)
_OPTIONAL = ("abstract_words", "mask")
_ROWS = 4096  # read at a time: masks are large
_ROWS_IN_PYTHON, _BYTES_IN_PYTHON = 256, 8 << 20  # at a time: a number of 4 bytes takes up to 36 there
MAX_RUNS = 4_000_000
"""The most runs of a mask; that of a photo's object has some hundred."""
MAX_WORDS = 10_000
"""The most words of a region."""
MAX_REGIONS = 10_000
"""The most regions of an image: each is compared with all of its pixels."""
_NAMED = 3  # files that a message names
_FILE_SCHEMA = pa.schema([("file_name", pa.string()), *(field for field in REGIONS if field.name != "image_id")])


def encode_mask(mask: npt.NDArray[np.bool_]) -> list[int]:
    """The run lengths of a bool [H, W] mask: row-major, alternating, starting with pixels outside (may be 0)."""
    flat = np.concatenate([[False], np.asarray(mask, bool).ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(run) for run in np.diff(changes, prepend=0, append=flat.size - 1)]


def decode_mask(runs: Iterable[int], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Invert `encode_mask`: the bool [height, width] mask.

    Raises:
        ValueError: if a run is negative or the runs do not add up to the image's pixels.
    """
    lengths = _run_lengths(runs, width, height)
    return np.repeat(np.arange(lengths.size) % 2 == 1, lengths).reshape(height, width)


def _run_lengths(runs: Iterable[int], width: int, height: int) -> npt.NDArray[np.int64]:
    """The runs of a mask; errors as in `decode_mask`."""
    lengths = np.fromiter(runs, np.int64)
    if (lengths < 0).any() or lengths.sum() != width * height:
        raise ValueError(
            f"the runs add up to {lengths.sum():,} pixels (shortest run: {lengths.min(initial=0)}), "
            f"but the image has {width} x {height} = {width * height:,}"
        )
    return lengths


def region_rows(path: Path) -> Iterator[pa.Table]:
    """Stream a file of regions: its columns, cast to the types of REGIONS, and the number of each row, from 1.

    Args:
        path: Parquet with file_name, region_id, kind, name, words, abstract_words, x0, y0, x1, y1, mask;
            abstract_words and mask may be missing, and are null then.

    Raises:
        UserError: if the file cannot be read, or a column is missing or cannot be cast.
    """
    number = 1
    for table in _read_columns(path):
        numbers = np.arange(number, number + len(table))
        _check_lengths(path, table, number)
        yield table.append_column("row", pa.array(numbers))
        number += len(table)


def _check_lengths(path: Path, table: pa.Table, number: int) -> None:
    """Refuse lists that no region has, before they become objects of Python; `number` is that of the first row."""
    import pyarrow.compute as pc

    for column, most in (("mask", MAX_RUNS), ("words", MAX_WORDS), ("abstract_words", MAX_WORDS)):
        lengths = pc.fill_null(pc.list_value_length(table[column]), 0).to_numpy()
        if lengths.max(initial=0) > most:
            longest = int(lengths.argmax())
            raise UserError(
                f"{path}, row {number + longest}: {column} has {lengths[longest]:,} entries, and {most:,} are the "
                "most. Simplify the region or remove it."
            )


def regions_by_batch(path: Path, names: pa.Table, batches: int) -> Iterator[NumberedRows]:
    """The rows of `region_rows`, with the batch of each one's image.

    Args:
        path: as of `region_rows`.
        names: id and name of every image of the set (`images.NAMES`).
        batches: their number.

    Raises:
        UserError: after the last row, if any is of a file that is no image of the set.
    """
    import pyarrow.compute as pc

    known, batch_of = names["file_name"].combine_chunks(), shards_of(names["image_id"], batches)
    unknown = Counter[str | None]()
    for rows in region_rows(path):
        places = pc.fill_null(pc.index_in(rows["file_name"], known), -1).to_numpy()
        unknown.update(rows["file_name"].filter(pa.array(places < 0)).to_pylist())
        yield NumberedRows(rows, np.where(places < 0, -1, batch_of[places]))
    if unknown:
        raise UserError(unknown_images(path, unknown, known.to_pylist()))


def unknown_images(path: Path, unknown: Counter[str | None], known: Sequence[str]) -> str:
    """What to say about regions of files that are no images of the set, by the name of the file."""
    names = sorted(unknown, key=str)
    named = ", ".join(map(repr, names[:_NAMED])) + (f" and {len(names) - _NAMED:,} more" if names[_NAMED:] else "")
    alike = {_bare_name(name): name for name in reversed(known)}
    pairs = ((name, alike.get(_bare_name(name))) for name in names if name is not None)
    meant = next((_question(name, other) for name, other in pairs if other is not None), "")
    return (
        f"{path}: rows about images that the set does not have: {unknown.total():,}, of {named}.{meant} `file_name` is "
        f"the name of an image as the table `images` has it, such as {known[0]!r}: its path in the folder of the "
        "source, or its name in the table, letter by letter; of images with equal bytes, the first name. Correct the "
        "names, or remove these rows."
    )


def _question(name: str, other: str) -> str:
    looks_the_same = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
    written = ascii if looks_the_same else repr
    return f" Is {written(name)} the image {written(other)}?"


def _bare_name(name: str) -> str:
    """What names that mean the same file have in common: no folders, composed letters (NFC), no case."""
    return unicodedata.normalize("NFC", name).casefold().replace("\\", "/").rpartition("/")[2]


def read_regions(path: Path, rows: Iterable[pa.Table], ids: Mapping[str, tuple[str, int, int]]) -> pa.Table:
    """Validate the regions of some images.

    Args:
        path: their file, for messages.
        rows: of `region_rows`.
        ids: (image_id, width, height) by file name. Rows of other files are skipped (`regions_by_batch` refuses them).

    Returns:
        A table with the schema REGIONS, sorted by image_id, region_id.

    Raises:
        UserError: for the first invalid value, with file, row (from 1) and column.
    """
    schema = REGIONS.append(pa.field("file_name", pa.string()))
    # A few at a time: a mask as Python integers takes much memory.
    some = (group.to_pylist() for table in rows for group in _small_groups(table))
    known = ([row for row in group if row["file_name"] in ids] for group in some)
    valid = ([_validated(path, row, ids[row["file_name"]]) for row in group] for group in known)
    regions = pa.concat_tables([schema.empty_table(), *(pa.Table.from_pylist(group, schema) for group in valid)])
    regions = regions.sort_by([("image_id", "ascending"), ("region_id", "ascending")])
    _refuse_repetition(path, regions)
    _refuse_crowd(path, regions)
    return regions.select(REGIONS.names).combine_chunks()


def _small_groups(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """A table in groups of few rows and bytes; a row alone may have more."""
    waiting = table.to_batches(max_chunksize=_ROWS_IN_PYTHON)[::-1]
    while waiting:
        group = waiting.pop()
        if len(group) == 1 or group.nbytes <= _BYTES_IN_PYTHON:
            yield group
        else:
            half = len(group) // 2
            waiting += [group.slice(half), group.slice(0, half)]


def _refuse_crowd(path: Path, regions: pa.Table) -> None:
    """Refuse an image of more regions than can be compared with its pixels."""
    counts = pl.DataFrame(regions.select(["file_name"])).group_by("file_name").len().filter(pl.col("len") > MAX_REGIONS)
    for file_name, count in counts.sort("file_name").head(1).iter_rows():
        raise UserError(f"{path}: {file_name!r} has {count:,} regions, and {MAX_REGIONS:,} are the most of an image.")


def _refuse_repetition(path: Path, regions: pa.Table) -> None:
    """Refuse sorted regions of which two have the same image and id."""
    keys = pl.DataFrame(regions.select(["image_id", "region_id", "file_name"]))
    repeated = keys.filter(pl.struct("image_id", "region_id") == pl.struct("image_id", "region_id").shift(-1))
    for _, region_id, file_name in repeated.head(1).iter_rows():
        raise UserError(
            f"{path}: region_id {region_id!r} comes twice for {file_name!r}. "
            "Within an image every region needs an id of its own."
        )


class Coverage(NamedTuple):
    """How much of each of T patches the regions of an image cover."""

    regions: npt.NDArray[np.float32]
    """[T, R]: the share that each of R regions covers, in 0..1."""
    objects: npt.NDArray[np.float32]
    """[T]: the share that objects cover; a pixel of several objects counts once."""


def patch_coverage(regions: pa.Table, boxes: npt.NDArray[np.float32], width: int, height: int) -> Coverage:
    """The shares of patches that regions cover, each mask decoded once.

    Args:
        regions: REGIONS of one image, R rows.
        boxes: [T, 4] x0, y0, x1, y1 in pixels of the original image; may have fractional edges and extend beyond it.
        width: of the original image, in pixels.
        height: of the original image, in pixels.

    Returns:
        Shares of the whole area of the patch, including its part outside the image.
    """
    covers, objects = [], np.zeros((height, width), np.bool_)
    kinds = regions.column("kind").to_pylist()
    for kind, pixels in zip(kinds, region_pixels(regions, width, height), strict=True):
        covers.append(box_coverage(pixels, boxes))
        if kind == OBJECT:
            objects = np.maximum(objects, pixels)
    by_region = np.stack(covers, axis=1) if covers else np.zeros((len(boxes), 0), np.float32)
    return Coverage(by_region, box_coverage(objects, boxes))


def region_pixels(regions: pa.Table, width: int, height: int) -> Iterator[Pixels]:
    """[height, width] for each region: the fraction of each pixel that belongs to it; bool of a mask."""
    rows = pl.DataFrame(regions)  # Arrow's own `to_numpy` imports pandas, for which a page would wait
    edges = rows.select("x0", "y0", "x1", "y1").to_numpy()
    for mask, (x0, y0, x1, y1) in zip(rows["mask"], edges, strict=True):
        if mask is not None:
            yield decode_mask(mask.to_numpy(), width, height)
        else:
            yield np.outer(_overlap(y0, y1, height), _overlap(x0, x1, width))


def box_coverage(pixels: Pixels, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean [T] of `pixels` [H, W] over each box [T, 4]; 0 outside the image and for an empty box."""
    integral = _integral(pixels)
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).reshape(-1, 4).T
    total = _at(integral, x1, y1) - _at(integral, x0, y1) - _at(integral, x1, y0) + _at(integral, x0, y0)
    area = (x1 - x0) * (y1 - y0)
    return np.divide(total, area, out=np.zeros_like(total), where=area > 0).clip(0, 1).astype(np.float32)


def _integral(pixels: Pixels) -> npt.NDArray[np.float64] | npt.NDArray[np.int32]:
    """[H + 1, W + 1]: the sum of the pixels above and to the left of each corner."""
    height, width = pixels.shape
    # Counts are exact as integers, and several times as fast.
    integral = np.zeros((height + 1, width + 1), np.int32 if pixels.dtype == np.bool_ else np.float64)
    integral[1:, 1:] = pixels
    np.cumsum(integral, axis=0, out=integral)
    np.cumsum(integral, axis=1, out=integral)
    return integral


def _at(
    integral: npt.NDArray[np.float64] | npt.NDArray[np.int32], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The integral image at any point; it is bilinear within a pixel, so interpolation is exact."""
    x, y = np.clip(x, 0, integral.shape[1] - 1), np.clip(y, 0, integral.shape[0] - 1)
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    right, below = np.minimum(column + 1, integral.shape[1] - 1), np.minimum(row + 1, integral.shape[0] - 1)
    u, v = x - column, y - row
    above = integral[row, column] * (1 - u) + integral[row, right] * u
    under = integral[below, column] * (1 - u) + integral[below, right] * u
    return above * (1 - v) + under * v


def _overlap(start: float, end: float, pixels: int) -> npt.NDArray[np.float64]:
    """The length [pixels] of the overlap of each pixel [i, i + 1] with [start, end]."""
    left = np.arange(pixels, dtype=np.float64)
    shared: npt.NDArray[np.float64] = np.minimum(left + 1, end) - np.maximum(left, start)
    return shared.clip(0, 1)


def _read_columns(path: Path) -> Iterator[pa.Table]:
    """The file's columns, some rows at a time, cast to the types of REGIONS; missing optional ones are null."""
    try:
        existing = read_footer(path).schema.names
        _check_columns(path, existing)
        columns = [name for name in _FILE_SCHEMA.names if name in existing]
        for batch in read_batches(path, columns, _ROWS):
            table = pa.Table.from_batches([batch])
            yield pa.table([_cast(path, table, field) for field in _FILE_SCHEMA], schema=_FILE_SCHEMA)
    except ParquetReadError as error:
        raise UserError(f"{path} cannot be read as Parquet ({error}). Correct `regions: {{masks: ...}}`.") from error


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    repeated = next((name for name in _FILE_SCHEMA.names if columns.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{path} has several columns {repeated}, of which only one would be read. Rename the others.")
    missing = [name for name in _FILE_SCHEMA.names if name not in columns and name not in _OPTIONAL]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}; it has {name_list(columns)}. "
            f"Regions need {', '.join(_FILE_SCHEMA.names)} ({' and '.join(_OPTIONAL)} may be left out)."
        )


def _cast(path: Path, table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table.column(field.name)
    try:
        values = column.cast(field.type)
        values.validate(full=True)  # whether texts are UTF-8, which nothing else looks at
    except pa.ArrowException as error:
        raise UserError(
            f"{path}: column {field.name} has type {column.type}, which cannot be cast to {field.type} ({error}). "
            "Write it with that type; texts are UTF-8."
        ) from error
    return values


def _has_nul(value: object) -> bool:
    """Whether a text, or one of a list of texts, has a NUL, as text in UTF-16 has when it is read as UTF-8."""
    if isinstance(value, list):
        return bool(value) and not isinstance(value[0], int) and any(map(_has_nul, value))
    return isinstance(value, str) and "\0" in value


def _validated(path: Path, row: dict[str, Any], entry: tuple[str, int, int]) -> dict[str, Any]:
    """The row with its image_id."""
    image_id, width, height = entry
    place = f"{path}, row {row['row']} ({row['file_name']}, region {row['region_id']!r})"
    if nul := next((name for name, value in row.items() if _has_nul(value)), None):
        raise UserError(f"{place}: {nul} has a NUL character. Write it without.")
    if row["region_id"] is None or row["name"] is None:
        raise UserError(f"{place}: region_id and name must not be null. Give every region an id and a name.")
    if row["kind"] not in KINDS:
        raise UserError(f"{place}: kind is {row['kind']!r}, not one of {', '.join(KINDS)}.")
    box = [row[name] for name in ("x0", "y0", "x1", "y1")]
    if any(edge is None or not np.isfinite(edge) for edge in box) or box[0] >= box[2] or box[1] >= box[3]:
        raise UserError(f"{place}: x0, y0, x1, y1 are {box}. A box needs x0 < x1 and y0 < y1, in pixels.")
    try:
        if row["mask"] is not None:
            _run_lengths(row["mask"], width, height)
    except (ValueError, TypeError, OverflowError) as error:  # TypeError: a run that is null
        raise UserError(
            f"{place}: mask is invalid: {error}. Runs are row-major over the original image, alternating, "
            "and start with the pixels outside the region."
        ) from error
    words = {name: [word for word in row[name] or [] if word and word.strip()] for name in ("words", "abstract_words")}
    return {**row, **words, "image_id": image_id}
