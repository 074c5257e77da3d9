"""Kimi K2.5: the image is shrunk if it has too many patches, then padded at the right and bottom to whole cells.

Note: it is never enlarged, and cells at the right and bottom edge may exceed the image. The image processor of
transformers needs torchvision, so this module has a replacement.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from latentlens_dag.models.families.pillow import scaled, with_pillow
from latentlens_dag.models.families.token_map import TokenMap, grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the visual tokens of an image of `width` x `height` pixels, row by row."""
    images = processor.image_processor
    cell = images.patch_size * images.merge_size
    if not images.do_resize:
        return grid_map(height // cell, width // cell, (0, 0, width, height))
    new_width, new_height = _resized(width, height, images.patch_size, images.max_patches, images.size["max_height"])
    columns, rows = (math.ceil(length / cell) for length in (new_width, new_height))
    return grid_map(rows, columns, (0, 0, columns * cell * width / new_width, rows * cell * height / new_height))


def _resized(width: int, height: int, patch: int, most: int, most_along_side: int) -> tuple[int, int]:
    """Width and height of the image without its padding: at most `most` patches, and `most_along_side` per side."""
    patches = max(1, width // patch) * max(1, height // patch)
    limit = most_along_side * patch
    scale = min(1.0, math.sqrt(most / patches), limit / height, limit / width)
    new_width, new_height = (min(max(1, int(length * scale)), limit) for length in (width, height))
    return new_width, new_height


def processor_class() -> Any:
    """The Kimi_K25Processor of transformers for images and text, without torchvision."""
    from transformers import BatchFeature
    from transformers.image_processing_backends import PilBackend
    from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, PILImageResampling, SizeDict
    from transformers.models.kimi_k25.processing_kimi_k25 import Kimi_K25Processor

    class Kimi_K25ImageProcessorPil(PilBackend):  # type: ignore[misc]
        do_resize = do_rescale = do_normalize = do_convert_rgb = True
        resample = PILImageResampling.BICUBIC
        size = {"max_height": 512, "max_width": 512}  # noqa: RUF012
        image_mean, image_std = IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
        patch_size, merge_size, max_patches = 14, 2, 16384
        model_input_names = ["pixel_values", "image_grid_thw"]  # noqa: RUF012

        def _preprocess(self, images: list[Any], size: Any, return_tensors: Any = None, **kwargs: Any) -> Any:
            patches, grids = [], []
            for image in images:
                resized = self._padded(image, size, kwargs["resample"]) if kwargs["do_resize"] else image
                pixels = scaled(self, resized, kwargs)
                rows, columns = (length // self.patch_size for length in pixels.shape[1:])
                cut = pixels.reshape(3, rows, self.patch_size, columns, self.patch_size)
                patches.append(cut.transpose(1, 3, 0, 2, 4).reshape(-1, 3, self.patch_size, self.patch_size))
                grids.append([1, rows, columns])
            data = {"pixel_values": np.concatenate(patches), "image_grid_thw": np.array(grids)}
            return BatchFeature(data, tensor_type=return_tensors)

        def _padded(self, image: Any, size: Any, resample: Any) -> Any:
            height, width = image.shape[1:]
            new_width, new_height = _resized(width, height, self.patch_size, self.max_patches, size.max_height)
            resized = self.resize(image, SizeDict(height=new_height, width=new_width), resample)
            cell = self.patch_size * self.merge_size
            return np.pad(resized, ((0, 0), (0, -new_height % cell), (0, -new_width % cell)))

    return with_pillow(Kimi_K25Processor, Kimi_K25ImageProcessorPil)
