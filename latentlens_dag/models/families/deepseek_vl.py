"""DeepSeek-VL: the longest edge is resized, the rest is padded to a square, and the square is cut into g x g patches.

Note: the padding has tokens too, whose boxes are outside the image.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.token_map import TokenMap, grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the g x g patches of the padded square, row by row."""
    side, patch = processor.image_processor.size["height"], config.vision_config.patch_size
    least = processor.image_processor.min_size
    (left, right), (top, bottom) = (
        _span(length, max(round(length * side / max(width, height)), least), side, side // patch * patch)
        for length in (width, height)
    )
    return grid_map(side // patch, side // patch, (left, top, right, bottom))


def _span(length: int, resized: int, side: int, cells: int) -> tuple[float, float]:
    """Start and end of the cells along an edge of the image, in its pixels."""
    padding = (side - resized) // 2
    return -padding * length / resized, (cells - padding) * length / resized
