"""LFM2-VL: the image is squashed to whole cells; a large one to whole tiles first, and its thumbnail comes last.

Note: tokens come tile after tile, not row by row across the tiles. The thumbnail has a grid of its own.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.token_map import TokenMap, concat_maps, grid_map, tiled_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: tile after tile, then the thumbnail."""
    images = processor.image_processor
    limits = (images.min_image_tokens, images.max_image_tokens)
    resized = images.smart_resize(height, width, images.downsample_factor, *limits, images.encoder_patch_size)
    cell = images.encoder_patch_size * images.downsample_factor
    thumbnail = grid_map(resized[1] // cell, resized[0] // cell, (0, 0, width, height))
    columns, rows = _tiles(images, width, height)
    if (columns, rows) == (0, 0):
        return thumbnail
    cells = images.tile_size // cell
    tiles = tiled_map((rows, columns), cells, 1, (width, height))
    if rows * columns == 1:
        return tiles
    cut = slice(rows * columns * cells**2)  # without a thumbnail of the shape of a tile
    tiles = TokenMap(tiles.view[cut], tiles.tile[cut], tiles.row[cut], tiles.col[cut], tiles.boxes[cut])
    return concat_maps([tiles, *([thumbnail] if images.use_thumbnail else [])])


def _tiles(images: Any, width: int, height: int) -> tuple[int, int]:
    """Columns and rows of tiles; 0, 0 where the image is not cut."""
    settings = (images.encoder_patch_size, images.downsample_factor, images.max_pixels_tolerance)
    is_large = images._is_image_too_large(height, width, images.max_image_tokens, *settings)
    range_of_tiles = (images.min_tiles, images.max_tiles) if images.do_image_splitting else (1, 1)
    if not is_large or range_of_tiles == (1, 1):
        return 0, 0
    columns, rows, *_ = images._get_grid_layout(height, width, *range_of_tiles, images.tile_size)
    return columns, rows
