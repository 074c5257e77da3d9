"""Qwen2-VL to Qwen3.5, GLM-4V and 4.6V: the image is squashed to a grid of whole cells, one visual token each.

The shape of the grid depends on the image. Note: a token is `merge_size` x `merge_size` patches, and `image_grid_thw`
counts patches.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.token_map import TokenMap, grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the visual tokens of an image of `width` x `height` pixels, row by row."""
    image_processor = processor.image_processor
    cell = image_processor.patch_size * image_processor.merge_size
    if image_processor.do_resize:
        resized_height, resized_width = _resized(image_processor, config.model_type, cell, width, height)
        return grid_map(resized_height // cell, resized_width // cell, (0, 0, width, height))
    return grid_map(height // cell, width // cell, (0, 0, width, height))


def _resized(processor: Any, model_type: str, cell: int, width: int, height: int) -> tuple[int, int]:
    """Height and width, in whole cells."""
    from transformers.models.glm4v.image_processing_pil_glm4v import smart_resize as glm_resize
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    limits = processor.size["shortest_edge"], processor.size["longest_edge"]
    if model_type in (
        "cosmos3_edge",
        "glm4v",
        "glm46v",
        "glmga",
    ):  # limits the pixels of all frames of a temporal patch
        frames = processor.temporal_patch_size
        resized: tuple[int, int] = glm_resize(frames, height, width, frames, cell, *limits)
    else:
        resized = smart_resize(height, width, cell, *limits)
    return resized
