"""Ovis2: the squashed image first, then its tiles if the processor cuts them (`crop_to_patches`).

Note: the model's image token is <IMG_ATOM>; the tokens between grids, rows and columns of tiles are not visual tokens.
"""

from __future__ import annotations

import math
from typing import Any

from latentlens_dag.models.families.token_map import TokenMap, tiled_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: the global view, then tile after tile."""
    vision = config.vision_config
    cells = math.ceil(vision.image_size // vision.patch_size / vision.hidden_stride)
    covered = cells * vision.patch_size * vision.hidden_stride / vision.image_size  # over 1 if patches are added
    shape = _tiles(processor.image_processor, width, height)
    return tiled_map(shape, cells, covered, (width, height), whole_first=True)


def _tiles(processor: Any, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tiles, as the processor chooses them."""
    from transformers.models.ovis2 import image_processing_pil_ovis2 as ovis2

    if not processor.crop_to_patches or processor.max_patches <= 1:
        return 1, 1
    tile = processor.size["height"]
    if processor.use_covering_area_grid:
        columns, rows = ovis2.get_min_tile_covering_grid((height, width), tile, processor.max_patches)
    else:
        least, most = processor.min_patches, processor.max_patches
        columns, rows = ovis2.get_optimal_tiled_canvas((height, width), (tile, tile), least, most)
    return rows, columns
