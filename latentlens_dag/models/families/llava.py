"""LLaVA 1.5: the shortest edge is resized, the center is cropped, and the crop is cut into g x g patches.

Note: the crop removes the sides of an image that is not square, so the boxes do not cover the whole image. Pixtral has
LLaVA's format, but cuts images like Mistral 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.models.families import pixtral
from latentlens_dag.models.families.token_map import TokenMap


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the g x g patches of an image of `width` x `height` pixels, row by row."""
    if config.vision_config.model_type == "pixtral":
        return pixtral.region_map(processor, config, width, height)
    left, top, crop_width, crop_height = _crop_box(processor.image_processor, width, height)
    patch = config.vision_config.patch_size
    side = config.vision_config.image_size
    grid = side // patch
    row, col = (index.ravel().astype(np.int32) for index in np.mgrid[:grid, :grid])
    # A patch has `patch` of the `side` pixels of the crop.
    x, y = crop_width * patch / side, crop_height * patch / side
    boxes = np.stack([left + col * x, top + row * y, left + (col + 1) * x, top + (row + 1) * y], axis=1)
    return TokenMap(["global"] * grid * grid, np.zeros(grid * grid, np.int32), row, col, boxes.astype(np.float32))


def _crop_box(processor: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, width and height of the crop, in pixels of the original image."""
    size = dict(processor.size) if processor.do_resize else {"height": height, "width": width}
    if size.get("shortest_edge"):
        new_width, new_height = _resized(width, height, int(size["shortest_edge"]))
    elif size.get("height") and size.get("width"):
        new_width, new_height = int(size["width"]), int(size["height"])
    else:
        raise UserError(
            f"The size {size} of the image processor is not supported for LLaVA: it needs shortest_edge, or height and "
            "width."
        )
    x_scale, y_scale = width / new_width, height / new_height
    if not processor.do_center_crop:
        return 0.0, 0.0, float(width), float(height)
    crop = dict(processor.crop_size)
    left, top = (new_width - crop["width"]) // 2, (new_height - crop["height"]) // 2
    return left * x_scale, top * y_scale, crop["width"] * x_scale, crop["height"] * y_scale


def _resized(width: int, height: int, shortest_edge: int) -> tuple[int, int]:
    if width <= height:
        return shortest_edge, int(shortest_edge * height / width)
    return int(shortest_edge * width / height), shortest_edge
