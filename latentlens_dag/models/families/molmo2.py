"""Molmo2: the whole image at a low resolution, then at a high one, each squashed to its own grid of patches.

A visual token pools a window of patches. The vision tower sees the high-resolution image in overlapping crops; of a
patch in several crops, one is pooled, which results in one grid without seams. Note: the patches of a window may be
from two crops, and if the patches do not fill whole windows, the windows at the edges are smaller.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentlens_dag.models.families.token_map import TokenMap, concat_maps


class _Axis(NamedTuple):
    """The tokens along one side of a grid."""

    start: NDArray  # [n] start and end, in pixels of the original image
    end: NDArray
    first_patch: NDArray  # [n] first patch of the window, counted along the side of the whole grid


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: the low-resolution grid, then the high-resolution one, row by row."""
    from transformers.models.molmo2.image_processing_molmo2 import compute_crop_geometry

    images = processor.image_processor
    side, patch = images.size["height"], images.patch_size
    (pool_y, pool_x), (before, after) = images.pooling_size, images.overlap_margins
    crop = side // patch
    down, across, *canvas = compute_crop_geometry(height, width, images.max_crops, [before, after], side, patch)
    low = _grid(_axis(crop, pool_y, height), _axis(crop, pool_x, width), "global")
    y, x = _axis(canvas[0] // patch, pool_y, height), _axis(canvas[1] // patch, pool_x, width)
    high = _grid(y, x, "tile")
    row, col = (
        np.clip((axis.first_patch - before) // (crop - before - after), 0, crops - 1)[index]
        for axis, crops, index in ((y, down, high.row), (x, across, high.col))
    )
    return concat_maps([low, high._replace(tile=(1 + row * across + col).astype(np.int32))])


def _axis(patches: int, pool: int, length: int) -> _Axis:
    """The windows along a side of the image; patches missing from whole windows are split between both ends.

    Args:
        patches: the number of patches along the side.
        pool: patches per window.
        length: the length of the side in pixels.
    """
    count = -(-patches // pool)
    start = np.arange(count) * pool - (count * pool - patches) // 2
    first, end = np.clip(start, 0, patches), np.clip(start + pool, 0, patches)
    return _Axis(first * length / patches, end * length / patches, first)


def _grid(y: _Axis, x: _Axis, view: str) -> TokenMap:
    """The tokens of a grid, row by row, with tile 0."""
    row, col = (index.ravel().astype(np.int32) for index in np.indices((len(y.start), len(x.start))))
    boxes = np.stack([x.start[col], y.start[row], x.end[col], y.end[row]], axis=1)
    return TokenMap([view] * len(row), np.zeros(len(row), np.int32), row, col, boxes.astype(np.float32))
