"""Annotated regions of images: reading and validating a user's file, and measuring how regions cover patches.

A region is a run-length encoded mask or, without one, a box, in pixels of the original image.

Note: a patch need not be aligned to pixels, nor lie inside the image. Processors resize and pad, so the box of a patch
has fractional edges, which weight a pixel by the covered area, and may extend beyond the image, where no region is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.schema import REGIONS

Pixels = npt.NDArray[np.bool_] | npt.NDArray[np.float64]
"""[H, W]: whether each pixel belongs to something, or which fraction of it does."""
OBJECT, BACKGROUND = "object", "background"
KINDS = (OBJECT, BACKGROUND)
_OPTIONAL = ("abstract_words", "mask")
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
    lengths = np.fromiter(runs, np.int64)
    if (lengths < 0).any() or lengths.sum() != width * height:
        raise ValueError(
            f"the runs add up to {lengths.sum():,} pixels (shortest run: {lengths.min(initial=0)}), "
            f"but the image has {width} x {height} = {width * height:,}"
        )
    return np.repeat(np.arange(lengths.size) % 2 == 1, lengths).reshape(height, width)


def read_regions(path: Path, ids: Mapping[str, tuple[str, int, int]]) -> pa.Table:
    """Read and validate the regions of some images.

    Args:
        path: Parquet with file_name, region_id, kind, name, words, abstract_words, x0, y0, x1, y1, mask;
            abstract_words and mask may be missing.
        ids: (image_id, width, height) by file name. Rows of other files are skipped, because `ids` usually has one
            batch of the set.

    Returns:
        A table with the schema REGIONS, sorted by image_id, region_id.

    Raises:
        UserError: for the first invalid value, with file, row (from 1) and column.
    """
    table = _read_columns(path)
    rows = [
        _validated(path, number, row, ids[row["file_name"]]) for number, row in _rows(table) if row["file_name"] in ids
    ]
    rows.sort(key=lambda row: (row["image_id"], row["region_id"]))
    for row, following in pairwise(rows):
        if (row["image_id"], row["region_id"]) == (following["image_id"], following["region_id"]):
            raise UserError(
                f"{path}: region_id {row['region_id']!r} comes twice for {row['file_name']!r}. "
                "Within an image every region needs an id of its own."
            )
    return pa.Table.from_pylist(rows, schema=REGIONS)


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


def _read_columns(path: Path) -> pa.Table:
    """The file's columns, cast to the types of REGIONS; missing optional ones are null."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read as Parquet ({error}). Correct `regions: {{masks: ...}}`.") from error
    missing = [name for name in _FILE_SCHEMA.names if name not in table.column_names and name not in _OPTIONAL]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(table.column_names)}. "
            f"Regions need {', '.join(_FILE_SCHEMA.names)} ({' and '.join(_OPTIONAL)} may be left out)."
        )
    return pa.table([_cast(path, table, field) for field in _FILE_SCHEMA], schema=_FILE_SCHEMA)


def _cast(path: Path, table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table.column(field.name)
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{path}: column {field.name} has type {column.type}, which cannot be cast to {field.type} ({error})."
        ) from error


def _rows(table: pa.Table) -> Iterator[tuple[int, dict[str, Any]]]:
    """Row numbers from 1 and rows, converted in small batches: a mask as Python integers takes much memory."""
    return enumerate((row for batch in table.to_batches(max_chunksize=256) for row in batch.to_pylist()), 1)


def _validated(path: Path, number: int, row: dict[str, Any], entry: tuple[str, int, int]) -> dict[str, Any]:
    """The row with its image_id."""
    image_id, width, height = entry
    place = f"{path}, row {number} ({row['file_name']}, region {row['region_id']!r})"
    if row["region_id"] is None or row["name"] is None:
        raise UserError(f"{place}: region_id and name must not be null. Give every region an id and a name.")
    if row["kind"] not in KINDS:
        raise UserError(f"{place}: kind is {row['kind']!r}, not one of {', '.join(KINDS)}.")
    box = [row[name] for name in ("x0", "y0", "x1", "y1")]
    if any(edge is None or not np.isfinite(edge) for edge in box) or box[0] >= box[2] or box[1] >= box[3]:
        raise UserError(f"{place}: x0, y0, x1, y1 are {box}. A box needs x0 < x1 and y0 < y1, in pixels.")
    try:
        decode_mask(row["mask"] if row["mask"] is not None else [width * height], width, height)
    except ValueError as error:
        raise UserError(
            f"{place}: mask is invalid: {error}. Runs are row-major over the original image, alternating, "
            "and start with the pixels outside the region."
        ) from error
    words = {name: [word for word in row[name] or [] if word] for name in ("words", "abstract_words")}
    return {**row, **words, "image_id": image_id}
