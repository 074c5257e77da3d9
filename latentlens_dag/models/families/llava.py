"""LLaVA 1.5 and VipLlava: the shortest edge is resized, the center is cropped, and the crop is cut into g x g patches.

Note: the crop removes the sides of an image that is not square, so the boxes do not cover the whole image; with
`do_pad`, LLaVA's own processor first pads it to a square, whose padding has tokens too. Pixtral has LLaVA's format, but
cuts images like Mistral 3. With `vision_feature_select_strategy: full`, the vision tower's CLS token, which has no box,
comes before the patches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.models.families import pixtral
from latentlens_dag.models.families.token_map import TokenMap, concat_maps, without_box


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the g x g patches of an image of `width` x `height` pixels, row by row.

    Raises:
        ValueError: if Video-LLaVA's processor, which tells an image's channels by its shape, would mistake its rows for
            them.
    """
    if config.vision_config.model_type == "pixtral":
        return pixtral.region_map(processor, config, width, height)
    if config.model_type == "video_llava" and height in (1, 3):
        raise ValueError("its processor takes the rows of an image that is 1 or 3 pixels high for channels")
    left, top, crop_width, crop_height = _crop_box(processor.image_processor, width, height)
    patch = config.vision_config.patch_size
    side = config.vision_config.image_size
    grid = side // patch
    row, col = (index.ravel().astype(np.int32) for index in np.mgrid[:grid, :grid])
    # A patch has `patch` of the `side` pixels of the crop.
    x, y = crop_width * patch / side, crop_height * patch / side
    boxes = np.stack([left + col * x, top + row * y, left + (col + 1) * x, top + (row + 1) * y], axis=1)
    patches = TokenMap(["global"] * grid**2, np.zeros(grid**2, np.int32), row, col, boxes.astype(np.float32))
    return concat_maps([without_box("separator", _tokens_of_tower(processor)), patches])


def _tokens_of_tower(processor: Any) -> int:
    """How many tokens the vision tower puts before the patches, such as CLS, but for one that is left out."""
    left_out = processor.vision_feature_select_strategy == "default"
    return max(processor.num_additional_image_tokens - left_out, 0)


def _crop_box(processor: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, width and height of the crop, in pixels of the original image."""
    if hasattr(processor, "pad_to_square") and processor.do_pad:  # LLaVA's own processor; other classes pad batches
        side = max(width, height)
        left, top, crop_width, crop_height = _crop_of_padded(processor, side, side)
        return left - (side - width) // 2, top - (side - height) // 2, crop_width, crop_height
    return _crop_of_padded(processor, width, height)


def _crop_of_padded(processor: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """As `_crop_box`, for an image that has its padding."""
    if not processor.do_center_crop:
        return 0.0, 0.0, float(width), float(height)
    new_width, new_height = _resized(processor, width, height)
    x_scale, y_scale = width / new_width, height / new_height
    crop = dict(processor.crop_size)
    left, top = (new_width - crop["width"]) // 2, (new_height - crop["height"]) // 2
    return left * x_scale, top * y_scale, crop["width"] * x_scale, crop["height"] * y_scale


def _resized(processor: Any, width: int, height: int) -> tuple[int, int]:
    """Width and height after resizing."""
    if not processor.do_resize:
        return width, height
    size = dict(processor.size)
    if shortest_edge := size.get("shortest_edge"):
        if width <= height:
            return int(shortest_edge), int(shortest_edge * height / width)
        return int(shortest_edge * width / height), int(shortest_edge)
    if size.get("height") and size.get("width"):
        return int(size["width"]), int(size["height"])
    raise UserError(
        f"The size {size} of the image processor is not supported for LLaVA: it needs shortest_edge, or height and "
        "width."
    )
