"""LLaVA-NeXT and LLaVA-OneVision: the squashed image, then its tiles at a higher resolution, row by row.

The high-resolution image keeps its aspect: it is padded to the tiles, and rows or columns of cells with padding only
are removed ("unpadding"). A newline token, which has no pixels and so no box, follows each row. Note: rows extend
across all tiles, and unpadding counts whole cells.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentlens_dag.errors import UserError
from latentlens_dag.models.families.token_map import TokenMap, concat_maps, grid_map


class _Axis(NamedTuple):
    """The cells along one side of the high-resolution image."""

    start: NDArray  # [n] start and end, in pixels of the original image
    end: NDArray
    tile: NDArray  # [n] number of the tile, from 0


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: the global view, then the tiles' rows, each with its newline."""
    side, patch = _side(processor.image_processor), config.vision_config.patch_size
    cells = side // patch
    covered = cells * patch / side
    whole = grid_map(cells, cells, (0, 0, width * covered, height * covered))
    x, y, tiles_across = _axes(processor.image_processor, side, patch, width, height)
    if hasattr(config, "vision_aspect_ratio"):
        x, y = _shrunk(x, y, int(config.vision_aspect_ratio.removeprefix("anyres_max_")) * cells**2)
    return concat_maps([whole, *(_row(number, x, y, tiles_across) for number in range(len(y.start)))])


def several_images_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image that shares its prompt with others.

    Of LLaVA-OneVision it has the global view only, without tiles: padded to a square and cut into g x g cells, with one
    newline at the end. LLaVA-NeXT cuts it like an image alone.
    """
    if not hasattr(config, "vision_aspect_ratio"):
        return region_map(processor, config, width, height)
    side, patch = _side(processor.image_processor), config.vision_config.patch_size
    cells, longest = side // patch, max(width, height)
    covered = longest * cells * patch / side
    left, top = -((longest - width) // 2), -((longest - height) // 2)
    square = grid_map(cells, cells, (left, top, left + covered, top + covered))
    newline = grid_map(1, 1, (np.nan,) * 4, "newline")
    return concat_maps([square, newline._replace(row=newline.row + cells - 1, col=newline.col + cells)])


def _side(processor: Any) -> int:
    """The side of a tile in pixels."""
    size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    side = size.get("shortest_edge") or size.get("height")
    if not side or size.get("width") not in (None, side) or (crop.get("height") or side) != side:
        raise UserError(f"Tiles of size {size}, cropped to {crop}, are not supported: use square tiles, not cropped.")
    return int(side)


def _axes(processor: Any, side: int, patch: int, width: int, height: int) -> tuple[_Axis, _Axis, int]:
    """Columns and rows of cells after unpadding, and the number of tiles per row."""
    from transformers.image_processing_utils import get_patch_output_size, select_best_resolution

    best = select_best_resolution((height, width), processor.image_grid_pinpoints)
    shape = np.broadcast_to(np.uint8(0), (3, height, width))  # an image of this shape
    resized = get_patch_output_size(shape, best, "channels_first")
    y, x = (
        _axis(best[i] // side, side, patch, (best[i] - resized[i]) // 2, (height, width)[i] / resized[i])
        for i in (0, 1)
    )
    columns, rows = len(x.start), len(y.start)
    if width / height > columns / rows:
        y = _unpadded(y, int(round(height * (columns / width), 7)))
    else:
        x = _unpadded(x, int(round(width * (rows / height), 7)))
    return x, y, best[1] // side


def _axis(tiles: int, side: int, patch: int, padding: int, scale: float) -> _Axis:
    """All cells of some tiles; the last pixels of a tile may be in no cell."""
    tile, cell = np.divmod(np.arange(tiles * (side // patch)), side // patch)
    start = tile * side + cell * patch - padding
    return _Axis(start * scale, (start + patch) * scale, tile)


def _unpadded(axis: _Axis, count: int) -> _Axis:
    padding = (len(axis.start) - count) // 2
    return _Axis(*(part[padding : len(part) - padding] for part in axis))


def _shrunk(x: _Axis, y: _Axis, max_cells: int) -> tuple[_Axis, _Axis]:
    """LLaVA-OneVision interpolates a grid of more than `max_cells` to a coarser one; boxes blur at their edges."""
    ratio = (len(x.start) * len(y.start) / max_cells) ** 0.5
    if ratio <= 1.1:
        return x, y
    return _resampled(x, int(len(x.start) // ratio)), _resampled(y, int(len(y.start) // ratio))


def _resampled(axis: _Axis, count: int) -> _Axis:
    cells = len(axis.start)
    edges = np.interp(np.linspace(0, cells, count + 1), np.arange(cells + 1), [*axis.start, axis.end[-1]])
    middle = ((np.arange(count) + 0.5) * cells / count).astype(int)
    return _Axis(edges[:-1], edges[1:], axis.tile[middle])


def _row(number: int, x: _Axis, y: _Axis, tiles_across: int) -> TokenMap:
    """A row of cells and its newline; of a very narrow image, all columns may be removed, but no newline."""
    columns = len(x.start)
    last = x.tile[-1] if columns else 0
    tile = 1 + y.tile[number] * tiles_across + np.append(x.tile, last)  # 0 is the global view
    top, bottom = (np.full(columns, edge) for edge in (y.start[number], y.end[number]))
    boxes = np.vstack([np.stack([x.start, top, x.end, bottom], axis=1), np.full(4, np.nan)])
    return TokenMap(
        ["tile"] * columns + ["newline"],
        tile.astype(np.int32),
        np.full(columns + 1, number, np.int32),
        np.arange(columns + 1, dtype=np.int32),
        boxes.astype(np.float32),
    )
