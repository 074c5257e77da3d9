"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: the image is squashed to a grid of whole cells, one visual token each.

What a newcomer gets wrong: the grid follows the image, so its shape differs from image to image. A token is
`merge_size` x `merge_size` patches; `image_grid_thw` counts patches.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.families import TokenMap
from latentlens_dag.families.grid import grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the visual tokens of an image of `width` x `height` pixels, row by row."""
    rows, columns = _grid(processor.image_processor, width, height)
    return grid_map(rows, columns, (0, 0, width, height))


def _grid(processor: Any, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of visual tokens."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    cell = processor.patch_size * processor.merge_size
    if processor.do_resize:
        size = dict(processor.size)
        height, width = smart_resize(height, width, cell, size["shortest_edge"], size["longest_edge"])
    return height // cell, width // cell
