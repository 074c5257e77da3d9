"""DeepSeek-VL: the longest edge is resized, the rest is padded to a square, and the square is cut into g x g patches.

Note: the padding has tokens too, whose boxes are outside the image. Half of a token of the hybrid models is from a
second vision tower, at a higher resolution, whose convolutions reach up to two boxes further. The box is that of the
other half, which sees it alone, and whose grid is the same.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.token_map import TokenMap, grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the g x g patches of the padded square, row by row."""
    images, patch = processor.image_processor, config.vision_config.patch_size
    low = images.size["height"]
    side = getattr(images, "high_res_size", images.size)["height"]  # padded at this size, then resized to `low`
    (left, right), (top, bottom) = (
        _span(length, max(round(length * side / max(width, height)), images.min_size), side, low // patch * patch / low)
        for length in (width, height)
    )
    return grid_map(low // patch, low // patch, (left, top, right, bottom))


def _span(length: int, resized: int, side: int, covered: float) -> tuple[float, float]:
    """Start and end of the cells along an edge of the image, in its pixels; they cover a share of the padded side."""
    padding = (side - resized) // 2
    return -padding * length / resized, (side * covered - padding) * length / resized
