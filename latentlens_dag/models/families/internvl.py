"""InternVL and Aya Vision: the image is squashed to the tiles that fit its aspect best; the thumbnail comes last.

Note: an image of one tile has no thumbnail.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.token_map import TokenMap, tiled_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: tile after tile, then the thumbnail."""
    side, patch = (_side(value) for value in (config.vision_config.image_size, config.vision_config.patch_size))
    merged = patch * getattr(config, "downsample_factor", 0) or round(patch / config.downsample_ratio)
    cells = side // patch * patch // merged
    covered = cells * merged / side
    return tiled_map(_tiles(processor.image_processor, width, height), cells, covered, (width, height))


def _side(value: Any) -> int:
    return int(value if isinstance(value, int) else value[0])


def _tiles(processor: Any, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tiles; both processors request tiles, whatever the image processor's default."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    if processor.max_patches <= 1:
        return 1, 1
    tile = (processor.size["height"], processor.size["width"])
    columns, rows = get_optimal_tiled_canvas((height, width), tile, processor.min_patches, processor.max_patches)
    return rows, columns
