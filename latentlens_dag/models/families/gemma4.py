"""Gemma 4: the image is resized to as many whole cells as fit the token budget, one visual token each.

Note: a cell is `pooling_kernel_size` x `pooling_kernel_size` patches, whose average is the token; a smaller image is
enlarged until the budget is used.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.token_map import TokenMap, grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the visual tokens of an image of `width` x `height` pixels, row by row."""
    from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

    images = processor.image_processor
    cell = images.patch_size * images.pooling_kernel_size
    if images.do_resize:
        patches = images.max_soft_tokens * images.pooling_kernel_size**2
        resized_height, resized_width = get_aspect_ratio_preserving_size(
            height, width, images.patch_size, patches, images.pooling_kernel_size
        )
        return grid_map(resized_height // cell, resized_width // cell, (0, 0, width, height))
    return grid_map(height // cell, width // cell, (0, 0, width, height))
