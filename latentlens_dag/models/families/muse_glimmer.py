"""Muse Glimmer and Spark: the image is squashed to the grid of cells, within a limit, whose shape is closest to it.

The image processor of transformers needs torchvision, so this module has a replacement.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

from latentlens_dag.models.families.pillow import scaled, with_pillow
from latentlens_dag.models.families.token_map import TokenMap, grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the visual tokens of an image of `width` x `height` pixels, row by row."""
    images = processor.image_processor
    cell = images.patch_size * images.merge_size
    rows, columns = height // cell, width // cell
    if images.do_resize:
        rows, columns = _grid(width, height, cell, images.max_image_tokens)
    return grid_map(rows, columns, (0, 0, width, height))


def _grid(width: int, height: int, cell: int, most: int) -> tuple[int, int]:
    """Rows and columns of cells of `cell` x `cell` pixels, at most `most`; nothing is enlarged by more than a cell."""
    rows, columns = height / cell, width / cell
    ratio = columns / rows
    if rows * columns > most:
        rows = (most / ratio) ** 0.5
        columns = rows * ratio
    near = product((math.floor(rows), math.ceil(rows)), (math.floor(columns), math.ceil(columns)))
    shapes = [shape for shape in set(near) if min(shape) >= 1 and shape[0] * shape[1] <= most]
    shapes = shapes or [(max(1, round(rows)), max(1, round(columns)))]
    return min(shapes, key=lambda shape: abs(shape[0] / shape[1] - height / width))


def processor_class() -> Any:
    """The MuseGlimmerProcessor of transformers for images and text, without torchvision."""
    from transformers.models.muse_glimmer.processing_muse_glimmer import MuseGlimmerProcessor

    return for_images(MuseGlimmerProcessor)


def for_images(whole: Any) -> Any:
    """A subclass of a processor class of the Muse models for images and text, without torchvision."""
    from transformers.processing_utils import ProcessorMixin

    class ForImages(whole):  # type: ignore[misc]
        def __init__(  # type: ignore[no-untyped-def]
            self, image_processor, tokenizer, chat_template: str | None = None, **kwargs
        ) -> None:
            self.image_token, self.video_token = "<|patch|>", "<|video|>"
            self.image_start_token, self.image_end_token = "<|image_start|>", "<|image_end|>"
            for name in ("image_token", "image_start_token", "image_end_token", "video_token"):
                setattr(self, f"{name}_id", tokenizer.convert_tokens_to_ids(getattr(self, name)))
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    ForImages.__name__ = whole.__name__
    return with_pillow(ForImages, _image_processor_class())


def _image_processor_class() -> Any:
    from transformers import BatchFeature
    from transformers.image_processing_backends import PilBackend
    from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, PILImageResampling, SizeDict

    class MuseGlimmerImageProcessorPil(PilBackend):  # type: ignore[misc]
        do_resize = do_rescale = do_normalize = do_convert_rgb = True
        resample = PILImageResampling.LANCZOS
        size = {"height": 0, "width": 0}  # noqa: RUF012 - not used, but checked
        image_mean, image_std = IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
        patch_size, temporal_patch_size, merge_size, max_image_tokens = 14, 2, 2, 4096
        model_input_names = ["pixel_values", "image_grid_thw"]  # noqa: RUF012

        def _preprocess(self, images: list[Any], return_tensors: Any = None, **kwargs: Any) -> Any:
            patches, grids = [], []
            for image in images:
                resized = self._squashed(image, kwargs["resample"]) if kwargs["do_resize"] else image
                pixels = scaled(self, resized, kwargs)
                rows, columns = (length // self.patch_size for length in pixels.shape[1:])
                cut = pixels.reshape(3, rows, self.patch_size, columns, self.patch_size).transpose(1, 3, 0, 2, 4)
                flat = cut.reshape(rows * columns, -1)
                patches.append(np.tile(flat, (1, self.temporal_patch_size)))  # frame by frame
                grids.append([1, rows, columns])
            data = {"pixel_values": np.concatenate(patches), "image_grid_thw": np.array(grids)}
            return BatchFeature(data, tensor_type=return_tensors)

        def _squashed(self, image: Any, resample: Any) -> Any:
            cell = self.patch_size * self.merge_size
            rows, columns = _grid(image.shape[2], image.shape[1], cell, self.max_image_tokens)
            return self.resize(image, SizeDict(height=rows * cell, width=columns * cell), resample)

    return MuseGlimmerImageProcessorPil
