"""Molmo2: the whole image at a low resolution, then at a high one, each squashed to its own grid of patches.

A visual token pools a window of patches. The high-resolution image is shown to the vision tower in crops that overlap;
of a patch that several crops show, one is pooled, which leaves one grid without seams. What a newcomer gets wrong: a
window may take its patches from two crops, and where the patches do not fill whole windows, those at the rims are cut.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentlens_dag.models.families.grid import concat_maps
from latentlens_dag.models.families.token_map import TokenMap


class _Axis(NamedTuple):
    """The tokens along one side of a grid."""

    start: NDArray  # [n] where each begins and ends, in pixels of the original image
    end: NDArray
    first_patch: NDArray  # [n] of its window, counted along the side of the whole grid


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: the low-resolution grid, then the high-resolution one, row by row."""
    from transformers.models.molmo2.image_processing_molmo2 import compute_crop_geometry

    own = processor.image_processor
    side, patch, (pool_y, pool_x), (before, after) = (
        own.size["height"],
        own.patch_size,
        own.pooling_size,
        own.overlap_margins,
    )
    crop = side // patch
    down, across, *canvas = compute_crop_geometry(height, width, own.max_crops, [before, after], side, patch)
    low = _grid(_axis(crop, pool_y, height), _axis(crop, pool_x, width), "global")
    y, x = _axis(canvas[0] // patch, pool_y, height), _axis(canvas[1] // patch, pool_x, width)
    high = _grid(y, x, "tile")
    row, col = (
        np.clip((axis.first_patch - before) // (crop - before - after), 0, crops - 1)[place]
        for axis, crops, place in ((y, down, high.row), (x, across, high.col))
    )
    return concat_maps([low, high._replace(tile=(1 + row * across + col).astype(np.int32))])


def _axis(patches: int, pool: int, length: int) -> _Axis:
    """The windows of `pool` patches along a side of the image; what is missing to whole windows is split between rims.

    Args:
        patches: along the side.
        pool: patches per window.
        length: of the side, in pixels.
    """
    count = -(-patches // pool)
    start = np.arange(count) * pool - (count * pool - patches) // 2
    first, end = np.clip(start, 0, patches), np.clip(start + pool, 0, patches)
    return _Axis(first * length / patches, end * length / patches, first)


def _grid(y: _Axis, x: _Axis, view: str) -> TokenMap:
    """The tokens of a grid, row by row, as if all were of tile 0."""
    row, col = (index.ravel().astype(np.int32) for index in np.indices((len(y.start), len(x.start))))
    boxes = np.stack([x.start[col], y.start[row], x.end[col], y.end[row]], axis=1)
    return TokenMap([view] * len(row), np.zeros(len(row), np.int32), row, col, boxes.astype(np.float32))
