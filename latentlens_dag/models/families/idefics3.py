"""Idefics3: the image is squashed to whole tiles and cut into them; the global view, squashed too, comes last.

Note: tokens come tile after tile, not row by row across the tiles.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from latentlens_dag.models.families.token_map import TokenMap, tiled_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: tile after tile, then the global view."""
    side = processor.image_processor.max_image_size["longest_edge"]
    cell = config.vision_config.patch_size * config.scale_factor
    cells = side // cell
    shape = _tiles(processor.image_processor, side, width, height)
    return tiled_map(shape, cells, cells * cell / side, (width, height))


def _tiles(processor: Any, side: int, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tiles; 1, 1 where the image is not split."""
    from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

    if not processor.do_image_splitting:
        return 1, 1
    if processor.do_resize:
        shape = np.broadcast_to(np.uint8(0), (3, height, width))  # an image of this shape
        height, width = get_resize_output_image_size(shape, processor.size["longest_edge"])
    # Like the processor: the longer side first, the other from the remaining aspect.
    if width >= height:
        columns = math.ceil(width / side)
        return math.ceil(int(columns * side / (width / height)) / side), columns
    rows = math.ceil(height / side)
    return rows, math.ceil(int(rows * side * (width / height)) / side)
