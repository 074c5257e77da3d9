"""Llama 4: the image keeps its aspect and is padded to whole tiles; the global view, squashed, comes last.

Note: the padding, at the right or the bottom, has tokens too, whose boxes are outside the image. An image of one tile
has no global view.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from latentlens_dag.models.families.token_map import TokenMap, grid_map, tiled_map


def mend(model: Any) -> None:
    """Let a whole pass end: transformers 5.24 reads a field of the text half's output that this class does not have."""

    def add_field(_module: object, _args: object, output: Any) -> None:
        if not hasattr(output, "image_outputs"):
            output.image_outputs = None

    model.language_model.register_forward_hook(add_field)


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: tile after tile, then the global view."""
    images, vision = processor.image_processor, config.vision_config
    side = images.size["height"]
    cells = round(vision.image_size // vision.patch_size * vision.pixel_shuffle_ratio)
    rows, columns, resized_height, resized_width = _canvas(images, side, width, height)
    canvas = (columns * side * width / resized_width, rows * side * height / resized_height)
    tiles = tiled_map((rows, columns), cells, 1, canvas)
    if rows * columns == 1:
        return tiles
    whole = grid_map(cells, cells, (0, 0, width, height))  # without the padding
    return tiles._replace(boxes=np.concatenate([tiles.boxes[: -len(whole.view)], whole.boxes]))


def _canvas(images: Any, side: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Rows and columns of tiles, and height and width of the image on them, in pixels of the tiles."""
    import torch
    from transformers.models.llama4 import image_processing_llama4 as llama4

    size, enlarged = (height, width), images.resize_to_max_canvas
    shapes = torch.tensor(llama4.find_supported_resolutions(images.max_patches, images.size))
    best = llama4.get_best_fit(size, shapes, resize_to_max_canvas=enlarged).tolist()
    limits = best if enlarged else [min(max(size[i], side), best[i]) for i in (0, 1)]
    resized = llama4.get_max_res_without_distortion(size, limits)
    return best[0] // side, best[1] // side, max(resized[0], 1), max(resized[1], 1)
