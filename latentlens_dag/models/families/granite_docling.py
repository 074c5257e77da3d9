"""Granite Docling: the image is squashed to the tiles that fit its aspect best; the thumbnail comes last.

Note: on the processor's fine route, a tile has four times as many visual tokens.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.token_map import TokenMap, tiled_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: tile after tile, then the thumbnail."""
    images, vision = processor.image_processor, config.vision_config
    merged = vision.scale_factor // 2 if images.fine_route else vision.scale_factor
    cell = vision.patch_size * merged
    cells = vision.image_size // cell
    return tiled_map(images.get_tile_grid(height, width), cells, cells * cell / vision.image_size, (width, height))
