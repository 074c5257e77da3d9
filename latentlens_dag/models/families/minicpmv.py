"""MiniCPM-V: the whole image first, then its slices if it is large, each squashed to whole cells, one token each.

Note: slices come one after the other, not row by row across them. A cell is 4 x 4 patches, or 2 x 2 if the processor
reduces less (`downsample_mode`).
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.token_map import TokenMap, concat_maps, grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: the global view, then slice after slice."""
    images, size = processor.image_processor, (height, width)
    resolution, patch, mode = images.scale_resolution, images.patch_size, images.downsample_mode
    cell = patch * (2 if mode == "4x" else 4)
    slices = images.get_sliced_grid(size, images.max_slice_nums, resolution) if images.slice_mode else None
    whole = images.find_best_resize(size, resolution, patch, mode, allow_upscale=slices is None)
    global_view = grid_map(whole[0] // cell, whole[1] // cell, (0, 0, width, height))
    if slices is None:
        return global_view
    refined = images.get_refine_size(size, slices, resolution, patch, mode, allow_upscale=True)
    rows, columns = (refined[i] // slices[i] // cell for i in (0, 1))
    return concat_maps([global_view, *_slices(slices, rows, columns, width, height)])


def _slices(shape: list[int], rows: int, columns: int, width: int, height: int) -> list[TokenMap]:
    """The maps of `shape` rows and columns of slices, each with `rows` x `columns` tokens."""
    x, y = width / shape[1], height / shape[0]
    maps = []
    for number in range(shape[0] * shape[1]):
        row, column = divmod(number, shape[1])
        cells = grid_map(rows, columns, (column * x, row * y, (column + 1) * x, (row + 1) * y), "tile")
        tile = cells.tile + (number + 1)
        maps.append(cells._replace(tile=tile, row=cells.row + row * rows, col=cells.col + column * columns))
    return maps
