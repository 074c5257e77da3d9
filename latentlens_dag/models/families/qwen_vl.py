"""Qwen2-VL to Qwen3.5, GLM-4V to GLM-OCR, PaddleOCR-VL: the image is squashed to whole cells, one visual token each.

The shape of the grid depends on the image, and the families differ in how they limit it. Note: a token is `merge_size`
x `merge_size` patches, and `image_grid_thw` counts patches.
"""

from __future__ import annotations

import sys
from inspect import signature
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.families.token_map import TokenMap, grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the visual tokens of an image of `width` x `height` pixels, row by row.

    Raises:
        UserError: if the processor does not resize, and the image is not one of whole cells.
    """
    image_processor = processor.image_processor
    cell = image_processor.patch_size * image_processor.merge_size
    if image_processor.do_resize:
        resized_height, resized_width = _resized(image_processor, cell, width, height)
        return grid_map(resized_height // cell, resized_width // cell, (0, 0, width, height))
    if width % cell or height % cell:
        raise UserError(
            f"An image of {width} x {height} pixels cannot be shown: the image processor has `do_resize: false`, so "
            f"both sides must be multiples of {cell} pixels. Resize or crop the image, or switch resizing on in the "
            "model's processor_config.json or preprocessor_config.json."
        )
    return grid_map(height // cell, width // cell, (0, 0, width, height))


def _resized(processor: Any, cell: int, width: int, height: int) -> tuple[int, int]:
    """Height and width, in whole cells, by the `smart_resize` beside the image processor's class, else Qwen2-VL's."""
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as qwen2_vl

    modules = (sys.modules[kind.__module__] for kind in type(processor).__mro__)
    smart_resize = next((m for m in modules if hasattr(m, "smart_resize")), qwen2_vl).smart_resize
    limits = processor.size["shortest_edge"], processor.size["longest_edge"]
    if "num_frames" in signature(smart_resize).parameters:  # GLM limits the pixels of all frames of a temporal patch
        frames = processor.temporal_patch_size
        resized: tuple[int, int] = smart_resize(frames, height, width, frames, cell, *limits)
    else:
        resized = smart_resize(height, width, cell, *limits)
    return resized
